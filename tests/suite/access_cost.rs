//! What access costs, measured: open and closed nodes take turns in one run.
//! `cargo test --release --test suite -- --ignored --nocapture access_cost`, on a machine that has nothing else to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::idle::{listener, plain_cost};
use crate::support::client::{Transport, Wanted};
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::token::{ES256, RS256, SECRET, bearer, by_key, device, hs256, now, token_by};

/// Open and closed take turns so often; medians count.
const ROUNDS: usize = 3;

/// Connections that are being set up at once.
const RUSH: usize = 64;

fn closed() -> Node {
    let pems = [ES256.1, RS256.1].join("\n");
    let settings =
        [("WHIMBREL_JWT_SECRET", SECRET), ("WHIMBREL_JWT_PUBLIC_KEY", &pems), ("WHIMBREL_RATE_DEVICE", "100000")];
    Node::start(&settings)
}

/// A node, and the address of a listener there.
fn world(is_closed: bool) -> (Node, impl Fn(usize) -> String) {
    let node = if is_closed { closed() } else { Node::start(&[]) };
    let token = move |number: usize| match is_closed {
        true => format!("&token={}", device(&number.to_string(), &["topic:news"], &[])),
        false => String::new(),
    };
    (node, move |number| format!("/v1/sse?topic=news{}", token(number)))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Seconds of processor time that a process has used.
fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn idle_memory_with_access_open_and_closed() {
    let (mut open, mut with_tokens) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (is_closed, figures) in [(false, &mut open), (true, &mut with_tokens)] {
            let (node, target) = world(is_closed);
            figures.push(plain_cost(&node, target).await as f64);
        }
    }
    println!("access_cost: an idle listener takes {} bytes open, {} with a token", median(open), median(with_tokens));
}

/// Reads so many events.
async fn read_events(mut socket: TcpStream, events: usize) {
    let (mut buffer, mut seen, mut last) = (vec![0; 64 << 10], 0, 0);
    while seen < events {
        let count = socket.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the listener was closed");
        for byte in &buffer[..count] {
            seen += usize::from((last, *byte) == (b'\n', b'\n'));
            last = *byte;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn fan_out_with_access_open_and_closed() {
    const LISTENERS: usize = 1000;
    const EVENTS: usize = 300;
    let (mut open, mut with_tokens) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (is_closed, figures) in [(false, &mut open), (true, &mut with_tokens)] {
            let (node, target) = world(is_closed);
            let connecting = stream::iter(0..LISTENERS).map(async |number| listener(&node, &target(number)).await);
            let sockets: Vec<TcpStream> = connecting.buffered(RUSH).collect().await;
            let reading: Vec<_> = sockets.into_iter().map(|socket| tokio::spawn(read_events(socket, EVENTS))).collect();
            let publisher = bearer(&device("publisher", &[], &["topic:news"]));
            let headers: &[(&str, &str)] = if is_closed { &[("Authorization", &publisher)] } else { &[] };
            let (mut http, before) = (Http::connect(node.address()).await, processor(node.pid()));
            for _ in 0..EVENTS {
                assert_eq!(http.call("POST", "/v1/topics/news/events", headers, b"1").await.status, 201);
            }
            for reading in reading {
                reading.await.unwrap();
            }
            figures.push((processor(node.pid()) - before) * 1e6 / (LISTENERS * EVENTS) as f64);
        }
    }
    let (open, with_tokens) = (median(open), median(with_tokens));
    println!("access_cost: a delivery takes {open:.2} µs of processor open, {with_tokens:.2} with tokens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn connects_a_second_by_the_algorithm_of_the_token() {
    const CONNECTS: usize = 3000;
    let claims = json!({"sub": "42", "exp": now() + 3600, "whimbrel": {"subscribe": ["topic:news"]}}).to_string();
    let header = |alg: &str| format!(r#"{{"alg":"{alg}"}}"#);
    let tokens = [
        ("HS256", token_by(&header("HS256"), &claims, hs256(SECRET))),
        ("ES256", token_by(&header("ES256"), &claims, by_key("ES256", ES256.0))),
        ("RS256", token_by(&header("RS256"), &claims, by_key("RS256", RS256.0))),
    ];
    let measure = async |node: &Node, target: &str| {
        let (begun, before) = (Instant::now(), processor(node.pid()));
        let connecting = stream::iter(0..CONNECTS).map(async |_| drop(listener(node, target).await));
        connecting.buffered(RUSH).collect::<Vec<()>>().await;
        let processor = (processor(node.pid()) - before) * 1e6 / CONNECTS as f64;
        (CONNECTS as f64 / begun.elapsed().as_secs_f64(), processor)
    };
    let (open, node) = (Node::start(&[]), closed());
    let (rate, processor) = measure(&open, "/v1/sse?topic=news").await;
    println!("access_cost: {rate:.0} connects/s open, {processor:.0} µs of processor each");
    for (alg, token) in &tokens {
        let (rate, processor) = measure(&node, &format!("/v1/sse?topic=news&token={token}")).await;
        println!("access_cost: {rate:.0} connects/s with {alg}, {processor:.0} µs of processor each");
    }
}

/// Connects with a token whose signature is wrong, until it is told to stop.
async fn storm(node: std::net::SocketAddr, token: String, stop: Arc<AtomicBool>, refused: Arc<AtomicU64>) {
    let path = format!("/v1/sse?topic=news&token={token}");
    while !stop.load(Ordering::Relaxed) {
        let mut http = Http::connect(node).await;
        http.request("GET", &path, &[], b"").await;
        assert_eq!(http.head().await.status, 401);
        refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// p50 and p99 of what deliveries took, in milliseconds, over some seconds.
async fn latencies(node: &Node) -> [f64; 2] {
    const EVENTS: usize = 1000;
    const EVERY: Duration = Duration::from_millis(10);
    let token = device("publisher", &["topic:news"], &["topic:news"]);
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).bearer(&token).connect(node).await;
    let (begun, address, bearer) = (Instant::now(), node.address(), bearer(&token));
    let publishing = tokio::spawn(async move {
        let (mut http, mut ticks) = (Http::connect(address).await, tokio::time::interval(EVERY));
        for _ in 0..EVENTS {
            ticks.tick().await;
            let data = begun.elapsed().as_micros().to_string();
            let answer =
                http.call("POST", "/v1/topics/news/events", &[("Authorization", &bearer)], data.as_bytes()).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    });
    let mut taken = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        let sent: u64 = client.event().await.data.parse().unwrap();
        taken.push((begun.elapsed().as_micros() as u64 - sent) as f64 / 1000.0);
    }
    publishing.await.unwrap();
    taken.sort_by(f64::total_cmp);
    [taken[EVENTS / 2], taken[EVENTS * 99 / 100]]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn deliveries_beside_a_storm_of_bad_tokens() {
    let node = closed();
    let [p50, p99] = latencies(&node).await;
    println!("access_cost: deliveries take p50 {p50:.2}, p99 {p99:.2} ms");
    let claims = json!({"sub": "42", "exp": now() + 3600}).to_string();
    let bad = token_by(r#"{"alg":"RS256"}"#, &claims, |_| vec![7; 256]);
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let storms: Vec<_> =
        (0..RUSH).map(|_| tokio::spawn(storm(node.address(), bad.clone(), stop.clone(), refused.clone()))).collect();
    let begun = Instant::now();
    let [p50, p99] = latencies(&node).await;
    let rate = refused.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for storm in storms {
        storm.await.unwrap();
    }
    println!("access_cost: beside {rate:.0} bad RS256 tokens a second p50 {p50:.2}, p99 {p99:.2} ms");
}
