//! What really happened in the store, and what a client may get of it: the model that the code is
//! held against. It has no `prev`, rings or pages.
//!
//! History is a tree. A birth begins one, each event stands after the one that the store had last, and a
//! failover goes back to an older point, from which the next event grows another branch. Where a node
//! found a lost tail and the stream was raised, a [`Kind::Mark`] stands between two events.
//!
//! What can't be promised, and is let pass here:
//! - A tail that only dead or detached nodes had dispatched: no node has it. Likewise when
//!   the log was trimmed beyond it before a node could report it, as a lost head and one that
//!   was merely trimmed look alike then.
//! - Two failovers before any node reports the first: the store keeps one mark for both tails, and who was
//!   notified of the older one passes it.
//! - A client that is notified of its loss before a node reported the tail is notified again at the mark: a
//!   position, all that a cursor is, does not show which notices its owner got. The same goes for a client that
//!   connects anew between the notice and the mark, and for one that begins there: what it did not see
//!   before it came is missing for all that is known.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::Delivery;
use crate::model::{Event, EventId, Fork, Gap, Page};

#[derive(Debug, Clone)]
enum Kind {
    Birth,
    Event(Box<Event>),
    /// Raised for a tail that left this branch after `shared`, as far as the store could know then, and not
    /// after `latest`, with what was reported since.
    Mark {
        shared: EventId,
        latest: EventId,
    },
}

#[derive(Debug)]
struct Point {
    parent: Option<EventId>,
    kind: Kind,
}

/// Where one copy of the store stands; a replica has its own.
#[derive(Debug, Clone, Default)]
pub struct Branch {
    pub tip: Option<EventId>,
    kept: VecDeque<EventId>,
    /// What was shown of a tail that a node found lost: no new id may fall below.
    shown: EventId,
    until: u64,
}

/// Everything that any copy of the store ever held.
#[derive(Debug, Default)]
pub struct History {
    points: HashMap<EventId, Point>,
    /// Points that a failover, a flush or an expired position took from the store.
    lost: HashSet<EventId>,
    /// Events that retention took.
    trimmed: HashSet<EventId>,
    /// For each id that a reader may go on at after a gap, the marks that the pages knew of which said so.
    marks: HashMap<EventId, HashSet<Option<EventId>>>,
    pub branch: Branch,
    /// Whether anything at all happened that may be reported as a gap.
    pub eventful: bool,
    /// The latest time that a store showed.
    latest: u64,
}

impl History {
    pub fn has(&self, id: EventId) -> bool {
        self.points.contains_key(&id)
    }

    pub fn epoch(&mut self, id: EventId) {
        // A position that expired, or a flush: nothing of what was leads here.
        self.abandon(None);
        self.grow(id, Kind::Birth, None);
    }

    pub fn published(&mut self, event: &Event, keep: usize, until: u64) {
        assert_eq!(Some(event.prev), self.branch.tip, "prev is the event before");
        self.grow(event.id, Kind::Event(Box::new(event.clone())), self.branch.tip);
        self.branch.kept.push_back(event.id);
        self.branch.until = until;
        while self.branch.kept.len() > keep {
            self.trimmed.extend(self.branch.kept.pop_front());
            self.eventful = true;
        }
    }

    /// A node found that `head`, which it had shown, is lost.
    pub fn found_lost(&mut self, head: EventId) {
        self.branch.shown = self.branch.shown.max(head);
    }

    /// The stream was raised for a node that had shown `head`.
    pub fn raised(&mut self, mark: EventId, head: EventId, ancestor: EventId) {
        assert!(!self.on_branch(head), "raised to {mark} for {head}, which nobody lost");
        self.grow(mark, Kind::Mark { shared: ancestor, latest: ancestor }, self.branch.tip);
    }

    /// The fork that the store has on record after a node reported `head`. Its ancestor is where histories
    /// part or, when a node can't name an event that both share, later: never before, or readers would be
    /// given events again. A client that went on before it is notified again at the mark.
    pub fn recorded(&mut self, fork: Fork, head: EventId) {
        if !self.on_branch(head) && head <= fork.head {
            let shared = self.path(head).into_iter().find(|id| self.on_branch(*id));
            let after = shared.is_none_or(|shared| self.is_at_or_before(shared, fork.ancestor));
            assert!(after, "{head} left this history at {shared:?}, not at {}", fork.ancestor);
        }
        if let Some(Point { kind: Kind::Mark { latest, .. }, .. }) = self.points.get_mut(&fork.mark) {
            *latest = fork.ancestor;
        }
    }

    /// The store answered with this page.
    pub fn answered(&mut self, page: &Page) {
        for id in page.events.iter().map(|event| event.id).chain([page.last]) {
            self.marks.entry(id).or_default().insert(page.fork.map(|fork| fork.mark));
        }
    }

    fn grow(&mut self, id: EventId, kind: Kind, parent: Option<EventId>) {
        if let Some(tip) = self.branch.tip {
            let shown = self.branch.shown.max(tip);
            assert!(id > shown, "{id} falls below {shown}");
        }
        assert!(self.points.insert(id, Point { parent, kind }).is_none(), "{id} is given twice");
        self.branch.tip = Some(id);
    }

    /// All events were erased on purpose.
    pub fn erased(&mut self) {
        self.trimmed.extend(self.branch.kept.drain(..));
        self.eventful = true;
    }

    pub fn expire(&mut self, now: u64) {
        self.latest = self.latest.max(now);
        if self.branch.until <= now && !self.branch.kept.is_empty() {
            self.trimmed.extend(self.branch.kept.drain(..));
            self.eventful = true;
        }
    }

    pub fn oldest_kept(&self) -> Option<EventId> {
        self.branch.kept.front().copied()
    }

    /// The store is now another copy, or an empty one. Gives what is lost, newest first.
    pub fn replaced(&mut self, branch: Branch) -> Vec<EventId> {
        let lost = self.abandon(branch.tip);
        self.branch = branch;
        lost
    }

    fn abandon(&mut self, tip: Option<EventId>) -> Vec<EventId> {
        let stays: HashSet<_> = tip.map(|tip| self.path(tip).into_iter().collect()).unwrap_or_default();
        let old = self.branch.tip.map(|tip| self.path(tip)).unwrap_or_default();
        let lost: Vec<_> = old.into_iter().filter(|id| !stays.contains(id)).collect();
        self.eventful |= !lost.is_empty();
        self.lost.extend(&lost);
        self.branch = Branch::default();
        lost
    }

    pub fn on_branch(&self, id: EventId) -> bool {
        self.branch.tip.is_some_and(|tip| self.is_at_or_before(id, tip))
    }

    /// The point and all before it, newest first.
    pub fn path(&self, id: EventId) -> Vec<EventId> {
        std::iter::successors(Some(id), |id| self.points[id].parent).collect()
    }

    pub fn is_at_or_before(&self, a: EventId, b: EventId) -> bool {
        self.path(b).contains(&a)
    }

    /// Whether a lost tail left the branch between these two, for which it was raised later.
    fn parts_at(&self, ancestor: EventId, next: EventId) -> bool {
        let of = |(mark, point): (&EventId, &Point)| match point.kind {
            Kind::Mark { shared, latest } => {
                (shared == ancestor || latest == ancestor) && self.is_at_or_before(next, *mark)
            }
            _ => false,
        };
        self.points[&next].parent == Some(ancestor) && self.points.iter().any(of)
    }

    pub fn event(&self, id: EventId) -> &Event {
        match self.points.get(&id).map(|point| &point.kind) {
            Some(Kind::Event(event)) => event,
            _ => panic!("{id} was never published"),
        }
    }

    /// Whether an event need not be delivered: it has expired by the latest time that any store ever showed, or
    /// a newer event of its collapse key came after it.
    fn may_be_passed(&self, id: EventId) -> bool {
        let event = self.event(id);
        let supersedes = |(newer, point): (&EventId, &Point)| match &point.kind {
            Kind::Event(other) => other.collapse == event.collapse && *newer != id && self.is_at_or_before(id, *newer),
            _ => false,
        };
        event.is_expired(self.latest) || event.collapse.is_some() && self.points.iter().any(supersedes)
    }

    pub fn is_event(&self, id: EventId) -> bool {
        matches!(self.points[&id].kind, Kind::Event(_))
    }
}

/// One client: what it was given, checked delivery by delivery.
#[derive(Debug)]
pub struct Client {
    /// Where this connection began.
    start: EventId,
    /// Its place in the history.
    pub at: EventId,
    seen: HashSet<EventId>,
    gap: Option<Gap>,
    /// Where it went on after the gaps of this connection.
    landings: Vec<EventId>,
    /// Dispatchers that had dispatched what this client would have got next when the store lost it. As
    /// long as one of them lives, the client has to get a gap.
    pub owed_by: Vec<u64>,
    /// Cursors it had, for resuming with an old one.
    pub trail: Vec<EventId>,
}

impl Client {
    pub fn new(start: EventId) -> Self {
        Client {
            start,
            at: start,
            seen: HashSet::new(),
            gap: None,
            landings: Vec::new(),
            owed_by: Vec::new(),
            trail: vec![start],
        }
    }

    /// It connects anew, knowing only this cursor.
    pub fn resume(&mut self, cursor: EventId) {
        let (owed_by, trail) = (std::mem::take(&mut self.owed_by), std::mem::take(&mut self.trail));
        *self = Client { owed_by, trail, ..Client::new(cursor) };
    }

    /// Promise 1, for one delivery.
    pub fn take(&mut self, delivery: &Delivery, history: &History) {
        match delivery {
            Delivery::Gap(gap) => {
                assert!(history.eventful, "a false alarm: {gap:?}, and nothing was ever lost");
                // The event that ended a gap may be trimmed before it is handed over to a slow client:
                // then another gap begins right before it.
                let before_next = self.gap.as_ref().and_then(|before| history.points[&before.next].parent);
                let begins = gap.after == self.at || Some(gap.after) == before_next || self.has_passed(gap, history);
                assert!(begins, "the client is at {}: {gap:?}", self.at);
                self.gap = Some(gap.clone());
                return;
            }
            Delivery::Event(event) => {
                assert_eq!(history.event(event.id), &**event, "one id, one event");
                assert!(self.seen.insert(event.id), "{} is delivered twice", event.id);
                assert!(!history.is_at_or_before(event.id, self.start), "{} lies before the cursor", event.id);
                self.step(event.id, true, history);
            }
            Delivery::Passed(id) => {
                assert!(history.may_be_passed(*id), "{id} is kept from a client for no reason");
                assert!(!self.seen.contains(id), "{id} was delivered before");
                self.step(*id, true, history);
            }
            Delivery::Position(id) => self.step(*id, false, history),
            Delivery::Ephemeral(_) => panic!("none was published"),
        }
        self.trail.push(self.at);
    }

    /// Goes on at `to`. What it passes over has to be a loss, and reported.
    fn step(&mut self, to: EventId, delivered: bool, history: &History) {
        let path = history.path(to);
        let between: Vec<_> =
            path.iter().skip(usize::from(delivered)).take_while(|id| **id != self.at).copied().collect();
        let connected = path.contains(&self.at);
        match self.gap.take() {
            None => {
                assert!(connected, "{} does not follow {}, and there was no gap", to, self.at);
                for id in between {
                    assert!(self.was_told_of(id, history), "{id} is missing between {} and {to}", self.at);
                }
            }
            Some(gap) if self.has_passed(&gap, history) => {
                let unaware = |id: &EventId| match history.points[id].kind {
                    Kind::Mark { shared, latest } => {
                        (shared == gap.after || latest == gap.after) && !self.was_surely_told_of(*id, history)
                    }
                    _ => false,
                };
                assert!(
                    connected && path.iter().take_while(|id| **id != self.at).any(unaware),
                    "a false alarm: {gap:?}"
                );
                self.landings.push(gap.next);
                self.owed_by.clear();
            }
            Some(gap) => {
                // A slow client may miss that its position moved to the end of the gap, if an event came
                // after it meanwhile.
                let skipped = delivered && path.get(1) == Some(&gap.next);
                assert!(gap.next == to || skipped, "the client goes on at {to}: {gap:?}");
                let missing = |id: &EventId| match history.points[id].kind {
                    Kind::Event(_) => history.trimmed.contains(id) || history.lost.contains(id),
                    Kind::Mark { .. } => !self.was_surely_told_of(*id, history),
                    Kind::Birth => true,
                };
                let lost = |id| history.lost.contains(&id);
                let due = if connected {
                    between.iter().any(missing) || history.parts_at(self.at, to)
                } else {
                    lost(self.at) || lost(to)
                };
                assert!(due, "a false alarm: {gap:?}");
                self.landings.push(gap.next);
                self.owed_by.clear();
            }
        }
        self.at = to;
    }

    /// Whether the notice is of a loss whose place this client has passed: it was found afterwards.
    fn has_passed(&self, gap: &Gap, history: &History) -> bool {
        gap.after != self.at
            && history.points[&gap.next].parent == Some(gap.after)
            && history.is_at_or_before(gap.next, self.at)
    }

    /// Whether `id` is the mark of a loss for which this connection got a gap: it went on, after a notice,
    /// somewhere between where the lost tail left this branch and the mark.
    fn was_told_of(&self, id: EventId, history: &History) -> bool {
        let Kind::Mark { shared, .. } = history.points[&id].kind else { return false };
        self.landings.iter().any(|landing| was_told_at(*landing, id, shared, history))
    }

    /// The same, and the notice has to have known it: it came out of a page that named the mark. A node may
    /// find the lost tail later, or two forks follow each other and the store keeps the newer one only;
    /// then the client gets it twice.
    fn was_surely_told_of(&self, id: EventId, history: &History) -> bool {
        let Kind::Mark { latest, .. } = history.points[&id].kind else { return false };
        self.landings.iter().any(|landing| {
            was_told_at(*landing, id, latest, history) && history.marks[landing].iter().all(|mark| *mark == Some(id))
        })
    }
}

/// Whether a client that went on at `landing` after a notice is on the far side of a tail that left the
/// branch after `shared`, and for which the stream was raised to `mark`.
fn was_told_at(landing: EventId, mark: EventId, shared: EventId, history: &History) -> bool {
    shared != landing && history.is_at_or_before(shared, landing) && history.is_at_or_before(landing, mark)
}
