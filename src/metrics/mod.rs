//! The figures of a node, as Prometheus reads them. `docs/metrics.md` lists them all.
//!
//! They lie below everything that counts: nothing here knows who does. A figure is declared once, with its help, in
//! the group that it belongs to.

mod access;
mod figures;
mod link;
mod process;
mod relay;
mod service;
mod store;
mod webhook;

use std::ops::Deref;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;

pub use access::AccessMetrics;
pub use figures::{ByOutcome, ByPath, ByProblem, ByReason, ByRole, ByTask, ByTransport, ByWork, Gauge, Seconds};
use figures::{Catalogue, Listed};
pub use link::LinkMetrics;
pub use relay::{RelayFigures, RelayMetrics};
pub use service::ServiceMetrics;
pub use store::{InGauge, ROLES, RoleMetrics, StoreMetrics};
pub use webhook::WebhookMetrics;

/// The media type of what Prometheus reads.
pub const TEXT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures of a node. Cheap to update from anywhere.
pub struct Metrics {
    catalogue: Catalogue,
    service: ServiceMetrics,
    /// Connections to Redis.
    pub store: StoreMetrics,
    /// How callers are judged.
    pub access: AccessMetrics,
    /// Links between nodes.
    pub links: LinkMetrics,
    /// The webhook.
    pub webhook: WebhookMetrics,
}

impl Deref for Metrics {
    type Target = ServiceMetrics;

    fn deref(&self) -> &ServiceMetrics {
        &self.service
    }
}

impl Metrics {
    /// All figures at nought.
    pub fn new() -> Arc<Self> {
        let mut catalogue = Catalogue::new();
        let service = ServiceMetrics::register(catalogue.group("whimbrel_"));
        let store = StoreMetrics::register(catalogue.group("whimbrel_store_"));
        let access = AccessMetrics::register(catalogue.group("whimbrel_access_"));
        let links = LinkMetrics::register(catalogue.group("whimbrel_link_"));
        let webhook = WebhookMetrics::register(catalogue.group("whimbrel_webhook_"));
        process::register(&mut catalogue);
        let metrics = Metrics { catalogue, service, store, access, links, webhook };
        metrics.begin_at_nought();
        Arc::new(metrics)
    }

    /// Shows labelled figures before they first count: what scales by connections finds them, and alerts see the
    /// step from 0 to 1.
    fn begin_at_nought(&self) {
        for transport in ["sse", "websocket"] {
            drop(self.connections.get_or_create(&ByTransport { transport }));
        }
        for reason in ["trimmed", "expired", "lost"] {
            drop(self.gaps.get_or_create(&ByReason { reason }));
        }
        for reason in ["queue", "collector"] {
            drop(self.spans_dropped.get_or_create(&ByReason { reason }));
        }
        for role in ROLES {
            drop(self.store.of(role));
        }
        for problem in ["unavailable", "outcome-unknown", "store-full"] {
            drop(self.publish_errors.get_or_create(&ByProblem { problem }));
        }
    }

    /// All figures there are, in the order of their declarations.
    pub fn listed(&self) -> &[Listed] {
        &self.catalogue.listed
    }

    /// What Prometheus reads.
    pub fn text(&self) -> String {
        in_text(&self.catalogue)
    }

    /// A temporary dispatcher is at work while the guard lives.
    pub fn count_temporary(self: &Arc<Self>) -> TemporaryGuard {
        self.temporary_dispatchers.inc();
        TemporaryGuard(self.clone())
    }

    /// A request was refused before anything was done for it.
    pub fn refused(&self, reason: &'static str) {
        self.requests_refused.get_or_create(&ByReason { reason }).inc();
    }
}

fn in_text(catalogue: &Catalogue) -> String {
    let mut text = String::new();
    encode(&mut text, &catalogue.registry).expect("writing to a string does not fail");
    text
}

/// Counts a temporary dispatcher until it is dropped.
pub struct TemporaryGuard(Arc<Metrics>);

impl Drop for TemporaryGuard {
    fn drop(&mut self) {
        self.0.temporary_dispatchers.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of `docs/metrics.md`.
    fn table(figures: &[Listed]) -> String {
        let mut table = String::from("| metric | kind | label | meaning |\n|---|---|---|---|\n");
        for figure in figures {
            let Listed { name, kind, label, help } = figure;
            let label = label.map(|label| format!("`{label}`")).unwrap_or_default();
            table += &format!("| `{name}` | {kind} | {label} | {help} |\n");
        }
        table
    }

    #[test]
    fn the_page_about_metrics_lists_each_figure() {
        let page = include_str!("../../docs/metrics.md");
        let relay = RelayMetrics::new();
        let own = relay.listed().iter().filter(|figure| figure.name.starts_with("whimbrel_relay_"));
        for table in [table(Metrics::new().listed()), table(&own.cloned().collect::<Vec<_>>())] {
            assert!(
                page.contains(&table),
                "bring docs/metrics.md up to date with src/metrics/; one of its tables is to be:\n{table}"
            );
        }
    }

    #[test]
    fn names_and_units_are_the_conventional_ones() {
        for figure in Metrics::new().listed().iter().chain(RelayMetrics::new().listed()) {
            let name = &figure.name;
            assert!(name.starts_with("whimbrel_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), figure.kind == "counter", "{name}");
            assert!(!["_ms", "_millis", "_milliseconds", "_kb"].iter().any(|unit| name.contains(unit)), "{name}");
            let known = ["outcome", "path", "problem", "reason", "role", "task", "transport", "version", "work"];
            assert!(
                figure.label.is_none_or(|label| known.contains(&label)),
                "{name} is told apart by {:?}",
                figure.label
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_shows_its_memory_time_and_descriptors() {
        let metrics = Metrics::new();
        let value = |name: &str| -> f64 {
            let text = metrics.text();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is missing in\n{text}")).parse().unwrap()
        };
        let before = value("process_cpu_seconds_total");
        while value("process_cpu_seconds_total") == before {}
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") < value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
    }
}
