//! The figures of how callers are judged.

use prometheus_client::metrics::family::Family;

use super::figures::{ByOutcome, Counter, Gauge, figures};

figures! {
    /// The figures of how callers are judged on one node.
    pub struct AccessMetrics {
        /// Times that a key set was read.
        key_set_fetches: Counter,
        /// Times that a key set could not be read.
        key_set_failures: Counter,
        /// Questions to the backend, by what came of them.
        backend_questions: Family<ByOutcome, Counter>,
        /// Questions that were answered by an answer to an equal one.
        backend_kept: Counter,
        /// Questions to the backend under way.
        backend_waiting: Gauge,
    }
}

impl AccessMetrics {
    /// The backend was asked.
    pub fn asked(&self, outcome: &'static str) {
        self.backend_questions.get_or_create(&ByOutcome { outcome }).inc();
    }
}
