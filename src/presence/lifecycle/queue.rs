//! Connects and disconnects that wait to be published on the lifecycle stream, as a plain value.
//!
//! They are published in numbered batches, one after another. The batch in flight stays as it is, so that it can be
//! sent again under the same number.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

use crate::model::EventId;
use crate::store::lifecycle::{ConnectionRef, LifecycleKind};

/// Most connects that wait. A connection beyond that is published once there is room, if it is still open; one that
/// came and went in between is never published.
const MAX_WAITING: usize = 100_000;

/// Capacity that is kept while nothing waits.
const KEPT_ROOM: usize = 256;

/// One connect or disconnect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The connection.
    pub subject: ConnectionRef,
    /// What happened.
    pub kind: LifecycleKind,
    /// When, on the store's clock in milliseconds since 1970.
    pub time_ms: u64,
}

impl Entry {
    fn is_connect(&self) -> bool {
        self.kind == LifecycleKind::Connected
    }
}

/// What waits to be published, and the batch in flight.
#[derive(Debug, Default)]
pub struct LifecycleQueue {
    waiting: VecDeque<Entry>,
    /// Connects among them.
    connects: usize,
    /// The batch in flight: it may or may not have been published.
    sent: Vec<Entry>,
    /// The number of the last batch that was published.
    number: u64,
    /// The stream's epoch, once it is known.
    epoch: Option<EventId>,
    /// There was no room for a connect.
    missed: bool,
    /// Connections that came and went without being published.
    unpublished: u64,
}

impl LifecycleQueue {
    /// Queues a connect. False when there is no room.
    pub fn push_connected(&mut self, subject: ConnectionRef, time_ms: u64) -> bool {
        if self.connects >= MAX_WAITING {
            self.missed = true;
            return false;
        }
        self.connects += 1;
        self.waiting.push_back(Entry { subject, kind: LifecycleKind::Connected, time_ms });
        true
    }

    /// Queues the disconnect of a connection whose connect is queued or published.
    pub fn push_disconnected(&mut self, subject: ConnectionRef, reason: &'static str, time_ms: u64) {
        self.waiting.push_back(Entry { subject, kind: LifecycleKind::Disconnected(reason), time_ms });
    }

    /// Queues that something else is shown beside a connection whose connect is queued or published, unless so much
    /// waits that the store may keep what was shown before.
    pub fn push_renewed(&mut self, subject: ConnectionRef, time_ms: u64) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(Entry { subject, kind: LifecycleKind::Renewed, time_ms });
        }
    }

    /// Counts a connection that left, and whose connect had found no room.
    pub fn drop_unpublished(&mut self) {
        self.unpublished += 1;
    }

    /// The next batch and its number, with at most `limit` entries; the same batch until it is acknowledged.
    pub fn next(&mut self, limit: usize) -> (u64, &[Entry]) {
        if self.sent.is_empty() {
            let count = limit.min(self.waiting.len());
            self.sent.extend(self.waiting.drain(..count));
            self.connects -= self.sent.iter().filter(|entry| entry.is_connect()).count();
            if self.waiting.is_empty() {
                // After a rush.
                self.waiting.shrink_to(KEPT_ROOM);
            }
        }
        (self.number + 1, &self.sent)
    }

    /// All batches up to this one are published.
    pub fn acknowledge(&mut self, number: u64) {
        if number > self.number {
            self.sent.clear();
        }
        self.number = number;
    }

    /// Resumes a session in which batches up to this one are published. False when that is fewer than were: the
    /// store lost some.
    pub fn resume(&mut self, number: u64) -> bool {
        let behind = number < self.number;
        if !behind {
            self.acknowledge(number);
        }
        !behind
    }

    /// Starts a new session, after one in which batches up to `number` were published (`None`: everything that was
    /// sent). What still waits is what was never published. Returns the connections whose connect is among that.
    pub fn restart(&mut self, number: Option<u64>) -> HashSet<Uuid> {
        if number.is_none_or(|number| number > self.number) {
            self.sent.clear();
        }
        self.put_back();
        self.number = 0;
        let unpublished = self.unpublished_connects();
        self.waiting.retain(|entry| unpublished.contains(&entry.subject.connection));
        unpublished
    }

    /// The store lost what was published after this batch, and has these connections open. Returns the connections
    /// whose connect waits.
    pub fn fall_back(&mut self, number: u64, open: &HashSet<Uuid>) -> HashSet<Uuid> {
        self.put_back();
        self.number = number;
        let unpublished = self.unpublished_connects();
        self.waiting.retain(|Entry { subject: ConnectionRef { connection, .. }, kind, .. }| match kind {
            LifecycleKind::Connected => !open.contains(connection),
            LifecycleKind::Disconnected(_) | LifecycleKind::Renewed => {
                open.contains(connection) || unpublished.contains(connection)
            }
        });
        self.connects = self.waiting.iter().filter(|entry| entry.is_connect()).count();
        unpublished
    }

    /// Whether the disconnect of this connection waits.
    pub fn has_disconnect_of(&self, connection: Uuid) -> bool {
        let is_disconnect = |entry: &Entry| matches!(entry.kind, LifecycleKind::Disconnected(_));
        self.waiting.iter().any(|entry| entry.subject.connection == connection && is_disconnect(entry))
    }

    fn put_back(&mut self) {
        self.connects += self.sent.iter().filter(|entry| entry.is_connect()).count();
        while let Some(entry) = self.sent.pop() {
            self.waiting.push_front(entry);
        }
    }

    fn unpublished_connects(&self) -> HashSet<Uuid> {
        self.waiting.iter().filter(|entry| entry.is_connect()).map(|entry| entry.subject.connection).collect()
    }

    /// Takes note of the stream's epoch. False when it was another before: the store has lost everything.
    pub fn is_same_epoch(&mut self, epoch: EventId) -> bool {
        self.epoch.replace(epoch).is_none_or(|before| before == epoch)
    }

    /// Whether a connect had found no room, and there is room again.
    pub fn take_missed(&mut self) -> bool {
        self.waiting.is_empty() && std::mem::take(&mut self.missed)
    }

    /// How many connections came and went without being published, since the last call.
    pub fn take_unpublished(&mut self) -> u64 {
        std::mem::take(&mut self.unpublished)
    }

    /// Entries that wait or are in flight.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(n: u128) -> ConnectionRef {
        let device = "device:42".parse().unwrap();
        ConnectionRef { connection: Uuid::from_u128(n), device, transport: "sse".into(), info: None }
    }

    fn published((number, batch): (u64, &[Entry])) -> (u64, Vec<(u128, &'static str)>) {
        (number, batch.iter().map(|entry| (entry.subject.connection.as_u128(), entry.kind.as_str())).collect())
    }

    fn ids(ids: &[u128]) -> HashSet<Uuid> {
        ids.iter().copied().map(Uuid::from_u128).collect()
    }

    /// One and two connected, which is published; two left, which is in flight; then three connected and one left.
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
    fn a_session_that_goes_on_knows_whether_the_last_batch_was_published() {
        let mut queue = busy();
        assert!(queue.resume(1));
        assert_eq!(published(queue.next(10)), (2, vec![(2, "disconnected")]));
        assert!(queue.resume(2));
        assert_eq!(published(queue.next(10)), (3, vec![(3, "connected"), (1, "disconnected")]));
        assert!(!queue.resume(0));
    }

    #[test]
    fn after_a_session_that_others_ended_only_what_was_never_published_is() {
        for number in [Some(1), Some(2), None] {
            let mut queue = busy();
            assert_eq!(queue.restart(number), ids(&[3]));
            assert_eq!(published(queue.next(10)), (1, vec![(3, "connected")]));
        }
        let mut queue = LifecycleQueue::default();
        queue.push_connected(subject(1), 5);
        queue.push_disconnected(subject(1), "client", 5);
        queue.next(10);
        assert_eq!(queue.restart(Some(0)), ids(&[1]), "it was sent, and not published");
        assert_eq!(published(queue.next(10)), (1, vec![(1, "connected"), (1, "disconnected")]));
    }

    #[test]
    fn where_the_store_lost_something_what_it_has_open_decides() {
        let mut queue = busy();
        // The connect of two was lost, and its disconnect was never published.
        assert_eq!(queue.fall_back(1, &ids(&[1])), ids(&[3]));
        assert_eq!(published(queue.next(10)), (2, vec![(3, "connected"), (1, "disconnected")]));
        let mut queue = busy();
        assert_eq!(queue.fall_back(1, &ids(&[1, 2])), ids(&[3]));
        assert!(queue.has_disconnect_of(Uuid::from_u128(2)) && !queue.has_disconnect_of(Uuid::from_u128(3)));
    }

    #[test]
    fn connects_have_a_bound_and_what_found_no_room_is_counted() {
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
