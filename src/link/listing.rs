//! What operators see of the links of a node.

use std::time::Duration;

use crate::model::NodeId;

/// A link from this node, or what became of the last attempt at one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it leads.
    pub node: NodeId,
    /// What it is now.
    pub state: State,
}

/// The state of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Events can go over it.
    Open {
        /// How long it has been open.
        age: Duration,
        /// How long ago it carried an event last, if it ever did.
        idle: Option<Duration>,
        /// Bytes that wait in its queue.
        waiting: usize,
        /// It was opened for a device that had sent nothing yet.
        ahead: bool,
    },
    /// The node is being dialed.
    Opening,
    /// It failed, and the node is left alone for a while.
    Resting {
        /// How long still; zero where the next event may open it.
        left: Duration,
        /// Why it failed, as in `link_failures_total`.
        reason: &'static str,
    },
}
