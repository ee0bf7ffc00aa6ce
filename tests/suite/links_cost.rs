//! What links buy and cost, measured in one run:
//! `cargo test --release --test suite -- --ignored --nocapture links_cost`.

use std::time::{Duration, Instant};

use crate::support::client::{Client, Transport, Wanted};
use crate::support::node::Node;
use crate::support::redis::RedisServer;

const EVENTS: usize = 5000;
/// Fast enough that the region's own beats don't count, slow enough that nothing queues.
const EVERY: Duration = Duration::from_millis(2);
/// Devices that each get their share of the events, spread over all nodes but the publishing one.
const DEVICES: usize = 56;

/// So much is kept that whoever falls behind can read on.
const SETTINGS: &[(&str, &str)] = &[
    ("WHIMBREL_RETENTION", "*=100000/3600"),
    ("WHIMBREL_LINK_LISTEN", "127.0.0.1:0"),
    ("WHIMBREL_LINK_SECRET", "a-secret-that-all-nodes-have"),
];

fn start(redis: &RedisServer, count: usize, linked: bool) -> Vec<Node> {
    let settings = if linked { SETTINGS } else { &SETTINGS[..1] };
    (0..count).map(|_| Node::on(redis, settings)).collect()
}

/// Microseconds of processor time that the Redis has used.
async fn redis_cpu(redis: &RedisServer) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut redis.raw().await).await.unwrap();
    let used = info.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        ["used_cpu_user", "used_cpu_sys"].contains(&name).then(|| value.trim().parse::<f64>().unwrap() * 1e6)
    });
    used.sum()
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

/// `everywhere`: one topic that is followed on all nodes; otherwise each event goes to one device on one node.
async fn run(count: usize, linked: bool, everywhere: bool) {
    let redis = RedisServer::start();
    let nodes = start(&redis, count, linked);
    let followers: Vec<_> = if everywhere {
        nodes[1..].iter().map(|node| (node, "topic:news".to_owned())).collect()
    } else {
        (0..DEVICES).map(|n| (&nodes[1 + n % (count - 1)], format!("device:{n}"))).collect()
    };
    let mut clients = Vec::new();
    for (node, stream) in &followers {
        clients.push(Wanted::new(Transport::Sse, &[stream]).connect(node).await);
    }
    // Links open with the first events.
    let streams: Vec<_> =
        if everywhere { vec!["topic:news".to_owned()] } else { (0..DEVICES).map(|n| format!("device:{n}")).collect() };
    for _ in 0..4 {
        for stream in &streams {
            nodes[0].publish(stream, "0").await;
        }
    }
    for client in &mut clients {
        client.data(4).await;
    }
    let misses = nodes[0].metric("link_misses_total").await;
    let (before, begun) = (redis_cpu(&redis).await, Instant::now());
    let each = EVENTS / streams.len();
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
    let cpu = (redis_cpu(&redis).await - before) / (each * streams.len()) as f64;
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!(
        "{count} nodes, {}, {}: Redis {cpu:.1} us an event; publish to delivery p50 {} us, p99 {} us; {} took the channel",
        if everywhere { "one topic followed on all" } else { "each event to one device" },
        if linked { "links" } else { "channels" },
        at(0.5),
        at(0.99),
        if linked { (nodes[0].metric("link_misses_total").await - misses).to_string() } else { "all".to_owned() },
    );
}

/// The same topic, published as fast as the store takes it.
async fn run_batch(count: usize, linked: bool) {
    let redis = RedisServer::start();
    let nodes = start(&redis, count, linked);
    let mut clients = Vec::new();
    for node in &nodes[1..] {
        clients.push(Wanted::new(Transport::Sse, &["topic:news"]).connect(node).await);
    }
    for n in 0..4 {
        nodes[0].publish("topic:news", &n.to_string()).await;
        for client in &mut clients {
            client.data(1).await;
        }
    }
    let before = redis_cpu(&redis).await;
    let read = |mut client: Client| tokio::spawn(async move { client.data(EVENTS).await });
    let readers: Vec<_> = clients.into_iter().map(read).collect();
    nodes[0].publish_all("topic:news", 0..EVENTS).await;
    for reader in readers {
        reader.await.unwrap();
    }
    let cpu = (redis_cpu(&redis).await - before) / EVENTS as f64;
    let fallbacks = nodes[0].metric("link_fallbacks_total").await + nodes[0].metric("link_misses_total").await;
    let way = if linked { "links" } else { "channels" };
    println!("{count} nodes, a batch to one topic, {way}: Redis {cpu:.1} us an event; {fallbacks} missed their link");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for docs/links.md"]
async fn redis_and_latency_with_and_without_links() {
    for count in [2, 8] {
        for linked in [false, true] {
            run_batch(count, linked).await;
        }
    }
    for everywhere in [false, true] {
        for count in [2, 8] {
            for linked in [false, true] {
                run(count, linked, everywhere).await;
            }
        }
    }
}
