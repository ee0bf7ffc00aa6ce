//! The spans of a publish on the node that takes it.

use std::sync::Arc;
use std::time::SystemTime;

use super::span::{Kind, Span, Value, random_id};
use super::tracer::Tracer;
use crate::model::{Draft, EventId, StreamKind, StreamName, TraceParent};

/// What became of a publish.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// The store has it, under this id.
    Stored {
        /// The event's id, where that is known.
        id: Option<EventId>,
        /// An earlier publish had stored it.
        duplicate: bool,
    },
    /// It was sent, and is not to be stored.
    Sent,
    /// It was refused before the store was asked.
    Refused(&'static str),
    /// The store did not take it, or did not say.
    Failed(&'static str),
}

/// A publish that is recorded: `published` from when the request came until it is answered, and in it `stored`, the
/// call of the store.
#[derive(Debug)]
pub struct PublishSpans {
    tracer: Arc<Tracer>,
    trace: TraceParent,
    parent: Option<[u8; 8]>,
    published: [u8; 8],
    /// None of an event that is not stored.
    stored: Option<[u8; 8]>,
    received: SystemTime,
    begun: SystemTime,
    stream: StreamKind,
    bytes: usize,
}

impl PublishSpans {
    pub(super) fn begin(tracer: Arc<Tracer>, stream: &StreamName, draft: &Draft, is_stored: bool) -> Self {
        let published = random_id();
        let begun = SystemTime::now();
        PublishSpans {
            tracer,
            trace: draft.trace.unwrap_or_else(|| TraceParent::new(random_id(), published, true)),
            parent: draft.trace.map(|given| given.parent()),
            published,
            stored: is_stored.then(random_id),
            received: draft.received.map_or(begun, |received| received.min(begun)),
            begun,
            stream: stream.kind(),
            bytes: draft.data.len(),
        }
    }

    /// The trace, as what comes behind the store is a part of it.
    pub fn trace(&self) -> TraceParent {
        self.trace.below(self.stored.unwrap_or(self.published))
    }

    /// The publish is over.
    pub fn end(self, outcome: Outcome) {
        let ended = SystemTime::now();
        let error = match outcome {
            Outcome::Stored { .. } | Outcome::Sent => None,
            Outcome::Refused(problem) | Outcome::Failed(problem) => Some(problem),
        };
        let mut attributes = Vec::new();
        if let Outcome::Stored { id, duplicate } = outcome {
            attributes.extend(id.map(|id| ("messaging.message.id", Value::Text(id.to_string()))));
            attributes.push(("whimbrel.duplicate", Value::Flag(duplicate)));
        }
        let stored = self.stored.filter(|_| !matches!(outcome, Outcome::Refused(_)));
        let stored = stored.map(|id| Span {
            trace: self.trace.trace(),
            id,
            parent: Some(self.published),
            name: "stored",
            kind: Kind::Client,
            begun: self.begun,
            ended,
            attributes,
            error,
        });
        let published = Span {
            trace: self.trace.trace(),
            id: self.published,
            parent: self.parent,
            name: "published",
            kind: Kind::Producer,
            begun: self.received,
            ended,
            attributes: vec![
                ("messaging.system", Value::Word("whimbrel")),
                ("messaging.message.body.size", Value::Count(self.bytes)),
                ("whimbrel.stream.kind", Value::Word(self.stream.as_str())),
            ],
            error,
        };
        stored.into_iter().chain([published]).for_each(|span| self.tracer.record(span));
    }
}
