//! The live end of one stream on one node, as a value: messages and answers in, deliveries out.
//!
//! Pub/sub delivers at most once, so a message alone proves nothing about the one before it; the chain does.
//! Whatever continues the chain is dispatched at once. What comes early waits in one queue, and what the chain
//! can't connect is asked of the store:
//!
//! - at most one *question* is out, and its sender calls [`Merge::question`] just before sending it, so
//!   that it begins at the newest head;
//! - at most one *wait* runs: a few milliseconds for a hole to close, longer for what the store has trimmed.
//!
//! An answer is judged at the head that it was asked with. What of it lies above the present head is merged with
//! the queue. A gap is delivered only where neither of them connects, and the wait for the channel is over.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::budget::Budget;
use super::chain::{Chain, Delivery, Outgoing};
use super::early::Early;
use super::ring::Ring;
use crate::model::{Event, EventId, Page};

/// How long a hole in the chain may be open before the store is asked. Messages that overtake each other
/// are a network's jitter apart; a read costs the store more than this wait costs the client.
const HOLE_WAIT: Duration = Duration::from_millis(5);

/// How long the channel has to bring what the store no longer keeps. Events that are under way come in time
/// on a busy machine too; where they are lost, subscribers learn of it that much later.
const TRIMMED_WAIT: Duration = Duration::from_millis(100);

/// Ids named to the store to find the newest event that a forked history still shares with ours. A
/// failover loses a second or so of writes; what lies further back is reported as a gap without an ancestor.
const FORK_SEARCH: usize = 512;

/// What the store is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Where the stream stands now, and the route: it is followed from here on. [`Merge::attached`] begins there.
    Attach,
    /// The route, and what is newer than the head.
    Sync {
        /// The newest event that was dispatched.
        head: EventId,
    },
    /// What became of the history that was seen up to the head.
    Recover {
        /// The newest event that was dispatched.
        head: EventId,
        /// With which id the stream began, as far as is known here.
        epoch: EventId,
        /// Events up to the head that are remembered, to find where the histories part.
        seen: Vec<EventId>,
    },
}

/// How soon a question should be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It is the stream's turn, or nobody is known to miss anything.
    Routine,
    /// A client waits for what the answer brings.
    Urgent,
}

/// Where a connection at some position stands to the live end.
#[derive(Debug, PartialEq, Eq)]
pub enum Join {
    /// These deliveries, perhaps none, and then it is at the head.
    Deliveries(Vec<Delivery>),
    /// It has to read pages first.
    Behind,
    /// It has seen more than this node: sync, then look again.
    Ahead,
}

/// The live end of a stream: its head, the ring, and what is missing.
#[derive(Debug)]
pub struct Merge {
    chain: Chain,
    epoch: EventId,
    ring: Ring,
    early: Early,
    /// How many questions have been asked.
    questions: u32,
    asked: Option<Asked>,
    /// A sync is wanted.
    wanted: Option<Urgency>,
    /// An answer did not continue what was dispatched here: a recovery is wanted.
    broken: bool,
    wait: Option<Box<Wait>>,
}

/// A question that is out.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The head it was asked with.
    head: EventId,
    /// How soon it is to be asked again if nobody answers.
    urgency: Urgency,
    recovers: bool,
}

/// A wait for the channel.
#[derive(Debug)]
struct Wait {
    kind: WaitKind,
    /// The head when it began.
    head: EventId,
    until: Instant,
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitKind {
    /// For what lies between the head and an early event.
    Hole,
    /// For what the store no longer keeps. `last` was its newest id then.
    Trimmed { last: EventId },
}

/// What an answer means at the present head.
#[allow(clippy::large_enum_variant, reason = "it is matched at once and kept nowhere")]
enum Verdict<'a> {
    /// Reading goes on with this.
    Reads(Cow<'a, Page>),
    /// It brings nothing new.
    Known,
    /// What comes next is no longer kept: the channel may still bring it.
    Gone { last: EventId },
    /// The histories differ.
    Broken,
}

impl Merge {
    /// The live end of a stream that was just attached: everything up to `page.last` is history. `early` came
    /// while the answer was under way.
    pub fn attached(page: &Page, mut early: Early, ring: Arc<Budget>, now: Instant) -> Self {
        early.forget_up_to(page.last);
        let mut merge = Merge {
            chain: Chain::at(page.last),
            epoch: page.epoch,
            ring: Ring::new(ring),
            early,
            questions: 0,
            asked: None,
            wanted: None,
            broken: false,
            wait: None,
        };
        // Nobody follows yet, so what was early goes to the ring alone.
        merge.go_on(now, &mut Vec::new());
        merge
    }

    /// The id of the newest event dispatched.
    pub fn head(&self) -> EventId {
        self.chain.position()
    }

    /// Whether a question is out.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether the head may soon be elsewhere: an answer is awaited or wanted, or what was trimmed.
    pub fn is_catching_up(&self) -> bool {
        let trimmed = |wait: &Wait| wait.kind != WaitKind::Hole;
        self.is_asked() || self.wants().is_some() || self.wait.as_deref().is_some_and(trimmed)
    }

    /// Whether events between the head and an early one are waited for.
    pub fn has_hole(&self) -> bool {
        self.wait.as_deref().is_some_and(|wait| wait.kind == WaitKind::Hole)
    }

    /// Whether nothing is missing, wanted or awaited.
    #[cfg(test)]
    pub fn is_settled(&self) -> bool {
        self.asked.is_none() && self.wants().is_none() && self.wait.is_none() && self.early.is_empty()
    }

    /// Gives up the ring's memory: nobody is likely to need it soon.
    pub fn forget_ring(&mut self) {
        self.ring.clear();
    }

    /// Whether the ring holds anything.
    pub fn has_ring(&self) -> bool {
        !self.ring.is_empty()
    }

    /// A message came in over the channel.
    pub fn message(&mut self, event: Arc<Event>, now: Instant, out: &mut Vec<Outgoing>) {
        if self.chain.continues_with(event.prev) {
            self.dispatch(event, out);
            if !self.early.is_empty() || self.wait.is_some() {
                self.go_on(now, out);
            }
        } else if event.id != self.head() && !self.ring.contains(event.id, event.prev) {
            if !self.early.push(event, self.questions) {
                self.want_sync(Urgency::Urgent);
            }
            self.assess(now);
        }
    }

    /// A sync is due. While a question is out, another follows it.
    pub fn want_sync(&mut self, urgency: Urgency) {
        self.wanted = self.wanted.max(Some(urgency));
    }

    /// How soon [`Merge::question`] should be called, if at all.
    pub fn wants(&self) -> Option<Urgency> {
        if self.asked.is_some() {
            return None;
        }
        let wait_is_over = self.wait.as_deref().is_some_and(|wait| wait.over);
        self.wanted.max((self.broken || wait_is_over).then_some(Urgency::Urgent))
    }

    /// When [`Merge::tick`] should be called.
    pub fn deadline(&self) -> Option<Instant> {
        let wait = self.wait.as_deref().filter(|wait| !wait.over && self.asked.is_none())?;
        Some(wait.until)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.assess(now);
    }

    /// The question to send right now; [`Merge::answered`] or [`Merge::failed`] has to follow.
    pub fn question(&mut self) -> Option<Question> {
        let urgency = self.wants()?;
        let head = self.head();
        let nothing_came = |wait: Box<Wait>| wait.kind != WaitKind::Hole && wait.head == head;
        let recovers =
            std::mem::take(&mut self.broken) || self.wait.take_if(|wait| wait.over).is_some_and(nothing_came);
        self.questions += 1;
        self.asked = Some(Asked { head, urgency, recovers });
        if recovers {
            return Some(Question::Recover { head, epoch: self.epoch, seen: self.ring.newest(FORK_SEARCH) });
        }
        self.wanted = None;
        Some(Question::Sync { head })
    }

    /// The store answered.
    pub fn answered(&mut self, page: &Page, now: Instant, out: &mut Vec<Outgoing>) {
        let Some(asked) = self.asked.take() else { return };
        if let Some(erased) = page.erased {
            self.ring.forget_up_to(erased);
        }
        match self.judge(asked, page) {
            Verdict::Reads(page) => self.read(&page, out),
            Verdict::Known => self.early.explained_by(page, self.questions),
            Verdict::Gone { last } => self.await_trimmed(last, now),
            Verdict::Broken => self.broken = true,
        }
        self.go_on(now, out);
    }

    /// The store gave no answer: the question is wanted again.
    pub fn failed(&mut self, now: Instant) {
        let Some(asked) = self.asked.take() else { return };
        // In place of a recovery too: by now the history may be another.
        self.want_sync(asked.urgency);
        self.assess(now);
    }

    /// Where a connection at `position` stands.
    pub fn join(&self, position: EventId) -> Join {
        if self.chain.is_before_notified_break() {
            // Present subscribers got the gap; a page brings it to later ones.
            Join::Behind
        } else if position == self.head() {
            Join::Deliveries(Vec::new())
        } else if let Some(events) = self.ring.after(position) {
            Join::Deliveries(newest_of_each_key(events))
        } else if position > self.head() {
            Join::Ahead
        } else {
            Join::Behind
        }
    }

    fn dispatch(&mut self, event: Arc<Event>, out: &mut Vec<Outgoing>) {
        out.push(self.chain.event(&event));
        self.ring.push(event);
    }

    /// Dispatches what is early no longer, and looks at what remains.
    fn go_on(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        while let Some(event) = self.early.take_next(&self.chain) {
            self.dispatch(event, out);
        }
        self.assess(now);
    }

    /// Decides what to wait for, and what to ask for.
    fn assess(&mut self, now: Instant) {
        let head = self.head();
        self.wait.take_if(|wait| match wait.kind {
            // Another hole, if there is one, has a wait of its own.
            WaitKind::Hole => wait.head != head || self.early.is_empty(),
            WaitKind::Trimmed { last } => head >= last,
        });
        if self.asked.is_some() {
            return;
        }
        if let Some(wait) = &mut self.wait {
            wait.over |= wait.until <= now;
            return;
        }
        let Some(prev) = self.early.first_prev().filter(|_| !self.broken) else { return };
        if prev < head {
            // A duplicate too old for the ring, or a history that is not ours.
            self.want_sync(Urgency::Urgent);
        } else if self.wants() < Some(Urgency::Urgent) {
            self.begin_wait(WaitKind::Hole, now + HOLE_WAIT);
        }
    }

    fn begin_wait(&mut self, kind: WaitKind, until: Instant) {
        self.wait = Some(Box::new(Wait { kind, head: self.head(), until, over: false }));
    }

    fn judge<'a>(&self, asked: Asked, page: &'a Page) -> Verdict<'a> {
        let moved = asked.head != self.head();
        if asked.recovers && !moved {
            return Verdict::Reads(self.with_what_leads_to(page));
        }
        // Also when the store has a fork there: whether it is the one that took our history, and
        // whether it has a mark for readers that missed what we have shown, only a report finds out.
        if page.from != asked.head || page.events.iter().any(|event| self.ring.contradicts(event)) {
            return Verdict::Broken;
        }
        // What an answer has below the present head was dispatched meanwhile.
        let page = if moved { Cow::Owned(page.after(self.head())) } else { Cow::Borrowed(page) };
        if moved && page.events.is_empty() && !page.more && page.last <= self.head() {
            Verdict::Known
        } else if self.chain.is_gone_in(&page) {
            Verdict::Gone { last: page.last }
        } else if self.chain.is_broken_by(&page) {
            Verdict::Broken
        } else {
            Verdict::Reads(page)
        }
    }

    /// The page, and before it what waits here and leads up to it: the store may have trimmed that meanwhile.
    fn with_what_leads_to<'a>(&self, page: &'a Page) -> Cow<'a, Page> {
        let prev = page.events.first().map_or(page.last, |event| event.prev);
        let mut events = self.early.leading_to(prev, page.from);
        if events.is_empty() {
            return Cow::Borrowed(page);
        }
        events.extend(page.events.iter().cloned());
        Cow::Owned(Page { events, ..page.clone() })
    }

    fn read(&mut self, page: &Page, out: &mut Vec<Outgoing>) {
        self.wait = None;
        self.epoch = page.epoch;
        for next in self.chain.read(page) {
            match &next.delivery {
                Delivery::Event(event) => self.ring.push(event.clone()),
                // Nobody may join before it without the gap.
                Delivery::Gap(_) | Delivery::Position(_) => self.ring.clear(),
                Delivery::Passed(_) | Delivery::Ephemeral(_) => {}
            }
            out.push(next);
        }
        if page.more {
            self.want_sync(Urgency::Urgent);
        } else {
            self.early.explained_by(page, self.questions);
        }
    }

    /// The store no longer keeps what comes next. A burst that is longer than the stream's log does that to
    /// a reader in the midst of it, and its events are on their way over the channel: nothing is missed if
    /// they arrive. As long as some do, the others are waited for.
    fn await_trimmed(&mut self, last: EventId, now: Instant) {
        let head = self.head();
        match &mut self.wait {
            Some(wait) if wait.kind != WaitKind::Hole && wait.head == head => wait.kind = WaitKind::Trimmed { last },
            _ => self.begin_wait(WaitKind::Trimmed { last }, now + TRIMMED_WAIT),
        }
    }
}

/// What a client that catches up gets of these: of events with the same collapse key the newest only.
fn newest_of_each_key<'a>(events: impl DoubleEndedIterator<Item = &'a Arc<Event>>) -> Vec<Delivery> {
    let mut seen = HashSet::new();
    let delivery = |event: &Arc<Event>| match &event.collapse {
        Some(key) if !seen.insert(key.clone()) => Delivery::Passed(event.id),
        _ => Delivery::Event(event.clone()),
    };
    let mut deliveries: Vec<_> = events.rev().map(delivery).collect();
    deliveries.reverse();
    deliveries
}

#[cfg(test)]
#[path = "merge_tests/mod.rs"]
mod tests;
