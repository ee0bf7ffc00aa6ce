//! The Redis store: a region of any number of nodes.
//!
//! Every operation on a stream is one script, so that it is atomic and one round trip: [`scripts`] holds
//! them and turns arguments and answers, `keys` names what they touch. `server` finds
//! the master and opens connections to it: a few multiplexed ones for what must be fast and in order (`lanes`), a
//! `pool` for the rest. `subscription` is the receiving end of a node's channel. `inspection` asks the server what
//! it is and how it is set up.

pub mod acl;
mod direct;
mod directory;
mod durable;
mod errors;
mod home;
mod ingress;
mod inspection;
mod keys;
mod lanes;
mod leader;
mod leases;
mod library;
mod lifecycle;
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
mod subscription;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;

use self::direct::{DirectPublish, DirectPublishing};
use self::ingress::Bell;
use self::keys::Keys;
use self::lanes::{Lanes, Open};
use self::pool::Pool;
use self::scripts::{Call, Fields};
use self::server::Server;
use super::{
    Channels, Control, DirectPath, DueSync, EventLog, Ingress, Leaders, Membership, NodeId, ONCE_TIME, OnAnswer,
    PAGE_BYTES, PAGE_EVENTS, Producers, Retention, RetentionRules, Revocations, Route, Store, StoreError, Subscription,
    millis, random_step,
};
use crate::model::{Draft, Durability, EventId, Inbox, Page, Published, Receipt, Standing, Start, StreamName};

pub use self::server::{CredentialFiles, FileError, ServerConfig, check_url};
pub use directory::{Assignment, Changes, RedisDirectory};
pub use errors::ConnectError;
pub use inspection::Inspection;
pub use moving::{Arrival, Baggage, Begun, Cargo, MOVER_TIME, Plan};
pub(crate) use subscription::{encode, parse};

/// Connections for leases and beats.
const MEMBERSHIP_POOL_SIZE: usize = 2;

/// More than `lua/publish.lua` prolongs a log's life ahead of need.
const LIVES_AHEAD: Duration = Duration::from_secs(120);

/// How long after its last renewal of the lease what is noted of a node's streams is kept: longer than any route
/// holds that it could be needed for.
pub(super) const NOTES_LIVE: Duration = Duration::from_secs(86_400);

/// Connections for pages and administration.
const POOL_SIZE: usize = 8;

/// Durable publishes that can wait at once; more wait for a connection.
const DURABLE_POOL_SIZE: usize = 32;

/// Asks a server what it is and how it is set up, whether or not it can be worked with.
pub async fn inspect(config: &ServerConfig) -> Result<Inspection, ConnectError> {
    let server = Server::new(config)?;
    let inspection = inspection::inspect(&Pool::new(&server, 1)?).await.map_err(ConnectError::Unreachable)?;
    Ok(Inspection { by_sentinels: server.has_sentinels(), ..inspection })
}

/// Tries what a node needs there under its prefix; an error names what is missing.
pub async fn probe(config: &ServerConfig, prefix: &str) -> Result<(), ConnectError> {
    probe::probe(&Server::new(config)?, &Keys::new(prefix)).await.map_err(ConnectError::Unreachable)
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
    server: Server,
    /// For the operations that must be fast and, within a stream, in order.
    lanes: Lanes,
    /// For pages and what else may wait.
    pool: Pool,
    /// For leases and beats: a rush for pages must not make the node look dead.
    membership: Pool,
    /// For publishes that wait for replicas or the disk.
    durable: Pool,
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
        let server = Server::new(config)?;
        let pool = Pool::new(&server, POOL_SIZE)?;
        inspection::inspect(&pool).await.map_err(ConnectError::Unreachable)?.check()?;
        let keys = Keys::new(prefix);
        probe::probe(&server, &keys).await.map_err(ConnectError::Unreachable)?;
        let membership = Pool::new(&server, MEMBERSHIP_POOL_SIZE)?;
        let durable = Pool::new(&server, DURABLE_POOL_SIZE)?;
        let lanes = Lanes::open(&server).await.map_err(ConnectError::Unreachable)?;
        let bell = Bell::default();
        let shared = Shared { rules, position_time, keys, server, lanes, pool, membership, durable, bell };
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

    fn publish_call(&self, stream: &StreamName, draft: &Draft, direct_publish: Option<&DirectPublish>) -> Call {
        let call = self.publish_call_of(stream, draft, "");
        direct_publish
            .into_iter()
            .fold(call, |call, direct_publish| call.arg(direct_publish.until_ms()).arg(direct_publish.nodes()))
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

    fn sync_call(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Call {
        let keys = self.keys.of(stream);
        let touched = [&keys.events, &keys.nodes, &keys.meta, &keys.collapse, &keys.connections];
        Call::script(&scripts::SYNC, &touched.map(String::as_str))
            .arg(route.node.as_str())
            .arg(route.registration)
            .arg(millis(route.ttl))
            .arg(head.map_or(String::new(), |head| head.to_string()))
            .arg(random_step())
            .arg(self.position_ms(stream))
            .arg(PAGE_EVENTS)
            .arg(PAGE_BYTES)
            .arg(self.home())
    }

    fn synced(&self, answer: Result<Value, StoreError>) -> Result<Page, StoreError> {
        let page = scripts::page(answer?)?;
        // A device that connects is synced first: already its first event can leave nodes out.
        self.direct.set_clock(page.now_ms);
        Ok(page)
    }

    /// The oldest of so many newest entries of a stream's log, if it has any.
    async fn walk_back(&self, stream: &StreamName, count: u32) -> Result<Option<EventId>, StoreError> {
        let keys = self.keys.of(stream);
        let (mut left, mut oldest) = (u64::from(count), None);
        while left > 0 {
            let before = oldest.map_or(String::new(), |id: EventId| id.to_string());
            let call = Call::script(&scripts::WALK, &[&keys.events, &keys.meta]);
            let call = call.arg(before).arg(left).arg(PAGE_BYTES).arg(self.home());
            let mut answer = Fields::of(self.pool.run(call).await?)?;
            let walked = answer.count()?;
            oldest = answer.optional_id()?.or(oldest);
            left = if answer.count()? == 1 { 0 } else { left.saturating_sub(walked) };
        }
        Ok(oldest)
    }

    async fn page(&self, call: Call) -> Result<Page, StoreError> {
        scripts::page(self.pool.run(call).await?)
    }
}

/// The connection that is not given an event, as scripts want it.
fn excluded(draft: &Draft) -> String {
    draft.exclude.map_or(String::new(), |connection| connection.to_string())
}

#[async_trait]
impl EventLog for RedisStore {
    async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError> {
        let open = self.lanes.of(stream).open().await?;
        let direct_publish = self.direct.begin(stream, draft, Some(&open.order));
        let call = self.publish_call(stream, draft, direct_publish.as_ref());
        let answer = open.run(call).await;
        self.direct.end(direct_publish, stream, draft, answer)
    }

    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>> {
        // Each event leaves nodes out from when it is sent, and goes to them when it is answered. Were it at the
        // end of a large batch, the first events could have left the log by then.
        let items: Vec<_> = batch.iter().map(|(stream, draft)| (stream, draft, Mutex::default())).collect();
        let call = |open: &Open, (stream, draft, place): &(&StreamName, &Draft, Mutex<Option<DirectPublish>>)| {
            let direct_publish = self.direct.begin(stream, draft, Some(&open.order));
            let call = self.publish_call(stream, draft, direct_publish.as_ref());
            *place.lock() = direct_publish;
            call
        };
        let settle = |(stream, draft, place): &(&StreamName, &Draft, Mutex<Option<DirectPublish>>), answer| {
            self.direct.end(place.lock().take(), stream, draft, answer)
        };
        self.lanes.settle_by_stream(&items, |(stream, _, _)| *stream, call, settle).await
    }

    async fn publish_durably(
        &self,
        stream: &StreamName,
        draft: &Draft,
        durability: Durability,
    ) -> Result<Receipt, StoreError> {
        let touch = Call::command("PEXPIRE", &self.keys.of(stream).meta).arg(self.position_ms(stream));
        let wait = durable::wait_for(&self.durable, durability).await?;
        let mut session = self.durable.session().await?;
        let direct_publish = self.direct.begin(stream, draft, None);
        let publish = self.publish_call(stream, draft, direct_publish.as_ref());
        let stored = |answer| self.direct.end(direct_publish, stream, draft, answer);
        durable::publish(&mut session, publish, stored, touch, wait, durability).await
    }

    async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::PUBLISH_EPHEMERAL, &[&keys.nodes, &keys.meta])
            .arg(stream.as_str())
            .arg(&draft.data[..])
            .arg(draft.kind.as_str())
            .arg(self.keys.channels())
            .arg(self.home())
            .arg(excluded(draft));
        scripts::count(self.lanes.of(stream).run(call).await?)
    }

    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError> {
        let sync = self.sync_call(stream, route, head);
        let lane = self.lanes.of(stream);
        if route.noted {
            return self.synced(lane.run(sync).await);
        }
        // Written down before the route exists, so that the node that cleans up after this one finds it.
        let touched = [&self.keys.streams(&route.node), &self.keys.lease(&route.node)];
        let note = Call::script(&scripts::NOTE, &touched.map(String::as_str));
        let note = note.arg(stream.as_str()).arg(millis(NOTES_LIVE));
        let mut last = Err(StoreError::Protocol("no answer to a sync".to_owned()));
        for answer in lane.run_all([note, sync].into_iter()).await {
            last = Ok(answer?);
        }
        self.synced(last)
    }

    async fn sync_each(&self, due: &[DueSync], answered: &OnAnswer<'_>) {
        // Those that are not noted are being attached, or their last sync failed.
        let (noted, others): (Vec<_>, Vec<_>) = due.iter().enumerate().partition(|(_, (_, route, _))| route.noted);
        let together = self.lanes.settle_by_stream(
            &noted,
            |(_, (stream, ..))| stream,
            |_, (_, (stream, route, head))| self.sync_call(stream, route, *head),
            |(place, _), answer| answered(*place, self.synced(answer)),
        );
        let alone = others.into_iter().map(async |(place, (stream, route, head))| {
            answered(place, self.sync(stream, route, *head).await);
        });
        tokio::join!(together, join_all(alone));
    }

    async fn recover(
        &self,
        stream: &StreamName,
        head: EventId,
        epoch: EventId,
        seen: &[EventId],
    ) -> Result<Page, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::RECOVER, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(head.to_string())
            .arg(epoch.to_string())
            .arg(random_step())
            .arg(self.position_ms(stream))
            .arg(PAGE_EVENTS)
            .arg(PAGE_BYTES)
            .arg(self.home());
        let call = seen.iter().fold(call, |call, id| call.arg(id.to_string()));
        scripts::page(self.lanes.of(stream).run(call).await?)
    }

    async fn detach(&self, stream: &StreamName, node: &NodeId, registration: Option<u64>) -> Result<(), StoreError> {
        let lane = self.lanes.of(stream);
        let keys = self.keys.of(stream);
        let detach = Call::script(&scripts::DETACH, &[&keys.nodes, &keys.meta, &keys.connections])
            .arg(node.as_str())
            .arg(registration.map_or(String::new(), |registration| registration.to_string()));
        // Only when the route is gone: a stream with a route that its node's set does not name would be
        // forgotten by the clean-up.
        if lane.run(detach).await? == Value::Int(1) {
            lane.run(Call::command("SREM", &self.keys.streams(node)).arg(stream.as_str())).await?;
        }
        Ok(())
    }

    async fn read(&self, stream: &StreamName, start: Start, limit: usize) -> Result<Page, StoreError> {
        let keys = self.keys.of(stream);
        let (kind, amount) = match start {
            Start::After(id) => ("after", id.to_string()),
            Start::Earliest => ("earliest", String::new()),
            Start::Since(ms) => ("since", ms.to_string()),
            Start::Last(count) => match self.walk_back(stream, count).await? {
                Some(oldest) => ("from", oldest.to_string()),
                None => ("last", String::new()),
            },
        };
        let call = Call::script(&scripts::READ, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(kind)
            .arg(amount)
            .arg(limit)
            .arg(PAGE_BYTES)
            .arg(self.home());
        self.page(call).await
    }

    async fn read_before(&self, stream: &StreamName, before: EventId, limit: usize) -> Result<Page, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::READ_BEFORE, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(before.to_string())
            .arg(limit)
            .arg(PAGE_BYTES)
            .arg(self.home());
        let mut page = self.page(call).await?;
        page.events.reverse();
        page.superseded.reverse();
        Ok(page)
    }

    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError> {
        let call = Call::script(&scripts::POSITION, &[&self.keys.of(stream).meta]).arg(self.home());
        scripts::position(self.lanes.of(stream).run(call).await?)
    }

    async fn acknowledge(&self, stream: &StreamName, id: Option<EventId>) -> Result<Standing, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::ACKNOWLEDGE, &[&keys.events, &keys.meta, &keys.nodes])
            .arg(id.map_or(String::new(), |id| id.to_string()))
            .arg(self.home());
        scripts::standing(self.lanes.of(stream).run(call).await?)
    }

    async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError> {
        let keys = self.keys.of(stream);
        let (mut pending, mut from) = (0, String::new());
        // A page at a time, so that a large inbox does not hold up the store.
        loop {
            let call = Call::script(&scripts::INBOX, &[&keys.events, &keys.meta, &keys.collapse, &keys.nodes])
                .arg(&from)
                .arg(PAGE_EVENTS)
                .arg(PAGE_BYTES)
                .arg(self.home());
            let (inbox, next) = scripts::inbox(self.pool.run(call).await?)?;
            pending += inbox.pending;
            match next {
                Some(next) => from = next.to_string(),
                None => return Ok(Inbox { pending, ..inbox }),
            }
        }
    }

    async fn erase(&self, stream: &StreamName) -> Result<(), StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(
            &scripts::ERASE,
            &[
                &keys.events,
                &keys.nodes,
                &keys.meta,
                &keys.collapse,
                &self.keys.send_history(stream),
                &keys.connections,
            ],
        )
        .arg(stream.as_str())
        .arg(random_step())
        .arg(self.position_ms(stream))
        .arg(self.keys.channels())
        .arg(self.home());
        self.lanes.of(stream).run(call).await.map(drop)
    }

    async fn relay(&self, node: &NodeId, stream: &StreamName, id: EventId) -> Result<(), StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::RELAY, &[&keys.events, &keys.nodes])
            .arg(stream.as_str())
            .arg(id.to_string())
            .arg(node.as_str())
            .arg(self.keys.channels());
        self.lanes.of(stream).run(call).await.map(drop)
    }
}

#[async_trait]
impl Channels for RedisStore {
    async fn subscribe(&self, node: &NodeId) -> Result<Box<dyn Subscription>, StoreError> {
        Ok(Box::new(subscription::subscribe(&self.server, &self.keys.channel(node)).await?))
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
    fn membership(&self) -> &dyn Membership {
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
