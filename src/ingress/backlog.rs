//! What was read from the ingress stream and is not placed yet: a line for each stream, in order.
//!
//! Plain values: what is due goes out, what became of it comes back in, and the answer is what to do with the
//! entries. One that can't be placed now holds up its own line alone, which keeps that entry and is tried again after a
//! while; those behind it stay where they are, and are read once more when it moves.
//!
//! The lines of one region are a lane: what is due of them goes out together, and what is due of others does not wait
//! for the answer. A lane whose region gives none fills up; then what is read for it stays where it is too.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::model::{Draft, EventId, StreamName};
use crate::store::{Placed, Placement, StoreError};

/// Entries of all lines, and bytes of their data, beyond which nothing more is read. Each lane has an equal share.
const MAX_ENTRIES: usize = 16_384;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Lines of one lane that are held, and bytes of their data. Others of the lane are forgotten until one moves.
const MAX_HELD: usize = 1024;
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// Entries that are sent at once.
const MAX_DUE: usize = 2048;

/// A region that has not answered for so long does not keep others from being read for.
const STUCK_AFTER: Duration = Duration::from_millis(500);

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Entries that wait to be placed.
pub struct Backlog {
    lines: HashMap<StreamName, Line>,
    lanes: Vec<Lane>,
    /// Something that was forgotten may have become possible: read from the beginning.
    read_again: bool,
}

#[derive(Default)]
struct Lane {
    entries: usize,
    bytes: usize,
    held: usize,
    held_bytes: usize,
    /// Since when its placements are under way.
    sent: Option<Instant>,
    /// Entries of streams without a line were forgotten.
    forgot: bool,
}

struct Line {
    lane: usize,
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
    /// Nothing is read yet; entries will be of so many lanes.
    pub fn new(lanes: usize) -> Self {
        let lanes = (0..lanes).map(|_| Lane::default()).collect();
        Backlog { lines: HashMap::new(), lanes, read_again: false }
    }

    /// Whether more may be read: no lane is full but those that are stuck.
    pub fn has_room(&self, now: Instant) -> bool {
        self.lanes.iter().all(|lane| !self.is_full(lane) || lane.is_stuck(now))
    }

    fn is_full(&self, lane: &Lane) -> bool {
        // Held lines have a bound of their own: they keep nobody from being read for.
        let (entries, bytes) = (lane.entries - lane.held, lane.bytes - lane.held_bytes);
        entries >= MAX_ENTRIES / self.lanes.len() || bytes >= MAX_BYTES / self.lanes.len()
    }

    /// Whether reading has to begin anew: what was read and not added yet is out of date.
    pub fn has_to_read_again(&self) -> bool {
        self.read_again
    }

    /// Reading begins anew.
    pub fn read_again(&mut self) {
        self.read_again = false;
        self.lanes.iter_mut().for_each(|lane| lane.forgot = false);
    }

    /// Lines that are held.
    pub fn held(&self) -> usize {
        self.lanes.iter().map(|lane| lane.held).sum()
    }

    /// Puts an entry behind those of its stream, in this lane if it is the first. One that is there already is left as
    /// it is.
    pub fn add(&mut self, id: EventId, stream: StreamName, draft: Draft, lane: usize) {
        let at = self.lines.get(&stream).map_or(lane, |line| line.lane);
        let full = self.is_full(&self.lanes[at]);
        let lane = &mut self.lanes[at];
        match self.lines.get_mut(&stream) {
            // What was forgotten comes before it.
            None if lane.forgot || full => lane.forgot = true,
            None => {
                lane.took(&draft);
                let waiting = VecDeque::from([Waiting { id, draft }]);
                self.lines.insert(stream, Line { lane: at, waiting, held: None, forgot: false });
            }
            Some(line) if line.waiting.back().is_some_and(|last| id <= last.id) => {}
            Some(line) if line.forgot || line.held.is_some() || full => line.forgot = true,
            Some(line) => {
                lane.took(&draft);
                line.waiting.push_back(Waiting { id, draft });
            }
        }
    }

    /// Entries to be sent now, those of each stream in order, by lanes of which nothing is under way.
    pub fn due(&self, now: Instant) -> Vec<(usize, Vec<Placement>)> {
        let mut due: Vec<Vec<Placement>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for (stream, line) in self.lines.iter().filter(|(_, line)| self.lanes[line.lane].sent.is_none()) {
            let count = match &line.held {
                None => line.waiting.len(),
                Some(held) if held.until <= now => 1,
                Some(_) => 0,
            };
            let due = &mut due[line.lane];
            let mut after = None;
            for Waiting { id, draft } in line.waiting.iter().take(count.min(MAX_DUE - due.len())) {
                due.push(Placement { id: *id, after, stream: stream.clone(), draft: draft.clone() });
                after = Some(*id);
            }
        }
        due.into_iter().enumerate().filter(|(_, due)| !due.is_empty()).collect()
    }

    /// What was due of a lane is under way.
    pub fn sent(&mut self, lane: usize, now: Instant) {
        self.lanes[lane].sent = Some(now);
    }

    /// When there may be more to do without news: a held line is tried again, or a lane has become stuck.
    pub fn next_look(&self) -> Option<Instant> {
        let lines = self.lines.values().filter(|line| self.lanes[line.lane].sent.is_none());
        let retries = lines.filter_map(|line| line.held.as_ref()).map(|held| held.until);
        let full = self.lanes.iter().filter(|lane| self.is_full(lane));
        retries.chain(full.filter_map(|lane| lane.sent).map(|sent| sent + STUCK_AFTER)).min()
    }

    /// Takes in what became of entries of a lane that were due.
    pub fn judge(
        &mut self,
        lane: usize,
        sent: &[Placement],
        answers: Vec<Result<Placed, StoreError>>,
        now: Instant,
    ) -> Verdict {
        self.lanes[lane].sent = None;
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
        let lane = &mut self.lanes[line.lane];
        // The region answers, so there may be room for what was forgotten.
        self.read_again |= lane.forgot;
        lane.let_go(line);
        if let Some(at) = line.waiting.iter().position(|waiting| waiting.id == id)
            && let Some(gone) = line.waiting.remove(at)
        {
            lane.gave(&gone.draft);
        }
        if line.waiting.is_empty() {
            self.read_again |= line.forgot;
            self.lines.remove(stream);
        }
    }

    /// Holds a line up if the entry that failed is its first: for any other, the first has just failed too or
    /// will be sent again. The line keeps that entry, or is forgotten if the lane has too many such.
    fn hold(&mut self, id: EventId, stream: &StreamName, now: Instant) {
        let Some(line) = self.lines.get_mut(stream) else { return };
        let Some(first) = line.waiting.front().filter(|first| first.id == id) else { return };
        let (lane, bytes) = (&mut self.lanes[line.lane], first.draft.data.len());
        if line.held.is_none() {
            if lane.held >= MAX_HELD || lane.held_bytes + bytes > MAX_HELD_BYTES.max(bytes) {
                line.waiting.iter().for_each(|waiting| lane.gave(&waiting.draft));
                lane.forgot = true;
                self.lines.remove(stream);
                return;
            }
            lane.held += 1;
            lane.held_bytes += bytes;
            for forgotten in line.waiting.drain(1..) {
                lane.gave(&forgotten.draft);
                line.forgot = true;
            }
        }
        let held =
            line.held.get_or_insert_with(|| Held { until: now, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) });
        held.until = now + held.backoff.next_wait();
    }
}

impl Lane {
    fn is_stuck(&self, now: Instant) -> bool {
        self.sent.is_some_and(|sent| now.saturating_duration_since(sent) >= STUCK_AFTER)
    }

    fn took(&mut self, draft: &Draft) {
        self.entries += 1;
        self.bytes += draft.data.len();
    }

    fn gave(&mut self, draft: &Draft) {
        self.entries -= 1;
        self.bytes -= draft.data.len();
    }

    /// A line of it is held no longer.
    fn let_go(&mut self, line: &mut Line) {
        if line.held.take().is_some() {
            self.held -= 1;
            self.held_bytes -= line.waiting.front().map_or(0, |first| first.draft.data.len());
        }
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

    /// Streams whose names begin with `far` are in lane 1.
    fn lane_of(name: &str) -> usize {
        usize::from(name.starts_with("topic:far"))
    }

    fn add(backlog: &mut Backlog, ms: u64, name: &str) {
        backlog.add(id(ms), stream(name), Draft::new(EventType::MESSAGE, "1"), lane_of(name));
    }

    fn all_due(backlog: &Backlog, now: Instant) -> Vec<Placement> {
        backlog.due(now).into_iter().flat_map(|(_, due)| due).collect()
    }

    fn due(backlog: &Backlog, now: Instant, name: &str) -> Vec<(u64, Option<u64>)> {
        let due = all_due(backlog, now).into_iter().filter(|placement| placement.stream == stream(name));
        due.map(|placement| (placement.id.ms, placement.after.map(|after| after.ms))).collect()
    }

    /// Sends what is due of each lane, and has it answered.
    fn place(
        backlog: &mut Backlog,
        now: Instant,
        answer: impl Fn(&Placement) -> Result<Placed, StoreError>,
    ) -> Verdict {
        let mut all = Verdict::default();
        for (lane, due) in backlog.due(now) {
            backlog.sent(lane, now);
            let verdict = backlog.judge(lane, &due, due.iter().map(&answer).collect(), now);
            all.done.extend(verdict.done);
            all.rejected.extend(verdict.rejected);
            all.held_up = all.held_up.or(verdict.held_up);
        }
        all
    }

    fn away() -> Result<Placed, StoreError> {
        Err(StoreError::Unavailable("away".to_owned()))
    }

    #[test]
    fn entries_of_a_stream_are_chained() {
        let mut backlog = Backlog::new(1);
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
    fn what_cannot_be_placed_holds_up_its_own_stream_alone_and_keeps_one_entry() {
        let (mut backlog, now) = (Backlog::new(1), Instant::now());
        for ms in 1..=4 {
            add(&mut backlog, ms, if ms % 2 == 1 { "topic:a" } else { "topic:b" });
        }
        let verdict = place(&mut backlog, now, |placement| match (placement.stream.as_str(), placement.after) {
            ("topic:a", None) => away(),
            ("topic:a", Some(_)) => Ok(Placed::NotInTurn),
            _ => Ok(Placed::Now),
        });
        assert_eq!(verdict.done, [(id(2), stream("topic:b")), (id(4), stream("topic:b"))]);
        assert!(verdict.held_up.is_some());
        assert_eq!((backlog.held(), backlog.lanes[0].entries), (1, 1));
        assert_eq!(due(&backlog, now, "topic:a"), []);
        // What comes behind it is not kept either.
        add(&mut backlog, 5, "topic:a");
        assert_eq!(backlog.lanes[0].entries, 1);
        let later = backlog.next_look().unwrap();
        assert_eq!(due(&backlog, later, "topic:a"), [(1, None)]);
        place(&mut backlog, later, |_| Ok(Placed::Now));
        // The rest is read once more, from the beginning.
        assert!(backlog.has_to_read_again());
        backlog.read_again();
        for ms in [3, 5] {
            add(&mut backlog, ms, "topic:a");
        }
        assert_eq!(due(&backlog, later, "topic:a"), [(3, None), (5, Some(3))]);
        assert!(!backlog.has_to_read_again() && backlog.held() == 0);
    }

    #[test]
    fn an_entry_behind_a_rejected_one_is_sent_again_on_its_own() {
        let (mut backlog, now) = (Backlog::new(1), Instant::now());
        add(&mut backlog, 1, "topic:a");
        add(&mut backlog, 2, "topic:a");
        let verdict = place(&mut backlog, now, |placement| match placement.after {
            None => Err(StoreError::KeyReused),
            Some(_) => Ok(Placed::NotInTurn),
        });
        assert_eq!(verdict.rejected.len(), 1);
        assert_eq!(due(&backlog, now, "topic:a"), [(2, None)]);
    }

    #[test]
    fn nothing_more_is_read_while_too_much_waits() {
        let (mut backlog, now) = (Backlog::new(1), Instant::now());
        let mut ms = 0;
        while backlog.has_room(now) {
            ms += 1;
            add(&mut backlog, ms, &format!("topic:{ms}"));
        }
        assert_eq!(ms as usize, MAX_ENTRIES);
        assert_eq!(all_due(&backlog, now).len(), MAX_DUE);
        place(&mut backlog, now, |_| Ok(Placed::Now));
        assert!(backlog.has_room(now));
    }

    #[test]
    fn a_region_that_gives_no_answer_fills_its_own_lane_and_the_others_go_on() {
        let (mut backlog, now) = (Backlog::new(2), Instant::now());
        let mut ms = 0;
        while backlog.has_room(now) {
            ms += 1;
            add(&mut backlog, ms, &format!("topic:far-{ms}"));
        }
        let (lane, far) = backlog.due(now).remove(0);
        assert_eq!(lane, 1);
        backlog.sent(lane, now);
        assert!(!backlog.has_room(now), "it may answer in a moment");
        let later = backlog.next_look().unwrap();
        assert!(backlog.has_room(later));
        add(&mut backlog, 100_001, "topic:far-1");
        add(&mut backlog, 100_002, "topic:far-new");
        add(&mut backlog, 100_003, "topic:near");
        let (_, near) = backlog.due(later).remove(0);
        assert_eq!(near.iter().map(|placement| placement.id.ms).collect::<Vec<_>>(), [100_003]);
        // It answers: what it has no room for any more is forgotten, and nothing is placed out of order.
        backlog.judge(lane, &far, far.iter().map(|_| away()).collect(), later);
        assert_eq!(backlog.held(), MAX_HELD);
        let back = later + LONGEST_WAIT * 2;
        for _ in 0..10 {
            let verdict = place(&mut backlog, back, |_| Ok(Placed::Now));
            assert!(verdict.done.iter().all(|(id, _)| id.ms <= ms || id.ms == 100_003), "{:?}", verdict.done);
        }
        assert!(backlog.has_to_read_again());
        assert_eq!((backlog.lines.len(), backlog.lanes[1].entries, backlog.lanes[1].bytes), (0, 0, 0));
    }

    #[test]
    fn held_lines_of_a_region_keep_only_so_many_bytes() {
        let (mut backlog, now) = (Backlog::new(2), Instant::now());
        for n in 0..100 {
            let name = format!("topic:far-{n}");
            backlog.add(id(n), stream(&name), Draft::new(EventType::MESSAGE, "1".repeat(60_000)), 1);
        }
        place(&mut backlog, now, |_| away());
        assert!(backlog.lanes[1].bytes <= MAX_HELD_BYTES && backlog.held() < 100, "{}", backlog.held());
        place(&mut backlog, now + LONGEST_WAIT * 2, |_| Ok(Placed::Now));
        assert!(backlog.has_to_read_again());
    }
}
