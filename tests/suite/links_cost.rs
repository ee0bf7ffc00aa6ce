//! What links buy and cost, measured in one run of rounds in which links and channels take turns:
//! `cargo test --release --test suite -- --ignored --nocapture links_cost`.

use std::time::{Duration, Instant};

use crate::support::client::{Client, Transport, Wanted};
use crate::support::node::Node;
use crate::support::redis::RedisServer;

const EVENTS: usize = 3000;
/// Rounds of each load; medians count.
const ROUNDS: usize = 5;
/// Fast enough that the region's own beats don't count, slow enough that nothing queues.
const EVERY: Duration = Duration::from_millis(2);
/// Devices that each get their share of the events, spread over all nodes but the publishing one.
const DEVICES: usize = 56;

/// So much is kept that a client that falls behind can read on.
const SETTINGS: &[(&str, &str)] = &[
    ("WHIMBREL_RETENTION", "*=100000/3600"),
    ("WHIMBREL_LINK_LISTEN", "127.0.0.1:0"),
    ("WHIMBREL_LINK_SECRET", "a-secret-that-all-nodes-have"),
];

fn start(redis: &RedisServer, count: usize, linked: bool) -> Vec<Node> {
    let settings = if linked { SETTINGS } else { &SETTINGS[..1] };
    (0..count).map(|_| Node::on(redis, settings)).collect()
}

/// Reads so many events and gives the time that each took, in microseconds.
async fn latencies(mut client: Client, count: usize, begun: Instant) -> Vec<u64> {
    let mut latencies = Vec::with_capacity(count);
    while latencies.len() < count {
        let sent: u64 = client.event().await.data.parse().unwrap();
        latencies.push(begun.elapsed().as_micros() as u64 - sent);
    }
    latencies
}

/// What is published, and to which streams.
#[derive(Clone, Copy)]
enum Load {
    /// One topic that all nodes follow.
    Topic,
    /// Each event to one device on one node.
    Devices,
    /// The topic, published as fast as the store takes it.
    Batch,
}

/// What one round showed.
struct Figures {
    redis_us: f64,
    /// p50 and p99 from publish to delivery, where events are published one by one.
    latency_us: Option<[u64; 2]>,
    /// Events for another node that took the channel.
    by_channel: f64,
}

async fn by_channel(node: &Node) -> f64 {
    node.metric("link_fallbacks_total").await + node.metric("link_misses_total").await
}

async fn round(load: Load, count: usize, linked: bool) -> Figures {
    let redis = RedisServer::start();
    let nodes = start(&redis, count, linked);
    let streams: Vec<_> = match load {
        Load::Topic | Load::Batch => vec!["topic:news".to_owned()],
        Load::Devices => (0..DEVICES).map(|n| format!("device:{n}")).collect(),
    };
    let mut clients = Vec::new();
    for n in 0..streams.len().max(count - 1) {
        let (node, stream) = (&nodes[1 + n % (count - 1)], &streams[n % streams.len()]);
        clients.push(Wanted::new(Transport::Sse, &[stream]).connect(node).await);
    }
    // Links open with the first events.
    for _ in 0..4 {
        for stream in &streams {
            nodes[0].publish(stream, "0").await;
        }
    }
    for client in &mut clients {
        client.data(4).await;
    }
    let missed = by_channel(&nodes[0]).await;
    let (before, begun) = (redis.cpu_us().await, Instant::now());
    let each = EVENTS / streams.len();
    let latency_us = if matches!(load, Load::Batch) {
        let read = |mut client: Client| tokio::spawn(async move { client.data(EVENTS).await });
        let readers: Vec<_> = clients.into_iter().map(read).collect();
        nodes[0].publish_all(&streams[0], 0..EVENTS).await;
        for reader in readers {
            reader.await.unwrap();
        }
        None
    } else {
        let readers: Vec<_> = clients.into_iter().map(|client| tokio::spawn(latencies(client, each, begun))).collect();
        let mut ticks = tokio::time::interval(EVERY);
        for n in 0..each * streams.len() {
            ticks.tick().await;
            let now = begun.elapsed().as_micros().to_string();
            nodes[0].publish(&streams[n % streams.len()], &now).await;
        }
        let mut times = Vec::new();
        for reader in readers {
            times.extend(reader.await.unwrap());
        }
        times.sort_unstable();
        Some([0.5, 0.99].map(|share| times[(times.len() as f64 * share) as usize]))
    };
    let redis_us = (redis.cpu_us().await - before) / (each * streams.len()) as f64;
    let by_channel = if linked { by_channel(&nodes[0]).await - missed } else { 0.0 };
    Figures { redis_us, latency_us, by_channel }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Takes rounds in turn, and prints their medians as a row of the table in docs/links.md.
async fn compare(load: Load, what: &str, count: usize) {
    let (mut channels, mut links) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        channels.push(round(load, count, false).await);
        links.push(round(load, count, true).await);
    }
    let redis = [&channels, &links].map(|rounds| median(rounds.iter().map(|round| round.redis_us)));
    let latency = |which: usize| {
        let of = |rounds: &[Figures]| {
            let all: Option<Vec<_>> =
                rounds.iter().map(|round| Some(round.latency_us?[which] as f64 / 1000.0)).collect();
            all.map_or_else(|| "| ".to_owned(), |all| format!("| {:.2} ms ", median(all.into_iter())))
        };
        of(&channels) + &of(&links)
    };
    println!(
        "| {what} | {count} | {:.0} µs | {:.0} µs ({:+.0}%) {}{}|  ({} took the channel)",
        redis[0],
        redis[1],
        (redis[1] / redis[0] - 1.0) * 100.0,
        latency(0),
        latency(1),
        links.iter().map(|round| round.by_channel).sum::<f64>(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for docs/links.md"]
async fn redis_and_latency_with_and_without_links() {
    for count in [2, 8] {
        compare(Load::Topic, "one topic that all nodes follow, event by event", count).await;
    }
    for count in [2, 8] {
        compare(Load::Devices, "each event to one device", count).await;
    }
    for count in [2, 8] {
        compare(Load::Batch, "one topic, in batches", count).await;
    }
}
