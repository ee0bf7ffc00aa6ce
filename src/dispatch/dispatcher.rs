//! The dispatcher: one stream's live end on this node, and who follows it.
//!
//! It is a lock around values; it knows neither the store nor tasks. Whatever it wants from the store it
//! returns as an [`Ask`], which the registry carries out. No two dispatchers are ever locked at once; a
//! sink's own lock is taken inside a dispatcher's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::chain::{self, Chain, Delivery};
use super::flush::Flush;
use super::live::{Ask, Join, Live};
use super::ring::RingBudget;
use super::sink::{Offer, Sink, Slot};
use crate::metrics::Metrics;
use crate::model::{Event, EventId, Page, StreamName};
use crate::store::StoreError;

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

/// One stream's live end on this node.
pub struct Dispatcher {
    stream: StreamName,
    /// Which attach of this node this is.
    registration: u64,
    /// Whether the store has this node's route noted, as far as is known.
    noted: AtomicBool,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Told whenever the phase changes and whenever an answer of the store has been dealt with.
    changed: Notify,
}

pub(super) struct State {
    phase: Phase,
    subscribers: Vec<Subscriber>,
    /// Temporary dispatchers, and connections that are being set up.
    pins: usize,
    /// A sync was wanted while the attach was under way: what the attach says may be from before the
    /// interruption that the sync is for.
    sync_when_attached: bool,
    active: Instant,
    /// When the last one left.
    left: Instant,
}

enum Phase {
    /// The route is being written; what arrives meanwhile queues (the store has it all).
    Attaching(VecDeque<Arc<Event>>),
    Live(Box<Live>),
    /// The route is being removed.
    Detaching,
    /// Not here any more. With the reason when the attach failed.
    Gone(Option<StoreError>),
}

/// Whether a dispatcher can be followed.
pub(super) enum Readiness {
    /// Yes; this is its head.
    Ready(EventId),
    /// Not yet; look again when it has changed.
    Pending,
    /// It is gone: make a new one, unless the attach just failed.
    Gone(Option<StoreError>),
}

/// A subscriber that could not keep up, and where it stopped.
pub(super) type Overflow = (Subscriber, Chain);

/// Most messages that wait for an attach. What is dropped is read from the store.
const MAX_ATTACH_QUEUE: usize = 256;

impl Dispatcher {
    pub(super) fn attaching(stream: StreamName, registration: u64, metrics: Arc<Metrics>) -> Self {
        Dispatcher {
            stream,
            registration,
            noted: AtomicBool::new(false),
            metrics,
            state: Mutex::new(State {
                phase: Phase::Attaching(VecDeque::new()),
                subscribers: Vec::new(),
                pins: 0,
                sync_when_attached: false,
                active: Instant::now(),
                left: Instant::now(),
            }),
            changed: Notify::new(),
        }
    }

    /// Stands in a stream's place while a stray route is removed, so that no attach overtakes it.
    pub(super) fn detaching(stream: StreamName, metrics: Arc<Metrics>) -> Self {
        let dispatcher = Dispatcher::attaching(stream, 0, metrics);
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

    /// Whether the store has this node's route noted. The caller sees to it if not.
    pub(super) fn note(&self) -> bool {
        self.noted.swap(true, Ordering::Relaxed)
    }

    /// The node's id may have changed, or the store may have lost what it had noted.
    pub(super) fn forget_note(&self) {
        self.noted.store(false, Ordering::Relaxed);
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

    /// The attach was answered.
    pub(super) fn attached(&self, answer: Result<Page, StoreError>, budget: &Arc<RingBudget>) -> Option<Ask> {
        let mut state = self.state.lock();
        let ask = match answer {
            Ok(page) => {
                let mut live = Live::attached(&page, budget.clone());
                let early = match &mut state.phase {
                    Phase::Attaching(early) => std::mem::take(early),
                    _ => VecDeque::new(),
                };
                // Nobody follows yet, so what these bring goes to the ring alone.
                let mut out = Vec::new();
                let ask = early.into_iter().fold(None, |ask, event| live.message(event, &mut out).or(ask));
                let ask = if std::mem::take(&mut state.sync_when_attached) { live.sync().or(ask) } else { ask };
                state.phase = Phase::Live(Box::new(live));
                ask
            }
            Err(error) => {
                state.phase = Phase::Gone(Some(error));
                None
            }
        };
        drop(state);
        self.changed.notify_waiters();
        ask
    }

    /// Begins the detach if nobody followed for `linger` and nothing is asked. `None` when someone did.
    pub(super) fn start_detach(&self, linger: Duration) -> Option<Detach> {
        let mut state = self.state.lock();
        if !state.is_idle() || state.left.elapsed() < linger {
            return None;
        }
        match &state.phase {
            Phase::Live(live) if live.is_asking() => Some(Detach::Later),
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
    pub(super) fn message(&self, event: Arc<Event>, flush: &mut Flush) -> Step {
        let mut state = self.state.lock();
        if let Phase::Attaching(early) = &mut state.phase {
            if early.len() >= MAX_ATTACH_QUEUE {
                // The hole that this leaves is seen, and read from the store, once the attach is through.
                early.pop_front();
            }
            early.push_back(event);
            return Step::default();
        }
        self.step(state, flush, |live, out| live.message(event, out))
    }

    /// An event that is not stored: it goes to whoever follows the live end now, and leaves no trace.
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

    /// A sync is due.
    pub(super) fn sync(&self) -> Option<Ask> {
        let mut state = self.state.lock();
        if let Phase::Attaching(_) = state.phase {
            state.sync_when_attached = true;
        }
        state.live().and_then(Live::sync)
    }

    /// If there is a hole behind this head still, it has been open for some milliseconds.
    pub(super) fn hole_is_old(&self, head: EventId) -> Option<Ask> {
        let ask = self.state.lock().live().and_then(|live| live.hole_is_old(head));
        self.changed.notify_waiters();
        ask
    }

    /// The store answered a sync or a recover, or failed to.
    pub(super) fn answered(&self, answer: Result<&Page, &StoreError>, flush: &mut Flush) -> Step {
        let step = self.step(self.state.lock(), flush, |live, out| match answer {
            Ok(page) => live.answered(page, out),
            Err(_) => live.failed(out),
        });
        self.changed.notify_waiters();
        step
    }

    /// A temporary dispatcher read a page: what is newer than the head and connects is dispatched.
    pub(super) fn hand_on(&self, page: &Page, flush: &mut Flush) -> Step {
        let state = self.state.lock();
        let Phase::Live(live) = &state.phase else { return Step::default() };
        let Some(start) = page.events.iter().position(|event| event.prev == live.head()) else {
            return Step::default();
        };
        self.step(state, flush, |live, out| {
            page.events[start..].iter().fold(None, |ask, event| live.message(event.clone(), out).or(ask))
        })
    }

    /// Whether something is awaited that a wait for [`Dispatcher::changed`] will tell.
    pub(super) fn is_asking(&self) -> bool {
        self.state.lock().live().is_some_and(|live| live.is_asking())
    }

    /// Whether it follows, and nothing is awaited.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().live().is_some_and(|live| live.is_settled())
    }

    /// Lets a connection at `position` join the live end, if it is at it or within the ring.
    pub(super) fn join(&self, subscriber: &Subscriber, position: EventId) -> Joining {
        let mut state = self.state.lock();
        // Leaving takes this lock after the sink has stopped wanting, so one of the two sees the other.
        if !subscriber.sink.wants(subscriber.slot) {
            return Joining::Closed;
        }
        let Phase::Live(live) = &state.phase else { return Joining::Closed };
        let deliveries = match live.join(position) {
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

    /// Gives up the ring if nothing was dispatched for `quiet`.
    pub(super) fn forget_ring_if_quiet(&self, quiet: Duration) {
        let mut state = self.state.lock();
        if state.active.elapsed() >= quiet
            && let Some(live) = state.live()
        {
            live.forget_ring();
        }
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
        run: impl FnOnce(&mut Live, &mut Vec<chain::Step>) -> Option<Ask>,
    ) -> Step {
        let mut out = Vec::new();
        let Some(live) = state.live() else { return Step::default() };
        let ask = run(live, &mut out);
        if !out.is_empty() {
            state.active = Instant::now();
        }
        let overflowed = self.offer_all(&mut state, &out, flush);
        // They are temporary dispatchers from here on, so that the dispatcher stays for them.
        state.pins += overflowed.len();
        Step { ask, overflowed }
    }

    fn offer_all(&self, state: &mut State, steps: &[chain::Step], flush: &mut Flush) -> Vec<Overflow> {
        let mut overflowed = Vec::new();
        for chain::Step { delivery, resume } in steps {
            self.metrics.delivered_to(delivery, state.subscribers.len());
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
        }
        overflowed
    }
}

impl State {
    fn live(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }

    fn readiness(&self) -> Readiness {
        match &self.phase {
            Phase::Live(live) => Readiness::Ready(live.head()),
            Phase::Attaching(_) | Phase::Detaching => Readiness::Pending,
            Phase::Gone(error) => Readiness::Gone(error.clone()),
        }
    }

    fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.pins == 0
    }
}

/// What a step leaves to be done outside the lock.
#[derive(Default)]
pub(super) struct Step {
    /// For the store.
    pub ask: Option<Ask>,
    /// To be fed by temporary dispatchers; each holds a pin already.
    pub overflowed: Vec<Overflow>,
}

/// Whether a detach can begin.
pub(super) enum Detach {
    Now,
    /// An answer is awaited; operations of one stream go one after another.
    Later,
}
