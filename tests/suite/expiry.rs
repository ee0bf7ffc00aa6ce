//! Events that are delivered for a time only.

use serde_json::json;

use crate::support::client::{Said, Transport};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        an_expired_event_is_passed_over_without_a_word,
        a_position_moves_over_what_has_expired;
    on_redis:
        the_stores_clock_decides_not_a_nodes,
}

/// Waits until history shows no event but these.
async fn expired(node: &Node, stream: &str, left: &[&str]) {
    eventually("the others expire", async || (node.history(stream).await == left).then_some(())).await;
}

async fn an_expired_event_is_passed_over_without_a_word(world: World) {
    let [node, other] = world.nodes(&[]);
    let mut live = world.wanted(&["topic:a"]).connect(&node).await;
    let first = node.publish_with("topic:a", "ttl=2", "1").await;
    node.publish("topic:a", "2").await;
    node.publish_with("topic:a", "ttl=2&type=brief", "3").await;
    let long = node.publish_with("topic:a", "ttl=1000", "4").await;
    node.publish_with("topic:a", "ttl=2", "5").await;
    // In its time it is delivered; on a busy machine the brief ones may expire on their way.
    while live.event().await.data != "4" {}
    assert_eq!(node.get_json(&format!("/v1/topics/a/events/{long}")).await["data"], json!(4));
    expired(&node, "topic:a", &["2", "4"]).await;
    assert_eq!(node.get(&format!("/v1/topics/a/events/{first}")).await.problem(404).0, "not-found");
    // From the ring, from pages, and from a position that is an expired event's.
    let wanted = world.wanted(&["topic:a"]);
    let mut clients = Vec::new();
    for node in [&node, &other] {
        for (after, expected) in [("earliest", &["2", "4"][..]), (&first, &["2", "4"]), ("last:3", &["4"])] {
            let mut client = wanted.clone().after(after).connect(node).await;
            assert_eq!(client.data(expected.len()).await, expected, "after={after}");
            clients.push(client);
        }
    }
    node.publish("topic:a", "6").await;
    for client in &mut clients {
        assert_eq!(client.data(1).await, ["6"], "no gap, and nothing twice");
    }
    let next = live.event().await;
    assert!(next.data == "6" || next.data == "5" && live.event().await.data == "6", "{next:?}");
}

async fn a_position_moves_over_what_has_expired(world: World) {
    let node = world.node(&[("WHIMBREL_PING_SECONDS", "1"), ("WHIMBREL_RING_BYTES", "0")]);
    node.publish("topic:a", "0").await;
    let entry = |n: usize| format!(r#"{{"topic":"a","data":{n},"ttl":1}}"#);
    let body = format!("[{}]", (1..=700).map(entry).collect::<Vec<_>>().join(","));
    let answer = node.call("POST", "/v1/events", &[], &body).await.json();
    let last = answer["results"][699]["id"].as_str().unwrap().to_owned();
    expired(&node, "topic:a", &["0"]).await;
    let mut client = world.wanted(&["topic:a"]).after("earliest").connect(&node).await;
    assert_eq!(client.data(1).await, ["0"]);
    while client.cursor().id() != last {
        assert_eq!(client.next().await, Said::Position);
    }
    let mut resumed = world.wanted(&["topic:a"]).from(&client.cursor()).connect(&node).await;
    node.publish("topic:a", "701").await;
    assert_eq!(resumed.data(1).await, ["701"]);
    assert_eq!(client.data(1).await, ["701"]);
}

/// The entry's time of expiry is moved into the past: no node's clock has seen that time pass.
async fn the_stores_clock_decides_not_a_nodes(world: World) {
    let node = world.node(&[("WHIMBREL_RING_BYTES", "0")]);
    let id = node.publish("topic:a", "1").await;
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let next = format!("{}-1", crate::support::client::numbers(&id).0 + 1);
    let fields = [("d", "2"), ("p", id.as_str()), ("x", "1")];
    let key = "whimbrel:{topic:a}:events";
    let _: String = redis::cmd("XADD").arg(key).arg(&next).arg(&fields).query_async(&mut raw).await.unwrap();
    let _: i64 =
        redis::cmd("HSET").arg("whimbrel:{topic:a}:meta").arg("last").arg(&next).query_async(&mut raw).await.unwrap();
    node.publish("topic:a", "3").await;
    let mut client = world.wanted(&["topic:a"]).after("earliest").connect(&node).await;
    assert_eq!(client.data(2).await, ["1", "3"]);
    assert_eq!(node.history("topic:a").await, ["1", "3"]);
}

#[tokio::test]
async fn a_history_goes_on_over_what_has_expired() {
    let world = World::on_redis(Transport::Sse);
    let node = world.node(&[]);
    let entries: Vec<String> = (0..40)
        .map(|n| format!(r#"{{"topic":"a","data":{n}{}}}"#, if (5..35).contains(&n) { r#","ttl":1"# } else { "" }))
        .collect();
    node.call("POST", "/v1/events", &[], format!("[{}]", entries.join(","))).await;
    let left: Vec<String> = (0..5).chain(35..40).map(|n| n.to_string()).collect();
    expired(&node, "topic:a", &left.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let data = async |path: String| -> Vec<(String, String)> {
        let history = node.get_json(&path).await;
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        history["events"].as_array().unwrap().iter().map(|e| (text(&e["id"]), e["data"].to_string())).collect()
    };
    let (mut forward, mut after) = (Vec::new(), "0-0".to_owned());
    loop {
        let page = data(format!("/v1/topics/a/events?limit=4&after={after}")).await;
        let Some((last, _)) = page.last() else { break };
        after = last.clone();
        forward.extend(page.into_iter().map(|(_, data)| data));
    }
    assert_eq!(forward, left);
    let (mut backward, mut before) = (Vec::new(), format!("{}-0", u64::MAX));
    loop {
        let page = data(format!("/v1/topics/a/events?limit=4&before={before}")).await;
        let Some((first, _)) = page.first() else { break };
        before = first.clone();
        backward.extend(page.into_iter().rev().map(|(_, data)| data));
    }
    backward.reverse();
    assert_eq!(backward, left);
}

#[tokio::test]
async fn a_ttl_that_makes_no_sense_is_refused_and_nothing_is_stored() {
    let node = Node::start(&[]);
    for ttl in ["", "0", "-1", "1.5", "soon", "5s", "31536001", "99999999999999999999"] {
        let answer = node.call("POST", &format!("/v1/topics/a/events?ttl={ttl}"), &[], "1").await;
        let (slug, detail) = answer.problem(400);
        assert!(slug == "bad-request" && detail.contains("'ttl'") && detail.contains("seconds"), "{ttl}: {detail}");
    }
    let twice = node.call("POST", "/v1/topics/a/events?ttl=5&ttl=6", &[], "1").await;
    assert!(twice.problem(400).1.contains("more than once"));
    assert_eq!(node.history("topic:a").await, [""; 0]);
}
