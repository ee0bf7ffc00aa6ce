//! What the loss of its channel costs a node that follows very many streams:
//! `cargo test --release --test suite -- --ignored --nocapture interruption_cost`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::{Transport, Wanted};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::{in_time, resident};

/// Half a million streams.
const CONNECTIONS: usize = 7_813;
const TOPICS: usize = 64;

/// Between two live events, and between two new listeners.
const EVERY: Duration = Duration::from_millis(20);

/// What nothing may take longer than, neither a live event nor a new listener.
const LIMIT: Duration = Duration::from_millis(250);

/// Opens a connection that follows many topics of its own, and reads until it has its first position.
async fn follow(address: SocketAddr, number: usize) -> TcpStream {
    let topics: Vec<_> = (0..TOPICS).map(|n| format!("topic=quiet-{number}-{n}")).collect();
    let request = format!("GET /v1/sse?{} HTTP/1.1\r\nHost: {address}\r\n\r\n", topics.join("&"));
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    let positioned = async {
        while !String::from_utf8_lossy(&read).contains("whimbrel:position") {
            let count = socket.read(&mut chunk).await.unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&chunk[..count]);
        }
    };
    in_time("a position", positioned).await;
    socket
}

/// What the node holds, in MiB.
fn memory(pid: u32) -> f64 {
    resident(pid) as f64 / f64::from(1 << 20)
}

/// How long live events and new listeners took.
#[derive(Default)]
struct Seen {
    live: Vec<Duration>,
    attach: Vec<Duration>,
    /// The most that the node held.
    memory: f64,
}

impl Seen {
    fn print(&mut self, when: &str) {
        self.live.sort();
        self.attach.sort();
        let ms =
            |times: &[Duration], share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{when}: live event p50 {:.1} p99 {:.1} max {:.1} ms of {}, attach p50 {:.1} p99 {:.1} max {:.1} ms of {}, \
             memory at most {:.0} MiB",
            ms(&self.live, 0.5),
            ms(&self.live, 0.99),
            ms(&self.live, 1.0),
            self.live.len(),
            ms(&self.attach, 0.5),
            ms(&self.attach, 0.99),
            ms(&self.attach, 1.0),
            self.attach.len(),
            self.memory,
        );
    }
}

/// Publishes to a topic that is followed, and lets new listeners come, until `done`.
async fn observe(node: &Node, mut done: impl AsyncFnMut() -> bool) -> Seen {
    let mut seen = Seen::default();
    let mut listener = Wanted::new(Transport::Sse, &["topic:live"]).connect(node).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let live = async {
        let (mut times, mut ticks) = (Vec::new(), tokio::time::interval(EVERY));
        while !*stopped.borrow() {
            ticks.tick().await;
            let begun = Instant::now();
            node.publish("topic:live", "1").await;
            listener.event().await;
            times.push(begun.elapsed());
        }
        times
    };
    let attach = async {
        let (mut times, mut ticks) = (Vec::new(), tokio::time::interval(EVERY));
        while !*stopped.borrow() {
            ticks.tick().await;
            let topic = format!("topic:fresh-{}", uuid::Uuid::new_v4());
            let begun = Instant::now();
            Wanted::new(Transport::Sse, &[&topic]).connect(node).await;
            times.push(begun.elapsed());
        }
        times
    };
    let watch = async {
        let mut most = 0.0_f64;
        loop {
            most = most.max(memory(node.pid()));
            if done().await {
                stop.send_replace(true);
                return most;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    (seen.live, seen.attach, seen.memory) = tokio::join!(live, attach, watch);
    seen
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes, for a release build and a machine that has nothing else to do"]
async fn interruption_cost() {
    // The connections' ends here take descriptors too.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_LOG", "info"), ("WHIMBREL_MAX_CONNECTIONS", "9000")]);
    let begun = Instant::now();
    let address = node.address();
    let sockets: Vec<_> =
        stream::iter(0..CONNECTIONS).map(|number| follow(address, number)).buffer_unordered(16).collect().await;
    let streams = (CONNECTIONS * TOPICS) as f64;
    println!("{streams} streams followed after {:.0?}", begun.elapsed());

    let quiet = Instant::now();
    let mut before = observe(&node, async || quiet.elapsed() > Duration::from_secs(20)).await;
    before.print("undisturbed");

    let synced = node.metric("syncs_total").await;
    let killed: u64 =
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query_async(&mut redis.raw().await).await.unwrap();
    assert_eq!(killed, 1);
    let begun = Instant::now();
    let mut after = observe(&node, async || node.metric("syncs_total").await - synced >= streams).await;
    let took = begun.elapsed();
    after.print("interrupted");
    println!("{streams} streams synced in {took:.1?}, {:.0} a second", streams / took.as_secs_f64());
    drop(sockets);

    for times in [&after.live, &after.attach] {
        assert!(times.last().unwrap() <= &LIMIT, "{:?}", times.last());
    }
    assert!(after.memory <= before.memory * 1.1, "{:.0} MiB, and {:.0} before", after.memory, before.memory);
    assert!((5_000.0..20_000.0).contains(&(streams / took.as_secs_f64())), "{took:?}");
}
