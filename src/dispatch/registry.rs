//! All dispatchers of this node, and the store operations that they ask for.
//!
//! Attach, sync, recover and detach of one stream go one after another, because a dispatcher asks for one
//! thing at a time and stays in the map until its route is gone. Operations run in tasks of their own, so
//! that a client that leaves does not cut them short.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::catch_up::catch_up;
use super::chain::Chain;
use super::dispatcher::{Detach, Dispatcher, Joining, Readiness, Step, Subscriber};
use super::flush::{Flush, Flusher};
use super::live::Ask;
use super::pages::Pages;
use super::ring::RingBudget;
use super::sink::{Sink, Slot};
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::model::{Event, EventId, Marks, Page, StreamName};
use crate::store::{NodeId, Route, Store, StoreClock, StoreError};

mod rounds;

/// How long a hole in the chain may be open before the store is asked. Messages that overtake each other
/// are a network's jitter apart; a read costs the store more than this wait costs the client.
const HOLE_WAIT: Duration = Duration::from_millis(5);

/// How long the channel has to bring what the store has trimmed already. Events that are under way come in time
/// on a busy machine too; where they are lost, those who follow learn of it that much later.
const TRIMMED_WAIT: Duration = Duration::from_millis(100);

/// Store operations of dispatchers under way at once. They are pipelined, so this is about fairness to
/// publishes, not about throughput.
const MAX_OPERATIONS: usize = 256;

/// Longest wait for a sync that a temporary dispatcher wants before it reads on.
const SYNC_WAIT: Duration = Duration::from_secs(2);

/// A dispatcher stays this long after its last subscriber: a page reload should find it, ring and all.
const LINGER: Duration = Duration::from_secs(5);

/// When memory for rings is tight, streams that were quiet for this long give theirs up.
const QUIET_RING: Duration = Duration::from_secs(5);

/// And in any case after this long: a connection that comes back later reads pages.
const OLD_RING: Duration = Duration::from_secs(120);

/// What the registry needs to know.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Interval of the repair read of each stream.
    pub sync: Duration,
    /// The node's lease time, a part of how long routes hold.
    pub lease: Duration,
    /// Bytes for the rings of all streams.
    pub ring_bytes: usize,
}

/// All dispatchers of this node.
pub struct Registry {
    store: Arc<dyn Store>,
    settings: RegistrySettings,
    node: ArcSwap<NodeId>,
    /// Nodes that share the store, for the sync budget.
    nodes: AtomicU64,
    dispatchers: Mutex<HashMap<StreamName, Arc<Dispatcher>>>,
    lingering: Mutex<VecDeque<(Instant, StreamName)>>,
    registrations: AtomicU64,
    budget: Arc<RingBudget>,
    /// What every page that is read sets right.
    clock: Arc<StoreClock>,
    pages: Pages,
    operations: Arc<Semaphore>,
    flusher: Arc<Flusher>,
    metrics: Arc<Metrics>,
    /// Who wants to hear of the marks that syncs bring.
    on_marks: OnceLock<OnMarks>,
}

type OnMarks = Box<dyn Fn(&StreamName, Marks) + Send + Sync>;

/// A stream that is attached and stays so while this lives.
pub struct Attached {
    registry: Arc<Registry>,
    dispatcher: Arc<Dispatcher>,
    head: EventId,
}

impl Attached {
    /// The stream's dispatcher.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// Where the live end stood when this was attached.
    pub fn head(&self) -> EventId {
        self.head
    }

    /// Lets a connection follow the stream from right after `position`.
    pub fn follow(self, sink: Arc<dyn Sink>, slot: Slot, position: EventId) {
        let subscriber = Subscriber { sink, slot };
        match self.dispatcher.join(&subscriber, position) {
            Joining::Joined | Joining::Closed => {}
            Joining::Partly(reached) => self.catch_up(subscriber, Chain::at(reached)),
            Joining::Behind | Joining::Ahead => self.catch_up(subscriber, Chain::at(position)),
        }
    }

    fn catch_up(self, subscriber: Subscriber, chain: Chain) {
        tokio::spawn(catch_up(self.registry.clone(), self, subscriber, chain));
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.dispatcher.unpin() {
            self.registry.linger(self.dispatcher.stream());
        }
    }
}

impl Registry {
    /// A registry without dispatchers, for a node with this id.
    pub fn new(store: Arc<dyn Store>, node: NodeId, settings: RegistrySettings, metrics: Arc<Metrics>) -> Arc<Self> {
        let clock = Arc::<StoreClock>::default();
        Arc::new(Registry {
            pages: Pages::new(store.clone(), clock.clone(), metrics.clone()),
            clock,
            store,
            node: ArcSwap::from_pointee(node),
            nodes: AtomicU64::new(1),
            dispatchers: Mutex::default(),
            lingering: Mutex::default(),
            registrations: AtomicU64::new(0),
            budget: RingBudget::new(settings.ring_bytes),
            operations: Arc::new(Semaphore::new(MAX_OPERATIONS)),
            flusher: Arc::default(),
            settings,
            metrics,
            on_marks: OnceLock::new(),
        })
    }

    /// This node's id.
    pub fn node(&self) -> Arc<NodeId> {
        self.node.load_full()
    }

    /// The node got a new id. Routes are written under it from now on; sync all streams next.
    pub fn rename(&self, node: NodeId) {
        self.node.store(Arc::new(node));
    }

    /// Has `told` called with the marks of a device whenever a sync brings some.
    pub fn on_marks(&self, told: impl Fn(&StreamName, Marks) + Send + Sync + 'static) {
        let _ = self.on_marks.set(Box::new(told));
    }

    /// How many nodes share the store.
    pub fn set_nodes(&self, nodes: u32) {
        self.nodes.store(u64::from(nodes.max(1)), Ordering::Relaxed);
    }

    /// The node's figures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The store's clock.
    pub fn clock(&self) -> &Arc<StoreClock> {
        &self.clock
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Streams that are followed here, lingering ones included.
    pub fn streams(&self) -> usize {
        self.dispatchers.lock().len()
    }

    /// Whether this node follows a stream.
    pub fn has(&self, stream: &StreamName) -> bool {
        self.dispatchers.lock().contains_key(stream)
    }

    /// Bytes that the rings hold.
    pub fn ring_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Attaches `stream` if it is not, and keeps it attached.
    pub async fn attach(self: &Arc<Self>, stream: &StreamName) -> Result<Attached, StoreError> {
        loop {
            let (dispatcher, fresh) = self.dispatcher(stream);
            let changed = dispatcher.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if fresh {
                tokio::spawn(self.clone().run_attach(dispatcher.clone()));
            }
            match dispatcher.pin() {
                Readiness::Ready(head) => {
                    return Ok(Attached { registry: self.clone(), dispatcher: dispatcher.clone(), head });
                }
                Readiness::Gone(Some(error)) => return Err(error),
                Readiness::Gone(None) => tokio::task::yield_now().await,
                Readiness::Pending => {
                    changed.await;
                    if let Readiness::Gone(Some(error)) = dispatcher.readiness() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Takes a connection out of a stream. Its sink has to have stopped wanting it before.
    pub fn leave(&self, stream: &StreamName, sink_number: u64, slot: Slot) {
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        if dispatcher.is_some_and(|dispatcher| dispatcher.leave(sink_number, slot)) {
            self.linger(stream);
        }
    }

    /// An event came in over the channel or a link.
    pub fn message(self: &Arc<Self>, stream: &StreamName, event: Arc<Event>, flush: &mut Flush) {
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        match dispatcher {
            Some(dispatcher) => {
                let step = dispatcher.message(event, flush);
                self.carry_out(&dispatcher, step);
            }
            None => self.detach_stray(stream),
        }
    }

    /// An event that is not stored came in over the channel: whoever follows the live end now is told.
    pub fn dispatch_ephemeral(self: &Arc<Self>, stream: &StreamName, event: Arc<Event>, flush: &mut Flush) {
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        match dispatcher {
            Some(dispatcher) => dispatcher.dispatch_ephemeral(event, flush),
            None => self.detach_stray(stream),
        }
    }

    /// Flushes what the messages of a batch left to be flushed.
    pub fn flush(&self, flush: &mut Flush) {
        self.flusher.take(flush);
    }

    /// Something happened to a stream that its next sync tells: that is due now.
    pub fn sync(self: &Arc<Self>, stream: &StreamName) {
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        match dispatcher {
            Some(dispatcher) => self.sync_anew(&dispatcher),
            None => self.detach_stray(stream),
        }
    }

    /// Something may have been missed on a stream, which need not be followed here: reads it again.
    pub fn sync_followed(self: &Arc<Self>, stream: &StreamName) {
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        if let Some(dispatcher) = dispatcher {
            self.sync_anew(&dispatcher);
        }
    }

    /// Something may have been missed on every stream: reads them all again, and asserts their routes.
    pub fn sync_all(self: &Arc<Self>) {
        self.sync_where(|_| true);
    }

    /// The same for some streams only.
    pub fn sync_where(self: &Arc<Self>, wanted: impl Fn(&StreamName) -> bool) {
        let dispatchers: Vec<_> = self.dispatchers.lock().values().cloned().collect();
        for dispatcher in dispatchers.into_iter().filter(|dispatcher| wanted(dispatcher.stream())) {
            self.sync_anew(&dispatcher);
        }
    }

    /// Takes back the routes of streams: the node leaves where they are.
    pub async fn detach_where(self: &Arc<Self>, wanted: impl Fn(&StreamName) -> bool) {
        let dispatchers: Vec<_> = self.dispatchers.lock().values().cloned().collect();
        let dispatchers = dispatchers.into_iter().filter(|dispatcher| wanted(dispatcher.stream()));
        let detaching = dispatchers.map(|dispatcher| {
            let registration = dispatcher.registration();
            self.clone().run_detach(dispatcher, Some(registration))
        });
        futures_util::future::join_all(detaching).await;
    }

    /// Ends what nobody needs any more; runs until it is dropped.
    pub async fn tidy_for_ever(self: Arc<Self>) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            self.pages.forget_old();
            self.end_lingering(Instant::now());
            self.forget_quiet_rings();
        }
    }

    /// Syncs a stream and waits for what comes of it, for a while.
    pub(super) async fn sync_and_wait(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>) {
        let wait = async {
            loop {
                let changed = dispatcher.changed().notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if !dispatcher.is_asking() {
                    return;
                }
                changed.await;
            }
        };
        self.start(dispatcher, dispatcher.sync());
        // When the store is away, the temporary dispatcher has its own way of waiting for it.
        let _ = tokio::time::timeout(SYNC_WAIT, wait).await;
    }

    /// A temporary dispatcher read a page that may be newer than what came over the channel.
    pub(super) fn hand_on(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>, page: &Page) {
        let mut flush = Flush::default();
        let step = dispatcher.hand_on(page, &mut flush);
        self.carry_out(dispatcher, step);
        self.flush(&mut flush);
    }

    fn dispatcher(&self, stream: &StreamName) -> (Arc<Dispatcher>, bool) {
        match self.dispatchers.lock().entry(stream.clone()) {
            Entry::Occupied(entry) => (entry.get().clone(), false),
            Entry::Vacant(entry) => {
                let registration = self.registrations.fetch_add(1, Ordering::Relaxed) + 1;
                let dispatcher = Dispatcher::attaching(stream.clone(), registration, self.metrics.clone());
                (entry.insert(Arc::new(dispatcher)).clone(), true)
            }
        }
    }

    async fn run_attach(self: Arc<Self>, dispatcher: Arc<Dispatcher>) {
        self.metrics.attaches.inc();
        let answer = {
            let _permit = self.operations.acquire().await.expect("the semaphore is never closed");
            self.store.sync(dispatcher.stream(), &self.route(&dispatcher), None).await
        };
        self.read_clock(&answer);
        if let Err(error) = &answer {
            tracing::debug!(stream = %dispatcher.stream(), %error, "attach failed");
            // Out of the map first: who is told of the failure may try again at once.
            self.dispatchers.lock().remove(dispatcher.stream());
        }
        let ask = dispatcher.attached(answer, &self.budget);
        self.start(&dispatcher, ask);
        if dispatcher.is_unused() {
            self.linger(dispatcher.stream());
        }
    }

    /// A route that nobody here wants: left by an attach whose answer was lost, or not yet lapsed.
    fn detach_stray(self: &Arc<Self>, stream: &StreamName) {
        let dispatcher = match self.dispatchers.lock().entry(stream.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(Dispatcher::detaching(stream.clone(), self.metrics.clone()))).clone()
            }
        };
        tokio::spawn(self.clone().run_detach(dispatcher, None));
    }

    async fn run_detach(self: Arc<Self>, dispatcher: Arc<Dispatcher>, registration: Option<u64>) {
        let answer = {
            let _permit = self.operations.acquire().await.expect("the semaphore is never closed");
            self.store.detach(dispatcher.stream(), &self.node(), registration).await
        };
        if let Err(error) = answer {
            // The route lapses by itself.
            tracing::debug!(stream = %dispatcher.stream(), %error, "detach failed");
        }
        self.dispatchers.lock().remove(dispatcher.stream());
        dispatcher.detached();
    }

    fn carry_out(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>, step: Step) {
        for (subscriber, chain) in step.overflowed {
            self.metrics.outbox_overflows.inc();
            let attached = Attached { registry: self.clone(), dispatcher: dispatcher.clone(), head: chain.position() };
            attached.catch_up(subscriber, chain);
        }
        self.start(dispatcher, step.ask);
    }

    fn start(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>, ask: Option<Ask>) {
        if let Some(ask) = ask {
            tokio::spawn(self.clone().run(dispatcher.clone(), ask));
        }
    }

    /// Syncs a stream of which the store may have lost something.
    fn sync_anew(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>) {
        dispatcher.forget_note();
        self.start(dispatcher, dispatcher.sync());
    }

    /// Does what a dispatcher asks for, and what it asks for next, until it is content.
    async fn run(self: Arc<Self>, dispatcher: Arc<Dispatcher>, ask: Ask) {
        let mut next = Some(ask);
        let mut backoff = patience();
        while let Some(ask) = next {
            if let Ask::Wait { head } = ask {
                self.metrics.holes.inc();
                tokio::time::sleep(HOLE_WAIT).await;
                next = dispatcher.hole_is_old(head);
                continue;
            }
            if let Ask::WaitTrimmed { head } = ask {
                tokio::time::sleep(TRIMMED_WAIT).await;
                next = dispatcher.hole_is_old(head);
                continue;
            }
            let answer = self.ask_store(&dispatcher, ask).await;
            next = self.answered(&dispatcher, &answer);
            if answer.is_ok() {
                backoff.reset();
            } else {
                tokio::time::sleep(backoff.next_wait()).await;
                next = ask_again(&dispatcher, next);
            }
        }
    }

    /// Deals with an answer of the store, or its lack. Gives what the dispatcher asks for next.
    fn answered(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>, answer: &Result<Page, StoreError>) -> Option<Ask> {
        self.read_clock(answer);
        let mut flush = Flush::default();
        let step = dispatcher.answered(answer.as_ref(), &mut flush);
        let next = step.ask.clone();
        self.carry_out(dispatcher, Step { ask: None, ..step });
        self.flush(&mut flush);
        match answer {
            Ok(page) => self.tell_marks(dispatcher.stream(), page.marks),
            Err(error) => {
                tracing::debug!(stream = %dispatcher.stream(), %error, "sync failed");
                dispatcher.forget_note();
            }
        }
        next
    }

    fn tell_marks(&self, stream: &StreamName, marks: Marks) {
        if marks != Marks::default()
            && let Some(told) = self.on_marks.get()
        {
            told(stream, marks);
        }
    }

    async fn ask_store(&self, dispatcher: &Dispatcher, ask: Ask) -> Result<Page, StoreError> {
        let _permit = self.operations.acquire().await.expect("the semaphore is never closed");
        let stream = dispatcher.stream();
        match ask {
            Ask::Recover { head, epoch, seen } => {
                self.metrics.recoveries.inc();
                self.store.recover(stream, head, epoch, &seen).await
            }
            Ask::Sync { head } => {
                self.metrics.syncs.inc();
                self.store.sync(stream, &self.route(dispatcher), Some(head)).await
            }
            Ask::Wait { .. } | Ask::WaitTrimmed { .. } => unreachable!("a wait is not for the store"),
        }
    }

    fn read_clock(&self, answer: &Result<Page, StoreError>) {
        if let Ok(page) = answer {
            self.clock.read(page.now_ms);
        }
    }

    fn route(&self, dispatcher: &Dispatcher) -> Route {
        // Two syncs may fail before a route lapses.
        let ttl = self.sync_interval(self.streams()) * 3 + self.settings.lease;
        // Before the node's id is looked at: were that new, the sync that follows a new id forgets this again.
        let noted = dispatcher.note();
        Route { node: (*self.node()).clone(), registration: dispatcher.registration(), ttl, noted }
    }

    fn linger(&self, stream: &StreamName) {
        self.lingering.lock().push_back((Instant::now() + LINGER, stream.clone()));
    }

    fn end_lingering(self: &Arc<Self>, now: Instant) {
        loop {
            let stream = {
                let mut lingering = self.lingering.lock();
                match lingering.front() {
                    Some((until, _)) if *until <= now => lingering.pop_front().map(|(_, stream)| stream),
                    _ => None,
                }
            };
            let Some(stream) = stream else { return };
            let Some(dispatcher) = self.dispatchers.lock().get(&stream).cloned() else { continue };
            match dispatcher.start_detach(LINGER) {
                Some(Detach::Now) => {
                    tokio::spawn(self.clone().run_detach(dispatcher.clone(), Some(dispatcher.registration())));
                }
                Some(Detach::Later) => self.linger(&stream),
                None => {}
            }
        }
    }

    fn forget_quiet_rings(&self) {
        // Looking at every stream once a second is most of what a node with very many silent ones would do.
        if self.budget.used() == 0 {
            return;
        }
        let quiet = if self.budget.is_tight() { QUIET_RING } else { OLD_RING };
        let dispatchers: Vec<_> = self.dispatchers.lock().values().cloned().collect();
        for dispatcher in dispatchers {
            dispatcher.forget_ring_if_quiet(quiet);
        }
    }
}

/// How long a stream waits before it asks a store again that gave no answer.
fn patience() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

/// What a dispatcher asks for after the wait that follows a failure, when it wanted `next` before it.
fn ask_again(dispatcher: &Dispatcher, next: Option<Ask>) -> Option<Ask> {
    // What it asks for already it awaits, and would not ask for again.
    next.filter(|ask| !matches!(ask, Ask::Wait { .. } | Ask::WaitTrimmed { .. })).or_else(|| dispatcher.sync())
}
