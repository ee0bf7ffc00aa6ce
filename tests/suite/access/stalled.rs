//! Readers with tokens that read nothing.

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::support::client::{Client, Transport, Wanted};
use crate::support::token::device;
use crate::support::{eventually, resident};

const READERS: usize = 1000;
const EVENTS: usize = 60;

/// Bytes of an event: so many that the readers' sockets and outboxes are soon full.
const EVENT: usize = 60_000;

/// What one reader may hold of the node: its outbox, and the connection itself with its grant.
const READER: u64 = (16 << 10) + (16 << 10);

/// The program, its rings, and what a build without optimization takes.
const FIXED: u64 = 64 << 20;

async fn stalled_reader(node: &Node, token: &str) -> TcpStream {
    let (socket, host) = (TcpSocket::new_v4().unwrap(), node.address());
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(host).await.unwrap();
    let head = format!("GET /v1/sse?topic=news HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

/// Publishes events of these numbers, and reads them as somebody who keeps up.
async fn publish_and_read(node: &Node, client: &mut Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let data = format!(r#"{{"number":{number},"fill":"{}"}}"#, "x".repeat(EVENT));
        let id = ask_as(node, Some(PUBLISH), "POST", "/v1/topics/news/events", &data).await.id();
        assert_eq!(client.event().await.id, id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_stalled_readers_with_tokens_take_bounded_memory_and_hold_up_nobody() {
    let keys = keys_file();
    let mut settings = closed(&keys);
    // They are to be held, not to be let go.
    settings.extend([("WHIMBREL_OUTBOX_BYTES", "16384".to_owned()), ("WHIMBREL_RING_BYTES", "4194304".to_owned())]);
    settings.push(("WHIMBREL_PING_SECONDS", "60".to_owned()));
    let node = Node::start(&borrowed(&settings));
    let mut clients = Vec::new();
    for transport in [Transport::Sse, Transport::WebSocket] {
        let token = device("reader", &["topic:news"], &[]);
        clients.push(Wanted::new(transport, &["topic:news"]).bearer(&token).connect(&node).await);
    }
    let mut stalled = Vec::with_capacity(READERS);
    for number in 0..READERS {
        stalled.push(stalled_reader(&node, &device(&number.to_string(), &["topic:news"], &[])).await);
    }
    eventually("all are let in", async || {
        let there = node.metric_for(ADMIN, "connections{transport=\"sse\"}").await;
        (there >= (READERS + 1) as f64).then_some(())
    })
    .await;
    let mut other = clients.pop().unwrap();
    publish_and_read(&node, &mut clients[0], 0..EVENTS).await;
    for _ in 0..EVENTS {
        other.event().await;
    }
    eventually("all outboxes are full", async || {
        let behind = node.metric_for(ADMIN, "temporary_dispatchers").await;
        (behind >= READERS as f64).then_some(())
    })
    .await;
    publish_and_read(&node, &mut other, EVENTS..EVENTS + 10).await;
    let (taken, bound) = (resident(node.pid()), FIXED + READERS as u64 * READER);
    assert!(taken < bound, "{taken} of {bound} bytes");
    // Who is let in next is not held up either.
    let token = device("late", &["topic:news"], &[]);
    let wanted = Wanted::new(Transport::Sse, &["topic:news"]).bearer(&token).after("last:1");
    assert_eq!(wanted.connect(&node).await.event().await.stream, "topic:news");
}
