//! The live end of one stream on one node, as a value: messages and answers in, deliveries out.
//!
//! Pub/sub delivers at most once, so a message alone proves nothing about the one before it; the chain
//! does. What the chain can't connect is asked of the store. While an answer is awaited, messages queue
//! (bounded); the answer is judged against the head it was asked with, then the queue is gone through.
//!
//! ```text
//!            next event                     hole: wait a few ms
//!   Following ----------> Following          Following ---> Hole ---> Syncing
//!   Following --sync due / anything odd-->   Syncing --connects--> Following
//!   Syncing --does not connect--> Recovering --> Following
//!   Syncing --trimmed: wait for the channel--> Following, or Recovering if nothing came
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::chain::{Chain, Delivery, Step};
use super::ring::{Ring, RingBudget};
use crate::model::{Event, EventId, Page};

/// Most messages that wait while an answer is awaited. Beyond that they are dropped and read again from
/// the store, which has them all: a bound on memory, not on what is delivered.
const MAX_EARLY: usize = 1024;

/// Ids named to the store to find the newest event that a forked history still shares with ours. A
/// failover loses a second or so of writes; what lies further back is told as a gap without an ancestor.
const FORK_SEARCH: usize = 512;

/// What the state machine wants to be done next. Of what asks the store, at most one is under way at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Call [`Live::hole_is_old`] in a few milliseconds with this `head`.
    Wait { head: EventId },
    /// Call it in a tenth of a second: it is not known that anything is missing, and the channel may be late.
    WaitTrimmed { head: EventId },
    /// Sync after `head`, then call [`Live::answered`] or [`Live::failed`].
    Sync { head: EventId },
    /// Ask the store what became of the history, then call [`Live::answered`] or [`Live::failed`].
    Recover { head: EventId, epoch: EventId, seen: Vec<EventId> },
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Following,
    /// Events between the head and the oldest queued message are on their way, or lost.
    Hole,
    Syncing,
    Recovering,
}

/// The live end of a stream: head, ring and what is being asked of the store.
#[derive(Debug)]
pub struct Live {
    chain: Chain,
    epoch: EventId,
    ring: Ring,
    state: State,
    early: VecDeque<Arc<Event>>,
    /// A sync that was wanted while another answer was awaited, or messages were dropped meanwhile.
    sync_again: bool,
    trimmed: Option<Trimmed>,
}

/// What the store has trimmed, and may be on its way over the channel still.
#[derive(Debug)]
struct Trimmed {
    /// The head then.
    after: EventId,
    /// It was waited for; an answer of the store was awaited when that was over.
    waited: bool,
}

impl Live {
    /// The live end of a stream that was just attached: everything up to `page.last` is history.
    pub fn attached(page: &Page, budget: Arc<RingBudget>) -> Self {
        Live {
            chain: Chain::at(page.last),
            epoch: page.epoch,
            ring: Ring::new(budget),
            state: State::Following,
            early: VecDeque::new(),
            sync_again: false,
            trimmed: None,
        }
    }

    /// The id of the newest event dispatched.
    pub fn head(&self) -> EventId {
        self.chain.position()
    }

    /// Whether an answer of the store is awaited, or what an answer said is trimmed.
    pub fn is_asking(&self) -> bool {
        self.awaits_answer() || self.trimmed.is_some()
    }

    /// Whether nothing is awaited: no answer, no message.
    #[cfg(test)]
    pub fn is_settled(&self) -> bool {
        self.state == State::Following && self.early.is_empty() && !self.sync_again && self.trimmed.is_none()
    }

    /// Gives up the ring's memory: nobody is likely to need it soon.
    pub fn forget_ring(&mut self) {
        self.ring.clear();
    }

    /// A message came in over the channel.
    pub fn message(&mut self, event: Arc<Event>, out: &mut Vec<Step>) -> Option<Ask> {
        match self.state {
            State::Following => self.judge(event, out),
            State::Hole => {
                self.queue(event);
                self.drain(out)
            }
            State::Syncing | State::Recovering => {
                self.queue(event);
                None
            }
        }
    }

    /// A sync is due: an interval is over, or the channel was interrupted. `None` when one is awaited
    /// already; another will follow it.
    pub fn sync(&mut self) -> Option<Ask> {
        if self.awaits_answer() {
            self.sync_again = true;
            return None;
        }
        Some(self.ask_sync())
    }

    /// The time of [`Ask::Wait`] or [`Ask::WaitTrimmed`] is over. Another hole, that opened meanwhile behind a newer head,
    /// has a wait of its own.
    pub fn hole_is_old(&mut self, head: EventId) -> Option<Ask> {
        let trimmed = self.trimmed.take_if(|trimmed| trimmed.after == head).is_some();
        let nothing_came = self.head() == head;
        if self.awaits_answer() {
            if trimmed && nothing_came {
                self.trimmed = Some(Trimmed { after: head, waited: true });
            }
            None
        } else if trimmed && nothing_came {
            Some(self.ask_recover())
        } else if (nothing_came && self.state == State::Hole) || (trimmed && self.sync_again) {
            Some(self.ask_sync())
        } else {
            None
        }
    }

    /// The store answered.
    pub fn answered(&mut self, page: &Page, out: &mut Vec<Step>) -> Option<Ask> {
        let asked = self.chain.position();
        if self.state == State::Syncing && self.chain.is_trimmed_in(page) {
            return self.await_trimmed(page, out);
        }
        // Also when the store knows of a fork there: whether it is the one that took our history, and
        // whether it has a mark for those who missed what we have shown, only a report finds out.
        if self.state == State::Syncing && (page.from != asked || self.chain.is_broken_by(page)) {
            return Some(self.ask_recover());
        }
        self.trimmed = None;
        self.epoch = page.epoch;
        if let Some(erased) = page.erased {
            self.ring.forget_up_to(erased);
        }
        for step in self.chain.read(page) {
            match &step.delivery {
                Delivery::Event(event) => self.ring.push(event.clone()),
                // Nobody may join before it without being told.
                Delivery::Gap(_) | Delivery::Position(_) => self.ring.clear(),
                Delivery::Passed(_) | Delivery::Ephemeral(_) => {}
            }
            out.push(step);
        }
        if page.more {
            return Some(self.ask_sync());
        }
        // What the answer brought needs no second look, even where the ring had no room for it.
        self.early.retain(|early| !page.events.iter().any(|read| read.id == early.id && read.prev == early.prev));
        self.resume(out)
    }

    /// The store gave no answer. The caller asks again after a while; until then messages that connect
    /// are dispatched.
    pub fn failed(&mut self, out: &mut Vec<Step>) -> Option<Ask> {
        self.resume(out)
    }

    /// Where a connection at `position` stands.
    pub fn join(&self, position: EventId) -> Join {
        if self.chain.is_before_told_break() {
            // Those who follow already were told of the break; a page tells it to whoever comes now.
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

    /// A message arrived while nothing is asked: the next event, a duplicate, a hole or a fork.
    fn judge(&mut self, event: Arc<Event>, out: &mut Vec<Step>) -> Option<Ask> {
        if self.chain.continues_with(event.prev) {
            out.push(self.chain.event(&event));
            self.ring.push(event);
            None
        } else if event.id == self.head() || self.ring.contains(event.id, event.prev) {
            None
        } else if event.prev > self.head() {
            self.queue(event);
            self.state = State::Hole;
            Some(Ask::Wait { head: self.head() })
        } else {
            // A duplicate too old for the ring, or a history that is not ours. Either way the store has
            // it, so the message itself is not needed any more.
            Some(self.ask_sync())
        }
    }

    fn awaits_answer(&self) -> bool {
        matches!(self.state, State::Syncing | State::Recovering)
    }

    fn queue(&mut self, event: Arc<Event>) {
        if self.early.len() >= MAX_EARLY {
            self.early.clear();
            self.sync_again = true;
        }
        self.early.push_back(event);
    }

    /// Everything queued so far was in the store before its message was sent, so the answer to a read
    /// that starts now will hold it.
    fn ask_sync(&mut self) -> Ask {
        self.state = State::Syncing;
        self.early.clear();
        self.sync_again = false;
        Ask::Sync { head: self.head() }
    }

    fn ask_recover(&mut self) -> Ask {
        self.state = State::Recovering;
        self.early.clear();
        Ask::Recover { head: self.head(), epoch: self.epoch, seen: self.ring.newest(FORK_SEARCH) }
    }

    /// The store has trimmed what comes next. A burst that is longer than the stream's log does that to whoever
    /// asks in the midst of it, and its events are on their way over the channel: nothing is missed if they
    /// arrive. If none does for a while, the rest of the history is asked for.
    fn await_trimmed(&mut self, page: &Page, out: &mut Vec<Step>) -> Option<Ask> {
        // A sync that is wanted meanwhile would be answered with the same: it comes when this is over.
        let again = std::mem::take(&mut self.sync_again);
        let ask = self.resume(out);
        if self.awaits_answer() {
            return ask;
        }
        let head = self.head();
        self.sync_again = again;
        match &self.trimmed {
            _ if head >= page.last => {
                self.trimmed = None;
                if again { Some(self.ask_sync()) } else { ask }
            }
            Some(trimmed) if trimmed.after == head && trimmed.waited => Some(self.ask_recover()),
            // The wait for it is still running.
            Some(trimmed) if trimmed.after == head => ask,
            _ => {
                self.trimmed = Some(Trimmed { after: head, waited: false });
                Some(Ask::WaitTrimmed { head })
            }
        }
    }

    fn resume(&mut self, out: &mut Vec<Step>) -> Option<Ask> {
        self.state = State::Following;
        if self.sync_again {
            return Some(self.ask_sync());
        }
        self.drain(out)
    }

    /// Goes through the queue as if its messages came in now.
    fn drain(&mut self, out: &mut Vec<Step>) -> Option<Ask> {
        let awaited = (self.state == State::Hole).then(|| self.head());
        self.state = State::Following;
        // Links and channels may overtake each other, so the queue is not in order.
        self.early.make_contiguous().sort_by_key(|event| event.id);
        let mut queued = std::mem::take(&mut self.early);
        while let Some(event) = queued.pop_front() {
            match self.judge(event, out) {
                None => {}
                Some(Ask::Wait { head }) => {
                    // The rest of the queue lies behind the same hole.
                    self.early.append(&mut queued);
                    // The wait that was asked for when this hole opened is still running.
                    return (awaited != Some(head)).then_some(Ask::Wait { head });
                }
                Some(ask) => return Some(ask),
            }
        }
        None
    }
}

/// What whoever catches up is given of these: of events with the same collapse key the newest only.
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
#[path = "live_tests.rs"]
mod tests;
