//! Where the keys of a region are: all on one server, or spread over the masters of a Redis Cluster by slot.
//!
//! A [`Shard`] is one master, with all that is kept open to it. A single server, or the master that Sentinels name, is
//! simply the only shard; nothing is computed or looked up for it. In a Cluster, `cluster` follows which master has which
//! slots (`topology`), `redirect` sends calls again that came to the wrong one, and `channels` keeps a channel of the node
//! at each of them.
//!
//! The redis crate's Cluster client is not used: its pipelines stay within one slot, it sends what was redirected
//! again behind what came after it, and everything to a server shares one connection, so that a slow page would hold
//! up leases.

mod channels;
mod cluster;
mod redirect;
mod slot;
mod topology;

use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use redis::Value;
use tokio::sync::watch;

use super::call::Call;
use super::direct::Clock;
use super::errors::ConnectError;
use super::lane::ShardLanes;
use super::pool::{Pool, Session};
use super::server::{Kind, Server, ServerConfig};
use crate::model::NodeId;
use crate::store::StoreError;
pub(super) use channels::ShardChannels;
use channels::Subscribed;
pub(super) use cluster::Alarm;
use cluster::Cluster;
pub(super) use redirect::{Attempts, Redirect};
pub use slot::SlotSet;
pub(super) use slot::{SLOTS, slot_of};
use topology::Address;

/// Connections for pages and administration.
const POOL_SIZE: usize = 8;

/// Connections for leases and beats.
const MEMBERSHIP_POOL_SIZE: usize = 2;

/// Durable publishes that can wait at once; more wait for a connection.
const DURABLE_POOL_SIZE: usize = 32;

/// All shards of a region. Clones share them.
#[derive(Clone)]
pub(super) struct Shards {
    map: Arc<ArcSwap<Map>>,
    cluster: Option<Arc<Cluster>>,
}

/// One master, and the connections to it.
pub(super) struct Shard {
    /// Where a Cluster's nodes say that it is.
    address: Address,
    pub(super) server: Server,
    /// For the operations that must be fast and, within a stream, in order.
    lanes: OnceLock<ShardLanes>,
    /// For pages and what else may wait.
    pub(super) pool: Pool,
    /// For leases and beats: a rush for pages must not make the node look dead.
    pub(super) membership: Pool,
    /// For publishes that wait for replicas or the disk.
    pub(super) durable: Pool,
    /// What its own clock shows.
    pub(super) clock: Arc<Clock>,
    alarm: Alarm,
    /// A node's channel here, in a Cluster.
    subscribed: Mutex<Option<Arc<Subscribed>>>,
}

impl Shard {
    fn new(server: Server, address: Address, alarm: Alarm) -> Result<Arc<Self>, ConnectError> {
        Ok(Arc::new(Shard {
            address,
            lanes: OnceLock::new(),
            pool: Pool::new(&server, "pool", POOL_SIZE)?,
            membership: Pool::new(&server, "membership", MEMBERSHIP_POOL_SIZE)?,
            durable: Pool::new(&server, "durable", DURABLE_POOL_SIZE)?,
            clock: Arc::default(),
            server,
            alarm,
            subscribed: Mutex::default(),
        }))
    }

    /// Whether its lanes are in use, and one of them is not connected.
    fn is_troubled(&self) -> bool {
        self.lanes.get().is_some_and(|lanes| !lanes.are_open())
    }

    /// Its lanes. They connect from the first time on that they are asked for.
    pub(super) fn lanes(&self) -> &ShardLanes {
        self.lanes.get_or_init(|| ShardLanes::start(&self.server, &self.clock, &self.alarm))
    }
}

/// The shards at one time.
pub(super) struct Map {
    pub(super) shards: Vec<Arc<Shard>>,
    /// Which of them has each slot; `None` where there is only one.
    owners: Option<Box<[Option<u16>]>>,
}

impl Map {
    /// The place of the shard that has a slot, which is only computed where there are several.
    pub(super) fn place(&self, slot: impl FnOnce() -> u16) -> Result<usize, StoreError> {
        if self.owners.is_none() {
            return Ok(0);
        }
        let slot = slot();
        let missing = || StoreError::Unavailable(format!("no server of the Cluster is known to have slot {slot}"));
        self.owner(slot).ok_or_else(missing)
    }

    /// The same; `None` where no server is known to have it.
    fn owner(&self, slot: u16) -> Option<usize> {
        self.owners.as_ref().map_or(Some(0), |owners| owners.get(usize::from(slot))?.map(usize::from))
    }

    /// Whether a key is at the shard in a place.
    pub(super) fn has(&self, place: usize, key: &str) -> bool {
        self.place(|| slot_of(key.as_bytes())).is_ok_and(|owner| owner == place)
    }
}

impl Shards {
    /// Reads the URL and, of a Cluster, asks which servers there are. Connects to nothing else yet. Needs a runtime.
    pub(super) async fn find(config: &ServerConfig) -> Result<Self, ConnectError> {
        let kind = Kind::of(config).map_err(|reason| ConnectError::Address(format!("the URL {reason}")))?;
        let (seeds, credentials) = match kind {
            Kind::Master(master) => {
                let server = Server::new(master, &config.credentials, &config.metrics);
                let map = Map { shards: vec![Shard::new(server, Address::default(), Alarm::default())?], owners: None };
                return Ok(Shards { map: Arc::new(ArcSwap::from_pointee(map)), cluster: None });
            }
            Kind::Cluster(seeds) => (seeds, config.credentials.clone()),
        };
        let cluster =
            Cluster::find(seeds, credentials, config.metrics.clone()).await.map_err(ConnectError::Unreachable)?;
        Ok(Shards { map: cluster.map().clone(), cluster: Some(cluster) })
    }

    /// All of them as they are now.
    pub(super) fn now(&self) -> Arc<Map> {
        self.map.load_full()
    }

    /// The shard of a slot.
    pub(super) fn of(&self, slot: impl FnOnce() -> u16) -> Result<Arc<Shard>, StoreError> {
        let map = self.map.load();
        Ok(map.shards[map.place(slot)?].clone())
    }

    /// The tag of a node's channel at the shard of a slot: in a Cluster, while the node is subscribed there.
    pub(super) fn channel_tag(&self, node: &NodeId, slot: impl FnOnce() -> u16) -> Option<u32> {
        self.cluster.as_ref()?;
        self.of(slot).ok()?.subscribed.lock().as_ref()?.tag_of(node)
    }

    /// The slots that a shard has now.
    fn slots_of(&self, shard: &Shard) -> SlotSet {
        let map = self.map.load();
        let place = map.shards.iter().position(|known| std::ptr::eq(&**known, shard));
        SlotSet::of(|slot| place.is_some() && map.owner(slot) == place)
    }

    /// The shard of a key.
    pub(super) fn of_key(&self, key: &str) -> Result<Arc<Shard>, StoreError> {
        self.of(|| slot_of(key.as_bytes()))
    }

    /// Waits until the lanes of all shards are connected; of a Cluster, until those of one are: the others may be away.
    pub(super) async fn open_lanes(&self) -> Result<(), StoreError> {
        let map = self.now();
        let mut opening: FuturesUnordered<_> = map.shards.iter().map(|shard| shard.lanes().open()).collect();
        let mut last = Ok(());
        while let Some(opened) = opening.next().await {
            if opened.is_ok() {
                return Ok(());
            }
            last = opened;
        }
        last
    }

    /// For a call, or a batch of them.
    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts::new(self)
    }

    /// Whether there can be more than one.
    pub(super) fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Slots of a Cluster that have no master.
    pub(super) fn uncovered_slots(&self) -> Option<u16> {
        self.cluster.as_ref().map(|cluster| cluster.uncovered())
    }

    /// Changes when messages on their way through a Cluster may have been lost: a server that was lost is back, or
    /// replaced. Where there is one shard, its connections show that by themselves.
    pub(super) fn losses(&self) -> Option<watch::Receiver<()>> {
        self.cluster.as_ref().map(|cluster| cluster.losses())
    }

    /// Changes when there may be other shards, or slots are elsewhere.
    fn changes(&self) -> watch::Receiver<()> {
        self.cluster.as_ref().map_or_else(|| watch::channel(()).1, |cluster| cluster.changes())
    }

    /// The servers at which messages to nodes arrive, in the order in which they should be tried.
    pub(super) fn to_subscribe(&self) -> Vec<Server> {
        let mut shards = self.now().shards.clone();
        // Nodes spread over all of them, and one that can't be reached would take its time.
        shards.shuffle(&mut rand::rng());
        shards.sort_by_key(|shard| shard.is_troubled());
        shards.iter().map(|shard| shard.server.clone()).collect()
    }

    /// The shard at an address, known as one or not.
    fn at(&self, address: &Address) -> Option<Arc<Shard>> {
        self.cluster.as_ref()?.shard_at(address)
    }

    /// A server says that a slot is elsewhere.
    fn moved(&self, slot: u16, address: Option<&Address>) {
        self.cluster.iter().for_each(|cluster| cluster.moved(slot, address));
    }

    /// Whether a server did not take a call, as it belongs elsewhere. Where nobody takes it, that stands, and the servers
    /// are asked again.
    pub(super) fn redirect(&self, answer: &Result<Value, StoreError>) -> Option<Redirect> {
        let (Err(error), Some(cluster)) = (answer, &self.cluster) else { return None };
        match Redirect::of(error)? {
            Redirect::Down => {
                cluster.look_again();
                None
            }
            redirect => Some(redirect),
        }
    }
}

/// Shown without user and password.
impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cluster, self.now().shards.first()) {
            (Some(cluster), _) => cluster.fmt(f),
            (None, Some(only)) => only.server.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

/// One pool of each shard.
pub(super) struct Pools {
    shards: Shards,
    of: fn(&Shard) -> &Pool,
}

impl Pools {
    pub(super) fn new(shards: &Shards, of: fn(&Shard) -> &Pool) -> Self {
        Pools { shards: shards.clone(), of }
    }

    /// Runs a call at the shard of its keys.
    pub(super) async fn run(&self, mut call: Call) -> Result<Value, StoreError> {
        let mut attempts = self.shards.attempts();
        loop {
            let shard = attempts.shard(|| call.slot())?;
            let answer = (self.of)(&shard).run(&call).await;
            if !attempts.go_on(&answer, &mut call).await {
                return answer;
            }
        }
    }

    /// A connection to the shard of a key.
    pub(super) async fn session(&self, key: &str) -> Result<Session, StoreError> {
        (self.of)(&*self.shards.of_key(key)?).session().await
    }
}
