//! An event as a log keeps it: without the room for the forms in which it goes out. Those who deliver it make them of
//! copies of their own, which share its data.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::journal::{EventRecord, Field, Record};
use crate::model::{Attributes, Event, EventId, EventType, TraceParent, weight};

/// Fields of a record for which [`EventRecord`] has no place.
const TRACE: &str = "w";
const ATTRIBUTES: &str = "a";

/// An event of a log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: EventId,
    pub(super) prev: EventId,
    kind: EventType,
    pub(super) data: Bytes,
    expires_ms: Option<u64>,
    pub(super) collapse: Option<Arc<str>>,
    /// Boxed, as few events have one; so is the trace.
    exclude: Option<Box<Uuid>>,
    trace: Option<Box<TraceParent>>,
    attributes: Option<Attributes>,
}

impl Entry {
    pub(super) fn of(event: &Event) -> Self {
        let (exclude, trace) = (event.exclude.map(Box::new), event.trace().map(Box::new));
        let Event { id, prev, kind, data, expires_ms, collapse, attributes, .. } = event.clone();
        Entry { id, prev, kind, data, expires_ms, collapse, exclude, trace, attributes }
    }

    /// The event, for whoever delivers it.
    pub(super) fn event(&self) -> Arc<Event> {
        let mut event = Event::new(self.id, self.prev, self.kind.clone(), self.data.clone());
        (event.expires_ms, event.collapse) = (self.expires_ms, self.collapse.clone());
        event.exclude = self.exclude.as_deref().copied();
        event.set_trace(self.trace.as_deref().copied());
        event.attributes = self.attributes.clone();
        Arc::new(event)
    }

    /// The record of it in the journal. The clock showed `at_ms` when it was appended.
    pub(super) fn record<'a>(&'a self, stream: &'a str, at_ms: u64) -> Record<'a> {
        let kind = if self.kind.is_message() { "" } else { self.kind.as_str() };
        let event = EventRecord {
            at_ms,
            id: self.id.into(),
            prev: self.prev.into(),
            kind: kind.into(),
            data: Cow::Borrowed(&self.data),
            expires_ms: self.expires_ms,
            collapse: self.collapse.as_deref().map(Cow::Borrowed),
            exclude: self.exclude.as_deref().copied(),
        };
        let trace = self.trace.as_ref().map(|trace| (TRACE.into(), trace.to_string().into()));
        let attributes = self.attributes.as_ref().map(|attributes| (ATTRIBUTES.into(), attributes.as_str().into()));
        let (stream, fields) = (stream.into(), trace.into_iter().chain(attributes).collect::<Vec<_>>());
        if fields.is_empty() { Record::Event { stream, event } } else { Record::EventWith { stream, event, fields } }
    }

    /// The entry of a record, with its further fields.
    pub(super) fn restored(record: EventRecord<'_>, fields: &[Field<'_>]) -> Self {
        let EventRecord { id, prev, kind, data, expires_ms, collapse, exclude, .. } = record;
        let kind = if kind.is_empty() { EventType::MESSAGE } else { EventType::of_store(&kind) };
        let (id, prev, data) = (id.into(), prev.into(), data.into_owned().into());
        let (collapse, exclude) = (collapse.map(|key| key.as_ref().into()), exclude.map(Box::new));
        let field = |wanted| fields.iter().find(|(name, _)| name == wanted).map(|(_, text)| text);
        let trace = field(TRACE).and_then(|text| TraceParent::read(text.as_bytes())).map(Box::new);
        let attributes = field(ATTRIBUTES).and_then(|text| Attributes::of_store(text));
        Entry { id, prev, kind, data, expires_ms, collapse, exclude, trace, attributes }
    }

    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    /// What it takes beside its place in the log.
    pub(super) fn heap_bytes(&self) -> usize {
        let text = |text: &str| weight::shared(text.len());
        let kind = if self.kind.is_message() { 0 } else { text(self.kind.as_str()) };
        let exclude = self.exclude.as_ref().map_or(0, |_| weight::heap(size_of::<Uuid>()));
        let trace = self.trace.as_ref().map_or(0, |_| weight::heap(size_of::<TraceParent>()));
        let attributes = self.attributes.as_ref().map_or(0, |attributes| text(attributes.as_str()));
        let collapse = self.collapse.as_deref().map_or(0, text);
        weight::shared(self.data.len()) + kind + exclude + trace + collapse + attributes
    }

    /// See [`Event::payload_bytes`].
    pub(super) fn payload_bytes(&self) -> usize {
        self.data.len() + self.attributes.as_ref().map_or(0, |attributes| attributes.as_str().len())
    }
}

/// The events of a log, oldest first; ids ascend. What they take is known at any time.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    entries: VecDeque<Entry>,
    heap_bytes: usize,
}

impl std::ops::Deref for Entries {
    type Target = VecDeque<Entry>;

    fn deref(&self) -> &VecDeque<Entry> {
        &self.entries
    }
}

impl Entries {
    pub(super) fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            // Not doubled: half of the store's memory would be room that nothing is in.
            self.entries.reserve_exact((self.entries.len() / 8).max(4));
        }
        self.heap_bytes += entry.heap_bytes();
        self.entries.push_back(entry);
    }

    pub(super) fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.heap_bytes -= entry.heap_bytes();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Entries::default();
    }

    /// What all of them take.
    pub(super) fn bytes(&self) -> usize {
        weight::heap(self.entries.capacity() * size_of::<Entry>()) + self.heap_bytes
    }
}
