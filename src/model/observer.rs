//! Who is notified of an event's way through a node.

use std::time::SystemTime;

/// Records what becomes of one event on this node, where its trace is sampled.
pub trait Observer: Send + Sync {
    /// It is about to be offered to the connections at the live end.
    fn dispatching(&self);

    /// Whether the write to one more connection is to be recorded.
    fn admits_write(&self) -> bool;

    /// It was offered to so many connections.
    fn dispatched(&self, connections: usize);

    /// A connection that was given it at `begun` has written it to its socket.
    fn written(&self, transport: &'static str, begun: SystemTime);
}
