//! The figures of how callers are judged.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The figures of how callers are judged on one node.
#[derive(Default)]
pub struct AccessMetrics {
    /// Key sets that were read, each time one was.
    pub key_set_fetches: Counter<u64, AtomicU64>,
    /// Times that one could not be.
    pub key_set_failures: Counter<u64, AtomicU64>,
}

impl AccessMetrics {
    /// All figures at nought, where Prometheus reads them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = AccessMetrics::default();
        let registry = registry.sub_registry_with_prefix("access");
        registry.register("key_set_fetches", "Times that a key set was read", metrics.key_set_fetches.clone());
        registry.register(
            "key_set_failures",
            "Times that a key set could not be read",
            metrics.key_set_failures.clone(),
        );
        metrics
    }
}
