//! The ring: a dispatcher's newest events, so that a connection that comes back at once needs no read.

use std::collections::VecDeque;
use std::sync::Arc;

use super::budget::Budget;
use crate::model::{Event, EventId};

/// What an event takes in a ring besides itself: its pointer, and as much for the ring's room to grow.
const PLACE: usize = 2 * size_of::<Arc<Event>>();

/// A run of events without a break: each one's `prev` is the one before.
#[derive(Debug)]
pub struct Ring {
    events: VecDeque<Arc<Event>>,
    budget: Arc<Budget>,
}

impl Ring {
    /// An empty ring that takes its room from `budget`.
    pub fn new(budget: Arc<Budget>) -> Self {
        Ring { events: VecDeque::new(), budget }
    }

    /// Adds the stream's next event. What it does not continue is forgotten: a connection that would join before the
    /// break has to get its gap. Over the budget the ring gives up its own oldest ones; the event
    /// just added stays out too when there is no room at all.
    pub fn push(&mut self, event: Arc<Event>) {
        if self.events.back().is_some_and(|newest| newest.id != event.prev) {
            self.clear();
        }
        // The forms in which it goes out are counted as they are made.
        event.charge_to(self.budget.counter());
        self.budget.take(PLACE);
        self.events.push_back(event);
        while self.budget.is_over() && !self.events.is_empty() {
            self.drop_oldest();
        }
    }

    /// Forgets everything: the next event will not continue from what is here.
    pub fn clear(&mut self) {
        while !self.events.is_empty() {
            self.drop_oldest();
        }
        self.events.shrink_to_fit();
    }

    /// Forgets what was erased.
    pub fn forget_up_to(&mut self, id: EventId) {
        while self.events.front().is_some_and(|oldest| oldest.id <= id) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(event) = self.events.pop_front() {
            event.release_from(self.budget.counter());
            self.budget.give_back(PLACE);
        }
    }

    /// Whether just this event was dispatched from here.
    pub fn contains(&self, id: EventId, prev: EventId) -> bool {
        self.index_of(id).is_ok_and(|at| self.events[at].prev == prev)
    }

    /// Whether a history that has `event` differs from what was dispatched from here.
    pub fn contradicts(&self, event: &Event) -> bool {
        let Some((oldest, newest)) = self.events.front().zip(self.events.back()) else { return false };
        (oldest.id..=newest.id).contains(&event.id) && !self.contains(event.id, event.prev)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events after `position`, if the ring reaches back that far.
    pub fn after(&self, position: EventId) -> Option<impl DoubleEndedIterator<Item = &Arc<Event>> + use<'_>> {
        let start = match self.index_of(position) {
            Ok(at) => at + 1,
            Err(0) if self.events.front().is_some_and(|oldest| oldest.prev == position) => 0,
            Err(_) => return None,
        };
        Some(self.events.range(start..))
    }

    /// Ids, newest first, at most `limit`.
    pub fn newest(&self, limit: usize) -> Vec<EventId> {
        self.events.iter().rev().take(limit).map(|event| event.id).collect()
    }

    /// A ring never spans a fork, so its ids ascend.
    fn index_of(&self, id: EventId) -> Result<usize, usize> {
        self.events.binary_search_by(|event| event.id.cmp(&id))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Encoding, EventType};

    fn ring(limit: usize, ids: std::ops::Range<u64>) -> Ring {
        let mut ring = Ring::new(Budget::new(limit));
        for n in ids {
            let (id, prev) = (EventId::new(n, 0), EventId::new(n - 1, 0));
            ring.push(Arc::new(Event::new(id, prev, EventType::MESSAGE, "1".into())));
        }
        ring
    }

    fn after(ring: &Ring, position: u64) -> Option<Vec<u64>> {
        ring.after(EventId::new(position, 0)).map(|events| events.map(|event| event.id.ms).collect())
    }

    #[test]
    fn a_ring_serves_what_follows_any_position_it_reaches_back_to() {
        let ring = ring(1 << 20, 5..9);
        assert_eq!(after(&ring, 4), Some(vec![5, 6, 7, 8]), "the prev of the oldest");
        assert_eq!(after(&ring, 6), Some(vec![7, 8]));
        assert_eq!(after(&ring, 8), Some(vec![]));
        assert_eq!(after(&ring, 3), None);
        assert_eq!(after(&ring, 9), None);
    }

    #[test]
    fn a_ring_over_its_budget_keeps_the_newest() {
        let one = ring(1 << 20, 1..2).budget.used();
        let ring = ring(3 * one, 1..100);
        assert_eq!(after(&ring, 96), Some(vec![97, 98, 99]));
        assert_eq!(after(&ring, 95), None);
    }

    #[test]
    fn the_forms_in_which_events_go_out_count_when_they_are_made() {
        let ring = ring(1 << 20, 1..3);
        let before = ring.budget.used();
        for event in ring.after(EventId::new(0, 0)).unwrap() {
            for encoding in [Encoding::Sse, Encoding::WebSocket, Encoding::Sse] {
                event.encoded(encoding, false, |_, _| vec![b'x'; 1000].into());
            }
        }
        assert!((4000..5000).contains(&(ring.budget.used() - before)));
        let budget = ring.budget.clone();
        drop(ring);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_ring_holds_no_break() {
        let mut ring = ring(1 << 20, 5..9);
        ring.push(Arc::new(Event::new(EventId::new(20, 0), EventId::new(15, 0), EventType::MESSAGE, "1".into())));
        assert_eq!(after(&ring, 8), None);
        assert_eq!(after(&ring, 15), Some(vec![20]));
    }

    #[test]
    fn a_dropped_ring_gives_its_room_back() {
        let budget = Budget::new(1 << 20);
        let mut ring = Ring::new(budget.clone());
        ring.push(Arc::new(Event::new(EventId::new(1, 0), EventId::ZERO, EventType::MESSAGE, "1".into())));
        assert!(budget.used() > 0);
        drop(ring);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_duplicate_is_known_by_id_and_prev() {
        let ring = ring(1 << 20, 5..9);
        assert!(ring.contains(EventId::new(6, 0), EventId::new(5, 0)));
        assert!(!ring.contains(EventId::new(6, 0), EventId::new(4, 0)));
    }
}
