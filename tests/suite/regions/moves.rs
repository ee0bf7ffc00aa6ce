//! A stream moves to another region, and nobody notices but by the round trip.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use whimbrel::history::Record;
use whimbrel::model::{EventId, StreamName};

use crate::faults::listener::{Behaviour, Doors, Listener};
use crate::faults::producer::{Producer, Work};
use crate::faults::recorder::Recorder;
use crate::regions::{NAMES, Regions, knows, move_to, publish};
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::{Node, events_path};
use crate::support::proxy::Cut;
use crate::support::redis::RedisServer;

/// What the clients and producers of a history need: nothing is trimmed, connections are plenty, and what a lost
/// message would cost is not mended by the next regular sync.
const SETTINGS: &[(&str, &str)] = &[
    ("WHIMBREL_RETENTION", "*=1000000/86400"),
    ("WHIMBREL_SYNC_SECONDS", "60"),
    ("WHIMBREL_PING_SECONDS", "1"),
    ("WHIMBREL_CONNECTIONS_PER_DEVICE", "1000"),
];

/// Clients that hop between the nodes and one that stays, and a producer in each region, as fast as it goes.
struct Traffic {
    stream: StreamName,
    recorder: Arc<Recorder>,
    listeners: Vec<Listener>,
    producers: Vec<Producer>,
}

impl Traffic {
    async fn start(nodes: &[&Node], stream: &str, pace: Duration) -> Self {
        let (doors, recorder) = (Arc::<Doors>::default(), Arc::<Recorder>::default());
        for (number, node) in nodes.iter().enumerate() {
            doors.set(number, format!("n{number}"), node.address());
        }
        let stream: StreamName = stream.parse().unwrap();
        let mut listeners = Vec::new();
        for (transport, roams) in [
            (Transport::Sse, Some(Duration::from_millis(400))),
            (Transport::WebSocket, Some(Duration::from_millis(700))),
            (Transport::Sse, None),
        ] {
            let behaviour = Behaviour {
                transport,
                streams: vec![stream.clone()],
                patience: Some(Duration::from_secs(15)),
                roams,
                returns: Duration::from_millis(50),
                door: listeners.len(),
            };
            let name = format!("c{}", listeners.len());
            listeners.push(Listener::start(name, behaviour, doors.clone(), recorder.clone()));
        }
        eventually("all clients were let in", async || {
            listeners.iter().all(|client| client.whims.sessions.load(Ordering::Relaxed) > 0).then_some(())
        })
        .await;
        let hire = |door| {
            let streams = vec![stream.clone()];
            let work = Work { streams, pace, padding: 20, door, patience: Duration::from_secs(12) };
            Producer::start(format!("p{door}"), work, doors.clone(), recorder.clone())
        };
        let producers = vec![hire(0), hire(1)];
        Traffic { stream, recorder, listeners, producers }
    }

    /// Ends it, waits until all clients have read to the end, and judges; `home` has the stream in the end. The
    /// events, and what the slowest publish took.
    async fn verdict(self, home: &RedisServer) -> (usize, Duration) {
        let mut slowest = Duration::ZERO;
        for producer in self.producers {
            let findings = producer.stop().await;
            assert_eq!((findings.statuses, findings.unknown), (vec![], 0), "nothing was refused");
            slowest = slowest.max(findings.slowest);
        }
        for client in &self.listeners {
            client.whims.settled.store(true, Ordering::Relaxed);
        }
        type Entry = (String, Vec<(String, String)>);
        let mut range = redis::cmd("XRANGE");
        range.arg(format!("whimbrel:{{{}}}:events", self.stream)).arg("-").arg("+");
        let log: Vec<Entry> = range.query_async(&mut home.raw().await).await.unwrap();
        let ids: Vec<EventId> = log.iter().map(|(id, _)| id.parse().unwrap()).collect();
        eventually("all clients have read to the end", async || {
            let at_end = |client: &Listener| self.recorder.standing(&client.name, &self.stream) == ids.last().copied();
            self.listeners.iter().all(at_end).then_some(())
        })
        .await;
        let events = ids.len();
        self.recorder.note(Record::Log { stream: self.stream.clone(), ids, retention: None });
        self.recorder.note(Record::Quiet);
        let verdict = self.recorder.judge();
        println!("{}", verdict.summary);
        if !verdict.violations.is_empty() {
            let file = self.recorder.save("moves");
            let shown: Vec<_> = verdict.violations.iter().take(20).map(ToString::to_string).collect();
            panic!("{} violations ({}):\n{}", verdict.violations.len(), file.display(), shown.join("\n"));
        }
        assert_eq!(verdict.summary.read_to_end, self.listeners.len());
        (events, slowest)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_moves_back_and_forth_lose_double_and_disorder_nothing() {
    let regions = Regions::start();
    let nodes = regions.nodes(SETTINGS);
    nodes[0].publish("device:42", "0").await;
    // Not as fast as it goes: each move copies the whole log, and on a busy machine that would outgrow the moves.
    let traffic = Traffic::start(&[&nodes[0], &nodes[1]], "device:42", Duration::from_millis(5)).await;
    for round in 1..=100 {
        move_to(&nodes[round / 2 % 2], "devices/42", NAMES[round % 2]).await;
    }
    assert_eq!(regions.home("device:42").await.as_deref(), Some("101 eu"));
    let (events, slowest) = traffic.verdict(&regions.servers[0]).await;
    println!("{events} events; the slowest publish took {slowest:?}");
    assert!(events > 100, "{events}");
    let left: Vec<String> = regions.keys(1, "device:42").await;
    assert_eq!(left, ["whimbrel:{device:42}:meta"], "where it went is all that stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_a_stream_goes_with_it() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let stream = "device:1";
    let key = [("Idempotency-Key", "order-1")];
    let first = eu.call("POST", &events_path(stream), &key, "1").await.id();
    let second = eu.publish_with(stream, "collapse=c", "2").await;
    let third = eu.publish_with(stream, "collapse=c&ttl=3600", "3").await;
    let acked = eu.call("POST", "/v1/devices/1/ack", &[], format!(r#"{{"id":"{first}"}}"#)).await;
    assert_eq!(acked.status, 200, "{}", acked.text());
    let mut listening = Wanted::new(Transport::Sse, &[stream]).connect(&eu).await;
    let before = eu.get_json("/v1/devices/1").await;
    move_to(&us, "devices/1", "us").await;
    for node in [&eu, &us] {
        let repeated = node.call("POST", &events_path(stream), &key, "1").await;
        assert_eq!((repeated.status, repeated.id()), (200, first.clone()), "the key is remembered");
        let other = node.call("POST", &events_path(stream), &key, "another body").await;
        assert_ne!(other.status, 201, "{}", other.text());
        let inbox = node.get_json("/v1/devices/1").await;
        assert_eq!(inbox["region"], "us");
        for field in ["last", "acked", "pending"] {
            assert_eq!(inbox[field], before[field], "{field}");
        }
        eventually("its place is known in the new home", async || {
            (node.get_json("/v1/devices/1").await["online"] == true).then_some(())
        })
        .await;
        let history = node.get_json(&format!("{}?limit=10", events_path(stream))).await;
        let ids: Vec<_> = history["events"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect();
        assert_eq!(ids, [&first[..], &second, &third]);
        // Of the collapse key only the newest is caught up with.
        let mut late = Wanted::new(Transport::WebSocket, &[stream]).after("ack").connect(node).await;
        assert_eq!(late.event().await.id, third);
    }
    let fourth = eu.publish(stream, "4").await;
    assert_eq!(listening.event().await.id, fourth, "in the connection that was open all along");
    let kicked = eu.call("DELETE", "/v1/devices/1/connections", &[], "").await;
    assert!(kicked.json()["closed"].as_u64().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_to_live_go_on_where_the_clock_is_another() {
    let Some(behind) = RedisServer::start_with_clock("-300s") else {
        eprintln!("SKIPPED: libfaketime is missing, so no server's clock can be behind (Debian: apt install faketime)");
        return;
    };
    let regions = Regions::with_servers([RedisServer::start(), behind]);
    let [eu, us] = regions.nodes(&[]);
    let id = eu.publish_with("topic:news", "ttl=120", "1").await;
    let mut listening = Wanted::new(Transport::Sse, &["topic:news"]).connect(&eu).await;
    for (node, home) in [(&us, "us"), (&eu, "eu"), (&eu, "us")] {
        move_to(node, "topics/news", home).await;
        let mut late = Wanted::new(Transport::Sse, &["topic:news"]).after("earliest").connect(&us).await;
        assert_eq!(late.event().await.id, id);
        let next = us.publish_with("topic:news", "ttl=120", "2").await;
        assert_eq!(listening.event().await.id, next);
        assert!(next.parse::<EventId>().unwrap() > id.parse().unwrap(), "ids go on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_a_region_that_is_cut_off_is_refused_and_the_stream_goes_on_where_it_was() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let mut published = eu.publish_all("topic:news", 0..50).await;
    us.publish("topic:far", "0").await;
    knows(&eu, 2).await;
    let mut listening = Wanted::new(Transport::Sse, &["topic:news"]).connect(&eu).await;
    // The first call to it is made while it is there.
    publish(&eu, "topic:far", "1").await;
    regions.links[1].refuse(true);
    regions.links[1].cut(Cut::Reset);
    let refused = eventually("the move is refused", async || {
        let answer = eu.call("PUT", "/v1/topics/news/region", &[], r#"{"region":"us"}"#).await;
        (answer.status >= 500).then_some(answer)
    })
    .await;
    assert!(refused.text().contains("region 'us'"), "{}", refused.text());
    for n in 50..60 {
        let id = eu.publish("topic:news", &n.to_string()).await;
        assert_eq!(listening.event().await.id, id);
        published.push(id);
    }
    assert_eq!(regions.home("topic:news").await.as_deref(), Some("1 eu"));
    regions.links[1].heal();
    eventually("it is moved", async || {
        let answer = eu.call("PUT", "/v1/topics/news/region", &[], r#"{"region":"us"}"#).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(eu.history("topic:news").await.len(), published.len());
    // That node was cut off as well, and comes back in its own time.
    let id = eventually("the node there publishes again", async || {
        let answer = publish(&us, "topic:news", "60").await;
        (answer.status == 201).then(|| answer.id())
    })
    .await;
    assert_eq!(listening.event().await.id, id);
}

/// Prints how long publishers wait while a device is moved:
/// `cargo test --release --test suite regions::moves::measured -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measured_the_pause_that_publishers_see() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[("WHIMBREL_RETENTION", "*=1000/86400")]);
    eu.publish_all("device:42", 0..1000).await;
    let nodes = Arc::new([eu, us]);
    for moving in [false, true] {
        let publishers: Vec<_> = (0..4)
            .map(|number| {
                let nodes = nodes.clone();
                tokio::spawn(async move {
                    let (begun, mut took) = (Instant::now(), Vec::new());
                    while begun.elapsed() < Duration::from_secs(10) {
                        let publish_begun = Instant::now();
                        let answer = publish(&nodes[number % 2], "device:42", "1").await;
                        assert_eq!(answer.status, 201);
                        took.push(publish_begun.elapsed());
                    }
                    took
                })
            })
            .collect();
        let mut moves = 0;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(9) {
            if moving {
                moves += 1;
                move_to(&nodes[0], "devices/42", NAMES[moves % 2]).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut took: Vec<Duration> = Vec::new();
        for publisher in publishers {
            took.extend(publisher.await.unwrap());
        }
        took.sort();
        let share = |share: f64| took[(took.len() as f64 * share) as usize];
        // A move delays about one publish of each publisher.
        let waited = &took[took.len() - (4 * moves).clamp(1, took.len())..];
        println!(
            "{moves} moves, {} publishes: p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}; of those that waited for a \
             move p50 {:?}, p99 {:?}",
            took.len(),
            share(0.5),
            share(0.99),
            share(0.999),
            took.last().unwrap(),
            waited[waited.len() / 2],
            waited[waited.len() * 99 / 100],
        );
    }
}
