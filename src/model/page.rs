//! Pages: what one atomic read of a stream's log answers.

use std::sync::Arc;

use super::{Event, EventId, Marks};

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    /// Right after this id.
    After(EventId),
    /// At the oldest event kept.
    Earliest,
    /// At the oldest event kept of those that were stored at this time, in milliseconds since 1970, or later.
    Since(u64),
    /// At the newest events, at most so many.
    Last(u32),
}

/// A failover lost the end of a stream after it had been shown: the log goes on from `ancestor`,
/// while readers exist that had seen up to `head`. Kept with the stream, so that every reader on every
/// node can see on which side of the split its own position lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The newest event that both histories share or, where that is not known for sure, one after it:
    /// readers from the lost side go on here, and are never to be given again what they know.
    pub ancestor: EventId,
    /// The newest id that was shown of the history that is gone.
    pub head: EventId,
    /// Where the stream stood when the split was found.
    pub before: EventId,
    /// The id that the stream was raised to from there. No event has it, so the first event after it breaks
    /// the chain for every reader that has not been given the gap. The same as `before` when nothing was raised.
    pub mark: EventId,
    /// The first event after the ancestor that was stored before the split was found: what is lost lies between the two
    /// for whoever never saw it. The mark if there was none.
    pub next: EventId,
}

impl Fork {
    /// Whether `event` is the first after the ancestor. Nothing in the chain shows that a tail is missing before it.
    pub fn is_first(&self, event: &Event) -> bool {
        self.before != self.mark && event.id == self.next && event.prev == self.ancestor
    }
}

/// What one atomic read answers: some events, and what is needed to judge whether any is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where reading really began: the id asked for or, on the far side of a fork, its ancestor.
    pub from: EventId,
    /// Events after `from`, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Ids of those of `events` that a newer one of the same collapse key supersedes, oldest first: whoever
    /// catches up passes over them.
    pub superseded: Vec<EventId>,
    /// Whether the log holds more after the last of `events`.
    pub more: bool,
    /// The newest id ever shown of this stream. Outlives the log.
    pub last: EventId,
    /// The oldest event kept.
    pub first: Option<EventId>,
    /// Up to where all events were erased on purpose, if any were: nobody is to be given them any more.
    pub erased: Option<EventId>,
    /// The id that the stream began with: nothing before it is known to the store.
    pub epoch: EventId,
    /// The last fork, if there was one.
    pub fork: Option<Fork>,
    /// Up to which stamp the connections of the device have to close.
    pub marks: Marks,
    /// The store's clock, milliseconds since 1970.
    pub now_ms: u64,
}

impl Page {
    /// The position right before the page's first event: that one connects to it.
    pub fn before_first(&self) -> EventId {
        self.events.first().map_or(self.last, |event| event.prev)
    }

    /// Whether the log still has every event of the stream's history; of a page that was read from the oldest on.
    pub fn is_complete(&self) -> bool {
        self.before_first() == self.epoch
    }

    /// Whether a newer event of the same collapse key supersedes this one of the page.
    pub fn is_superseded(&self, event: &Event) -> bool {
        event.collapse.is_some() && self.superseded.binary_search(&event.id).is_ok()
    }

    /// The page as it would be if it had been read after `position`, which is in the same history.
    pub fn after(&self, position: EventId) -> Page {
        let events = self.events.iter().filter(|event| event.id > position).cloned().collect();
        Page { from: position, events, ..self.clone() }
    }

    /// The events of the page that whoever reads it now is to be given, the superseded ones among them.
    pub fn unexpired(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.events.iter().filter(|event| !event.is_expired(self.now_ms))
    }
}
