//! Where listeners begin, and what they get when that is no longer kept.

use serde_json::{Value, json};

use crate::support::client::{Client, Gap, Transport};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        a_listener_that_begins_before_everything_gets_a_gap_for_what_was_trimmed,
        a_listener_that_begins_before_everything_gets_all_of_an_untrimmed_stream_and_no_gap,
        earliest_is_marked_incomplete_when_older_events_are_gone,
        a_listener_from_a_cursor_misses_nothing_that_came_after_it;
    on_redis:
}

/// Without a ring a node can only give what the store still has.
const TRIMMED: [(&str, &str); 2] = [("WHIMBREL_RING_BYTES", "0"), ("WHIMBREL_RETENTION", "*=10/3600")];

/// The oldest id that is kept.
async fn oldest(node: &Node, topic: &str) -> String {
    let history = node.get_json(&format!("/v1/topics/{topic}/events?limit=1")).await;
    history["events"][0]["id"].as_str().unwrap().to_owned()
}

async fn a_listener_that_begins_before_everything_gets_a_gap_for_what_was_trimmed(world: World) {
    let node = world.node(&TRIMMED);
    let published = node.publish_all("topic:news", 0..300).await;
    let kept = oldest(&node, "news").await;
    assert_ne!(kept, published[0], "something was trimmed");
    for after in ["0-0", &published[0]] {
        let expected =
            Gap { stream: "topic:news".into(), after: after.into(), next: kept.clone(), reason: "trimmed".into() };
        let mut client = world.wanted(&["topic:news"]).after(after).connect(&node).await;
        assert_eq!(client.gap().await, expected);
        assert_eq!(client.event().await.id, kept);
        let history = node.get_json(&format!("/v1/topics/news/events?limit=1&after={after}")).await;
        assert_eq!(history["gap"], json!({"after": after, "next": kept, "reason": "trimmed"}));
        assert_eq!(history["events"][0]["id"], kept);
    }
    // What was not asked for is not missing.
    assert_eq!(node.get_json("/v1/topics/news/events").await["gap"], Value::Null);
}

async fn a_listener_that_begins_before_everything_gets_all_of_an_untrimmed_stream_and_no_gap(world: World) {
    let node = world.node(&[]);
    let mut early = world.wanted(&["topic:empty"]).after("0-0").connect(&node).await;
    node.publish("topic:empty", "1").await;
    assert_eq!(early.data(1).await, ["1"]);
    let published = node.publish_all("topic:news", 0..3).await;
    let mut client = world.wanted(&["topic:news"]).after("0-0").connect(&node).await;
    assert_eq!(client.data(3).await, ["0", "1", "2"]);
    let history = node.get_json("/v1/topics/news/events?after=0-0").await;
    assert_eq!((&history["gap"], &history["events"][0]["id"]), (&Value::Null, &json!(published[0])));
}

async fn earliest_is_marked_incomplete_when_older_events_are_gone(world: World) {
    let node = world.node(&TRIMMED);
    node.publish_all("topic:news", 0..300).await;
    node.publish("topic:small", "1").await;
    let of = |streams: &[&str], after: &str| world.wanted(streams).after(after);
    let complete = |client: &Client| client.ready.get("complete").cloned();
    let mut client = of(&["topic:news"], "earliest").connect(&node).await;
    assert_eq!(complete(&client), Some(json!(false)));
    assert_eq!(client.event().await.id, oldest(&node, "news").await);
    assert_eq!(complete(&of(&["topic:small", "topic:news"], "earliest").connect(&node).await), Some(json!(false)));
    for (streams, after) in [
        (&["topic:small"], "earliest"),
        (&["topic:nobody"], "earliest"),
        (&["topic:news"], "now"),
        (&["topic:news"], "last:3"),
    ] {
        assert_eq!(complete(&of(streams, after).connect(&node).await), None, "{streams:?} {after}");
    }
    if world.transport == Transport::WebSocket {
        let mut client = world.wanted(&[]).connect(&node).await;
        let mut subscribe = async |stream: &str| {
            client.ask(json!({"op": "subscribe", "stream": stream, "after": "earliest"})).await.get("complete").cloned()
        };
        assert_eq!(subscribe("topic:nobody").await, None);
        assert_eq!(subscribe("topic:news").await, Some(json!(false)));
    }
}

async fn a_listener_from_a_cursor_misses_nothing_that_came_after_it(world: World) {
    let [node, other] = world.nodes(&[]);
    node.publish_all("topic:news", ["\"before\""]).await;
    let at = node.get_json("/v1/cursor?topic=news&topic=unused&device=42").await;
    let positions = &at["positions"];
    assert_eq!(positions["topic:news"], node.get_json("/v1/topics/news/events").await["last"]);
    assert_eq!((&positions["topic:unused"], &positions["device:42"]), (&json!("0-0"), &json!("0-0")));
    other.publish_all("topic:news", ["1"]).await;
    other.publish_all("topic:unused", ["2"]).await;
    other.publish_all("device:42", ["3"]).await;
    let streams = ["topic:unused", "device:42", "topic:news"];
    let mut client = world.wanted(&streams).after(at["cursor"].as_str().unwrap()).connect(&other).await;
    let mut data = client.data(3).await;
    data.sort();
    assert_eq!(data, ["1", "2", "3"]);
    let one = node.get_json("/v1/cursor?topic=unused2").await;
    assert_eq!(one, json!({"cursor": "0-0", "positions": {"topic:unused2": "0-0"}}));
}

#[tokio::test]
async fn reading_what_nobody_used_writes_nothing() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut raw = redis.raw().await;
    let mut keys = async || -> Vec<String> {
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*{topic:*").query_async(&mut raw).await.unwrap();
        keys.retain(|key| !key.contains("lifecycle"));
        keys
    };
    for path in [
        "/v1/cursor?topic=unused&topic=other",
        "/v1/topics/unused/events",
        "/v1/topics/unused/events?before=now",
        "/v1/topics/unused",
        "/v1/topics/unused/members",
    ] {
        assert_eq!(node.get(path).await.status, 200, "{path}");
    }
    assert_eq!(keys().await, Vec::<String>::new());
    node.publish("topic:other", "1").await;
    assert!(!keys().await.is_empty(), "otherwise this would check nothing");
}

#[tokio::test]
async fn a_cursor_of_what_makes_no_sense_is_refused() {
    let node = Node::start(&[("WHIMBREL_MAX_STREAMS", "2")]);
    for (query, named) in [
        ("", "device=NAME"),
        ("topic=a&topic=b&topic=c", "may follow 2"),
        ("topic=a&after=now", "'after'"),
        ("topic=a%20b", "a b"),
    ] {
        let (_, detail) = node.get(&format!("/v1/cursor?{query}")).await.problem(400);
        assert!(detail.contains(named), "{query}: {detail}");
    }
}
