//! The dispatcher: one stream's live end on this node, and the connections that follow it.
//!
//! It is a lock around values; it has neither the store nor tasks. What it wants is returned as a [`Need`], which
//! goes to the repair scheduler. No two dispatchers are ever locked at once; a sink's own lock is taken inside a
//! dispatcher's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::Budget;
use super::chain::{self, Chain, Delivery};
use super::early;
use super::flush::Flush;
use super::merge::{Join, Merge, Question, Urgency};
use super::sink::{Offer, Sink, Slot};
use crate::metrics::{ByReason, Metrics};
use crate::model::{Event, EventId, Page, StreamName};
use crate::store::StoreError;

mod state;

pub(super) use state::{Need, Readiness};
use state::{Phase, State};

/// Most ring events that are handed over inside the lock when a connection joins: more than that and
/// everyone else on the stream would wait for it.
const JOIN_EVENTS: usize = 64;

/// One connection's interest in one stream.
#[derive(Clone)]
pub struct Subscriber {
    pub sink: Arc<dyn Sink>,
    pub slot: Slot,
}

impl Subscriber {
    /// Resolves once the connection has ended or left the stream.
    pub async fn ended(&self) {
        self.sink.left(self.slot).await;
    }
}

/// What became of an attempt to join.
#[derive(Debug, PartialEq, Eq)]
pub enum Joining {
    /// It follows the live end now.
    Joined,
    /// It took ring events up to this position; then its outbox was full.
    Partly(EventId),
    /// It has to read pages first.
    Behind,
    /// It has seen more than this node.
    Ahead,
    /// It has ended.
    Closed,
}

/// The bounds that all dispatchers of a node share.
#[derive(Clone)]
pub(super) struct Memory {
    pub ring: Arc<Budget>,
    pub early: Arc<Budget>,
}

impl Memory {
    /// `ring` bytes for the newest events, and a constant for those that came early.
    pub fn new(ring: usize) -> Self {
        Memory { ring: Budget::new(ring), early: Budget::new(early::NODE_BYTES) }
    }
}

/// One stream's live end on this node.
pub struct Dispatcher {
    stream: StreamName,
    /// Which attach of this node this is.
    registration: u64,
    /// As of which [`generation`](super::repairs::Repairs::generation) the store has this node's route noted; 0 for
    /// none.
    noted: AtomicU32,
    /// Its place in the rotation of the repair scheduler.
    filed: AtomicU64,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Notified whenever the phase changes and whenever an answer of the store has been dealt with.
    changed: Notify,
}

/// A subscriber that could not keep up, and where it stopped.
pub(super) type Overflow = (Subscriber, Chain);

impl Dispatcher {
    pub(super) fn attaching(stream: StreamName, registration: u64, memory: Memory, metrics: Arc<Metrics>) -> Self {
        Dispatcher {
            stream,
            registration,
            noted: AtomicU32::new(0),
            filed: AtomicU64::new(0),
            metrics,
            state: Mutex::new(State::attaching(memory)),
            changed: Notify::new(),
        }
    }

    /// Stands in a stream's place while a stray route is removed, so that no attach overtakes it.
    pub(super) fn detaching(stream: StreamName, memory: Memory, metrics: Arc<Metrics>) -> Self {
        let dispatcher = Dispatcher::attaching(stream, 0, memory, metrics);
        dispatcher.state.lock().phase = Phase::Detaching;
        dispatcher
    }

    /// The stream that it dispatches.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }

    pub(super) fn registration(&self) -> u64 {
        self.registration
    }

    /// Whether the store has this node's route noted as of `generation`. The caller sees to it if not.
    pub(super) fn note(&self, generation: u32) -> bool {
        self.noted.swap(generation, Ordering::Relaxed) == generation
    }

    /// The node's id may have changed, or the store may have lost what it had noted.
    pub(super) fn forget_note(&self) {
        self.noted.store(0, Ordering::Relaxed);
    }

    /// Its number in the rotation of the repair scheduler.
    pub(super) fn filed(&self) -> u64 {
        self.filed.load(Ordering::Relaxed)
    }

    pub(super) fn set_filed(&self, number: u64) {
        self.filed.store(number, Ordering::Relaxed);
    }

    /// Keeps the dispatcher here until [`Dispatcher::unpin`], if it can be followed.
    pub(super) fn pin(&self) -> Readiness {
        let mut state = self.state.lock();
        let readiness = state.readiness();
        if matches!(readiness, Readiness::Ready(_)) {
            state.pins += 1;
        }
        readiness
    }

    /// Whether it can be followed, without keeping it.
    pub(super) fn readiness(&self) -> Readiness {
        self.state.lock().readiness()
    }

    /// Whether nobody follows it, nor is about to.
    pub(super) fn is_unused(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// True when nobody is left.
    pub(super) fn unpin(&self) -> bool {
        let mut state = self.state.lock();
        state.pins -= 1;
        state.left = Instant::now();
        state.is_idle()
    }

    /// Begins the detach if nobody followed for `linger` and nothing is asked. `None` when someone did.
    pub(super) fn start_detach(&self, linger: Duration) -> Option<Detach> {
        let mut state = self.state.lock();
        if !state.is_idle() || state.left.elapsed() < linger {
            return None;
        }
        match &state.phase {
            Phase::Live(merge) if merge.is_asked() => Some(Detach::Later),
            Phase::Live(_) => {
                state.phase = Phase::Detaching;
                Some(Detach::Now)
            }
            _ => None,
        }
    }

    pub(super) fn detached(&self) {
        self.state.lock().phase = Phase::Gone(None);
        self.changed.notify_waiters();
    }

    /// A message came in over the channel.
    pub(super) fn message(&self, event: Arc<Event>, now: Instant, flush: &mut Flush) -> FollowUp {
        let mut state = self.state.lock();
        if let Phase::Attaching(attaching) = &mut state.phase {
            if !attaching.early.push(event, 0) {
                attaching.wanted = Some(Urgency::Urgent);
            }
            return FollowUp::default();
        }
        self.step(state, flush, now, |merge, out| {
            let had_hole = merge.has_hole();
            merge.message(event, now, out);
            if merge.has_hole() && !had_hole {
                self.metrics.holes.inc();
            }
        })
    }

    /// An event that is not stored: it goes to the connections at the live end now, and leaves no trace.
    pub(super) fn dispatch_ephemeral(&self, event: Arc<Event>, flush: &mut Flush) {
        let delivery = Delivery::Ephemeral(event);
        let mut state = self.state.lock();
        state.subscribers.retain(|subscriber| {
            match subscriber.sink.offer(subscriber.slot, &self.stream, &delivery) {
                Offer::Taken { flush: first } => {
                    if first {
                        flush.add(&subscriber.sink);
                    }
                    true
                }
                // It does without.
                Offer::Full => {
                    self.metrics.ephemeral_dropped.inc();
                    true
                }
                Offer::Closed => false,
            }
        });
    }

    /// A sync is wanted.
    pub(super) fn want_sync(&self, urgency: Urgency) -> Need {
        let mut state = self.state.lock();
        state.want_sync(urgency);
        state.need()
    }

    /// What it asks the store now, after it returned that need.
    pub(super) fn ask(&self) -> Option<Question> {
        self.state.lock().ask()
    }

    /// It is its turn to be synced. While another question is out, it asks for that once more afterwards.
    pub(super) fn take_turn(&self) -> Option<Question> {
        let mut state = self.state.lock();
        state.want_sync(Urgency::Routine);
        state.ask()
    }

    /// The time has come that a [`Need`] named.
    pub(super) fn tick(&self, now: Instant) -> Need {
        let mut state = self.state.lock();
        state.timer = None;
        if let Some(merge) = state.merge() {
            merge.tick(now);
        }
        state.need()
    }

    /// The store answered a question, or failed to.
    pub(super) fn answered(&self, answer: Result<&Page, &StoreError>, now: Instant, flush: &mut Flush) -> FollowUp {
        let mut state = self.state.lock();
        state.failures = if answer.is_ok() { 0 } else { state.failures.saturating_add(1) };
        if let Phase::Attaching(_) = state.phase {
            state.attached(answer, now);
            self.changed.notify_waiters();
        }
        self.step(state, flush, now, |merge, out| match answer {
            Ok(page) => merge.answered(page, now, out),
            Err(_) => merge.failed(now),
        })
    }

    /// A temporary dispatcher read a page: what is newer than the head and connects is dispatched.
    pub(super) fn hand_on(&self, page: &Page, now: Instant, flush: &mut Flush) -> FollowUp {
        let state = self.state.lock();
        let Phase::Live(merge) = &state.phase else { return FollowUp::default() };
        let Some(start) = page.events.iter().position(|event| event.prev == merge.head()) else {
            return FollowUp::default();
        };
        self.step(state, flush, now, |merge, out| {
            page.events[start..].iter().for_each(|event| merge.message(event.clone(), now, out));
        })
    }

    /// Whether something is awaited that notifies [`Dispatcher::changed`].
    pub(super) fn is_catching_up(&self) -> bool {
        self.state.lock().merge().is_some_and(|merge| merge.is_catching_up())
    }

    /// Whether it follows, and nothing is awaited.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().merge().is_some_and(|merge| merge.is_settled())
    }

    /// Lets a connection at `position` join the live end, if it is at it or within the ring.
    pub(super) fn join(&self, subscriber: &Subscriber, position: EventId) -> Joining {
        let mut state = self.state.lock();
        // Leaving takes this lock after the sink has stopped wanting, so one of the two sees the other.
        if !subscriber.sink.wants(subscriber.slot) {
            return Joining::Closed;
        }
        let Phase::Live(merge) = &state.phase else { return Joining::Closed };
        let deliveries = match merge.join(position) {
            Join::Deliveries(deliveries) => deliveries,
            Join::Behind => return Joining::Behind,
            Join::Ahead => return Joining::Ahead,
        };
        let mut reached = position;
        let total = deliveries.len();
        for delivery in deliveries.into_iter().take(JOIN_EVENTS) {
            match subscriber.sink.offer(subscriber.slot, &self.stream, &delivery) {
                Offer::Taken { .. } => reached = delivery.position().unwrap_or(reached),
                Offer::Full => return Joining::Partly(reached),
                Offer::Closed => return Joining::Closed,
            }
        }
        if total > JOIN_EVENTS {
            return Joining::Partly(reached);
        }
        state.subscribers.push(subscriber.clone());
        Joining::Joined
    }

    /// Takes a connection out. True when nobody is left.
    pub(super) fn leave(&self, sink_number: u64, slot: Slot) -> bool {
        let mut state = self.state.lock();
        let found = state.subscribers.iter().position(|s| s.sink.number() == sink_number && s.slot == slot);
        if let Some(at) = found {
            state.subscribers.swap_remove(at);
            state.left = Instant::now();
        }
        state.is_idle()
    }

    /// Gives up the ring if nothing was dispatched for `quiet`. True while something is in it.
    pub(super) fn keeps_ring(&self, now: Instant, quiet: Duration) -> bool {
        let mut state = self.state.lock();
        let is_quiet = now.saturating_duration_since(state.active) >= quiet;
        let Some(merge) = state.merge() else { return false };
        if is_quiet {
            merge.forget_ring();
        }
        state.ring_known = merge.has_ring();
        state.ring_known
    }

    /// How many connections follow the live end here.
    pub fn subscribers(&self) -> usize {
        self.state.lock().subscribers.len()
    }

    /// Runs the state machine one step and offers what it brings to all subscribers.
    fn step(
        &self,
        mut state: MutexGuard<'_, State>,
        flush: &mut Flush,
        now: Instant,
        run: impl FnOnce(&mut Merge, &mut Vec<chain::Outgoing>),
    ) -> FollowUp {
        let mut out = Vec::new();
        let Some(merge) = state.merge() else { return FollowUp::default() };
        let was_catching_up = merge.is_catching_up();
        run(merge, &mut out);
        if was_catching_up && !merge.is_catching_up() {
            self.changed.notify_waiters();
        }
        let ring_filled = merge.has_ring() && !state.ring_known;
        state.ring_known |= ring_filled;
        if !out.is_empty() {
            state.active = now;
        }
        let overflowed = self.offer_all(&mut state, &out, flush);
        // They are temporary dispatchers from here on, so that the dispatcher stays for them.
        state.pins += overflowed.len();
        FollowUp { need: state.need(), overflowed, ring_filled }
    }

    /// A delivery is offered to so many connections.
    fn count(&self, delivery: &Delivery, connections: usize) {
        match delivery {
            Delivery::Event(_) => {
                self.metrics.dispatched.inc();
                self.metrics.deliveries.inc_by(connections as u64);
            }
            Delivery::Gap(gap) => {
                self.metrics.gaps.get_or_create(&ByReason { reason: gap.reason.as_str() }).inc();
            }
            Delivery::Passed(_) | Delivery::Position(_) | Delivery::Ephemeral(_) => {}
        }
    }

    fn offer_all(&self, state: &mut State, outgoing: &[chain::Outgoing], flush: &mut Flush) -> Vec<Overflow> {
        let mut overflowed = Vec::new();
        for chain::Outgoing { delivery, resume } in outgoing {
            let connections = state.subscribers.len();
            self.count(delivery, connections);
            let observer = delivery.observer();
            if let Some(observer) = observer {
                observer.dispatching();
            }
            state.subscribers.retain(|subscriber| {
                match subscriber.sink.offer(subscriber.slot, &self.stream, delivery) {
                    Offer::Taken { flush: first } => {
                        if first {
                            flush.add(&subscriber.sink);
                        }
                        true
                    }
                    Offer::Full => {
                        overflowed.push((subscriber.clone(), *resume));
                        false
                    }
                    Offer::Closed => false,
                }
            });
            if let Some(observer) = observer {
                observer.dispatched(connections);
            }
        }
        overflowed
    }
}

/// What a step leaves to be done outside the lock.
#[derive(Default)]
pub(super) struct FollowUp {
    /// For the repair scheduler.
    pub need: Need,
    /// To be fed by temporary dispatchers; each holds a pin already.
    pub overflowed: Vec<Overflow>,
    /// There is something in the ring, which was empty: see [`Dispatcher::keeps_ring`].
    pub ring_filled: bool,
}

/// Whether a detach can begin.
pub(super) enum Detach {
    Now,
    /// An answer is awaited; operations of one stream go one after another.
    Later,
}

#[cfg(test)]
mod tests;
