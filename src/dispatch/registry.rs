//! All dispatchers of this node, and the store operations that they ask for.
//!
//! Attach, sync, recover and detach of one stream go one after another, because a dispatcher asks for one
//! thing at a time and stays in the map until its route is gone. Operations run in tasks of their own, so
//! that a client that leaves does not cut them short.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::dispatcher::{Dispatcher, Memory, Need, Readiness};
use super::flush::{Flush, Flusher};
use super::merge::Urgency;
use super::pages::Pages;
use super::path::Path;
use super::repairs::Repairs;
use super::sink::Slot;
use crate::directory;
use crate::metrics::{ByPath, Metrics, Seconds};
use crate::model::{Event, Marks, NodeId, Page, StreamName};
use crate::spans::Tracer;
use crate::store::{Store, StoreClock, StoreError};

mod asking;
mod attached;
mod tidying;

pub use attached::Attached;

/// Detaches under way at once.
const MAX_DETACHES: usize = 64;

/// Longest wait for a sync that a temporary dispatcher wants before it reads on.
const SYNC_WAIT: Duration = Duration::from_secs(2);

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
    dispatchers: Mutex<HashMap<StreamName, Arc<Dispatcher>>>,
    lingering: Mutex<VecDeque<(Instant, StreamName)>>,
    registrations: AtomicU64,
    /// Streams that have something in their rings, by when that was looked at.
    rings: Mutex<VecDeque<(Instant, Weak<Dispatcher>)>>,
    memory: Memory,
    /// What every page that is read sets right.
    clock: Arc<StoreClock>,
    pages: Pages,
    /// One for each region, by its number.
    repairs: Vec<Arc<Repairs>>,
    asking: OnceLock<Vec<AbortHandle>>,
    /// One for each region, by its number.
    detaches: Vec<Semaphore>,
    flusher: Arc<Flusher>,
    metrics: Arc<Metrics>,
    /// How long events take to get here, by [`Path`]: looked up once, as each event counts.
    routing: [Seconds; Path::ALL.len()],
    /// Called with the marks that syncs bring.
    on_marks: OnceLock<OnMarks>,
    /// Records the way of sampled events, where that is wanted.
    tracer: OnceLock<Arc<Tracer>>,
}

type OnMarks = Box<dyn Fn(&StreamName, Marks) + Send + Sync>;

impl Registry {
    /// A registry without dispatchers, for a node with this id. It has to be made inside a runtime.
    pub fn new(store: Arc<dyn Store>, node: NodeId, settings: RegistrySettings, metrics: Arc<Metrics>) -> Arc<Self> {
        let clock = Arc::<StoreClock>::default();
        let regions = directory::count_of(&*store);
        let repairs = |region| Repairs::new(region as u8, settings.sync, rand::random(), Instant::now());
        let registry = Arc::new(Registry {
            pages: Pages::new(store.clone(), clock.clone(), metrics.clone()),
            flusher: Arc::new(Flusher::new(clock.clone(), &metrics)),
            clock,
            store,
            node: ArcSwap::from_pointee(node),
            dispatchers: Mutex::default(),
            lingering: Mutex::default(),
            registrations: AtomicU64::new(0),
            rings: Mutex::default(),
            memory: Memory::new(settings.ring_bytes),
            repairs: (0..regions).map(repairs).map(Arc::new).collect(),
            asking: OnceLock::new(),
            detaches: (0..regions).map(|_| Semaphore::new(MAX_DETACHES)).collect(),
            settings,
            routing: Path::ALL
                .map(|path| metrics.routing_seconds.get_or_create(&ByPath { path: path.as_str() }).clone()),
            metrics,
            on_marks: OnceLock::new(),
            tracer: OnceLock::new(),
        });
        let ask = |repairs: &Arc<Repairs>| {
            tokio::spawn(Registry::ask_for_ever(Arc::downgrade(&registry), repairs.clone())).abort_handle()
        };
        let _ = registry.asking.set(registry.repairs.iter().map(ask).collect());
        registry
    }

    /// This node's id.
    pub fn node(&self) -> Arc<NodeId> {
        self.node.load_full()
    }

    /// The node got a new id. Routes are written under it from now on; mark all streams next.
    pub fn rename(&self, node: NodeId) {
        self.node.store(Arc::new(node));
    }

    /// Has `marked` called with the marks of a device whenever a sync brings some.
    pub fn on_marks(&self, marked: impl Fn(&StreamName, Marks) + Send + Sync + 'static) {
        let _ = self.on_marks.set(Box::new(marked));
    }

    /// Has the way of sampled events recorded from now on.
    pub fn trace_with(&self, tracer: Arc<Tracer>) {
        let _ = self.tracer.set(tracer);
    }

    /// Who records the way of sampled events.
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.tracer.get()
    }

    /// A page of a stream was read: the way of what is dispatched out of it is recorded.
    fn observe_page(&self, page: &Page) {
        if let Some(tracer) = self.tracer() {
            page.events.iter().for_each(|event| tracer.observe(event, "repair"));
        }
    }

    /// How many nodes share the store of a region.
    pub fn set_nodes(&self, region: usize, nodes: u32) {
        if let Some(repairs) = self.repairs.get(region) {
            repairs.set_nodes(nodes);
        }
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

    /// For how long the sync that is due longest is overdue.
    pub fn sync_lag(&self) -> Duration {
        let now = Instant::now();
        self.repairs.iter().map(|repairs| repairs.lag(now)).max().unwrap_or_default()
    }

    /// Bytes that the rings hold.
    pub fn ring_bytes(&self) -> usize {
        self.memory.ring.used()
    }

    /// Attaches `stream` if it is not, and keeps it attached.
    pub async fn attach(self: &Arc<Self>, stream: &StreamName) -> Result<Attached, StoreError> {
        loop {
            let (dispatcher, fresh) = self.dispatcher(stream);
            let changed = dispatcher.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if fresh {
                self.repairs_of(stream).attach(&dispatcher, Instant::now());
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

    /// An event came in, by this path.
    pub fn message(self: &Arc<Self>, stream: &StreamName, event: Arc<Event>, path: Path, flush: &mut Flush) {
        let seconds = self.clock.now_ms().saturating_sub(event.id.ms) as f64 / 1000.0;
        self.routing[path as usize].observe(seconds);
        if let Some(tracer) = self.tracer() {
            tracer.observe(&event, path.as_str());
        }
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        match dispatcher {
            Some(dispatcher) => {
                let (stored_ms, before) = (event.id.ms, flush.count());
                let step = dispatcher.message(event, Instant::now(), flush);
                flush.time_first(before, stored_ms, path);
                self.carry_out(&dispatcher, step);
            }
            None => self.detach_stray(stream),
        }
    }

    /// An event that is not stored came in over the channel: it goes to the connections at the live end.
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

    /// Something happened to a stream that its next sync brings: that is due now.
    pub fn sync(self: &Arc<Self>, stream: &StreamName) {
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        match dispatcher {
            Some(dispatcher) => self.sync_now(&dispatcher),
            None => self.detach_stray(stream),
        }
    }

    /// Something may have been missed on a stream, which need not be followed here: reads it again.
    pub fn sync_followed(self: &Arc<Self>, stream: &StreamName) {
        let dispatcher = self.dispatchers.lock().get(stream).cloned();
        if let Some(dispatcher) = dispatcher {
            self.sync_now(&dispatcher);
        }
    }

    /// Something may have been missed on every stream, or the store may have lost their routes: all are synced, those
    /// first that were synced longest ago, and go on meanwhile.
    pub fn mark_all(&self) {
        let now = Instant::now();
        self.repairs.iter().for_each(|repairs| repairs.mark_all(now));
    }

    /// The same for the streams of one region.
    pub fn mark_region(&self, region: usize) {
        if let Some(repairs) = self.repairs.get(region) {
            repairs.mark_all(Instant::now());
        }
    }

    /// Something may have been missed on some streams of one region: these are synced in turn.
    pub async fn mark_where(self: Arc<Self>, region: usize, wanted: impl Fn(&StreamName) -> bool) {
        if let Some(repairs) = self.repairs.get(region) {
            repairs.mark_where(wanted).await;
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

    /// Syncs a stream and waits for what comes of it, for a while.
    pub(super) async fn sync_and_wait(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>) {
        let wait = async {
            loop {
                let changed = dispatcher.changed().notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if !dispatcher.is_catching_up() {
                    return;
                }
                changed.await;
            }
        };
        self.see_to(dispatcher, dispatcher.want_sync(Urgency::Urgent));
        // When the store is away, the temporary dispatcher has its own way of waiting for it.
        let _ = tokio::time::timeout(SYNC_WAIT, wait).await;
    }

    /// A temporary dispatcher read a page that may be newer than what came over the channel.
    pub(super) fn hand_on(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>, page: &Page) {
        self.observe_page(page);
        let mut flush = Flush::default();
        let step = dispatcher.hand_on(page, Instant::now(), &mut flush);
        self.carry_out(dispatcher, step);
        self.flush(&mut flush);
    }

    fn dispatcher(&self, stream: &StreamName) -> (Arc<Dispatcher>, bool) {
        match self.dispatchers.lock().entry(stream.clone()) {
            Entry::Occupied(entry) => (entry.get().clone(), false),
            Entry::Vacant(entry) => {
                let registration = self.registrations.fetch_add(1, Ordering::Relaxed) + 1;
                let dispatcher =
                    Dispatcher::attaching(stream.clone(), registration, self.memory.clone(), self.metrics.clone());
                (entry.insert(Arc::new(dispatcher)).clone(), true)
            }
        }
    }

    /// Syncs a stream of which the store may have lost something.
    fn sync_now(&self, dispatcher: &Arc<Dispatcher>) {
        dispatcher.forget_note();
        self.see_to(dispatcher, dispatcher.want_sync(Urgency::Urgent));
    }

    fn see_to(&self, dispatcher: &Arc<Dispatcher>, need: Need) {
        self.repairs_of(dispatcher.stream()).see_to(dispatcher, need, Instant::now());
    }

    /// The repairs of the region that is the stream's home, or of the node's own while that is not known.
    fn repairs_of(&self, stream: &StreamName) -> &Repairs {
        &self.repairs[directory::region_of(&*self.store, stream)]
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.asking.get().into_iter().flatten().for_each(AbortHandle::abort);
    }
}
