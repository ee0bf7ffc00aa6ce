//! The way from a publish to other nodes around the store's channels, where there is one.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Event, NodeId, StreamName};

/// For how long after its beginning a publish may leave nodes out, on the store's clock. One that takes
/// longer to get there is sent to all nodes over the channels.
pub const DIRECT_TIME: Duration = Duration::from_secs(1);

/// Ways from this node to others that don't lead through the store.
pub trait DirectPath: Send + Sync {
    /// The nodes that can be reached now with an event of so many bytes; `None` when nobody can.
    fn reach(&self, bytes: usize) -> Option<Arc<dyn DirectRoutes>>;
}

/// Nodes that can be reached. A node that a publish leaves out gets its event through here.
pub trait DirectRoutes: Send + Sync {
    /// The nodes' names, each with a space before and behind it.
    fn nodes(&self) -> &str;

    /// Carries an event that the store has to the nodes that were left out although they hold a route.
    /// `by_channel` are the others with a route: they have it over their channels. `from` is the device that
    /// published it, where that is known.
    fn carry(
        &self,
        stream: &StreamName,
        event: Arc<Event>,
        from: Option<&StreamName>,
        left_out: &[NodeId],
        by_channel: &[NodeId],
    );

    /// The outcome of a publish to the stream is unknown: has the nodes look into it, now and when
    /// [`DIRECT_TIME`] is over.
    fn request_sync(&self, stream: &StreamName);
}
