//! Leases of the jobs that one node of a region does at a time, and the checkpoint of one of them.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::model::{EventId, NodeId, StreamName};

/// What only one node of a region does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Draining the ingress stream.
    Ingress,
    /// Looking for producers that are gone.
    Producers,
    /// Delivering to the webhook.
    Webhook,
    /// Ending entries of the directory.
    Directory,
}

impl JobKind {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobKind::Ingress => "ingress",
            JobKind::Producers => "producers",
            JobKind::Webhook => "webhook",
            JobKind::Directory => "directory",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobKind::Ingress => "draining the ingress stream",
            JobKind::Producers => "looking for producers that are gone",
            JobKind::Webhook => "delivering to the webhook",
            JobKind::Directory => "ending entries of the directory",
        })
    }
}

/// How far the webhook has acknowledged the events of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The receiver acknowledged everything up to here.
    pub position: EventId,
    /// What comes after it, up to here, may have been sent: the next leader sends just that again, so that the
    /// receiver can recognise it.
    pub sent: Option<EventId>,
}

impl Checkpoint {
    /// Nothing is under way.
    pub fn at(position: EventId) -> Self {
        Checkpoint { position, sent: None }
    }
}

/// Leaders of jobs, and checkpoints. A checkpoint lives as long as its stream's position.
#[async_trait]
pub trait Leaders: Send + Sync {
    /// Makes `node` the leader for `ttl`, or keeps it so. False: another node is the leader.
    async fn acquire(&self, job: JobKind, node: &NodeId, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives the leadership back, if it is still the node's.
    async fn resign(&self, job: JobKind, node: &NodeId) -> Result<(), StoreError>;

    /// The checkpoint; none before the first one, and after the stream began anew.
    async fn checkpoint(&self, stream: &StreamName) -> Result<Option<Checkpoint>, StoreError>;

    /// Moves the checkpoint from `from` to `to`. False, and nothing is written, if `node` does not lead the webhook,
    /// or if the checkpoint is not at `from`: a node that was stopped in the middle can't undo what was done since.
    async fn advance(
        &self,
        stream: &StreamName,
        node: &NodeId,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<bool, StoreError>;
}
