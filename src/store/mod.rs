//! What is asked of a store, as small traits, and the two stores that there are.
//!
//! [`Streams`] are operations on one stream. Where there are several regions, each goes to the stream's home:
//!
//! - [`EventLog`]: the stream's log, and the routes to the nodes that follow it;
//! - [`DeviceConnections`]: connections of devices; [`TopicMembers`]: members of topics;
//! - [`Lifecycle`]: connects and disconnects, on a stream of their own;
//! - [`Producers`]: the leases of producers; [`SendHistory`]: where a device's events go.
//!
//! [`Coordination`] is what the nodes of one region share, whatever the streams are:
//!
//! - [`Channels`]: the way from a publish to the nodes that follow the stream, at most once;
//! - [`Liveness`]: which nodes are alive.
//!
//! And some are neither: [`Leaders`] (what one node at a time does for all), [`Revocations`] (every region has all of
//! them), and [`Ingress`] (what producers add past the nodes, to Redis alone).
//!
//! [`memory`] keeps everything in this process, for one node: the default of a bare start, or with a journal on disk.
//! [`redis`] is for any number of nodes. One conformance suite (`tests/suite/conformance.rs`) holds both to the same behaviour. The store over
//! several regions is made of the latter, see [`crate::directory`].

mod channel;
mod clock;
mod control;
mod direct;
mod error;
mod event_log;
mod ingress;
mod leader;
pub mod lifecycle;
mod liveness;
mod mailbox;
pub mod members;
pub mod memory;
pub mod presence;
pub mod producers;
pub mod redis;
mod retention;
pub mod revocations;
mod send_history;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::directory::Regions;

pub use channel::{ChannelMessage, Channels, Missed, Subscription};
pub use clock::StoreClock;
pub use control::Control;
pub use direct::{DIRECT_TIME, DirectPath, DirectRoutes};
pub use error::{Misplaced, StoreError};
pub use event_log::{DueSync, EventLog, OnAnswer};
pub use ingress::{Ingress, IngressEntry, IngressPage, Placed, Placement, Rejected, Rejection};
pub use leader::{Checkpoint, JobKind, Leaders};
pub use lifecycle::Lifecycle;
pub use liveness::{Liveness, NodeInfo, NodeLease, Renewal};
pub use members::TopicMembers;
pub use presence::DeviceConnections;
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
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// By how much ids step, see [`EventId::next`]. Small enough that 2^53 is never reached, where Lua's
/// numbers end.
fn random_step() -> u64 {
    rand::random_range(1..=65_535)
}

/// Operations on one stream, each asked of its home.
pub trait Streams: EventLog + DeviceConnections + TopicMembers + Lifecycle + SendHistory {}

impl<T: EventLog + DeviceConnections + TopicMembers + Lifecycle + SendHistory> Streams for T {}

/// What the nodes of one region share.
pub trait Coordination: Channels + Liveness {}

impl<T: Channels + Liveness> Coordination for T {}

/// All that a node asks of a store.
pub trait Store: Streams {
    /// The channels and leases of this node's own region.
    fn coordination(&self) -> &dyn Coordination;

    /// The leases of producers.
    fn producers(&self) -> &dyn Producers;

    /// What one node at a time does for all.
    fn leaders(&self) -> &dyn Leaders;

    /// The revocations of tokens.
    fn revocations(&self) -> &dyn Revocations;

    /// Where producers add events by themselves. The embedded store has no such place: nobody but its node
    /// reaches it.
    fn ingress(&self) -> Option<&dyn Ingress>;

    /// All regions, if there are several.
    fn regions(&self) -> Option<&Arc<Regions>> {
        None
    }
}
