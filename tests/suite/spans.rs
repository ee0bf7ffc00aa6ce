//! Spans of sampled publishes, as an OpenTelemetry collector gets them.

use redis::AsyncCommands as _;
use serde_json::json;

use crate::fcall::{call, keys, loaded};
use crate::support::client::{Client, Transport, Wanted};
use crate::support::collector::{Collector, Span};
use crate::support::node::{Node, events_path};
use crate::support::redis::RedisServer;
use crate::support::{Signal, eventually, free_port};

const PARENT: &str = "b7ad6b7169203331";

/// A trace of a test's own.
fn trace(number: u8) -> String {
    format!("0af7651916cd43dd8448eb211c8031{number:02x}")
}

fn sampled(number: u8) -> String {
    format!("00-{}-{PARENT}-01", trace(number))
}

async fn publish(node: &Node, stream: &str, traceparent: &str, data: &str) -> String {
    node.call("POST", &events_path(stream), &[("traceparent", traceparent)], data).await.id()
}

/// The only span of this name.
#[track_caller]
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    match (named.next(), named.next()) {
        (Some(span), None) => span,
        _ => panic!("not one {name} in {spans:#?}"),
    }
}

/// Checks the spans of one publish that came to a node with these listeners, each a transport.
fn check_whole(spans: &[Span], id: &str, path: &str, transports: &[&str]) {
    let [published, stored, routed, dispatched] =
        ["published", "stored", "routed", "dispatched"].map(|n| one(spans, n));
    assert_eq!(published.parent, PARENT);
    for (child, parent) in [(stored, published), (routed, stored), (dispatched, routed)] {
        assert_eq!(child.parent, parent.id, "{} in {}", child.name, parent.name);
    }
    let mut written: Vec<_> = spans.iter().filter(|span| span.name == "written").collect();
    written.sort_by_key(|span| span.attribute("whimbrel.transport"));
    let by: Vec<_> = written.iter().map(|span| span.attribute("whimbrel.transport")).collect();
    assert_eq!(by, transports);
    assert!(written.iter().all(|span| span.parent == dispatched.id));
    assert_eq!(spans.len(), 4 + written.len(), "{spans:#?}");
    assert_eq!(stored.attribute("messaging.message.id"), id);
    assert_eq!(routed.attribute("whimbrel.path"), path);
    assert_eq!(dispatched.attribute("whimbrel.connections"), transports.len().to_string());
    for span in spans {
        assert!(span.begun_ns <= span.ended_ns && !span.failed, "{span:?}");
        let shown = format!("{:?}", span.attributes);
        assert!(!shown.contains("sesame") && !shown.contains("secret-type") && !shown.contains("unread"), "{shown}");
    }
    assert!(published.begun_ns <= stored.begun_ns && stored.ended_ns <= published.ended_ns);
}

async fn listeners(node: &Node, stream: &str) -> Vec<Client> {
    let mut listeners = Vec::new();
    for transport in [Transport::Sse, Transport::WebSocket] {
        listeners.push(Wanted::new(transport, &[stream]).with("trace", "1").connect(node).await);
    }
    listeners
}

#[tokio::test]
async fn a_sampled_publish_is_one_trace_to_the_sockets_of_another_node() {
    let (redis, collector) = (RedisServer::start(), Collector::start().await);
    let url = collector.url();
    let settings = [("WHIMBREL_OTLP_URL", url.as_str())];
    let (taking, delivering) = (Node::on(&redis, &settings), Node::on(&redis, &settings));
    let mut listeners = listeners(&delivering, "device:sesame").await;
    let path = "/v1/devices/sesame/events?type=secret-type";
    let id = taking.call("POST", path, &[("traceparent", &sampled(1))], r#"{"unread":3}"#).await.id();
    let spans = collector.trace(&trace(1), 6).await;
    check_whole(&spans, &id, "channel", &["sse", "websocket"]);
    let stored = one(&spans, "stored");
    for listener in &mut listeners {
        let given = listener.event().await.trace.unwrap();
        assert_eq!(given, format!("00-{}-{}-01", trace(1), stored.id), "what a listener does is a part of it");
    }
    let node = |name: &str| &one(&spans, name).resource["service.instance.id"];
    assert!(node("published") == node("stored") && node("routed") == node("dispatched"));
    assert_ne!(node("stored"), node("routed"));
    assert!(spans.iter().all(|span| span.resource["service.name"] == "whimbrel"));
}

#[tokio::test]
async fn an_event_that_goes_past_the_store_is_in_its_trace_over_a_link_and_on_the_same_node() {
    let (redis, collector) = (RedisServer::start(), Collector::start().await);
    let url = collector.url();
    let settings = [
        ("WHIMBREL_OTLP_URL", url.as_str()),
        ("WHIMBREL_LINK_LISTEN", "127.0.0.1:0"),
        ("WHIMBREL_LINK_SECRET", "a-secret-that-all-nodes-have"),
    ];
    let (taking, delivering) = (Node::on(&redis, &settings), Node::on(&redis, &settings));
    let _own = listeners(&taking, "device:own").await;
    let id = publish(&taking, "device:own", &sampled(1), r#"{"unread":3}"#).await;
    check_whole(&collector.trace(&trace(1), 6).await, &id, "local", &["sse", "websocket"]);
    let _far = listeners(&delivering, "device:sesame").await;
    let hits = async || taking.metric("link_hits_total").await;
    // Where a busy machine is late with an acknowledgement, the next event takes the channel.
    for number in 2.. {
        let before = hits().await;
        eventually("an event goes over a link", async || {
            taking.publish("device:sesame", "1").await;
            (hits().await > before).then_some(())
        })
        .await;
        let before = hits().await;
        let id = publish(&taking, "device:sesame", &sampled(number), r#"{"unread":3}"#).await;
        if hits().await > before {
            check_whole(&collector.trace(&trace(number), 6).await, &id, "link", &["sse", "websocket"]);
            return;
        }
    }
    panic!("the link never stayed");
}

#[tokio::test]
async fn a_node_on_its_own_store_records_the_same() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url())]);
    let _listeners = listeners(&node, "device:sesame").await;
    let id = publish(&node, "device:sesame", &sampled(1), r#"{"unread":3}"#).await;
    check_whole(&collector.trace(&trace(1), 6).await, &id, "channel", &["sse", "websocket"]);
}

#[tokio::test]
async fn what_is_not_sampled_leaves_no_span_and_keeps_its_trace() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url())]);
    let mut listener = Wanted::new(Transport::Sse, &["topic:a"]).with("trace", "1").connect(&node).await;
    let unsampled = sampled(1).replace("-01", "-00");
    publish(&node, "topic:a", &unsampled, "1").await;
    assert_eq!(listener.event().await.trace, Some(unsampled));
    node.publish("topic:a", "2").await;
    assert_eq!(listener.event().await.trace, None);
    publish(&node, "topic:a", &sampled(2), "3").await;
    collector.trace(&trace(2), 5).await;
    assert!(collector.spans().iter().all(|span| span.trace == trace(2)), "{:#?}", collector.spans());
}

#[tokio::test]
async fn a_share_of_publishes_without_a_trace_begins_one() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url()), ("WHIMBREL_TRACE_RATIO", "1")]);
    let mut listener = Wanted::new(Transport::WebSocket, &["topic:a"]).with("trace", "1").connect(&node).await;
    node.publish("topic:a", "1").await;
    let given = listener.event().await.trace.unwrap();
    let (begun, stored) = (&given[3..35], &given[36..52]);
    assert!(given.starts_with("00-") && given.ends_with("-01"), "{given}");
    let spans = collector.trace(begun, 5).await;
    assert_eq!((one(&spans, "published").parent.as_str(), one(&spans, "stored").id.as_str()), ("", stored));
    // What its caller does not record is not recorded, whatever the share.
    publish(&node, "topic:a", &sampled(1).replace("-01", "-00"), "2").await;
    publish(&node, "topic:a", &sampled(2), "3").await;
    collector.trace(&trace(2), 5).await;
    assert!(collector.of(&trace(1)).is_empty());
}

#[tokio::test]
async fn each_event_of_a_batch_is_in_its_own_trace_and_one_that_is_refused_says_why() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url())]);
    let entries = json!([
        {"topic": "a", "data": 1, "traceparent": sampled(1)},
        {"topic": "a", "data": 2},
        {"topic": "a", "data": 3, "traceparent": sampled(3), "key": "k"},
        {"topic": "a", "data": 4, "traceparent": sampled(4), "key": "k"},
    ]);
    let answer = node.call("POST", "/v1/events", &[("traceparent", &sampled(2))], entries.to_string()).await;
    assert_eq!(answer.json()["results"][3]["error"], "key-reused");
    for number in 1..=4 {
        let spans = collector.trace(&trace(number), 2).await;
        let (published, stored) = (one(&spans, "published"), one(&spans, "stored"));
        assert_eq!((&stored.parent, published.failed, stored.failed), (&published.id, number == 4, number == 4));
    }
    let refused = collector.of(&trace(4));
    assert!(refused.iter().all(|span| span.attribute("error.type") == "key-reused"), "{refused:#?}");
}

#[tokio::test]
async fn what_producers_write_into_redis_is_followed_too() {
    let (redis, collector) = (RedisServer::start(), Collector::start().await);
    let node = Node::on(&redis, &[("WHIMBREL_OTLP_URL", &collector.url())]);
    let _listener = Wanted::new(Transport::Sse, &["topic:a"]).connect(&node).await;
    let mut raw = redis.raw().await;
    let entry = [("topic", "a"), ("data", "1"), ("traceparent", &sampled(1))];
    let _: String = raw.xadd("whimbrel:ingress", "*", &entry).await.unwrap();
    let spans = collector.trace(&trace(1), 5).await;
    assert_eq!(one(&spans, "published").parent, PARENT);
    assert_eq!(one(&spans, "routed").parent, one(&spans, "stored").id);
    // No node takes part before the event is routed.
    loaded(&raw, "whimbrel_publish").await;
    let given = sampled(2);
    let arguments = [&b"1"[..], b"traceparent", given.as_bytes()];
    let _: String = call(&raw, "whimbrel_publish", &keys("whimbrel", "topic:a", "-"), &arguments).await.unwrap();
    let spans = collector.trace(&trace(2), 3).await;
    assert_eq!((one(&spans, "routed").parent.as_str(), spans.len()), (PARENT, 3));
}

#[tokio::test]
async fn a_client_that_catches_up_is_given_the_trace_and_adds_no_span() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url())]);
    publish(&node, "topic:a", &sampled(1), "1").await;
    let wanted = Wanted::new(Transport::Sse, &["topic:a"]).with("trace", "1").after("earliest");
    let mut listener = wanted.connect(&node).await;
    assert!(listener.event().await.trace.unwrap().contains(&trace(1)));
    publish(&node, "topic:a", &sampled(2), "2").await;
    collector.trace(&trace(2), 5).await;
    let names: Vec<_> = collector.of(&trace(1)).into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["stored", "published"]);
}

#[tokio::test]
async fn an_event_that_is_not_stored_is_published_and_no_more() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url())]);
    let path = format!("{}?ephemeral=1", events_path("topic:a"));
    assert_eq!(node.call("POST", &path, &[("traceparent", &sampled(1))], "1").await.status, 202);
    assert_eq!(one(&collector.trace(&trace(1), 1).await, "published").parent, PARENT);
}

#[tokio::test]
async fn writes_to_many_listeners_are_recorded_for_some() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url())]);
    let mut listeners = Vec::new();
    for _ in 0..20 {
        listeners.push(Wanted::new(Transport::Sse, &["topic:a"]).connect(&node).await);
    }
    publish(&node, "topic:a", &sampled(1), "1").await;
    for listener in &mut listeners {
        assert_eq!(listener.data(1).await, ["1"]);
    }
    let spans = collector.trace(&trace(1), 20).await;
    assert_eq!(one(&spans, "dispatched").attribute("whimbrel.connections"), "20");
    assert_eq!(spans.iter().filter(|span| span.name == "written").count(), 16);
}

#[tokio::test]
async fn a_stop_sends_what_waits() {
    let collector = Collector::start().await;
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &collector.url()), ("WHIMBREL_DRAIN_DELAY_SECONDS", "0")]);
    publish(&node, "topic:a", &sampled(1), "1").await;
    node.signal(Signal::INT);
    assert!(node.ended().await.success());
    let spans = collector.of(&trace(1));
    assert_eq!((one(&spans, "stored").parent.as_str(), spans.len()), (one(&spans, "published").id.as_str(), 2));
}

#[tokio::test]
async fn publishes_go_on_without_the_collector_and_what_is_dropped_is_counted() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let node = Node::start(&[("WHIMBREL_OTLP_URL", &url)]);
    // Each makes two spans, and 4096 may wait.
    let entries: Vec<_> = (0..4000).map(|n| json!({"topic": "a", "data": n})).collect();
    let body = serde_json::to_vec(&entries).unwrap();
    let answer = node.call("POST", "/v1/events", &[("traceparent", &sampled(1))], body).await.json();
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["id"].is_string()));
    assert!(node.metric(r#"spans_dropped_total{reason="queue"}"#).await > 0.0);
    let said = |what: &str| node.log().lines().filter(|line| line.contains(what)).count();
    eventually("the warning", async || (said("the OTLP collector takes no spans") == 1).then_some(())).await;
    let collector = Collector::at(([127, 0, 0, 1], port).into()).await;
    eventually("the end of it", async || (said("the OTLP collector takes spans again") == 1).then_some(())).await;
    publish(&node, "topic:a", &sampled(2), "1").await;
    collector.trace(&trace(2), 2).await;
    assert_eq!((said("takes no spans"), said("takes spans again")), (1, 1));
    assert!(node.metric("spans_exported_total").await >= 2.0);
}
