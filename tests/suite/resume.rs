//! A client that comes back, anywhere, goes on right where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::Signal;
use crate::support::client::{Cursor, Said, Transport, Wanted};
use crate::support::http::Http;
use crate::support::node::{Node, publish_batch};
use crate::support::world::{World, promises};

promises! {
    everywhere:
        history_in_between_is_delivered_on_another_node,
        resumes_at_full_speed_leave_no_seam,
        several_streams_resume_each_at_its_own_place,
        a_client_that_left_before_its_first_event_misses_none,
        a_client_that_is_up_to_date_gets_what_comes_and_no_gap;
    on_redis:
        a_client_ahead_of_its_new_node_gets_nothing_twice,
}

/// Keeps history enough for everything here.
const LONG: &[(&str, &str)] = &[("WHIMBREL_RETENTION", "*=1000000/3600")];

async fn history_in_between_is_delivered_on_another_node(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut client = world.wanted(&["device:42"]).connect(&first).await;
    let mut published = first.publish_all("device:42", 0..3).await;
    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(client.event().await);
    }
    let cursor = client.cursor();
    assert_eq!(cursor.id(), published[2], "the cursor of one stream is the id of the last event");
    drop(client);
    // More than a page, so that several are read.
    published.extend(first.publish_all("device:42", 3..700).await);
    let mut client = world.wanted(&["device:42"]).from(&cursor).connect(&second).await;
    published.extend(first.publish_all("device:42", 700..710).await);
    for _ in 3..710 {
        received.push(client.event().await);
    }
    assert_eq!(received.iter().map(|event| &event.id).collect::<Vec<_>>(), published.iter().collect::<Vec<_>>());
    assert_eq!(received.iter().map(|e| e.data.clone()).collect::<Vec<_>>(), texts(0..710));
    second.metric_is("temporary_dispatchers", 0.0).await;
}

async fn resumes_at_full_speed_leave_no_seam(world: World) {
    const RESUMES: usize = 12;
    let nodes: [_; 2] = world.nodes(LONG);
    let mut client = world.wanted(&["topic:ticks"]).connect(&nodes[0]).await;
    let publisher = Publisher::start(&nodes[0], "topic:ticks");
    let mut received = Vec::new();
    for resume in 0..RESUMES {
        for _ in 0..=resume * 17 {
            received.push(client.event().await);
        }
        let cursor = client.cursor();
        drop(client);
        client = world.wanted(&["topic:ticks"]).from(&cursor).connect(&nodes[(resume + 1) % 2]).await;
    }
    let published = publisher.stop().await;
    assert!(published.len() > received.len(), "it was published all the while");
    while received.len() < published.len() {
        received.push(client.event().await);
    }
    let ids: Vec<String> = received.iter().map(|event| event.id.clone()).collect();
    assert!(ids == published, "{} received, {} published", ids.len(), published.len());
    assert!(received.iter().map(|event| event.data.as_str()).eq(texts(0..published.len()).iter()));
    for node in &nodes {
        node.metric_is("temporary_dispatchers", 0.0).await;
    }
}

async fn several_streams_resume_each_at_its_own_place(world: World) {
    let [first, second] = world.nodes(&[]);
    let streams = ["device:42", "topic:news", "topic:sport"];
    let mut client = world.wanted(&streams).connect(&first).await;
    for (stream, data) in [("topic:news", "1"), ("device:42", "2"), ("topic:news", "3")] {
        first.publish(stream, data).await;
        let event = client.event().await;
        assert_eq!((event.stream.as_str(), event.data.as_str()), (stream, data));
    }
    let cursor = client.cursor();
    drop(client);
    first.publish("topic:sport", "4").await;
    first.publish("device:42", "5").await;
    first.publish("topic:other", "6").await;
    let mut resumed = world.wanted(&streams).from(&cursor).connect(&second).await;
    let mut received = [resumed.event().await, resumed.event().await].map(|event| (event.stream, event.data));
    received.sort();
    assert_eq!(received, [("device:42".into(), "5".into()), ("topic:sport".into(), "4".into())]);
    // Fewer streams than the cursor has, and one that it does not have: that one begins now.
    let mut fewer = world.wanted(&["topic:sport", "topic:other"]).from(&cursor).connect(&second).await;
    first.publish("topic:other", "7").await;
    let mut received = [fewer.event().await, fewer.event().await].map(|event| (event.stream, event.data));
    received.sort();
    assert_eq!(received, [("topic:other".into(), "7".into()), ("topic:sport".into(), "4".into())]);
}

async fn a_client_that_left_before_its_first_event_misses_none(world: World) {
    let [first, second] = world.nodes(&[]);
    first.publish("topic:news", "0").await;
    let cursor = world.wanted(&["topic:news"]).connect(&first).await.cursor();
    let quiet = world.wanted(&["topic:quiet"]).connect(&first).await.cursor();
    first.publish("topic:news", "1").await;
    first.publish("topic:quiet", "2").await;
    assert_eq!(world.wanted(&["topic:news"]).from(&cursor).connect(&second).await.data(1).await, ["1"]);
    assert_eq!(world.wanted(&["topic:quiet"]).from(&quiet).connect(&second).await.data(1).await, ["2"]);
}

async fn a_client_that_is_up_to_date_gets_what_comes_and_no_gap(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut client = world.wanted(&["topic:news"]).connect(&first).await;
    for round in 0..6 {
        let data = round.to_string();
        first.publish("topic:news", &data).await;
        assert_eq!(client.data(1).await, [data]);
        let cursor = client.cursor();
        drop(client);
        client = world.wanted(&["topic:news"]).from(&cursor).connect(&second).await;
    }
}

/// The new node does not have the newest events yet when the client comes with their ids.
async fn a_client_ahead_of_its_new_node_gets_nothing_twice(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut there = world.wanted(&["topic:news"]).connect(&second).await;
    let mut client = world.wanted(&["topic:news"]).connect(&first).await;
    second.signal(Signal::STOP);
    first.publish_all("topic:news", 0..10).await;
    assert_eq!(client.data(10).await, texts(0..10));
    // Its request is there before whatever the channel brings.
    let asked = world.wanted(&["topic:news"]).from(&client.cursor()).ask(&second).await;
    second.signal(Signal::CONT);
    let mut resumed = asked.welcome().await;
    first.publish("topic:news", "10").await;
    assert_eq!(resumed.data(1).await, ["10"]);
    assert_eq!(there.data(11).await, texts(0..11));
}

#[tokio::test]
async fn a_position_of_one_transport_serves_the_other() {
    let world = World::embedded(Transport::Sse);
    let node = world.node(&[]);
    let streams = ["topic:a", "topic:b"];
    let mut websocket = Wanted::new(Transport::WebSocket, &streams).connect(&node).await;
    node.publish("topic:a", "1").await;
    assert_eq!(websocket.data(1).await, ["1"]);
    let Cursor::Ids(ids) = websocket.cursor() else { panic!("WebSocket positions are ids") };
    node.publish("topic:b", "2").await;
    let pairs = ids
        .iter()
        .fold(Wanted::new(Transport::Sse, &streams), |wanted, (stream, id)| wanted.after(&format!("{stream}/{id}")));
    let mut sse = pairs.connect(&node).await;
    assert_eq!(sse.data(1).await, ["2"]);
    let Cursor::Opaque(cursor) = sse.cursor() else { panic!("SSE positions are opaque") };
    node.publish("topic:a", "3").await;
    let mut websocket = Wanted::new(Transport::WebSocket, &streams).after(&cursor).connect(&node).await;
    assert_eq!(websocket.data(1).await, ["3"]);
}

#[tokio::test]
async fn last_event_id_beats_after() {
    let world = World::embedded(Transport::Sse);
    let node = world.node(&[]);
    let ids = node.publish_all("topic:news", 0..5).await;
    // An EventSource asks its first address again, with the position that it had then.
    let mut client = world.wanted(&["topic:news"]).after(&ids[0]).last_event_id(&ids[3]).connect(&node).await;
    assert_eq!(client.data(1).await, ["4"]);
    let mut client = world.wanted(&["topic:news"]).after("earliest").last_event_id(&ids[2]).connect(&node).await;
    assert_eq!(client.data(2).await, ["3", "4"]);
    let malformed = world.wanted(&["topic:news"]).after(&ids[0]).last_event_id("nonsense").refused(&node).await;
    assert_eq!(malformed.problem(400).0, "bad-request");
}

#[tokio::test]
async fn clients_that_leave_while_they_catch_up_leave_nothing_behind() {
    let world = World::on_redis(Transport::Sse);
    let [first, second] = world.nodes(LONG);
    let data = format!("\"{}\"", "x".repeat(10_000));
    first.publish_all("topic:news", vec![data; 900]).await;
    for _ in 0..5 {
        let mut client = world.wanted(&["topic:news"]).after("earliest").narrow().connect(&second).await;
        assert!(matches!(client.next().await, Said::Event(_)));
        assert!(second.metric("temporary_dispatchers").await >= 1.0);
    }
    second.metric_is("temporary_dispatchers", 0.0).await;
    second.metric_is("connections{transport=\"sse\"}", 0.0).await;
}

fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Publishes 0, 1, 2… as fast as it can.
struct Publisher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Publisher {
    fn start(node: &Node, stream: &'static str) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), node.address());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut http = Http::connect(address).await;
            let mut ids = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let next = ids.len();
                ids.extend(publish_batch(&mut http, stream, next..next + 5).await);
            }
            ids
        });
        Publisher { stop, task }
    }

    /// The ids of all that was published.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
