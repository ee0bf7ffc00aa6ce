//! The trace that a publish belongs to: kept with the event, and given to those who ask for it.

use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt as _;

use crate::support::client::{Client, Said};
use crate::support::http::Http;
use crate::support::in_time;
use crate::support::node::{Node, events_path};
use crate::support::world::{World, promises};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02";

promises! {
    everywhere:
        a_listener_that_asks_is_given_the_trace_live_and_on_resume,
        an_event_that_is_not_stored_brings_its_trace,
        an_entry_of_a_batch_has_its_own_trace_or_that_of_the_request;
    on_redis:
}

async fn publish(node: &Node, stream: &str, trace: &str, data: &str) -> String {
    node.call("POST", &events_path(stream), &[("traceparent", trace)], data).await.id()
}

async fn traced(client: &mut Client) -> (String, Option<String>) {
    let event = client.event().await;
    (event.data, event.trace)
}

fn with(data: &str, trace: &str) -> (String, Option<String>) {
    (data.to_owned(), Some(trace.to_owned()))
}

fn without(data: &str) -> (String, Option<String>) {
    (data.to_owned(), None)
}

async fn a_listener_that_asks_is_given_the_trace_live_and_on_resume(world: World) {
    let [node, other] = world.nodes(&[]);
    let asking = world.wanted(&["topic:a"]).with("trace", "1");
    let asking_for_two = world.wanted(&["topic:a", "device:1"]).with("trace", "1");
    let envelope = world.wanted(&["topic:a"]).with("trace", "1").with("envelope", "1");
    let mut listeners = Vec::new();
    for wanted in [&asking, &asking_for_two, &envelope] {
        listeners.push(wanted.connect(&node).await);
        listeners.push(wanted.connect(&other).await);
    }
    let mut silent = [
        world.wanted(&["topic:a"]).connect(&node).await,
        world.wanted(&["topic:a", "device:1"]).with("trace", "0").connect(&other).await,
    ];
    let begun = listeners[0].cursor();
    publish(&node, "topic:a", TRACE, "1").await;
    node.publish("topic:a", "2").await;
    publish(&other, "topic:a", OTHER, "3").await;
    let expected = [with("1", TRACE), without("2"), with("3", OTHER)];
    for listener in &mut listeners {
        for expected in &expected {
            assert_eq!(&traced(listener).await, expected);
        }
    }
    for listener in &mut silent {
        for data in ["1", "2", "3"] {
            assert_eq!(traced(listener).await, without(data));
        }
    }
    for node in [&node, &other] {
        let mut resumed = asking.clone().from(&begun).connect(node).await;
        for expected in &expected {
            assert_eq!(&traced(&mut resumed).await, expected);
        }
        let mut from_the_log = asking.clone().after("earliest").connect(node).await;
        assert_eq!(&traced(&mut from_the_log).await, &expected[0]);
        let mut silent = world.wanted(&["topic:a"]).after("earliest").connect(node).await;
        assert_eq!(traced(&mut silent).await, without("1"));
    }
}

async fn an_event_that_is_not_stored_brings_its_trace(world: World) {
    let [node, other] = world.nodes(&[]);
    let mut asking = world.wanted(&["topic:a"]).with("trace", "1").connect(&other).await;
    let mut asking_for_two = world.wanted(&["topic:a", "topic:b"]).with("trace", "1").connect(&node).await;
    let mut silent = world.wanted(&["topic:a"]).connect(&other).await;
    let path = format!("{}?ephemeral=1", events_path("topic:a"));
    assert_eq!(node.call("POST", &path, &[("traceparent", TRACE)], "1").await.status, 202);
    let trace = async |client: &mut Client| match client.next().await {
        Said::Ephemeral { trace, .. } => trace,
        other => panic!("{other:?}"),
    };
    assert_eq!(trace(&mut asking).await.as_deref(), Some(TRACE));
    assert_eq!(trace(&mut asking_for_two).await.as_deref(), Some(TRACE));
    assert_eq!(trace(&mut silent).await, None);
}

async fn an_entry_of_a_batch_has_its_own_trace_or_that_of_the_request(world: World) {
    let node = world.node(&[]);
    let mut asking = world.wanted(&["topic:a"]).with("trace", "1").connect(&node).await;
    let entries = json!([
        {"topic": "a", "data": 1},
        {"topic": "a", "data": 2, "traceparent": OTHER},
        {"topic": "a", "data": 3, "traceparent": "invalid"},
    ]);
    let answer = node.call("POST", "/v1/events", &[("traceparent", TRACE)], entries.to_string()).await;
    let results = answer.json()["results"].clone();
    assert!(results.as_array().unwrap().iter().all(|result| result["id"].is_string()), "{results}");
    assert_eq!(traced(&mut asking).await, with("1", TRACE));
    assert_eq!(traced(&mut asking).await, with("2", OTHER));
    assert_eq!(traced(&mut asking).await, without("3"));
}

/// What comes over a socket, up to the end of a line that ends so.
async fn raw_until(http: &mut Http, end: &str) -> String {
    let mut raw = String::new();
    in_time("the frame", async {
        while !raw.contains(end) {
            assert!(http.socket.read_line(&mut raw).await.unwrap() > 0, "the stream ended: {raw}");
        }
    })
    .await;
    raw
}

#[tokio::test]
async fn a_listener_that_does_not_ask_is_sent_the_same_bytes_as_ever() {
    let node = Node::start(&[]);
    let mut http = Http::connect(node.address()).await;
    http.request("GET", "/v1/sse?topic=a", &[], b"").await;
    raw_until(&mut http, "event: whimbrel:position").await;
    let id = publish(&node, "topic:a", TRACE, r#"{"a": 1}"#).await;
    let raw = raw_until(&mut http, "data: {\"a\": 1}\n\n\r\n").await;
    let block = format!("id: {id}\ndata: {{\"a\": 1}}\n\n");
    assert!(raw.ends_with(&format!("\r\n{:x}\r\n{block}\r\n", block.len())), "{raw:?}");
}

#[tokio::test]
async fn a_listener_by_body_asks_with_a_member() {
    let node = Node::start(&[]);
    publish(&node, "topic:a", TRACE, "1").await;
    let mut http = Http::connect(node.address()).await;
    let wish = json!({"streams": ["topic:a"], "after": "earliest", "envelope": true, "trace": true}).to_string();
    http.request("POST", "/v1/sse", &[("Content-Type", "application/json")], wish.as_bytes()).await;
    let raw = raw_until(&mut http, "\"data\":1}\n").await;
    let data = raw.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let envelope: Value = serde_json::from_str(data).unwrap();
    assert_eq!(envelope["traceparent"], TRACE);
}

#[tokio::test]
async fn a_header_that_is_invalid_or_comes_twice_is_ignored() {
    let node = Node::start(&[]);
    let world = World::embedded(crate::support::client::Transport::WebSocket);
    let mut asking = world.wanted(&["topic:a"]).with("trace", "1").connect(&node).await;
    let path = events_path("topic:a");
    for headers in [&[("traceparent", "00-zz")][..], &[("traceparent", TRACE), ("traceparent", OTHER)]] {
        node.call("POST", &path, headers, "1").await.id();
        assert_eq!(traced(&mut asking).await, without("1"));
    }
    let (_, detail) = node.get("/v1/sse?topic=a&trace=yes").await.problem(400);
    assert!(detail.contains("'trace' must be 1 or 0"), "{detail}");
}
