//! What the lifecycle stream is still to be told, as a plain value.
//!
//! A connection's coming and leaving wait here until the store has them. They go out in numbered batches, one
//! after another: the one whose answer is awaited stays as it is, so that it can be told again under its number.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

use crate::model::EventId;
use crate::store::lifecycle::{Happening, Whom};

/// Comings that wait, at most. Over that, connections are told of once there is room and they are still there; one
/// that came and left in between is told of by nobody.
const MAX_WAITING: usize = 100_000;

/// Room that is kept while nothing waits.
const KEPT_ROOM: usize = 256;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is about.
    pub whom: Whom,
    /// What happened.
    pub happening: Happening,
    /// When, on the store's clock in milliseconds since 1970.
    pub time_ms: u64,
}

impl Entry {
    fn is_coming(&self) -> bool {
        self.happening == Happening::Connected
    }
}

/// What waits to be told.
#[derive(Debug, Default)]
pub struct Journal {
    waiting: VecDeque<Entry>,
    /// Comings among them.
    comings: usize,
    /// The batch whose answer is awaited, and that may have been told.
    sent: Vec<Entry>,
    /// The number of the batch that was told last.
    number: u64,
    /// The stream's birth, once it is known.
    born: Option<EventId>,
    /// There was no room for a coming.
    missed: bool,
    /// Connections that came and left without being told of.
    untold: u64,
}

impl Journal {
    /// A connection came. False when there is no room for that.
    pub fn came(&mut self, whom: Whom, time_ms: u64) -> bool {
        if self.comings >= MAX_WAITING {
            self.missed = true;
            return false;
        }
        self.comings += 1;
        self.waiting.push_back(Entry { whom, happening: Happening::Connected, time_ms });
        true
    }

    /// A connection left whose coming is in the journal, or was told.
    pub fn left(&mut self, whom: Whom, reason: &'static str, time_ms: u64) {
        self.waiting.push_back(Entry { whom, happening: Happening::Disconnected(reason), time_ms });
    }

    /// A connection left whose coming found no room.
    pub fn left_untold(&mut self) {
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
    pub fn told(&mut self, number: u64) {
        if number > self.number {
            self.sent.clear();
        }
        self.number = number;
    }

    /// A term goes on in which batches were told up to this one. False when that is not all that was told: the
    /// store lost something.
    pub fn goes_on(&mut self, number: u64) -> bool {
        let behind = number < self.number;
        if !behind {
            self.told(number);
        }
        !behind
    }

    /// A term begins anew, after one in which batches were told up to `number`, or in any case all that was sent.
    /// What is told in it is gone with it: what still waits is what nobody heard of. Returns whose coming is among
    /// that.
    pub fn begin_anew(&mut self, number: Option<u64>) -> HashSet<Uuid> {
        if number.is_none_or(|number| number > self.number) {
            self.sent.clear();
        }
        self.put_back();
        self.number = 0;
        let untold = self.untold_comings();
        self.waiting.retain(|entry| untold.contains(&entry.whom.connection));
        untold
    }

    /// The store lost what was told after this batch, and has these open. Returns whose coming waits to be told.
    pub fn fall_back(&mut self, number: u64, open: &HashSet<Uuid>) -> HashSet<Uuid> {
        self.put_back();
        self.number = number;
        let untold = self.untold_comings();
        self.waiting.retain(|Entry { whom: Whom { connection, .. }, happening, .. }| match happening {
            Happening::Connected => !open.contains(connection),
            Happening::Disconnected(_) => open.contains(connection) || untold.contains(connection),
        });
        self.comings = self.waiting.iter().filter(|entry| entry.is_coming()).count();
        untold
    }

    /// Whether a leaving waits of this connection.
    pub fn leaves(&self, connection: Uuid) -> bool {
        self.waiting.iter().any(|entry| entry.whom.connection == connection && !entry.is_coming())
    }

    fn put_back(&mut self) {
        self.comings += self.sent.iter().filter(|entry| entry.is_coming()).count();
        while let Some(entry) = self.sent.pop() {
            self.waiting.push_front(entry);
        }
    }

    fn untold_comings(&self) -> HashSet<Uuid> {
        self.waiting.iter().filter(|entry| entry.is_coming()).map(|entry| entry.whom.connection).collect()
    }

    /// The stream's birth is known. False when it was another before: the store has forgotten everything.
    pub fn is_born(&mut self, born: EventId) -> bool {
        self.born.replace(born).is_none_or(|before| before == born)
    }

    /// Whether there was no room for a coming, and is some again.
    pub fn take_missed(&mut self) -> bool {
        self.waiting.is_empty() && std::mem::take(&mut self.missed)
    }

    /// How many came and left without being told of, since this was asked last.
    pub fn take_untold(&mut self) -> u64 {
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

    fn whom(n: u128) -> Whom {
        Whom { connection: Uuid::from_u128(n), device: "device:42".parse().unwrap(), transport: "sse".into() }
    }

    fn told((number, batch): (u64, &[Entry])) -> (u64, Vec<(u128, &'static str)>) {
        (number, batch.iter().map(|entry| (entry.whom.connection.as_u128(), entry.happening.as_str())).collect())
    }

    fn ids(ids: &[u128]) -> HashSet<Uuid> {
        ids.iter().copied().map(Uuid::from_u128).collect()
    }

    /// One and two came, which was told; two left, which was sent and not answered; three came, one left.
    fn busy() -> Journal {
        let mut journal = Journal::default();
        journal.came(whom(1), 5);
        journal.came(whom(2), 5);
        journal.next(10);
        journal.told(1);
        journal.left(whom(2), "client", 6);
        journal.next(10);
        journal.came(whom(3), 7);
        journal.left(whom(1), "client", 8);
        journal
    }

    #[test]
    fn a_batch_is_told_again_under_its_number_until_it_is_answered() {
        let mut journal = Journal::default();
        for n in 1..=3 {
            journal.came(whom(n), 5);
        }
        let first = (1, vec![(1, "connected"), (2, "connected")]);
        assert_eq!(told(journal.next(2)), first);
        journal.left(whom(1), "client", 6);
        assert_eq!(told(journal.next(2)), first);
        journal.told(1);
        assert_eq!(told(journal.next(2)), (2, vec![(3, "connected"), (1, "disconnected")]));
        journal.told(2);
        assert_eq!((told(journal.next(2)), journal.len()), ((3, vec![]), 0));
    }

    #[test]
    fn a_term_that_goes_on_knows_whether_the_last_batch_was_told() {
        let mut journal = busy();
        assert!(journal.goes_on(1));
        assert_eq!(told(journal.next(10)), (2, vec![(2, "disconnected")]));
        assert!(journal.goes_on(2));
        assert_eq!(told(journal.next(10)), (3, vec![(3, "connected"), (1, "disconnected")]));
        assert!(!journal.goes_on(0));
    }

    #[test]
    fn after_a_term_that_others_ended_only_what_nobody_heard_of_is_told() {
        for number in [Some(1), Some(2), None] {
            let mut journal = busy();
            assert_eq!(journal.begin_anew(number), ids(&[3]));
            assert_eq!(told(journal.next(10)), (1, vec![(3, "connected")]));
        }
        let mut journal = Journal::default();
        journal.came(whom(1), 5);
        journal.left(whom(1), "client", 5);
        journal.next(10);
        assert_eq!(journal.begin_anew(Some(0)), ids(&[1]), "it was sent, and not told");
        assert_eq!(told(journal.next(10)), (1, vec![(1, "connected"), (1, "disconnected")]));
    }

    #[test]
    fn where_the_store_lost_something_what_it_has_open_decides() {
        let mut journal = busy();
        // That two came was lost, and that it left was not told.
        assert_eq!(journal.fall_back(1, &ids(&[1])), ids(&[3]));
        assert_eq!(told(journal.next(10)), (2, vec![(3, "connected"), (1, "disconnected")]));
        let mut journal = busy();
        assert_eq!(journal.fall_back(1, &ids(&[1, 2])), ids(&[3]));
        assert!(journal.leaves(Uuid::from_u128(2)) && !journal.leaves(Uuid::from_u128(3)));
    }

    #[test]
    fn comings_have_a_bound_and_what_found_no_room_is_counted() {
        let mut journal = Journal::default();
        for n in 0..MAX_WAITING as u128 {
            assert!(journal.came(whom(n), 5));
        }
        assert!(!journal.came(whom(7), 5));
        journal.left_untold();
        assert_eq!((journal.len(), journal.take_untold(), journal.take_missed()), (MAX_WAITING, 1, false));
        while let (number, [_, ..]) = journal.next(1000) {
            journal.told(number);
        }
        assert!(journal.take_missed() && !journal.take_missed());
    }

    #[test]
    fn a_stream_that_was_born_anew_shows_that_the_store_forgot() {
        let mut journal = Journal::default();
        assert!(journal.is_born(EventId::new(5, 1)) && journal.is_born(EventId::new(5, 1)));
        assert!(!journal.is_born(EventId::new(9, 1)));
    }
}
