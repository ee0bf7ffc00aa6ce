//! A bound on bytes means resident memory, whatever the events and whoever is given them in whichever encoding.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::node::Node;
use crate::support::{eventually, resident};

const LIMIT: u64 = 32 << 20;

/// What is there beside the events: rings, and what batches and readers take meanwhile.
const BESIDE: u64 = 16 << 20;

/// Readers of all encodings, who take all that they are given.
async fn read_all(node: &Node) {
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let queries =
        [("sse?topic=a", ""), ("sse?topic=a&envelope=1", ""), ("sse?topic=a&topic=b", ""), ("ws?topic=a", websocket)];
    for (query, headers) in queries {
        let mut socket = TcpStream::connect(node.address()).await.unwrap();
        let head = format!("GET /v1/{query} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", node.address());
        socket.write_all(head.as_bytes()).await.unwrap();
        tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 16];
            while socket.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        });
    }
    eventually("all follow", async || {
        let listening = node.get_json("/v1/topics/a").await;
        (listening["connections"] == 4).then_some(())
    })
    .await;
}

/// Fills the embedded store with batches until it takes no more, and returns by how much the node grew.
async fn grown(entry: impl Fn(usize) -> String, batch: usize) -> u64 {
    let node = Node::start(&[
        ("WHIMBREL_EMBEDDED_BYTES", &LIMIT.to_string()),
        ("WHIMBREL_RING_BYTES", "1048576"),
        ("WHIMBREL_RETENTION", "*=1000000/86400"),
    ]);
    read_all(&node).await;
    let before = resident(node.pid());
    let mut stored = 0;
    loop {
        let entries: Vec<String> = (stored..stored + batch).map(&entry).collect();
        let answer = node.call("POST", "/v1/events", &[], format!("[{}]", entries.join(","))).await.json();
        let taken = answer["results"].as_array().unwrap().iter().filter(|result| result["id"].is_string()).count();
        stored += taken;
        if taken < batch {
            break;
        }
    }
    assert!(stored > batch, "{stored}");
    resident(node.pid()).saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_takes_what_its_bound_says_of_tiny_events_and_of_large_ones() {
    let tiny = |number| format!(r#"{{"topic":"a","data":1,"type":"{}","collapse":"{number}"}}"#, "t".repeat(128));
    let large = |_| format!(r#"{{"topic":"a","data":"{}"}}"#, "x".repeat(60_000));
    for grown in [grown(tiny, 5000).await, grown(large, 20).await] {
        let most = LIMIT * 13 / 10 + BESIDE;
        assert!(grown < most, "{} MiB, and at most {} are stated", grown >> 20, most >> 20);
    }
}
