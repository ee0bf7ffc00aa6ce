//! The spans of an event on a node that delivers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::span::{Kind, Span, Value, random_id};
use super::tracer::Tracer;
use crate::model::{Observer, TraceParent};

/// Connections of a node whose writes of one event are recorded. A topic may have very many, which would show no more.
const MOST_WRITES: u32 = 16;

/// The way of one event through the node: `routed` from the store to here, in it `dispatched` to the connections, and
/// in that `written` to their sockets.
#[derive(Debug)]
pub(super) struct DeliverySpans {
    tracer: Arc<Tracer>,
    trace: TraceParent,
    routed: [u8; 8],
    dispatched: [u8; 8],
    stored: SystemTime,
    arrived: SystemTime,
    path: &'static str,
    /// Writes that are still recorded. None before it is dispatched, nor to those who catch up later.
    writes: AtomicU32,
}

impl DeliverySpans {
    /// An event that was stored at `stored_ms` and came by `path`.
    pub fn new(
        tracer: Arc<Tracer>,
        trace: TraceParent,
        stored_ms: u64,
        path: &'static str,
        arrived: SystemTime,
    ) -> Self {
        // By the store's clock, which may be ahead of this one.
        let stored = (SystemTime::UNIX_EPOCH + Duration::from_millis(stored_ms)).min(arrived);
        let (routed, dispatched) = (random_id(), random_id());
        DeliverySpans { tracer, trace, routed, dispatched, stored, arrived, path, writes: AtomicU32::new(0) }
    }

    fn span(&self, id: [u8; 8], parent: [u8; 8], name: &'static str, kind: Kind) -> Span {
        let now = SystemTime::now();
        let (trace, parent) = (self.trace.trace(), Some(parent));
        Span { trace, id, parent, name, kind, begun: now, ended: now, attributes: Vec::new(), error: None }
    }
}

impl Observer for DeliverySpans {
    fn dispatching(&self) {
        self.writes.store(MOST_WRITES, Ordering::Relaxed);
    }

    fn admits_write(&self) -> bool {
        self.writes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn dispatched(&self, connections: usize) {
        self.writes.store(0, Ordering::Relaxed);
        let routed = self.span(self.routed, self.trace.parent(), "routed", Kind::Consumer);
        let attributes = vec![("whimbrel.path", Value::Word(self.path))];
        self.tracer.record(Span { begun: self.stored, ended: self.arrived, attributes, ..routed });
        let dispatched = self.span(self.dispatched, self.routed, "dispatched", Kind::Internal);
        let attributes = vec![("whimbrel.connections", Value::Count(connections))];
        self.tracer.record(Span { begun: self.arrived, attributes, ..dispatched });
    }

    fn written(&self, transport: &'static str, begun: SystemTime) {
        let written = self.span(random_id(), self.dispatched, "written", Kind::Internal);
        let attributes = vec![("whimbrel.transport", Value::Word(transport))];
        self.tracer.record(Span { begun, attributes, ..written });
    }
}
