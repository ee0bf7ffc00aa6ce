//! What connections cost that have nothing to do.

use std::ops::Range;

use futures_util::stream::{self, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use rustls::version::TLS13;
use tokio_rustls::client::TlsStream;

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::tls::{Authority, shake_hands};

/// What the first ones make a node take for all who follow is not theirs.
const FIRST: usize = 500;
const CONNECTIONS: usize = 2000;

/// Connections that are being set up at once.
const RUSH: usize = 100;

/// Bytes of a process that are backed by no file.
fn private(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// A listener that has its position.
pub async fn listener(node: &Node, target: &str) -> TcpStream {
    listen(TcpStream::connect(node.address()).await.unwrap(), node, target).await
}

async fn listen<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, node: &Node, target: &str) -> S {
    let address = node.address();
    let upgrade = if target.starts_with("/v1/ws") {
        "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    } else {
        ""
    };
    let head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{upgrade}\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.flush().await.unwrap();
    let mut read = Vec::new();
    while ![&b"data: {\"connection\""[..], b"\"positions\""]
        .iter()
        .any(|end| read.windows(end.len()).any(|part| part == *end))
    {
        assert!(socket.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
    }
    socket
}

/// What each of many listeners takes that come in a rush; `connect` brings in those of these numbers.
async fn cost<S>(node: &Node, what: &str, connect: impl AsyncFn(Range<usize>) -> Vec<S>) -> usize {
    let first = connect(0..FIRST).await;
    let before = private(node.pid());
    let others = connect(FIRST..FIRST + CONNECTIONS).await;
    let cost = private(node.pid()).saturating_sub(before) / CONNECTIONS;
    println!("idle: {what} takes {cost} bytes");
    drop((first, others));
    cost
}

/// The same over plain TCP.
pub async fn plain_cost(node: &Node, target: impl Fn(usize) -> String) -> usize {
    let connect = async |numbers: Range<usize>| -> Vec<TcpStream> {
        let listeners = stream::iter(numbers).map(|number| (target(number), node));
        listeners.map(async |(target, node)| listener(node, &target).await).buffered(RUSH).collect().await
    };
    cost(node, &target(0), connect).await
}

/// Measures up to three times: what a busy machine leaves behind in a node's memory is not the listeners'. Each time
/// on a node of its own, as what others gave back would be taken first.
async fn takes_at_most(bound: usize, measure: impl AsyncFn() -> usize) {
    let mut costs = Vec::new();
    while costs.len() < 3 {
        costs.push(measure().await);
        if costs.last().is_some_and(|cost| *cost <= bound) {
            return;
        }
    }
    panic!("{costs:?} bytes, and {bound} are allowed");
}

#[tokio::test]
async fn an_idle_listener_of_a_topic_takes_at_most_2560_bytes() {
    for path in ["/v1/sse", "/v1/ws"] {
        takes_at_most(2560, async || plain_cost(&Node::start(&[]), |_| format!("{path}?topic=news")).await).await;
    }
}

#[tokio::test]
async fn an_idle_listener_over_tls_takes_at_most_16_kib() {
    let authority = Authority::new();
    authority.issue("node");
    let (certificate, key) = (authority.file("node.pem"), authority.file("node.key"));
    let node = Node::start(&[("WHIMBREL_TLS_CERT_FILE", &certificate), ("WHIMBREL_TLS_KEY_FILE", &key)]);
    let config = authority.client(&[&TLS13], &[b"http/1.1"]);
    let connect = async |numbers: Range<usize>| -> Vec<TlsStream<TcpStream>> {
        let listeners = stream::iter(numbers).map(|_| (config.clone(), &node));
        let listening = async |(config, node): (_, &Node)| {
            let socket = shake_hands(node.address(), config).await.unwrap();
            listen(socket, node, "/v1/sse?topic=news").await
        };
        listeners.map(listening).buffered(RUSH).collect().await
    };
    let cost = cost(&node, "/v1/sse?topic=news over TLS", connect).await;
    assert!(cost <= 16 << 10, "{cost}");
}

#[tokio::test]
async fn an_idle_listener_with_an_inbox_of_its_own_takes_at_most_4_kib() {
    let redis = RedisServer::start();
    for path in ["/v1/sse", "/v1/ws"] {
        takes_at_most(4096, async || {
            plain_cost(&Node::on(&redis, &[]), |number| format!("{path}?device={number}")).await
        })
        .await;
    }
}

#[tokio::test]
async fn idle_inboxes_that_are_due_together_are_synced_in_few_round_trips() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_SYNC_SECONDS", "1")]);
    let devices = stream::iter(0..200).map(|number| (format!("/v1/sse?device={number}"), &node));
    let _listeners: Vec<_> =
        devices.map(async |(target, node)| listener(node, &target).await).buffered(RUSH).collect().await;
    let mut raw = redis.raw().await;
    let mut reads = async || -> f64 {
        let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut raw).await.unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap();
        line.trim().parse().unwrap()
    };
    let syncs = async || node.metric("syncs_total").await;
    let (reads_before, syncs_before) = (reads().await, syncs().await);
    let synced = eventually("some rounds", async || {
        let synced = syncs().await - syncs_before;
        (synced >= 600.0).then_some(synced)
    })
    .await;
    let reads = reads().await - reads_before;
    // Whatever else the node has to ask Redis meanwhile is among them.
    assert!(reads < synced / 4.0, "{reads} reads for {synced} syncs");
}
