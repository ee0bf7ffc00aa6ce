//! Works that one node of a region does at a time, and how far one of them got.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{NodeId, StoreError};
use crate::model::{EventId, StreamName};

/// What only one node of a region does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Draining the ingress stream.
    Ingress,
    /// Looking for producers that are gone.
    Producers,
    /// Delivering to the webhook.
    Webhook,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::Ingress => "draining the ingress stream",
            Work::Producers => "looking for producers that are gone",
            Work::Webhook => "delivering to the webhook",
        })
    }
}

/// How far the events of a stream were handed over to the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// Everything up to here was taken.
    pub position: EventId,
    /// What comes after it, up to here, may have been sent: whoever goes on sends just that, so that it can be
    /// told for the same.
    pub sent: Option<EventId>,
}

impl Handover {
    /// Nothing is on its way.
    pub fn at(position: EventId) -> Self {
        Handover { position, sent: None }
    }
}

/// Whose turn it is, and how far streams were handed over. The latter lives as long as the stream's position does.
#[async_trait]
pub trait Turns: Send + Sync {
    /// Makes it the turn of `node` for `ttl`, or keeps it so. False: it is another's.
    async fn hold(&self, work: Work, node: &NodeId, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives the turn back, if it is still the node's.
    async fn let_go(&self, work: Work, node: &NodeId) -> Result<(), StoreError>;

    /// What is written down; nothing before the first time, and when the stream began anew.
    async fn handover(&self, stream: &StreamName) -> Result<Option<Handover>, StoreError>;

    /// Goes on from `from` to `to`. False, and nothing is written down, if it is not the turn of `node` at the
    /// webhook, or if somebody else went on: a node that was stopped in the middle can't undo what was done since.
    async fn hand_over(
        &self,
        stream: &StreamName,
        node: &NodeId,
        from: Option<Handover>,
        to: Handover,
    ) -> Result<bool, StoreError>;
}
