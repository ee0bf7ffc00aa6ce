//! The figures of links.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::ByReason;

/// The figures of links of one node. All cheap to update from anywhere.
#[derive(Default)]
pub struct LinkMetrics {
    /// Links from this node that are open.
    pub open: Gauge<i64, AtomicI64>,
    /// Links to this node that are open.
    pub accepted: Gauge<i64, AtomicI64>,
    /// Events that went to another node over a link.
    pub hits: Counter<u64, AtomicU64>,
    /// Events that went to another node over its channel, though links are on.
    pub misses: Counter<u64, AtomicU64>,
    /// Events handed to this node's own dispatchers without a way through the store.
    pub own: Counter<u64, AtomicU64>,
    /// Events that came in over links.
    pub received: Counter<u64, AtomicU64>,
    /// Events that went over the channel because their link failed.
    pub fallbacks: Counter<u64, AtomicU64>,
    /// Links opened, for whatever reason.
    pub opened: Counter<u64, AtomicU64>,
    /// Those of them that were opened because of what devices had sent before.
    pub opened_ahead: Counter<u64, AtomicU64>,
    /// Those of them that carried an event.
    pub opened_ahead_used: Counter<u64, AtomicU64>,
    /// Links that ended and never carried an event.
    pub opened_unused: Counter<u64, AtomicU64>,
    /// Links that gave way to others that are more useful.
    pub evicted: Counter<u64, AtomicU64>,
    /// Links that did not come about or broke, by reason.
    pub failures: Family<ByReason, Counter<u64, AtomicU64>>,
}

impl LinkMetrics {
    /// All figures at nought, where Prometheus reads them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = LinkMetrics::default();
        let registry = registry.sub_registry_with_prefix("link");
        registry.register("open", "Links from this node that are open", metrics.open.clone());
        registry.register("accepted", "Links to this node that are open", metrics.accepted.clone());
        registry.register("hits", "Events that went to another node over a link", metrics.hits.clone());
        registry.register("misses", "Events that went to another node over its channel", metrics.misses.clone());
        registry.register("own_events", "Events that this node handed to itself", metrics.own.clone());
        registry.register("received", "Events that came in over links", metrics.received.clone());
        registry.register(
            "fallbacks",
            "Events whose link failed, and that took the channel",
            metrics.fallbacks.clone(),
        );
        registry.register("opened", "Links opened from this node", metrics.opened.clone());
        registry.register("opened_ahead", "Links opened for devices that connected", metrics.opened_ahead.clone());
        registry.register("opened_ahead_used", "Those that carried an event", metrics.opened_ahead_used.clone());
        registry.register("opened_unused", "Links that ended unused", metrics.opened_unused.clone());
        registry.register("evicted", "Links that gave way to more useful ones", metrics.evicted.clone());
        registry.register("failures", "Links that did not come about or broke", metrics.failures.clone());
        metrics
    }

    /// A link failed.
    pub fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&ByReason { reason }).inc();
    }
}
