//! What dispatch sees of a connection.

use async_trait::async_trait;

use super::Delivery;
use crate::model::StreamName;

/// Which of a connection's streams; never used again within the connection once it is left.
pub type Slot = u32;

/// What became of a delivery that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is in the outbox, or the connection filters it out.
    Taken {
        /// It is the first since the last flush: flush when the batch is through.
        flush: bool,
    },
    /// The outbox is full.
    Full,
    /// The connection has ended or left this stream.
    Closed,
}

/// The receiving side of a connection. Its methods never wait for the client.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Unique among the connections of a node.
    fn number(&self) -> u64;

    /// Whether the connection still wants what `slot` brings. Once false, false for ever.
    fn wants(&self, slot: Slot) -> bool;

    /// Puts a delivery into the outbox if there is room.
    fn offer(&self, slot: Slot, stream: &StreamName, delivery: &Delivery) -> Offer;

    /// Writes what the socket takes right now.
    fn flush(&self);

    /// Waits until the outbox has room again, or the connection has ended.
    async fn room(&self);

    /// Waits until [`Sink::wants`] is false: the connection has ended or left the stream.
    async fn left(&self, slot: Slot);
}
