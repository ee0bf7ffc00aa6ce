//! Events that came early: what lies between the head and them is on its way, or lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::budget::Budget;
use super::chain::Chain;
use crate::model::{Event, EventId, Page};

/// Most bytes of one stream. Some 3,000 small events: more than a network reorders, and a burst longer than that
/// is read from the store faster than it is put in order here.
const STREAM_BYTES: usize = 1024 * 1024;

/// Most bytes of all streams of a node.
pub const NODE_BYTES: usize = 32 * 1024 * 1024;

/// Events in order of what they follow. Over its bound it drops those that are furthest from the head.
#[derive(Debug)]
pub struct Early {
    events: BTreeMap<Link, Arrival>,
    bytes: usize,
    budget: Arc<Budget>,
}

/// An event's `prev`, then its id: events of two histories may follow the same one.
type Link = (EventId, EventId);

#[derive(Debug)]
struct Arrival {
    event: Arc<Event>,
    /// Questions that had been asked when it came.
    questions: u32,
}

impl Early {
    /// An empty queue that takes its room from `budget`.
    pub fn new(budget: Arc<Budget>) -> Self {
        Early { events: BTreeMap::new(), bytes: 0, budget }
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Puts an event in. False when one had to be dropped for it: the store has to be asked for that.
    pub fn push(&mut self, event: Arc<Event>, questions: u32) -> bool {
        let place = (event.prev, event.id);
        let bytes = event.bytes();
        if self.events.contains_key(&place) {
            return true;
        }
        self.events.insert(place, Arrival { event, questions });
        self.bytes += bytes;
        self.budget.take(bytes);
        let mut complete = true;
        while (self.bytes > STREAM_BYTES && self.events.len() > 1) || (self.budget.is_over() && !self.is_empty()) {
            let Some((_, dropped)) = self.events.pop_last() else { break };
            self.gone(&dropped);
            complete = false;
        }
        complete
    }

    /// What the first of them follows.
    pub fn first_prev(&self) -> Option<EventId> {
        self.events.first_key_value().map(|((prev, _), _)| *prev)
    }

    /// Takes an event that continues `chain`.
    pub fn take_next(&mut self, chain: &Chain) -> Option<Arc<Event>> {
        let after = |prev| {
            let (place, _) = self.events.range((prev, EventId::ZERO)..).next()?;
            (place.0 == prev).then_some(*place)
        };
        let place = chain.continuations().find_map(after)?;
        let arrival = self.events.remove(&place)?;
        self.gone(&arrival);
        Some(arrival.event)
    }

    /// Those above `from` that lead up to an event that follows `prev`, in order.
    pub fn leading_to(&self, prev: EventId, from: EventId) -> Vec<Arc<Event>> {
        let by_id: HashMap<EventId, &Arc<Event>> =
            self.events.values().map(|arrival| (arrival.event.id, &arrival.event)).collect();
        let first = by_id.get(&prev).copied();
        // Ids descend on the way back, whatever somebody else may have put on the channel.
        let before = |event: &&Arc<Event>| by_id.get(&event.prev).copied().filter(|before| before.id < event.id);
        let mut leading: Vec<_> =
            std::iter::successors(first, before).take_while(|event| event.id > from).cloned().collect();
        leading.reverse();
        leading
    }

    /// Forgets what lies at `position` or before it.
    pub fn forget_up_to(&mut self, position: EventId) {
        self.retain(|arrival| arrival.event.id > position);
    }

    /// The last page of an answer to question number `question`: what had come before it was asked was in the store
    /// by then, so the answer has it, or the store has lost it. What came meanwhile is judged by the next answer.
    pub fn explained_by(&mut self, page: &Page, question: u32) {
        self.retain(|arrival| {
            let event = &arrival.event;
            arrival.questions >= question
                && !page.events.iter().any(|read| read.id == event.id && read.prev == event.prev)
        });
    }

    fn retain(&mut self, keep: impl Fn(&Arrival) -> bool) {
        let mut bytes = 0;
        self.events.retain(|_, arrival| {
            let kept = keep(arrival);
            bytes += if kept { 0 } else { arrival.event.bytes() };
            kept
        });
        self.bytes -= bytes;
        self.budget.give_back(bytes);
    }

    fn gone(&mut self, arrival: &Arrival) {
        let bytes = arrival.event.bytes();
        self.bytes -= bytes;
        self.budget.give_back(bytes);
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::fixtures::id;
    use crate::model::EventType;

    fn event(at: u64, bytes: usize) -> Arc<Event> {
        Arc::new(Event::new(id(at), id(at - 1), EventType::MESSAGE, "1".repeat(bytes).into()))
    }

    fn take_all(early: &mut Early, head: u64) -> Vec<u64> {
        let mut chain = Chain::at(id(head));
        let mut taken = Vec::new();
        while let Some(event) = early.take_next(&chain) {
            chain.event(&event);
            taken.push(event.id.ms);
        }
        taken
    }

    #[test]
    fn events_leave_in_the_order_of_the_chain_however_they_came() {
        let mut early = Early::new(Budget::new(NODE_BYTES));
        for at in [9, 7, 12, 8] {
            assert!(early.push(event(at, 1), 0));
        }
        assert_eq!(take_all(&mut early, 6), [7, 8, 9]);
        assert_eq!(early.first_prev(), Some(id(11)));
    }

    #[test]
    fn a_full_queue_keeps_what_is_nearest_to_the_head() {
        let mut early = Early::new(Budget::new(NODE_BYTES));
        let big = STREAM_BYTES / 4;
        let complete: Vec<_> = (7..12).map(|at| early.push(event(at, big), 0)).collect();
        assert_eq!(complete, [true, true, true, false, false]);
        assert_eq!(take_all(&mut early, 6), [7, 8, 9]);
        assert!(early.push(event(7, STREAM_BYTES), 0), "one of any size has room");
    }

    #[test]
    fn all_queues_of_a_node_share_one_bound_and_give_their_room_back() {
        let budget = Budget::new(10_000);
        let (mut first, mut second) = (Early::new(budget.clone()), Early::new(budget.clone()));
        assert!(first.push(event(7, 8_000), 0));
        assert!(!second.push(event(7, 8_000), 0));
        assert!(second.is_empty());
        drop(first);
        assert!(second.push(event(7, 8_000), 0));
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_event_that_comes_twice_waits_once() {
        let mut early = Early::new(Budget::new(NODE_BYTES));
        for _ in 0..2 {
            early.push(event(8, 1), 0);
        }
        assert_eq!((take_all(&mut early, 7), early.bytes), (vec![8], 0));
    }
}
