//! Routes: which nodes the events of a stream are sent to.

use std::time::Duration;

use super::NodeId;

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
