//! The links of this node: which are open, which are being opened, and which had better not be tried again
//! at once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::counts::Counts;
use super::devices::{Devices, Memory};
use super::fallback::{Fallback, Waiting};
use super::frame::MAX_DATA;
use super::handshake::{HandshakeError, Key};
use super::listing::{self, Listed};
use super::peer::{Ended, Outgoing, Peer};
use super::plan::{Standing, WORTH_OPENING, plan};
use super::routes::{Common, Peers, Reached};
use super::wire::{OpenError, Wire, dial};
use crate::backoff::Backoff;
use crate::dispatch::Registry;
use crate::metrics::Metrics;
use crate::model::{NodeId, StreamName};
use crate::store::{DirectPath, DirectRoutes, Store, StoreError};

/// How often the links are looked through.
const ROUND: Duration = Duration::from_millis(250);

/// The least time between two rounds, however much is wanted.
const PAUSE: Duration = Duration::from_millis(10);

/// What went somewhere so long ago counts half.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// Nodes whose traffic is counted.
const MAX_COUNTED: usize = 1024;

/// Nodes to which a link failed are left alone for about so long, at first and at last.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// How long it may take until it is written down what a device sent, and for how many devices that is done in
/// a round.
const WRITE_TIME: Duration = Duration::from_secs(30);
const WRITES: usize = 64;

/// How long the links of a node that stops may take to end in good order.
const END_TIME: Duration = Duration::from_secs(1);

/// What links are kept with.
#[derive(Clone)]
pub struct LinkSettings {
    /// The secret that all nodes share.
    pub key: Key,
    /// Most links from this node.
    pub most: usize,
    /// After how long a link that carries nothing is closed.
    pub idle: Duration,
}

/// The ways of this node around its store's channels: to its own clients, and over links to other nodes.
pub struct Links {
    /// `None`: no links, only the way to its own clients.
    settings: Option<LinkSettings>,
    common: Arc<Common>,
    /// There once the node has started.
    home: OnceLock<Home>,
    peers: ArcSwap<Peers>,
    state: Mutex<State>,
    waiting: Mutex<Option<(Waiting, Memory)>>,
    devices: Devices,
    tasks: TaskTracker,
}

struct Home {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct State {
    /// This node's way to itself.
    own: Option<Arc<Peer>>,
    open: HashMap<NodeId, Arc<Peer>>,
    opening: HashSet<NodeId>,
    /// Nodes to which a link failed.
    resting: HashMap<NodeId, Rest>,
    ended: bool,
}

/// A node that is left alone because a link to it failed.
struct Rest {
    until: Instant,
    reason: &'static str,
    backoff: Backoff,
}

/// Why a link was not opened.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the node takes no links")]
    NoAddress,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl DialError {
    const fn reason(&self) -> &'static str {
        match self {
            DialError::NoAddress => "no-address",
            DialError::Store(_) => "store",
            DialError::Open(OpenError::Io(_)) => "connect",
            DialError::Open(OpenError::Late) => "late",
            DialError::Open(OpenError::Handshake(HandshakeError::Nonsense)) => "nonsense",
            DialError::Open(OpenError::Handshake(HandshakeError::Secret)) => "secret",
            DialError::Open(OpenError::Handshake(HandshakeError::OtherNode(_))) => "other-node",
        }
    }
}

impl Links {
    /// No way yet; [`Links::start`] makes them possible. Without settings there will be no links.
    pub fn new(settings: Option<LinkSettings>, metrics: Arc<Metrics>) -> Arc<Self> {
        let (fallback, waiting) = Fallback::new();
        let (devices, memory) = Devices::new();
        let common = Common {
            metrics,
            fallback,
            traffic: Mutex::new(Counts::new(HALF_LIFE, MAX_COUNTED)),
            expected: Mutex::new(Counts::new(HALF_LIFE, MAX_COUNTED)),
            senders: Mutex::default(),
            wanting: Default::default(),
            doubts: Mutex::default(),
            begun: Instant::now(),
            linking: settings.is_some(),
        };
        Arc::new(Links {
            settings,
            common: Arc::new(common),
            home: OnceLock::new(),
            peers: ArcSwap::from_pointee(Peers::of(std::iter::empty())),
            state: Mutex::default(),
            waiting: Mutex::new(Some((waiting, memory))),
            devices,
            tasks: TaskTracker::new(),
        })
    }

    /// Begins to keep them.
    pub fn start(self: &Arc<Self>, store: Arc<dyn Store>, registry: Arc<Registry>) {
        if let Some((waiting, memory)) = self.waiting.lock().take() {
            tokio::spawn(waiting.publish_forever(store.clone()));
            if self.common.linking {
                tokio::spawn(memory.serve_for_ever(store.clone(), self.common.clone()));
            }
            // Only the first start is one.
            let _ = self.home.set(Home { store, registry });
            tokio::spawn(self.clone().keep_for_ever());
        }
    }

    /// A device has connected over which it can publish: links to where its events go are opened.
    pub fn device_came(&self, device: &StreamName) {
        if self.common.linking {
            self.devices.came(device);
        }
    }

    /// A connection of such a device has ended: what it sent is written down.
    pub fn device_left(&self, device: &StreamName) {
        if let Some(sent) = self.common.senders.lock().take(device) {
            self.devices.sent(device, sent);
        }
    }

    /// All links from this node, and the nodes that are left alone because one failed.
    pub fn list(&self) -> Vec<Listed> {
        let (now, now_ms) = (Instant::now(), self.common.now_ms());
        let state = self.state.lock();
        let open = state.open.iter().map(|(node, peer)| (node, peer.state(now_ms)));
        let opening = state.opening.iter().map(|node| (node, listing::State::Opening));
        let tried = |node: &NodeId| state.open.contains_key(node) || state.opening.contains(node);
        let resting = state.resting.iter().filter(|(node, _)| !tried(node)).map(|(node, rest)| {
            let left = rest.until.saturating_duration_since(now);
            (node, listing::State::Resting { left, reason: rest.reason })
        });
        let mut all: Vec<_> =
            open.chain(opening).chain(resting).map(|(node, state)| Listed { node: node.clone(), state }).collect();
        all.sort_by(|one, other| one.node.as_str().cmp(other.node.as_str()));
        all
    }

    /// Whether this node opens links.
    pub fn linking(&self) -> bool {
        self.common.linking
    }

    /// Ends all links in good order; events take the channels from now on.
    pub async fn end(&self) {
        {
            let mut state = self.state.lock();
            state.ended = true;
            state.own = None;
            state.open.clear();
            self.publish(&state);
        }
        self.tasks.close();
        let _ = tokio::time::timeout(END_TIME, self.tasks.wait()).await;
    }

    async fn keep_for_ever(self: Arc<Self>) {
        let Some(home) = self.home.get() else { return };
        loop {
            self.look_again(Instant::now());
            self.write_down(Instant::now());
            self.know_oneself(home);
            if let Some(settings) = &self.settings {
                self.round(home, settings);
            }
            tokio::time::sleep(PAUSE).await;
            let _ = tokio::time::timeout(ROUND, self.common.wanting.notified()).await;
        }
    }

    /// Has streams looked into for the second time.
    fn look_again(&self, now: Instant) {
        loop {
            let due = {
                let mut doubts = self.common.doubts.lock();
                if doubts.front().is_none_or(|doubt| doubt.due > now) {
                    return;
                }
                doubts.pop_front()
            };
            due.iter().for_each(|doubt| doubt.peers.look(&doubt.stream));
        }
    }

    /// Has written down what devices that stay connected sent.
    fn write_down(&self, now: Instant) {
        let Some(before) = now.checked_sub(WRITE_TIME) else { return };
        let mut senders = self.common.senders.lock();
        for device in senders.waiting(before, WRITES) {
            if let Some(sent) = senders.take(&device) {
                self.devices.sent(&device, sent);
            }
        }
    }

    /// A node that lost its lease goes on under another id.
    fn know_oneself(&self, home: &Home) {
        let mut state = self.state.lock();
        let node = home.registry.node();
        if state.ended || state.own.as_ref().is_some_and(|own| *own.node() == *node) {
            return;
        }
        let (own, outgoing) = Peer::own((*node).clone());
        tokio::spawn(outgoing.deliver(home.registry.clone()));
        state.own = Some(Arc::new(own));
        self.publish(&state);
    }

    /// Opens and closes links by the plan.
    fn round(self: &Arc<Self>, home: &Home, settings: &LinkSettings) {
        let now_ms = self.common.now_ms();
        let idle_ms = settings.idle.as_millis() as u64;
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        let (now, own) = (Instant::now(), home.registry.node());
        // A rest is forgotten once it was over for as long as the longest one.
        state.resting.retain(|_, rest| rest.until + LONGEST_REST > now);
        let (standings, candidates) = {
            let (traffic, expected) = (self.common.traffic.lock(), self.common.expected.lock());
            let worth = |node: &NodeId| traffic.of(node, now_ms) + expected.of(node, now_ms);
            let standing = |(node, peer): (&NodeId, &Arc<Peer>)| Standing {
                node: node.clone(),
                worth: worth(node),
                idle: now_ms.saturating_sub(peer.used_ms()) >= idle_ms,
            };
            let standings: Vec<_> = state.open.iter().map(standing).collect();
            let rests = |node: &NodeId| state.resting.get(node).is_some_and(|rest| rest.until > now);
            let nodes: HashSet<_> = traffic.all(now_ms).chain(expected.all(now_ms)).map(|(node, _)| node).collect();
            let candidates: Vec<_> = nodes
                .into_iter()
                .filter(|node| **node != *own && !rests(node))
                .map(|node| (node.clone(), worth(node)))
                .collect();
            (standings, candidates)
        };
        let plan = plan(&standings, &state.opening, &candidates, settings.most);
        self.common.metrics.links.evicted.inc_by(plan.evict.len() as u64);
        for node in plan.close.iter().chain(&plan.evict) {
            state.open.remove(node);
        }
        // What it carried long ago must not open it again at once.
        for node in &plan.close {
            self.common.traffic.lock().forget(node);
            self.common.expected.lock().forget(node);
        }
        for node in plan.open {
            state.opening.insert(node.clone());
            let ahead = self.common.traffic.lock().of(&node, now_ms) < WORTH_OPENING;
            tokio::spawn(self.clone().open(node, ahead));
        }
        if !plan.close.is_empty() || !plan.evict.is_empty() {
            self.publish(&state);
        }
    }

    /// Opens one link, and keeps it until it ends.
    async fn open(self: Arc<Self>, node: NodeId, ahead: bool) {
        let dialed = self.dial(&node).await;
        let outgoing = {
            let mut state = self.state.lock();
            state.opening.remove(&node);
            match dialed {
                Ok(wire) if !state.ended => Some((wire, self.opened(&mut state, &node, ahead))),
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(%node, %error, "no link");
                    self.common.metrics.links.failed(error.reason());
                    rest(&mut state, &node, error.reason());
                    None
                }
            }
        };
        if let Some((wire, (peer, outgoing))) = outgoing {
            self.tasks.spawn(self.clone().keep(wire, peer, outgoing));
        }
    }

    /// The address is looked up each time: a node may have got another one.
    async fn dial(&self, node: &NodeId) -> Result<Wire, DialError> {
        let (Some(home), Some(settings)) = (self.home.get(), &self.settings) else { return Err(DialError::NoAddress) };
        let address = home.store.coordination().link_address(node).await?.ok_or(DialError::NoAddress)?;
        Ok(dial(&address, settings.key.clone(), (*home.registry.node()).clone(), node.clone()).await?)
    }

    fn opened(&self, state: &mut State, node: &NodeId, ahead: bool) -> (Arc<Peer>, Outgoing) {
        let (peer, outgoing) = Peer::new(node.clone(), self.common.now_ms(), ahead);
        let peer = Arc::new(peer);
        state.open.insert(node.clone(), peer.clone());
        self.common.metrics.links.opened.inc();
        self.common.metrics.links.opened_ahead.inc_by(ahead.into());
        self.publish(state);
        tracing::debug!(%node, "a link is open");
        (peer, outgoing)
    }

    async fn keep(self: Arc<Self>, wire: Wire, peer: Arc<Peer>, outgoing: Outgoing) {
        let metrics = &self.common.metrics.links;
        metrics.open.inc();
        let (node, carried) = (peer.node().clone(), peer.carried());
        // Only senders hold it: with the last of them gone, the link ends.
        let identity = Arc::downgrade(&peer);
        drop(peer);
        let Ended { failure, left } = outgoing.send(wire).await;
        metrics.open.dec();
        if !carried.load(Ordering::Relaxed) {
            metrics.opened_unused.inc();
        }
        if let Some(reason) = failure {
            tracing::debug!(%node, reason, left = left.len(), "a link failed");
            metrics.failed(reason);
            let mut state = self.state.lock();
            if let Entry::Occupied(entry) = state.open.entry(node.clone())
                && Arc::downgrade(entry.get()).ptr_eq(&identity)
            {
                entry.remove();
            }
            rest(&mut state, &node, reason);
            self.publish(&state);
        }
        metrics.fallbacks.inc_by(left.len() as u64);
        left.into_iter().for_each(|event| self.common.fallback.publish(&node, event));
    }

    /// Publishes the nodes that publishes can leave out from now on.
    fn publish(&self, state: &State) {
        self.peers.store(Arc::new(Peers::of(state.own.iter().chain(state.open.values()).cloned())));
    }
}

/// A link to this node failed: it is left alone for a while, the longer the more often.
fn rest(state: &mut State, node: &NodeId, reason: &'static str) {
    let now = Instant::now();
    let first = || Rest { until: now, reason, backoff: Backoff::new(FIRST_REST, LONGEST_REST) };
    let rest = state.resting.entry(node.clone()).or_insert_with(first);
    (rest.until, rest.reason) = (now + rest.backoff.next_wait(), reason);
}

impl DirectPath for Links {
    fn reach(&self, bytes: usize) -> Option<Arc<dyn DirectRoutes>> {
        let peers = self.peers.load_full();
        if bytes > MAX_DATA || peers.is_empty() {
            return None;
        }
        Some(Arc::new(Reached { peers, common: self.common.clone() }))
    }
}
