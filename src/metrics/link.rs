//! The figures of links.

use prometheus_client::metrics::family::Family;

use super::figures::{ByReason, Counter, Gauge, figures};

figures! {
    /// The figures of links of one node. All cheap to update from anywhere.
    pub struct LinkMetrics {
        /// Links from this node that are open.
        open: Gauge,
        /// Links to this node that are open.
        accepted: Gauge,
        /// Events that went to another node over a link.
        hits: Counter,
        /// Events that went to another node over its channel, though links are on.
        misses: Counter,
        /// Events handed to this node's own dispatchers without a way through the store.
        own_events: Counter,
        /// Events that came in over links.
        received: Counter,
        /// Events that went over the channel because their link failed.
        fallbacks: Counter,
        /// Links opened from this node, for whatever reason.
        opened: Counter,
        /// Links opened because of what devices had sent before.
        opened_ahead: Counter,
        /// Links opened ahead that carried an event.
        opened_ahead_used: Counter,
        /// Links that ended and never carried an event.
        opened_unused: Counter,
        /// Links that gave way to others that are more useful.
        evicted: Counter,
        /// Links that did not come about or broke, by reason.
        failures: Family<ByReason, Counter>,
    }
}

impl LinkMetrics {
    /// A link failed.
    pub fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&ByReason { reason }).inc();
    }
}
