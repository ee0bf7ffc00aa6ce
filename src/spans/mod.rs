//! Spans of publishes whose trace is sampled, where there is a collector to send them to: `published` and `stored` on
//! the node that takes a publish; `routed`, `dispatched` and `written` on each node that delivers it.
//!
//! The hub and the dispatchers record into a bounded queue ([`Tracer`]), and one task sends what is in it
//! ([`Exporting`]). Without a collector there is no tracer. An event whose trace is not sampled costs a look at it.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(not(feature = "otlp"))]
#[path = "no_collector.rs"]
mod collector;
mod delivery;
mod export;
mod publish;
mod span;
mod tracer;

use std::sync::Arc;

use reqwest::Url;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

pub use collector::CollectorError;
pub use export::Exporting;
pub use publish::{Outcome, PublishSpans};
pub use tracer::Tracer;

/// Begins to record, and to export to the collector at this address. Of publishes without a trace the share `ratio`
/// begins one.
///
/// # Errors
/// When nothing can be sent there at all.
pub fn begin(url: Url, ratio: f64, metrics: &Arc<Metrics>) -> Result<(Arc<Tracer>, Exporting), CollectorError> {
    let collector = collector::Collector::new(url)?;
    let (queue, spans) = mpsc::channel(export::MOST_WAITING);
    let exporting = Exporting::begin(spans, collector, metrics.clone());
    Ok((Tracer::new(queue, ratio, metrics.clone()), exporting))
}
