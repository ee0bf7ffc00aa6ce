//! WebSocket through real proxies, with the configurations in `deploy/proxies`. SSE and restarts are in `rolling.rs`.

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::support::balancer::Balancer;
use crate::support::http::Http;
use crate::support::in_time;
use crate::support::node::Node;
use crate::support::redis::RedisServer;

/// A listener and a publisher come through the proxy, perhaps to different nodes.
async fn passes_websocket(proxy: impl AsyncFnOnce(&[std::net::SocketAddr]) -> Balancer) {
    let redis = RedisServer::start();
    let nodes = [Node::on(&redis, &[]), Node::on(&redis, &[])];
    let proxy = proxy(&nodes.each_ref().map(Node::address)).await;
    let url = format!("ws://{}/v1/ws?topic=news", proxy.address());
    let (mut socket, _) = in_time("an upgrade", tokio_tungstenite::connect_async(url)).await.unwrap();
    let mut next = async |op: &str| loop {
        let message = in_time("a frame", socket.next()).await.unwrap().unwrap();
        let Ok(text) = message.into_text() else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap_or_default();
        if frame["op"] == op {
            return frame;
        }
    };
    next("ready").await;
    let mut http = Http::connect(proxy.address()).await;
    assert_eq!(http.call("POST", "/v1/topics/news/events", &[], b"17").await.status, 201);
    assert_eq!(next("event").await["data"], 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_passes_websocket() {
    passes_websocket(Balancer::nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_passes_websocket() {
    passes_websocket(Balancer::haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Caddy: scripts/check-deploy installs it and runs this"]
async fn caddy_passes_websocket() {
    passes_websocket(Balancer::caddy).await;
}
