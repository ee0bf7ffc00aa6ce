//! The figures of the webhook.

use prometheus_client::metrics::family::Family;

use super::figures::{ByReason, Counter, FloatGauge, Gauge, figures};

figures! {
    /// The figures of the webhook on one node. The gauges are 0 on all nodes but the one that delivers.
    pub struct WebhookMetrics {
        /// Whether this node delivers to the webhook: 1 or 0.
        delivering: Gauge,
        /// Batches that the receiver took.
        batches: Counter,
        /// Events in batches that the receiver took.
        events: Counter,
        /// Batches that reported missing events.
        gaps: Counter,
        /// Requests that the receiver did not take, by reason.
        failures: Family<ByReason, Counter>,
        /// How long the oldest event that was not taken yet has waited.
        lag_seconds: FloatGauge,
        /// Whether the receiver answered that it wants no more: 1 or 0.
        gone: Gauge,
    }
}

impl WebhookMetrics {
    /// A request was not taken.
    pub fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&ByReason { reason }).inc();
    }
}
