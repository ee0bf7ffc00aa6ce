//! Events and pages as the tests of dispatch make them.

use std::sync::Arc;

use crate::model::{Event, EventId, EventType, Page};

pub fn id(n: u64) -> EventId {
    EventId::new(n, 1)
}

/// Its data is its number.
pub fn event(at: u64, prev: u64) -> Arc<Event> {
    Arc::new(Event::new(id(at), id(prev), EventType::MESSAGE, at.to_string().into()))
}

/// What was read after `from`: these events, each with the one before it, of a stream that stands at `last` and keeps
/// all from 2 on.
pub fn page(from: u64, events: &[(u64, u64)], last: u64) -> Page {
    Page {
        from: id(from),
        events: events.iter().map(|(at, prev)| event(*at, *prev)).collect(),
        superseded: Vec::new(),
        more: false,
        last: id(last),
        first: Some(id(2)),
        erased: None,
        epoch: id(1),
        fork: None,
        marks: Default::default(),
        now_ms: 0,
    }
}
