//! What the lifecycle stream is still to be told, as a plain value.
//!
//! A connection's coming and leaving wait here until the store has them. They go out in numbered batches, one
//! after another: the one whose answer is awaited stays as it is, so that it can be told again under its number.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

use crate::model::EventId;
use crate::store::lifecycle::{ConnectionRef, LifecycleKind};

/// Comings that wait, at most. Over that, connections are told of once there is room and they are still there; one
/// that came and left in between is told of by nobody.
const MAX_WAITING: usize = 100_000;

/// Room that is kept while nothing waits.
const KEPT_ROOM: usize = 256;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is about.
    pub subject: ConnectionRef,
    /// What happened.
    pub kind: LifecycleKind,
    /// When, on the store's clock in milliseconds since 1970.
    pub time_ms: u64,
}

impl Entry {
    fn is_coming(&self) -> bool {
        self.kind == LifecycleKind::Connected
    }
}

/// What waits to be told.
#[derive(Debug, Default)]
pub struct LifecycleQueue {
    waiting: VecDeque<Entry>,
    /// Comings among them.
    comings: usize,
    /// The batch whose answer is awaited, and that may have been told.
    sent: Vec<Entry>,
    /// The number of the batch that was told last.
    number: u64,
    /// The stream's birth, once it is known.
    epoch: Option<EventId>,
    /// There was no room for a coming.
    missed: bool,
    /// Connections that came and left without being told of.
    untold: u64,
}

impl LifecycleQueue {
    /// A connection came. False when there is no room for that.
    pub fn push_connected(&mut self, subject: ConnectionRef, time_ms: u64) -> bool {
        if self.comings >= MAX_WAITING {
            self.missed = true;
            return false;
        }
        self.comings += 1;
        self.waiting.push_back(Entry { subject, kind: LifecycleKind::Connected, time_ms });
        true
    }

    /// A connection left whose coming is in the queue, or was told.
    pub fn push_disconnected(&mut self, subject: ConnectionRef, reason: &'static str, time_ms: u64) {
        self.waiting.push_back(Entry { subject, kind: LifecycleKind::Disconnected(reason), time_ms });
    }

    /// A connection left whose coming found no room.
    pub fn drop_unpublished(&mut self) {
        self.untold += 1;
    }

    /// The next batch with its number, of at most `limit` entries; the same one until it was answered.
    pub fn next(&mut self, limit: usize) -> (u64, &[Entry]) {
        if self.sent.is_empty() {
            let count = limit.min(self.waiting.len());
            self.sent.extend(self.waiting.drain(..count));
            self.comings -= self.sent.iter().filter(|entry| entry.is_coming()).count();
            if self.waiting.is_empty() {
                // After a rush.
                self.waiting.shrink_to(KEPT_ROOM);
            }
        }
        (self.number + 1, &self.sent)
    }

    /// All batches up to this one were told.
    pub fn acknowledge(&mut self, number: u64) {
        if number > self.number {
            self.sent.clear();
        }
        self.number = number;
    }

    /// A session goes on in which batches were told up to this one. False when that is not all that was told: the
    /// store lost something.
    pub fn resume(&mut self, number: u64) -> bool {
        let behind = number < self.number;
        if !behind {
            self.acknowledge(number);
        }
        !behind
    }

    /// A session begins anew, after one in which batches were told up to `number`, or in any case all that was sent.
    /// What is told in it is gone with it: what still waits is what nobody heard of. Returns whose coming is among
    /// that.
    pub fn restart(&mut self, number: Option<u64>) -> HashSet<Uuid> {
        if number.is_none_or(|number| number > self.number) {
            self.sent.clear();
        }
        self.put_back();
        self.number = 0;
        let untold = self.untold_comings();
        self.waiting.retain(|entry| untold.contains(&entry.subject.connection));
        untold
    }

    /// The store lost what was told after this batch, and has these open. Returns whose coming waits to be told.
    pub fn fall_back(&mut self, number: u64, open: &HashSet<Uuid>) -> HashSet<Uuid> {
        self.put_back();
        self.number = number;
        let untold = self.untold_comings();
        self.waiting.retain(|Entry { subject: ConnectionRef { connection, .. }, kind, .. }| match kind {
            LifecycleKind::Connected => !open.contains(connection),
            LifecycleKind::Disconnected(_) => open.contains(connection) || untold.contains(connection),
        });
        self.comings = self.waiting.iter().filter(|entry| entry.is_coming()).count();
        untold
    }

    /// Whether a leaving waits of this connection.
    pub fn leaves(&self, connection: Uuid) -> bool {
        self.waiting.iter().any(|entry| entry.subject.connection == connection && !entry.is_coming())
    }

    fn put_back(&mut self) {
        self.comings += self.sent.iter().filter(|entry| entry.is_coming()).count();
        while let Some(entry) = self.sent.pop() {
            self.waiting.push_front(entry);
        }
    }

    fn untold_comings(&self) -> HashSet<Uuid> {
        self.waiting.iter().filter(|entry| entry.is_coming()).map(|entry| entry.subject.connection).collect()
    }

    /// The stream's birth is known. False when it was another before: the store has forgotten everything.
    pub fn is_same_epoch(&mut self, epoch: EventId) -> bool {
        self.epoch.replace(epoch).is_none_or(|before| before == epoch)
    }

    /// Whether there was no room for a coming, and is some again.
    pub fn take_missed(&mut self) -> bool {
        self.waiting.is_empty() && std::mem::take(&mut self.missed)
    }

    /// How many came and left without being told of, since this was asked last.
    pub fn take_unpublished(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }

    /// How much waits.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(n: u128) -> ConnectionRef {
        ConnectionRef { connection: Uuid::from_u128(n), device: "device:42".parse().unwrap(), transport: "sse".into() }
    }

    fn published((number, batch): (u64, &[Entry])) -> (u64, Vec<(u128, &'static str)>) {
        (number, batch.iter().map(|entry| (entry.subject.connection.as_u128(), entry.kind.as_str())).collect())
    }

    fn ids(ids: &[u128]) -> HashSet<Uuid> {
        ids.iter().copied().map(Uuid::from_u128).collect()
    }

    /// One and two came, which was told; two left, which was sent and not answered; three came, one left.
    fn busy() -> LifecycleQueue {
        let mut queue = LifecycleQueue::default();
        queue.push_connected(subject(1), 5);
        queue.push_connected(subject(2), 5);
        queue.next(10);
        queue.acknowledge(1);
        queue.push_disconnected(subject(2), "client", 6);
        queue.next(10);
        queue.push_connected(subject(3), 7);
        queue.push_disconnected(subject(1), "client", 8);
        queue
    }

    #[test]
    fn a_batch_is_told_again_under_its_number_until_it_is_answered() {
        let mut queue = LifecycleQueue::default();
        for n in 1..=3 {
            queue.push_connected(subject(n), 5);
        }
        let first = (1, vec![(1, "connected"), (2, "connected")]);
        assert_eq!(published(queue.next(2)), first);
        queue.push_disconnected(subject(1), "client", 6);
        assert_eq!(published(queue.next(2)), first);
        queue.acknowledge(1);
        assert_eq!(published(queue.next(2)), (2, vec![(3, "connected"), (1, "disconnected")]));
        queue.acknowledge(2);
        assert_eq!((published(queue.next(2)), queue.len()), ((3, vec![]), 0));
    }

    #[test]
    fn a_term_that_goes_on_knows_whether_the_last_batch_was_told() {
        let mut queue = busy();
        assert!(queue.resume(1));
        assert_eq!(published(queue.next(10)), (2, vec![(2, "disconnected")]));
        assert!(queue.resume(2));
        assert_eq!(published(queue.next(10)), (3, vec![(3, "connected"), (1, "disconnected")]));
        assert!(!queue.resume(0));
    }

    #[test]
    fn after_a_term_that_others_ended_only_what_nobody_heard_of_is_told() {
        for number in [Some(1), Some(2), None] {
            let mut queue = busy();
            assert_eq!(queue.restart(number), ids(&[3]));
            assert_eq!(published(queue.next(10)), (1, vec![(3, "connected")]));
        }
        let mut queue = LifecycleQueue::default();
        queue.push_connected(subject(1), 5);
        queue.push_disconnected(subject(1), "client", 5);
        queue.next(10);
        assert_eq!(queue.restart(Some(0)), ids(&[1]), "it was sent, and not told");
        assert_eq!(published(queue.next(10)), (1, vec![(1, "connected"), (1, "disconnected")]));
    }

    #[test]
    fn where_the_store_lost_something_what_it_has_open_decides() {
        let mut queue = busy();
        // That two came was lost, and that it left was not told.
        assert_eq!(queue.fall_back(1, &ids(&[1])), ids(&[3]));
        assert_eq!(published(queue.next(10)), (2, vec![(3, "connected"), (1, "disconnected")]));
        let mut queue = busy();
        assert_eq!(queue.fall_back(1, &ids(&[1, 2])), ids(&[3]));
        assert!(queue.leaves(Uuid::from_u128(2)) && !queue.leaves(Uuid::from_u128(3)));
    }

    #[test]
    fn comings_have_a_bound_and_what_found_no_room_is_counted() {
        let mut queue = LifecycleQueue::default();
        for n in 0..MAX_WAITING as u128 {
            assert!(queue.push_connected(subject(n), 5));
        }
        assert!(!queue.push_connected(subject(7), 5));
        queue.drop_unpublished();
        assert_eq!((queue.len(), queue.take_unpublished(), queue.take_missed()), (MAX_WAITING, 1, false));
        while let (number, [_, ..]) = queue.next(1000) {
            queue.acknowledge(number);
        }
        assert!(queue.take_missed() && !queue.take_missed());
    }

    #[test]
    fn a_stream_that_was_born_anew_shows_that_the_store_forgot() {
        let mut queue = LifecycleQueue::default();
        assert!(queue.is_same_epoch(EventId::new(5, 1)) && queue.is_same_epoch(EventId::new(5, 1)));
        assert!(!queue.is_same_epoch(EventId::new(9, 1)));
    }
}
