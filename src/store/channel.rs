//! A node's channel: the way from a publish to the nodes that follow the stream, at most once.

use std::sync::Arc;

use async_trait::async_trait;

use super::redis::SlotSet;
use super::{Control, StoreError};
use crate::model::{Event, NodeId, StreamName};

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
    /// The part of the channel was interrupted that brings the events of streams in these slots: some may be lost.
    Interrupted(Arc<SlotSet>),
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
