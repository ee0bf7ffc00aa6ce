//! The figures of the webhook.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::ByReason;

/// The figures of the webhook on one node. The gauges are 0 on all nodes but the one that delivers.
#[derive(Default)]
pub struct WebhookMetrics {
    /// Whether this node delivers: 1 or 0.
    pub delivering: Gauge<i64, AtomicI64>,
    /// Batches that the receiver took.
    pub batches: Counter<u64, AtomicU64>,
    /// Events in them.
    pub events: Counter<u64, AtomicU64>,
    /// Batches that reported missing events.
    pub gaps: Counter<u64, AtomicU64>,
    /// Requests that it did not take, by reason.
    pub failures: Family<ByReason, Counter<u64, AtomicU64>>,
    /// How long the oldest event that was not taken yet has waited, in seconds.
    pub lag_seconds: Gauge<f64, AtomicU64>,
    /// Whether the receiver answered that it wants no more: 1 or 0.
    pub gone: Gauge<i64, AtomicI64>,
}

impl WebhookMetrics {
    /// All figures at nought, where Prometheus reads them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = WebhookMetrics::default();
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register("delivering", "Whether this node delivers to the webhook", metrics.delivering.clone());
        registry.register("batches", "Batches that the webhook's receiver took", metrics.batches.clone());
        registry.register("events", "Events in batches that were taken", metrics.events.clone());
        registry.register("gaps", "Batches that reported missing events", metrics.gaps.clone());
        registry.register("failures", "Requests that were not taken", metrics.failures.clone());
        registry.register(
            "lag_seconds",
            "How long the oldest event that was not taken has waited",
            metrics.lag_seconds.clone(),
        );
        registry.register("gone", "Whether the receiver wants no more requests", metrics.gone.clone());
        metrics
    }

    /// A request was not taken.
    pub fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&ByReason { reason }).inc();
    }
}
