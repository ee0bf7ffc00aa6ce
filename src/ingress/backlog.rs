//! What was read from the ingress stream and is not placed yet: a line for each stream, in order.
//!
//! Plain values: what is due goes out, what became of it comes back in, and the answer is what to do with the
//! entries. One that can't be placed now holds up its own line alone, which is tried again by its first entry
//! after a while. A line may grow only so long, and all lines together: beyond that entries stay where they
//! are, and are read once there is room.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::model::{Draft, EventId, StreamName};
use crate::store::{Placed, Placement, StoreError};

/// Entries of all lines, and bytes of their data, beyond which nothing more is read.
const MAX_ENTRIES: usize = 16_384;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Entries of one line that is held. Later ones of the stream are forgotten, and read again when it moves.
const MAX_LINE: usize = 1024;

/// Entries that are sent at once.
const MAX_DUE: usize = 2048;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Entries that wait to be placed.
#[derive(Default)]
pub struct Backlog {
    lines: HashMap<StreamName, Line>,
    entries: usize,
    bytes: usize,
    /// A line that had entries forgotten has moved: read from the beginning.
    read_again: bool,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    held: Option<Held>,
    /// Entries behind those in the line were forgotten.
    forgot: bool,
}

struct Waiting {
    id: EventId,
    draft: Draft,
}

/// A line whose first entry could not be placed.
struct Held {
    until: Instant,
    backoff: Backoff,
}

/// What is to be done with entries after some were sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Their streams have them.
    pub done: Vec<(EventId, StreamName)>,
    /// They can't be events.
    pub rejected: Vec<(EventId, String)>,
    /// Their streams had taken the entry in the last place, or that entry is of an ingress stream that is gone.
    pub taken_before: Vec<(EventId, StreamName, EventId)>,
    /// Why the first of those that were held up could not be placed.
    pub held_up: Option<StoreError>,
}

impl Backlog {
    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        self.entries < MAX_ENTRIES && self.bytes < MAX_BYTES
    }

    /// Whether reading has to begin anew; asking ends it.
    pub fn has_to_read_again(&mut self) -> bool {
        std::mem::take(&mut self.read_again)
    }

    /// Entries of lines that are held.
    pub fn held(&self) -> usize {
        self.lines.values().filter(|line| line.held.is_some()).map(|line| line.waiting.len()).sum()
    }

    /// Puts an entry behind those of its stream. One that is there already is left as it is.
    pub fn add(&mut self, id: EventId, stream: StreamName, draft: Draft) {
        let line = self.lines.entry(stream).or_default();
        if line.waiting.back().is_some_and(|last| id <= last.id) {
            return;
        }
        if line.forgot || (line.held.is_some() && line.waiting.len() >= MAX_LINE) {
            line.forgot = true;
            return;
        }
        self.entries += 1;
        self.bytes += draft.data.len();
        line.waiting.push_back(Waiting { id, draft });
    }

    /// Entries to be sent now, those of each stream in order.
    pub fn due(&self, now: Instant) -> Vec<Placement> {
        let mut due = Vec::new();
        for (stream, line) in &self.lines {
            let count = match &line.held {
                None => line.waiting.len(),
                Some(held) if held.until <= now => 1,
                Some(_) => 0,
            };
            let mut after = None;
            for Waiting { id, draft } in line.waiting.iter().take(count) {
                if due.len() == MAX_DUE {
                    return due;
                }
                due.push(Placement { id: *id, after, stream: stream.clone(), draft: draft.clone() });
                after = Some(*id);
            }
        }
        due
    }

    /// When the next held line is tried again.
    pub fn next_try(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| line.held.as_ref()).map(|held| held.until).min()
    }

    /// Takes in what became of entries that were due.
    pub fn judge(&mut self, sent: &[Placement], answers: Vec<Result<Placed, StoreError>>, now: Instant) -> Verdict {
        let mut verdict = Verdict::default();
        for (Placement { id, stream, .. }, answer) in sent.iter().zip(answers) {
            let (id, stream) = (*id, stream.clone());
            match answer {
                Ok(Placed::Now) => {
                    self.remove(id, &stream);
                    verdict.done.push((id, stream));
                }
                Ok(Placed::Before(mark)) => {
                    self.remove(id, &stream);
                    verdict.taken_before.push((id, stream, mark));
                }
                Err(StoreError::KeyReused) => {
                    self.remove(id, &stream);
                    verdict.rejected.push((id, StoreError::KeyReused.to_string()));
                }
                // It is sent again without the one before it, or after that is done.
                Ok(Placed::NotInTurn) => {}
                Err(error) => {
                    self.hold(id, &stream, now);
                    verdict.held_up.get_or_insert(error);
                }
            }
        }
        verdict
    }

    /// Removes an entry from its line, which moves from there on.
    fn remove(&mut self, id: EventId, stream: &StreamName) {
        let Some(line) = self.lines.get_mut(stream) else { return };
        line.held = None;
        if let Some(at) = line.waiting.iter().position(|waiting| waiting.id == id) {
            let bytes = line.waiting.remove(at).map_or(0, |waiting| waiting.draft.data.len());
            self.entries -= 1;
            self.bytes -= bytes;
        }
        if line.waiting.is_empty() {
            self.read_again |= line.forgot;
            self.lines.remove(stream);
        }
    }

    /// Holds a line up if the entry that failed is its first: for any other, the first has just failed too or
    /// will be sent again.
    fn hold(&mut self, id: EventId, stream: &StreamName, now: Instant) {
        let Some(line) = self.lines.get_mut(stream) else { return };
        if line.waiting.front().is_none_or(|first| first.id != id) {
            return;
        }
        let held =
            line.held.get_or_insert_with(|| Held { until: now, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) });
        held.until = now + held.backoff.next_wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventType;

    fn stream(name: &str) -> StreamName {
        name.parse().unwrap()
    }

    fn id(ms: u64) -> EventId {
        EventId::new(ms, 0)
    }

    fn add(backlog: &mut Backlog, ms: u64, name: &str) {
        backlog.add(id(ms), stream(name), Draft::new(EventType::MESSAGE, "1"));
    }

    fn due(backlog: &Backlog, now: Instant, name: &str) -> Vec<(u64, Option<u64>)> {
        let due = backlog.due(now).into_iter().filter(|placement| placement.stream == stream(name));
        due.map(|placement| (placement.id.ms, placement.after.map(|after| after.ms))).collect()
    }

    fn away() -> Result<Placed, StoreError> {
        Err(StoreError::Unavailable("away".to_owned()))
    }

    #[test]
    fn entries_of_a_stream_are_chained() {
        let mut backlog = Backlog::default();
        for ms in [1, 3, 4] {
            add(&mut backlog, ms, "topic:a");
        }
        add(&mut backlog, 2, "topic:b");
        add(&mut backlog, 3, "topic:a");
        let now = Instant::now();
        assert_eq!(due(&backlog, now, "topic:a"), [(1, None), (3, Some(1)), (4, Some(3))]);
        assert_eq!(due(&backlog, now, "topic:b"), [(2, None)]);
    }

    #[test]
    fn what_cannot_be_placed_holds_up_its_own_stream_alone() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        for ms in 1..=4 {
            add(&mut backlog, ms, if ms % 2 == 1 { "topic:a" } else { "topic:b" });
        }
        let sent = backlog.due(now);
        let answers = sent.iter().map(|placement| match (placement.stream.as_str(), placement.after) {
            ("topic:a", None) => away(),
            ("topic:a", Some(_)) => Ok(Placed::NotInTurn),
            _ => Ok(Placed::Now),
        });
        let verdict = backlog.judge(&sent, answers.collect(), now);
        assert_eq!(verdict.done, [(id(2), stream("topic:b")), (id(4), stream("topic:b"))]);
        assert!(verdict.held_up.is_some());
        assert_eq!(backlog.held(), 2);
        assert_eq!(due(&backlog, now, "topic:a"), []);
        // Only its first entry asks whether it can go on; then the rest follows.
        let later = backlog.next_try().unwrap();
        assert_eq!(due(&backlog, later, "topic:a"), [(1, None)]);
        let sent = backlog.due(later);
        backlog.judge(&sent, vec![Ok(Placed::Now)], later);
        assert_eq!(due(&backlog, later, "topic:a"), [(3, None)]);
    }

    #[test]
    fn an_entry_behind_a_rejected_one_is_sent_again_on_its_own() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        add(&mut backlog, 1, "topic:a");
        add(&mut backlog, 2, "topic:a");
        let sent = backlog.due(now);
        let verdict = backlog.judge(&sent, vec![Err(StoreError::KeyReused), Ok(Placed::NotInTurn)], now);
        assert_eq!(verdict.rejected.len(), 1);
        assert_eq!(due(&backlog, now, "topic:a"), [(2, None)]);
    }

    #[test]
    fn a_line_that_is_held_grows_only_so_long_and_forgets_nothing_for_good() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        add(&mut backlog, 1, "topic:a");
        let sent = backlog.due(now);
        backlog.judge(&sent, vec![away()], now);
        let count = MAX_LINE as u64 + 10;
        for ms in 2..=count {
            add(&mut backlog, ms, "topic:a");
        }
        assert_eq!(backlog.held(), MAX_LINE);
        let mut last = 0;
        while !backlog.has_to_read_again() {
            let now = backlog.next_try().unwrap_or(now);
            let sent = backlog.due(now);
            last = sent.last().unwrap().id.ms;
            let answers = sent.iter().map(|_| Ok(Placed::Now)).collect();
            backlog.judge(&sent, answers, now);
        }
        assert_eq!(last, MAX_LINE as u64);
        assert!(backlog.has_room() && backlog.next_try().is_none());
        // What was read again and is done already does not come: it was removed. The rest does.
        for ms in last + 1..=count {
            add(&mut backlog, ms, "topic:a");
        }
        assert_eq!(due(&backlog, now, "topic:a").len(), 10);
    }

    #[test]
    fn nothing_more_is_read_while_too_much_is_held() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let mut ms = 0;
        while backlog.has_room() {
            ms += 1;
            add(&mut backlog, ms, &format!("topic:{ms}"));
        }
        assert_eq!(ms as usize, MAX_ENTRIES);
        let sent = backlog.due(now);
        assert_eq!(sent.len(), MAX_DUE);
        let answers = sent.iter().map(|_| Ok(Placed::Now)).collect();
        backlog.judge(&sent, answers, now);
        assert!(backlog.has_room());
    }
}
