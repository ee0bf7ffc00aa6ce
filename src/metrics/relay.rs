//! The figures of `whimbrel relay`, a process of its own.

use std::ops::Deref;
use std::sync::Arc;

use prometheus_client::metrics::family::Family;

use super::figures::{ByReason, Catalogue, Counter, FloatGauge, Gauge, figures};
use super::{Listed, in_text, process};

figures! {
    /// What a relay counts.
    pub struct RelayFigures {
        /// Whether the database is reached: 1 or 0.
        connected: Gauge,
        /// How long the oldest row that is to be published has waited, as of the last look at the table.
        lag_seconds: FloatGauge,
        /// Rows that were published and settled.
        published: Counter,
        /// Rows that can't be published and were marked with the reason.
        rejected: Counter,
        /// Tries that failed and are repeated, by what failed: the database, the server, or a stream that the server does not take for now.
        retries: Family<ByReason, Counter>,
        /// Streams whose rows wait, as the server does not take them for now.
        held: Gauge,
    }
}

/// The figures of one relay, as Prometheus reads them.
pub struct RelayMetrics {
    catalogue: Catalogue,
    figures: RelayFigures,
}

impl Deref for RelayMetrics {
    type Target = RelayFigures;

    fn deref(&self) -> &RelayFigures {
        &self.figures
    }
}

impl RelayMetrics {
    /// All figures at nought.
    pub fn new() -> Arc<Self> {
        let mut catalogue = Catalogue::new();
        let figures = RelayFigures::register(catalogue.group("whimbrel_relay_"));
        process::register(&mut catalogue);
        for reason in ["database", "server", "stream"] {
            drop(figures.retries.get_or_create(&ByReason { reason }));
        }
        Arc::new(RelayMetrics { catalogue, figures })
    }

    /// All figures there are, in the order of their declarations.
    pub fn listed(&self) -> &[Listed] {
        &self.catalogue.listed
    }

    /// What Prometheus reads.
    pub fn text(&self) -> String {
        in_text(&self.catalogue)
    }

    /// Something failed and is tried again.
    pub fn retried(&self, reason: &'static str) {
        self.retries.get_or_create(&ByReason { reason }).inc();
    }
}
