//! The figures of how callers are judged.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The figures of how callers are judged on one node.
#[derive(Default)]
pub struct AccessMetrics {
    /// Key sets that were read, each time one was.
    pub key_set_fetches: Counter<u64, AtomicU64>,
    /// Times that one could not be.
    pub key_set_failures: Counter<u64, AtomicU64>,
    /// Questions to the backend, by what came of them.
    pub backend_questions: Family<ByOutcome, Counter<u64, AtomicU64>>,
    /// Questions that were answered by an answer to an equal one.
    pub backend_kept: Counter<u64, AtomicU64>,
    /// Questions under way.
    pub backend_waiting: Gauge<i64, AtomicI64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    outcome: &'static str,
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
        registry.register("backend_questions", "Questions to the backend", metrics.backend_questions.clone());
        let help = "Questions that were answered by an answer to an equal one";
        registry.register("backend_kept", help, metrics.backend_kept.clone());
        registry.register("backend_waiting", "Questions to the backend under way", metrics.backend_waiting.clone());
        metrics
    }

    /// The backend was asked.
    pub fn asked(&self, outcome: &'static str) {
        self.backend_questions.get_or_create(&ByOutcome { outcome }).inc();
    }
}
