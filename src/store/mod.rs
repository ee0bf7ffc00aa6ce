//! What a region's store does for us, as small traits, and its two implementations.
//!
//! - [`EventLog`]: the streams' logs with the routes that say which nodes follow them;
//! - [`Channels`]: the way from a publish to the nodes that follow the stream, at most once;
//! - [`Leases`]: which nodes are alive;
//! - [`Ingress`]: what producers add past the nodes. Only the Redis store has it;
//! - [`Presence`]: connections of devices;
//! - [`Members`]: members of topics;
//! - [`Lifecycle`]: publishing connects and disconnects;
//! - [`Producers`]: leases of producers;
//! - [`Revocations`]: which tokens are refused before their time;
//! - [`Leaders`]: what one node at a time does for all, and how far the webhook got.
//!
//! [`memory`] keeps everything in this process, for one node: the default of a bare start. [`redis`] is
//! for any number of nodes. One conformance suite (`tests/suite/conformance.rs`) holds both to the same
//! behaviour.

mod clock;
mod control;
mod direct;
mod ingress;
mod leader;
pub mod lifecycle;
mod mailbox;
pub mod members;
pub mod memory;
pub mod presence;
pub mod producers;
pub mod redis;
mod retention;
pub mod revocations;
mod send_history;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::directory::Regions;
use crate::model::{Draft, Durability, Event, EventId, Inbox, Page, Published, Receipt, Standing, Start, StreamName};

pub use clock::StoreClock;
pub use control::Control;
pub use direct::{DIRECT_TIME, DirectPath, DirectRoutes};
pub use ingress::{Ingress, IngressEntry, IngressPage, Placed, Placement, Rejected, Rejection};
pub use leader::{Checkpoint, JobKind, Leaders};
pub use lifecycle::Lifecycle;
pub use members::Members;
pub use presence::Presence;
pub use producers::Producers;
pub use retention::{Retention, RetentionError, RetentionRules, matches};
pub use revocations::Revocations;
pub use send_history::SendHistory;

/// Most events in one page.
pub const PAGE_EVENTS: usize = 128;

/// A page ends early once its data has this many bytes, so that one read holds up neither the store nor
/// the memory of a node. The event that crosses the line is still in the page.
pub const PAGE_BYTES: usize = 256 * 1024;

/// How far an id may be ahead of the store's clock, in milliseconds: a master whose clock was ahead gave such, but not
/// by days. The same as `AHEAD` in `lua/stream.lua`.
pub const MAX_AHEAD_MS: u64 = 86_400_000;

/// For how long an idempotency key is remembered.
pub const ONCE_TIME: Duration = Duration::from_secs(300);

/// A duration as whole milliseconds, the unit of all store times.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// This process' clock in milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// By how much ids step, see [`EventId::next`]. Small enough that 2^53 is never reached, where Lua's
/// numbers end.
fn random_step() -> u64 {
    rand::random_range(1..=65_535)
}

/// The name of one running process, new at every start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// A name that no node ever had.
    pub fn random() -> Self {
        NodeId(uuid::Uuid::new_v4().simple().to_string())
    }

    /// As it stands in keys, channels and answers.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for NodeId {
    fn from(text: String) -> Self {
        NodeId(text)
    }
}

/// A node's entry in a stream's routes: publishes to the stream are sent to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The node.
    pub node: NodeId,
    /// Which attach of that node this is. A detach removes the route only if it is still this one's, so
    /// that a late one can't undo the attach that came after it.
    pub registration: u64,
    /// For how long the route holds unless it is asserted again, on the store's clock.
    pub ttl: Duration,
    /// Whether the store wrote down before that this node has a route to the stream, for the node that cleans up after
    /// the node. It need not again, unless the node got another id or the store lost something since.
    pub noted: bool,
}

/// A stream to be synced: its route, and the head if there is one.
pub type DueSync = (StreamName, Route, Option<EventId>);

/// Called with the outcome of each of several syncs, and its index among them.
pub type OnAnswer<'a> = dyn Fn(usize, Result<Page, StoreError>) + Send + Sync + 'a;

/// The logs of all streams, and the routes to the nodes that follow them.
///
/// All operations of one stream take effect in the order in which they were called.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Stores an event and sends it to every node that has a route.
    async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError>;

    /// Publishes many at once, in order, each for itself. The answers are in the same order.
    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>>;

    /// Publishes, and waits until the event is as durable as asked, for a while. An error means what it
    /// means for a publish; falling short is no error, as the event is stored.
    async fn publish_durably(
        &self,
        stream: &StreamName,
        draft: &Draft,
        durability: Durability,
    ) -> Result<Receipt, StoreError>;

    /// Tells an event to every node that has a route, at most once, and stores nothing. Gives the number of
    /// nodes that it was sent to.
    async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, StoreError>;

    /// Asserts the route, then reads what is newer than `head`, in one step: attach (no head yet),
    /// resume, reconnect and repair are all this operation.
    ///
    /// Without a head the page has no events, and `last` is where the stream stands now. On a stream that
    /// is touched for the first time, that is the id it begins with.
    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError>;

    /// Syncs many streams at once, each for itself: `answered` is given the place of each among `due`, with its
    /// answer, as soon as that is there. Those of one stream that goes without an answer hold up no other's.
    async fn sync_each(&self, due: &[DueSync], answered: &OnAnswer<'_>) {
        let one = async |(place, (stream, route, head)): (usize, &DueSync)| {
            answered(place, self.sync(stream, route, *head).await);
        };
        join_all(due.iter().enumerate().map(one)).await;
    }

    /// Finds out what became of a history that was seen up to `head` and no longer continues from there.
    ///
    /// `seen` are ids known to have been events of it, newest first, and `epoch` is the stream's epoch id
    /// when it was followed. If the log still has `head`, or lost only what is older than all it keeps,
    /// this is a plain read after `head`. Otherwise history was lost that had been shown: the newest of
    /// `seen` that the log still has becomes the [`Fork`](crate::model::Fork)'s ancestor (when nothing of
    /// `seen` is left, the newest event below `head`), the stream is raised above both `last` and `head`
    /// by `step`, and the page is read from the ancestor on. A second report, of the same fork or of one
    /// before the mark, raises nothing: a reader that missed that tail meets the mark. After a flush the page is read
    /// from the new birth, and there is no mark, as every chain breaks at a birth. In any case no new id
    /// falls below a head that was reported.
    async fn recover(
        &self,
        stream: &StreamName,
        head: EventId,
        epoch: EventId,
        seen: &[EventId],
    ) -> Result<Page, StoreError>;

    /// Removes the route if it is still the one of this registration, or whatever registration the node
    /// has when `registration` is `None`.
    async fn detach(&self, stream: &StreamName, node: &NodeId, registration: Option<u64>) -> Result<(), StoreError>;

    /// Reads a page of at most `limit` events, without any route.
    ///
    /// When the log no longer has the id that `Start::After` names and the id lies on the lost side of
    /// the stream's fork (above its ancestor, not above its head), reading begins at the ancestor.
    async fn read(&self, stream: &StreamName, start: Start, limit: usize) -> Result<Page, StoreError>;

    /// Reads the newest events before an id, at most `limit`, oldest first. `more`: older ones
    /// are kept.
    async fn read_before(&self, stream: &StreamName, before: EventId, limit: usize) -> Result<Page, StoreError>;

    /// The newest id ever shown of a stream; `None` when nobody used it. Nothing is written.
    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError>;

    /// Moves the acknowledged position forward to `id`, and returns where it is then. An older id moves nothing, and
    /// neither does one above `last`: what this history will have up to there was not seen. Without an id it
    /// only returns where the position is.
    async fn acknowledge(&self, stream: &StreamName, id: Option<EventId>) -> Result<Standing, StoreError>;

    /// Counts what waits for the device.
    async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError>;

    /// Erases the events and what is known of collapse keys, and notifies every node that has a route, so that
    /// it syncs. The positions stay, `last` so that ids go on above all that was shown, and what was
    /// acknowledged: a client that had not seen all gets a gap, one that had does not.
    async fn erase(&self, stream: &StreamName) -> Result<(), StoreError>;
}

/// What a node's channel brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all messages are events")]
pub enum ChannelMessage {
    /// An event of a stream to which this node has, or had, a route.
    Event(StreamName, Arc<Event>),
    /// An ephemeral event, for subscribers of this moment.
    Ephemeral(StreamName, Arc<Event>),
    /// A stream's events were erased.
    Erased(StreamName),
    /// A stream is on its way to another region: its subscribers go there.
    Moved(StreamName),
    /// Events were dropped, as more waited than have room.
    Missed(Missed),
    /// The node's own beat came back: the channel is not deaf.
    Beat,
    /// What another node has to say, or the store.
    Control(Control),
}

/// Events that a subscription had no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// How many.
    pub messages: u64,
    /// Of which streams; `None` when these are too many to be named.
    pub streams: Option<Vec<StreamName>>,
}

/// A node's own channel.
#[async_trait]
pub trait Channels: Send + Sync {
    /// Subscribes to the channel of `node`; the subscription is confirmed when this returns.
    async fn subscribe(&self, node: &NodeId) -> Result<Box<dyn Subscription>, StoreError>;

    /// Tells one node over its channel an event that is stored already, if the node has a route.
    async fn relay(&self, node: &NodeId, stream: &StreamName, id: EventId) -> Result<(), StoreError>;

    /// Sends a beat to the channel of `node`.
    async fn beat(&self, node: &NodeId) -> Result<(), StoreError>;

    /// Fails while streams can't be worked with although leases and channels can: some of the connections for them
    /// may be missing.
    async fn lanes_open(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Says something to a node, over its channel: it arrives at most once.
    async fn signal(&self, node: &NodeId, control: &Control) -> Result<(), StoreError>;
}

/// The receiving end of a node's channel.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for messages and takes what has arrived, at most `limit`, in order; behind them, [`Missed`] names the
    /// streams of events that found no room. `None`: the subscription ended; subscribe again, then sync. Cancel safe.
    async fn next(&mut self, limit: usize) -> Option<Vec<ChannelMessage>>;
}

/// What a node registers about itself with its lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// The region it calls home.
    pub region: String,
    /// Where its HTTP listener is reached.
    pub address: String,
    /// The program's version.
    pub version: String,
    /// Where other nodes reach it for links, if they may.
    pub link: Option<String>,
}

/// A node in the region's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLease {
    /// The node.
    pub node: NodeId,
    /// Until when its lease holds, on the store's clock in milliseconds since 1970.
    pub deadline_ms: u64,
    /// Whether that is past.
    pub lapsed: bool,
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease holds for another session; so many nodes are known.
    Held { nodes: u32 },
    /// There was no lease to renew: it lapsed, or the store lost it. The node has to take a new id.
    Gone,
}

/// Which nodes are alive, on the store's clock.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes a lease for a new node.
    async fn register(&self, node: &NodeId, info: &NodeInfo, ttl: Duration) -> Result<(), StoreError>;
    /// Renews it, only if it still exists.
    async fn renew(&self, node: &NodeId, ttl: Duration) -> Result<Renewal, StoreError>;
    /// Where a node that is alive is reached for links, if it registered that.
    async fn link_address(&self, node: &NodeId) -> Result<Option<String>, StoreError>;
    /// Gives it back; the node has no routes any more.
    async fn release(&self, node: &NodeId) -> Result<(), StoreError>;
    /// All nodes that are not cleaned up after, alive or not.
    async fn nodes(&self) -> Result<Vec<NodeLease>, StoreError>;
    /// Makes `by` the one that cleans up after a dead node, for `ttl`. False when another is at it.
    async fn claim(&self, dead: &NodeId, by: &NodeId, ttl: Duration) -> Result<bool, StoreError>;
    /// Some of the streams that may have a route to a node, at most `limit`: detach each, and ask again.
    async fn streams_of(&self, node: &NodeId, limit: usize) -> Result<Vec<StreamName>, StoreError>;
}

/// A region's store.
pub trait Store: EventLog + Channels + Leases + Presence + Members + Lifecycle + SendHistory {
    /// Where producers add events by themselves. The embedded store has no such place: nobody but its node
    /// reaches it.
    fn ingress(&self) -> Option<&dyn Ingress>;

    /// The leases of producers.
    fn producers(&self) -> &dyn Producers;

    /// The revocations of tokens.
    fn revocations(&self) -> &dyn Revocations;

    /// All regions, if there are several.
    fn regions(&self) -> Option<&Arc<Regions>> {
        None
    }

    /// Works that one node of this one's region does at a time.
    fn leaders(&self) -> &dyn Leaders;
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not take effect: the store can't be reached, or refused.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It may or may not have taken effect: the connection broke, or no answer came in time.
    #[error("the store gave no answer: {0}")]
    Unknown(String),
    /// The store has no room for more. It did not take effect.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store can be reached, and refuses what is asked of it: its user may not run a command, or a key is of
    /// another type than it has to be. It did not take effect.
    #[error("the store refuses it: {0}")]
    Refused(String),
    /// The idempotency key was used for another event. Nothing was stored.
    #[error(
        "the idempotency key was used within the last 5 minutes for an event with another body, type, ttl or collapse key"
    )]
    KeyReused,
    /// The stream's home is another region, or this one again as of a newer version (`None`). It did not take
    /// effect. Callers of a store that knows all regions never see it, nor the next three. `unfinished`: the node that
    /// moved it has not done all that a move ends with.
    #[error("the stream's home is {}, as of version {version}", region.as_deref().unwrap_or("here"))]
    Moved { region: Option<String>, version: u32, unfinished: bool },
    /// The stream is on its way here. It did not take effect. `stalled`: its mover has not been at it for a
    /// while.
    #[error("the stream is being moved here from region '{from}'")]
    Arriving { from: String, version: u32, stalled: bool },
    /// The mover of the stream has not been at it for a while. It did not take effect.
    #[error("the stream is being moved to region '{to}'")]
    Leaving { to: String, version: u32 },
    /// Nobody wrote down here that the stream's home is here. It did not take effect.
    #[error("this region does not know whether it is the stream's home")]
    Homeless,
    /// This store can't do that. It did not take effect.
    #[error("{0}")]
    Unsupported(String),
    /// What the store answered makes no sense to this version of the program.
    #[error("the store answered what this version does not understand: {0}")]
    Protocol(String),
}

impl StoreError {
    /// The error for clients: the store's own message is in the node's log, and in
    /// its health.
    pub fn for_client(&self) -> String {
        let text = match self {
            // What a region's errors begin with, see `Region`.
            StoreError::Unavailable(reason) => match reason.strip_prefix("region '").and_then(|r| r.split_once('\'')) {
                Some((region, _)) => return format!("region '{region}' is unavailable"),
                None if reason.starts_with("the directory") => "the directory of regions is unavailable",
                None => "the store is unavailable",
            },
            StoreError::Unknown(_) => "the store gave no answer",
            StoreError::Full(_) => "the store is full",
            StoreError::Refused(_) => "the store refuses it; the node's log has the reason",
            StoreError::Protocol(_) => "the store answered what this version does not understand",
            plain => return plain.to_string(),
        };
        text.to_owned()
    }

    /// The call went to a region that is not, or is not known to be, the stream's home.
    pub fn is_misplaced(&self) -> bool {
        matches!(
            self,
            StoreError::Moved { .. } | StoreError::Arriving { .. } | StoreError::Leaving { .. } | StoreError::Homeless
        )
    }
}
