//! What stalled readers cost, measured.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::lab::{Lab, Plan};
use super::producer::Work;
use crate::support::{eventually, resident};

const READERS: usize = 2000;

/// What a node needs with nobody connected: the program, its runtime, its connections to Redis. A build
/// without optimization is larger than what is shipped.
const FIXED: u64 = 48 << 20;

/// The rings of all streams: what the setting allows, twice, as an allocator has its own share.
const RING: u64 = 8 << 20;

/// Each reader's outbox holds `OUTBOX` bytes at most, of frames that it shares with others and pays for as
/// if they were its own. The rest is the connection itself: its task, its buffers, its temporary
/// dispatcher. The page that one holds is shared here, as all stop at about the same event; readers that
/// stop at different places of a long history hold up to 256 KiB each, which this does not measure.
const OUTBOX: u64 = 16 << 10;
const CONNECTION: u64 = 16 << 10;

/// A reader that asks, and then never reads.
async fn stalled_reader(node: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(node).await.unwrap();
    let head = format!("GET /v1/sse?topic=news HTTP/1.1\r\nHost: {node}\r\nAccept: text/event-stream\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_stalled_readers_of_a_busy_topic_cost_what_is_stated() {
    let outbox = OUTBOX.to_string();
    let settings = vec![
        ("WHIMBREL_OUTBOX_BYTES", &*outbox.leak()),
        ("WHIMBREL_RING_BYTES", "4194304"),
        // They are to be held, not to be let go.
        ("WHIMBREL_PING_SECONDS", "60"),
    ];
    let plan = Plan { nodes: 1, settings, streams: vec!["topic:news"], ..Plan::default() };
    let mut lab = Lab::new("stalled_readers", plan).await;
    let node = lab.nodes[0].address();
    let empty = resident(lab.nodes[0].pid());
    lab.listen().await;
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        readers.push(stalled_reader(node).await);
    }
    eventually("all readers are let in", async || {
        let there = lab.nodes[0].metric("connections{transport=\"sse\"}").await;
        (there >= READERS as f64).then_some(())
    })
    .await;
    let connected = resident(lab.nodes[0].pid());
    let (streams, patience) = (lab.streams.clone(), Duration::from_secs(12));
    lab.produce_as(Work { streams, pace: Duration::from_millis(20), padding: 60_000, door: 0, patience });
    eventually("all outboxes are full", async || {
        let behind = lab.nodes[0].metric("temporary_dispatchers").await;
        (behind >= READERS as f64).then_some(())
    })
    .await;
    // The topic goes on, and so do clients that read.
    lab.published(20).await;
    lab.flowing().await;
    let stalled = resident(lab.nodes[0].pid());
    let bound = FIXED + RING + READERS as u64 * (OUTBOX + CONNECTION);
    println!(
        "stalled_readers: {} KiB empty, {} KiB with {READERS} connected, {} KiB with all stalled; bound {} KiB",
        empty >> 10,
        connected >> 10,
        stalled >> 10,
        bound >> 10
    );
    assert!(stalled < bound, "{stalled} of {bound} bytes");
    lab.verdict().await;
    drop(readers);
}
