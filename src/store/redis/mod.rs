//! The Redis store: a region of any number of nodes.
//!
//! Every operation on a stream is one script, so that it is atomic and one round trip: [`scripts`] holds
//! them and turns arguments and answers, `keys` names what they touch. `shards` says which server has the keys,
//! of several in a Redis Cluster. `server` finds a master and opens connections to it: a few multiplexed ones for what
//! must be fast and in order (`lanes`), a `pool` for the rest. `subscription` is the receiving end of a node's channel. `inspection` asks the server what
//! it is and how it is set up.

pub mod acl;
mod batch;
mod call;
mod direct;
mod directory;
mod durable;
mod errors;
mod event_log;
mod home;
mod ingress;
mod inspection;
mod keys;
mod lane;
mod lanes;
mod leader;
mod library;
mod lifecycle;
mod liveness;
mod members;
mod merging;
mod moving;
mod pool;
mod presence;
mod probe;
mod producers;
mod revocations;
mod scripts;
mod send_history;
mod server;
mod shards;
mod subscription;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::call::Call;
use self::direct::DirectPublishing;
use self::ingress::Bell;
use self::keys::Keys;
use self::lanes::Lanes;
use self::shards::{Pools, Shards};
use super::{
    Channels, Control, Coordination, DirectPath, Ingress, Leaders, ONCE_TIME, Producers, Retention, RetentionRules,
    Revocations, Store, StoreError, Subscription, millis, random_step,
};
use crate::model::{Attributes, Draft, NodeId, StreamName};

pub use self::server::{CredentialFiles, FileError, RedisUrl, ServerConfig};
pub use directory::{Assignment, Change, Changes, PARTS, RedisDirectory};
pub use errors::ConnectError;
pub use inspection::{Inspection, Survey};
pub use moving::{Arrival, Baggage, Begun, Cargo, MOVER_TIME, Plan};
pub use shards::SlotSet;
pub(crate) use subscription::{encode, parse};

/// More than `lua/publish.lua` prolongs a log's life ahead of need.
const LIVES_AHEAD: Duration = Duration::from_secs(120);

/// How long after its last renewal of the lease what is noted of a node's streams is kept: longer than any route
/// holds that it could be needed for.
pub(super) const NOTES_LIVE: Duration = Duration::from_secs(86_400);

/// Asks all servers what they are and how they are set up, whether or not they can be worked with.
pub async fn survey(config: &ServerConfig) -> Result<Survey, ConnectError> {
    Ok(inspection::survey(&Shards::find(config).await?).await)
}

/// Tries what a node needs there under its prefix; an error names what is missing.
pub async fn probe(config: &ServerConfig, prefix: &str) -> Result<(), ConnectError> {
    let (shards, keys) = (Shards::find(config).await?, Keys::new(prefix));
    probe::probe(&shards, &keys).await.map_err(ConnectError::Unreachable)
}

/// A region's store in one Redis. Clones share the connections.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
    /// For events that reach some nodes around the channels.
    direct: Arc<DirectPublishing>,
    /// What the region is called; `None` where there is one only.
    region: Option<Arc<str>>,
    /// The version of a stream's home that is meant by what is asked of this clone; `None` where there is
    /// one region only.
    home: Option<u32>,
}

/// What all clones share.
pub struct Shared {
    rules: RetentionRules,
    position_time: Duration,
    keys: Keys,
    shards: Shards,
    /// For the operations that must be fast and, within a stream, in order.
    lanes: Lanes,
    /// For pages and what else may wait.
    pool: Pools,
    /// For leases and beats: a rush for pages must not make the node look dead.
    membership: Pools,
    /// Waits for entries of the ingress stream.
    bell: Bell,
}

impl Deref for RedisStore {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl RedisStore {
    /// Connects, and checks that this Redis can be worked with: see [`Inspection::check`].
    pub async fn connect(
        config: &ServerConfig,
        prefix: &str,
        rules: RetentionRules,
        position_time: Duration,
    ) -> Result<Self, ConnectError> {
        let (shards, keys) = (Shards::find(config).await?, Keys::new(prefix));
        inspection::check(&shards).await?;
        probe::probe(&shards, &keys).await.map_err(ConnectError::Unreachable)?;
        shards.open_lanes().await.map_err(ConnectError::Unreachable)?;
        let shared = Shared {
            rules,
            position_time,
            keys,
            lanes: Lanes::of(&shards),
            pool: Pools::new(&shards, |shard| &shard.pool),
            membership: Pools::new(&shards, |shard| &shard.membership),
            bell: Bell::default(),
            shards,
        };
        Ok(RedisStore { shared: Arc::new(shared), direct: Arc::default(), region: None, home: None })
    }

    /// The store of one region among several.
    pub fn of_region(self, name: &str) -> Self {
        RedisStore { region: Some(name.into()), ..self }
    }

    /// The same store for streams whose home it is as of `version`: what is asked of a stream of which that is
    /// not true is refused.
    pub fn as_of(&self, version: u32) -> Self {
        RedisStore {
            shared: self.shared.clone(),
            direct: self.direct.clone(),
            region: self.region.clone(),
            home: Some(version),
        }
    }

    /// As scripts want it: the version, or nothing.
    fn home(&self) -> String {
        self.home.map_or(String::new(), |version| version.to_string())
    }

    /// This store, with events going around its channels where `path` reaches a node.
    pub fn with_direct_path(mut self, path: Arc<dyn DirectPath>) -> Self {
        self.direct = Arc::new(DirectPublishing::through(path));
        self
    }

    /// A publish of an event that came with an ingress stream, by the entry; otherwise that is empty.
    fn publish_call_of(&self, stream: &StreamName, draft: &Draft, entry: &str) -> Call {
        let keys = self.keys.of(stream);
        let once = keys.once(draft.key.as_deref().unwrap_or_default());
        let touched = [&keys.events, &keys.nodes, &keys.meta, &keys.collapse, &once];
        let call = Call::script(&scripts::PUBLISH, &touched.map(String::as_str));
        self.with_event(call, stream, draft, entry)
    }

    /// Adds the arguments of a publish.
    fn with_event(&self, call: Call, stream: &StreamName, draft: &Draft, entry: &str) -> Call {
        let retention = self.rules.of(stream);
        let kind = if draft.kind.is_message() { "" } else { draft.kind.as_str() };
        call.arg(stream.as_str())
            .arg(&draft.data[..])
            .arg(kind)
            .arg(draft.key.as_deref().unwrap_or_default())
            .arg(random_step())
            .arg(retention.events)
            .arg(millis(retention.time))
            .arg(self.position_ms(stream))
            .arg(millis(draft.key_time.unwrap_or(ONCE_TIME)))
            .arg(self.keys.channels())
            .arg(draft.ttl.map_or(String::new(), |ttl| millis(ttl).to_string()))
            .arg(draft.collapse.as_deref().unwrap_or_default())
            .arg(entry)
            .arg(self.home())
            .arg(excluded(draft))
            .arg(trace(draft))
            .arg(attributes(draft))
    }

    /// How long the stream's position lives, from when it is said to.
    fn position_ms(&self, stream: &StreamName) -> u64 {
        self.position_ms_of(self.rules.of(stream))
    }

    /// Never shorter than the log, which could not go on without it, as new ids might fall among the old; and
    /// somewhat longer than set, as it is not set anew with each event.
    fn position_ms_of(&self, retention: Retention) -> u64 {
        millis(self.position_time.max(retention.time) + LIVES_AHEAD)
    }
}

/// The connection that is not given an event, as scripts want it.
fn excluded(draft: &Draft) -> String {
    draft.exclude.map_or(String::new(), |connection| connection.to_string())
}

/// The trace that a publish belongs to, as scripts want it.
fn trace(draft: &Draft) -> String {
    draft.trace.map_or(String::new(), |trace| trace.to_string())
}

/// The attributes of an event that came as a CloudEvent, as scripts want them.
fn attributes(draft: &Draft) -> &str {
    draft.attributes.as_ref().map_or("", Attributes::as_str)
}

#[async_trait]
impl Channels for RedisStore {
    async fn subscribe(&self, node: &NodeId) -> Result<Box<dyn Subscription>, StoreError> {
        Ok(Box::new(subscription::subscribe(&self.shards, &self.keys, node).await?))
    }

    async fn beat(&self, node: &NodeId) -> Result<(), StoreError> {
        let beat = Call::script(&scripts::BEAT, &[&self.keys.lease(node)]);
        self.membership.run(beat.arg(self.keys.channel(node)).arg(subscription::BEAT)).await.map(drop)
    }

    async fn lanes_open(&self) -> Result<(), StoreError> {
        self.lanes.all_open().await
    }

    async fn signal(&self, node: &NodeId, control: &Control) -> Result<(), StoreError> {
        let signal = Call::script(&scripts::BEAT, &[&self.keys.lease(node)]);
        self.pool.run(signal.arg(self.keys.channel(node)).arg(control.payload())).await?;
        Ok(())
    }
}

impl Store for RedisStore {
    fn coordination(&self) -> &dyn Coordination {
        self
    }

    fn ingress(&self) -> Option<&dyn Ingress> {
        Some(self)
    }

    fn producers(&self) -> &dyn Producers {
        self
    }

    fn leaders(&self) -> &dyn Leaders {
        self
    }

    fn revocations(&self) -> &dyn Revocations {
        self
    }
}
