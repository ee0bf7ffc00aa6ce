//! Pages of a stream's log.

use std::sync::Arc;

use super::StreamLog;
use crate::model::{Event, EventId, Page, Start};
use crate::store::PAGE_BYTES;
use crate::store::memory::entry::Entry;

impl StreamLog {
    /// Reads a page.
    pub fn read(&mut self, start: Start, limit: usize, now_ms: u64) -> Page {
        self.expire(now_ms);
        let skipped = match start {
            Start::After(id) => return self.page_after(id, limit, now_ms),
            Start::Earliest => 0,
            Start::Since(ms) => self.events.partition_point(|event| event.id.ms < ms),
            Start::Last(count) => self.events.len().saturating_sub(count as usize),
        };
        // The position before the first event wanted, so that the chain holds from the first one on.
        let from = self.events.get(skipped).map_or(self.last(), |event| event.prev);
        self.page_at(skipped, from, limit, now_ms)
    }

    /// Reads the newest events before an id, oldest first.
    pub fn read_before(&mut self, before: EventId, limit: usize, now_ms: u64) -> Page {
        self.expire(now_ms);
        let end = self.events.partition_point(|event| event.id < before);
        let older = self.events.range(..end).rev();
        let mut events = take(older, limit);
        events.reverse();
        let from = events.first().map_or(before, |event| event.prev);
        let more = events.len() < end;
        Page { superseded: self.superseded(&events), events, more, ..self.blank(from, now_ms) }
    }

    /// The page after a reader's position.
    pub(super) fn page_after(&self, position: EventId, limit: usize, now_ms: u64) -> Page {
        self.page_from(self.shared(position), limit, now_ms)
    }

    /// Where reading on from a position begins. On the lost side of a fork nothing is known of it, so that is
    /// the newest event that both sides share.
    pub(super) fn shared(&self, position: EventId) -> EventId {
        let fork = self.position.and_then(|known| known.fork);
        let crossing = fork.filter(|fork| fork.ancestor < position && position <= fork.head && !self.knows(position));
        crossing.map_or(position, |fork| fork.ancestor)
    }

    pub(super) fn page_from(&self, from: EventId, limit: usize, now_ms: u64) -> Page {
        let skipped = self.events.partition_point(|event| event.id <= from);
        self.page_at(skipped, from, limit, now_ms)
    }

    fn page_at(&self, skipped: usize, from: EventId, limit: usize, now_ms: u64) -> Page {
        let events = take(self.events.range(skipped..), limit);
        let more = skipped + events.len() < self.events.len();
        Page { superseded: self.superseded(&events), events, more, ..self.blank(from, now_ms) }
    }

    /// Which of these a newer one of the same collapse key supersedes.
    fn superseded(&self, events: &[Arc<Event>]) -> Vec<EventId> {
        events
            .iter()
            .filter(|event| self.is_superseded(event.id, event.collapse.as_ref()))
            .map(|event| event.id)
            .collect()
    }

    pub(super) fn is_superseded(&self, id: EventId, collapse: Option<&Arc<str>>) -> bool {
        collapse.and_then(|key| self.groups.get(key)).is_some_and(|newest| *newest > id)
    }

    pub(super) fn blank(&self, from: EventId, now_ms: u64) -> Page {
        let position = self.position;
        Page {
            from,
            events: Vec::new(),
            superseded: Vec::new(),
            more: false,
            last: self.last(),
            first: self.events.front().map(|event| event.id),
            erased: position.and_then(|known| known.erased),
            epoch: position.map_or(EventId::ZERO, |known| known.epoch),
            fork: position.and_then(|known| known.fork),
            marks: self.marks(),
            now_ms,
        }
    }
}

/// The first events up to the limits of a page.
fn take<'a>(events: impl Iterator<Item = &'a Entry>, limit: usize) -> Vec<Arc<Event>> {
    let mut bytes = 0;
    events
        .take(limit)
        .take_while(|event| {
            let room = bytes < PAGE_BYTES;
            bytes += event.payload_bytes();
            room
        })
        .map(Entry::event)
        .collect()
}
