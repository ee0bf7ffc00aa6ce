//! The leases of nodes: which of them are alive.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::model::{NodeId, StreamName};

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
    /// The lease holds for another session.
    Held {
        /// Nodes of the region with a lease.
        nodes: u32,
    },
    /// There was no lease to renew: it lapsed, or the store lost it. The node has to take a new id.
    Gone,
}

/// Which nodes are alive, on the store's clock.
#[async_trait]
pub trait Liveness: Send + Sync {
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
