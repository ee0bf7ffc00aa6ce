//! Connections before they listen, or that only ask and publish, are bounded: whatever they do, probes are
//! answered, others publish, and the node reaches its store.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::{Said, Transport, Wanted};
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::{eventually, in_time, resident};

/// Descriptors of a small machine.
const DESCRIPTORS: usize = 256;

async fn small_node(redis: &RedisServer) -> Node {
    let node = Node::start_with_descriptors(DESCRIPTORS, &[("WHIMBREL_REDIS_URL", &redis.url())]);
    eventually("it is ready", async || (node.get("/health/ready").await.status == 200).then_some(())).await;
    node
}

/// How many of these the node has not closed.
async fn open(sockets: &mut [TcpStream]) -> usize {
    let mut open = 0;
    for socket in sockets {
        let closed = tokio::time::timeout(Duration::from_millis(1), socket.read(&mut [0; 16])).await;
        open += usize::from(closed.is_err());
    }
    open
}

#[tokio::test]
async fn silent_sockets_keep_nobody_out_and_the_oldest_give_way() {
    let redis = RedisServer::start();
    let node = small_node(&redis).await;
    let mut listener = Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(node.address()).await.unwrap());
    }
    for n in 0..20 {
        assert_eq!(node.get("/health/live").await.status, 200);
        node.publish("topic:news", &n.to_string()).await;
    }
    listener.data(20).await;
    // Lanes that broke find descriptors for others.
    let mut raw = redis.raw().await;
    let _: () = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query_async(&mut raw).await.unwrap_or(());
    eventually("it publishes again", async || {
        let answer = node.call("POST", "/v1/topics/news/events", &[], "20").await;
        (answer.status == 201).then_some(())
    })
    .await;
    assert_eq!(listener.data(1).await, ["20"]);
    Wanted::new(Transport::WebSocket, &["topic:news"]).connect(&node).await;
    assert!(!node.log().contains("Too many open files"));
    let kept = open(&mut silent).await;
    assert!((1..100).contains(&kept), "{kept} of the silent sockets are open");
    assert_eq!(open(&mut silent[..200]).await, 0, "the oldest were the first to go");
}

#[tokio::test]
async fn when_all_are_at_work_probes_are_answered_and_others_refused() {
    let redis = RedisServer::start();
    let node = small_node(&redis).await;
    let id = node.publish("device:42", "1").await;
    let path = format!("/v1/devices/42/events/{id}?wait=60");
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut http = Http::connect(node.address()).await;
        http.request("GET", &path, &[], b"").await;
        waiting.push(http);
    }
    // Some wait for an acknowledgement, the others for a place.
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let since = Instant::now();
        assert_eq!(node.get(path).await.status, 200, "{path}");
        assert!(since.elapsed() < Duration::from_secs(5), "{path}: {:?}", since.elapsed());
    }
    let refused = node.call("POST", "/v1/topics/news/events", &[], "1").await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.problem(503).0, "overload");
    let close = Wanted::new(Transport::Sse, &["topic:news"]).turned_away(&node).await;
    assert_eq!(close, Said::Close { reason: "overload".into(), code: None });
    drop(waiting);
    eventually("there is room again", async || {
        let answer = node.call("POST", "/v1/topics/news/events", &[], "1").await;
        (answer.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_an_unfinished_one_is_cheap() {
    const HEADS: usize = 200;
    let node = Node::start(&[]);
    let host = format!("Host: {}\r\n", node.address());
    for fits in [true, false] {
        let size = if fits { 30_000 } else { 100_000 };
        let mut http = Http::connect(node.address()).await;
        let head = format!("GET /health/live HTTP/1.1\r\n{host}X: {}\r\nConnection: close\r\n\r\n", "y".repeat(size));
        // The node need not take all of it, and closing on what is unread may take its answer away.
        let _ = http.socket.write_all(head.as_bytes()).await;
        let answer = String::from_utf8(http.rest().await).unwrap();
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 431 ");
        assert!(if fits { answer.starts_with("HTTP/1.1 200 ") } else { refused }, "{answer}");
    }
    let before = resident(node.pid());
    // One of each two wants to send more than it may.
    let mut held = Vec::new();
    for _ in 0..HEADS {
        let mut http = Http::connect(node.address()).await;
        http.send(format!("GET / HTTP/1.1\r\n{host}X: {}", "y".repeat(30_000))).await;
        held.push(http);
        let mut greedy = Http::connect(node.address()).await;
        let _ = greedy.socket.write_all(format!("GET / HTTP/1.1\r\n{host}X: {}", "y".repeat(395_000)).as_bytes()).await;
        held.push(greedy);
    }
    let grown = |now: u64| now.saturating_sub(before) / HEADS as u64;
    assert_eq!(node.get("/health/live").await.status, 200);
    let each = grown(resident(node.pid()));
    assert!(each <= 96 << 10, "{each} bytes for each unfinished head");
}

#[tokio::test]
async fn an_unfinished_head_and_an_unfinished_body_have_their_times() {
    let node = Node::start(&[("WHIMBREL_HEADER_SECONDS", "1"), ("WHIMBREL_BODY_SECONDS", "2")]);
    let host = format!("Host: {}\r\n", node.address());
    let since = Instant::now();
    let mut silent = Http::connect(node.address()).await;
    let mut slow = Http::connect(node.address()).await;
    slow.send(format!("GET / HTTP/1.1\r\n{host}X: ")).await;
    let mut body = Http::connect(node.address()).await;
    body.send(format!("POST /v1/topics/a/events HTTP/1.1\r\n{host}Content-Length: 100\r\n\r\n[1")).await;
    assert_eq!((silent.rest().await, slow.rest().await), (Vec::new(), Vec::new()));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let (slug, detail) = body.answer("POST").await.problem(400);
    assert!(slug == "bad-request" && detail.contains("2 s"), "{slug}: {detail}");
    // A byte now and then does not make it longer.
    let mut dripping = Http::connect(node.address()).await;
    let drip = async {
        dripping.send(format!("GET / HTTP/1.1\r\n{host}X: ")).await;
        while dripping.socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    in_time("the end of it", drip).await;
}

#[tokio::test]
async fn large_bodies_whose_last_byte_is_missing_keep_nobody_from_publishing() {
    const BATCH: usize = 16 * 1024 * 1024;
    let node = Node::start(&[]);
    let head =
        |length| format!("POST /v1/events HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", node.address());
    let filling = vec![b' '; BATCH - 1];
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut http = Http::connect(node.address()).await;
        http.send(head(BATCH)).await;
        // The last of them may be refused while it sends.
        let _ = http.socket.write_all(&filling).await;
        stalled.push(http);
    }
    for n in 0..50 {
        node.publish("topic:news", &n.to_string()).await;
    }
    // A batch as large as they are finds room as soon as it shows that they go no further.
    let entry = r#"{"topic":"news","data":1}"#;
    let mut batch = format!("[{entry}{}", " ".repeat(8 * 1024 * 1024)).into_bytes();
    batch.push(b']');
    eventually("a large batch is taken", async || {
        let answer = node.call("POST", "/v1/events", &[], &batch).await;
        (answer.status == 200).then_some(())
    })
    .await;
    drop(stalled);
}

#[tokio::test]
async fn a_node_without_descriptors_says_so_once_and_serves_again_when_there_are_some() {
    let node = Node::start(&[]);
    let process = Pid::from_raw(node.pid().cast_signed());
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count() as u64;
    // The hard limit, as of this process, stays: it can't be raised again.
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(process, Resource::Nofile, Rlimit { current: Some(open), maximum }).unwrap();
    let mut waiting = Http::connect(node.address()).await;
    waiting.request("GET", "/health/live", &[], b"").await;
    let lines = || node.log().lines().filter(|line| line.contains("can't accept connections")).count();
    eventually("the first failure is logged", async || (lines() > 0).then_some(())).await;
    // It tries ten times a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lines(), 1, "{}", node.log());
    prlimit(process, Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    assert_eq!(waiting.answer("GET").await.status, 200);
}
