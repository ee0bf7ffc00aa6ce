//! What WebSocket clients may say. The transport frames and paces messages, and knows nothing else of them.

use std::sync::Arc;

use async_trait::async_trait;

use super::Connection;

/// Reads the messages of WebSocket clients, and answers them on their connections.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The first message: the connection, its node, its device and its positions. `complete` is false where the client
    /// asked for the oldest events, and older ones than those kept had existed.
    fn ready(&self, connection: &Connection, complete: bool) -> String;

    /// Answers a message that came too soon after others, where `rate` may come in a second.
    fn refuse(&self, connection: &Connection, text: &str, rate: u32);

    /// Carries out one message.
    async fn run(&self, connection: &Arc<Connection>, text: &str);
}
