//! What a connection needs of the node, and what it is held to.

use std::sync::Arc;
use std::time::Duration;

use super::{Connections, Operations};
use crate::hub::Hub;

/// What connections are held to.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Interval of pings; twice that without acknowledgement ends a connection.
    pub ping: Duration,
    /// Bytes that may wait for a connection.
    pub outbox_bytes: usize,
    /// Largest message that a WebSocket client may send, in bytes.
    pub max_message_bytes: usize,
    /// Streams that a connection may follow.
    pub max_streams: usize,
    /// Messages that a WebSocket client may send a second.
    pub messages: u32,
}

/// What connections need.
pub struct Context {
    pub settings: ListenerSettings,
    pub hub: Arc<Hub>,
    pub connections: Arc<Connections>,
    pub operations: Arc<dyn Operations>,
}
