//! The description of what is spoken over SSE and WebSocket against the real thing.

use serde_json::json;

use super::support::javascript::javascript;
use super::support::node::Node;
use super::support::redis::RedisServer;
use super::support::token::{SECRET, now, token};

/// So few events are kept that a client which comes back late gets a gap.
const SETTINGS: &[(&str, &str)] = &[
    ("WHIMBREL_RETENTION", "topic:news=5/600 *=1000/600"),
    ("WHIMBREL_PING_SECONDS", "1"),
    ("WHIMBREL_DRAIN_DELAY_SECONDS", "0"),
    ("WHIMBREL_DRAIN_SECONDS", "1"),
];

async fn is_held_to_its_description(node: &Node) {
    let closed = Node::start(&[("WHIMBREL_JWT_SECRET", SECRET)]);
    let ends = token(json!({"sub": "42", "exp": now() + 50, "whimbrel": {"subscribe": ["topic:a"]}}));
    let lasts = token(json!({"sub": "42", "exp": now() + 3600}));
    javascript("asyncapi.mjs", &[&node.url(), &node.pid().to_string(), &closed.url(), &ends, &lasts]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_of_an_embedded_node_receive_what_is_described_and_nothing_else() {
    is_held_to_its_description(&Node::start(SETTINGS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_of_a_node_on_redis_receive_what_is_described_and_nothing_else() {
    let redis = RedisServer::start_with(&["--stream-node-max-entries", "1"]);
    is_held_to_its_description(&Node::on(&redis, SETTINGS)).await;
}
