//! What of a node's work is recorded.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::delivery::DeliverySpans;
use super::publish::PublishSpans;
use super::span::Span;
use crate::metrics::{ByReason, Metrics};
use crate::model::{Draft, Event, Observer, StreamName};

/// Records the spans of publishes whose trace is sampled.
pub struct Tracer {
    queue: mpsc::Sender<Span>,
    /// The share of publishes without a trace for which one is begun.
    ratio: f64,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracer")
    }
}

impl Tracer {
    /// A tracer that hands its spans to `queue`.
    pub fn new(queue: mpsc::Sender<Span>, ratio: f64, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Tracer { queue, ratio, metrics })
    }

    /// A publish begins. Returns its spans if it is recorded.
    pub fn publish(self: &Arc<Self>, stream: &StreamName, draft: &Draft, is_stored: bool) -> Option<PublishSpans> {
        let is_sampled = match draft.trace {
            Some(trace) => trace.is_sampled(),
            None => self.begins_trace(),
        };
        is_sampled.then(|| PublishSpans::begin(self.clone(), stream, draft, is_stored))
    }

    fn begins_trace(&self) -> bool {
        self.ratio > 0.0 && rand::random::<f64>() < self.ratio
    }

    /// An event came in by this path: its way through the node is recorded if its trace is sampled.
    pub fn observe(self: &Arc<Self>, event: &Event, path: &'static str) {
        if let Some(trace) = event.trace().filter(|trace| trace.is_sampled()) {
            let spans = || -> Arc<dyn Observer> {
                Arc::new(DeliverySpans::new(self.clone(), trace, event.id.ms, path, SystemTime::now()))
            };
            event.observe(spans);
        }
    }

    /// Hands a span over for export. Where too many wait it is dropped: nobody waits for a collector.
    pub(super) fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.spans_dropped.get_or_create(&ByReason { reason: "queue" }).inc();
        }
    }
}
