//! What a device has acknowledged, what waits for it, and where `after=ack` goes on.

use serde_json::{Value, json};

use crate::support::client::{Gap, Transport};
use crate::support::eventually;
use crate::support::http::Answer;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        after_ack_goes_on_behind_what_was_acknowledged_on_any_node,
        an_inbox_that_overflowed_before_it_was_read_begins_with_a_gap,
        pending_counts_what_is_to_be_delivered;
    on_redis:
        an_acknowledgement_outlives_the_events_and_the_node,
        a_device_that_goes_on_at_its_acknowledgement_misses_nothing_though_nodes_are_killed,
}

async fn acknowledge(node: &Node, id: &str) -> Answer {
    node.call("POST", "/v1/devices/42/ack", &[], json!({"id": id}).to_string()).await
}

/// Acknowledges over REST, and gives the position then.
async fn acked(node: &Node, id: &str) -> Value {
    let answer = acknowledge(node, id).await;
    assert_eq!((answer.status, &answer.json()["stream"]), (200, &json!("device:42")), "{}", answer.text());
    answer.json()["acked"].clone()
}

async fn device(node: &Node) -> Value {
    node.get_json("/v1/devices/42").await
}

async fn after_ack_goes_on_behind_what_was_acknowledged_on_any_node(world: World) {
    let [node, other] = world.nodes(&[]);
    let inbox = world.wanted(&["device:42"]).after("ack");
    let mut empty = inbox.connect(&node).await;
    let ids = node.publish_all("device:42", 0..6).await;
    assert_eq!(empty.data(6).await, ["0", "1", "2", "3", "4", "5"]);
    // Nothing was acknowledged, so all is to be read.
    assert_eq!(inbox.connect(&other).await.data(6).await, ["0", "1", "2", "3", "4", "5"]);
    let state = device(&node).await;
    assert_eq!((&state["device"], &state["last"]), (&json!("42"), &json!(ids[5])));
    assert_eq!((&state["acked"], &state["pending"]), (&json!(null), &json!(6)));

    assert_eq!(acked(&node, &ids[3]).await, json!(ids[3]));
    assert_eq!(acked(&other, &ids[1]).await, json!(ids[3]), "only forward");
    assert_eq!(acked(&other, "0-0").await, json!(ids[3]));
    for node in [&node, &other] {
        let state = device(node).await;
        assert_eq!((&state["acked"], &state["pending"]), (&json!(ids[3]), &json!(2)));
        assert_eq!(inbox.connect(node).await.data(2).await, ["4", "5"]);
    }
    // An inbox at its acknowledged position beside a topic, which has none.
    node.publish("topic:news", "\"old\"").await;
    let mut both = world.wanted(&["device:42", "topic:news"]).after("ack").connect(&other).await;
    let mut pair = world.wanted(&["device:42", "topic:news"]).after("device:42/ack").connect(&other).await;
    for client in [&mut both, &mut pair] {
        assert_eq!(client.data(2).await, ["4", "5"]);
    }
    node.publish("topic:news", "\"new\"").await;
    for client in [&mut both, &mut pair] {
        assert_eq!(client.data(1).await, ["\"new\""]);
    }
    assert_eq!(acked(&node, &ids[5]).await, json!(ids[5]));
    let mut done = inbox.connect(&other).await;
    node.publish("device:42", "6").await;
    assert_eq!(done.data(1).await, ["6"]);
}

async fn an_inbox_that_overflowed_before_it_was_read_begins_with_a_gap(world: World) {
    let [node, other] = world.nodes(&[("WHIMBREL_RETENTION", "*=10/3600"), ("WHIMBREL_RING_BYTES", "0")]);
    let inbox = world.wanted(&["device:42"]).after("ack");
    // What nobody ever acknowledged begins with the stream itself.
    let epoch = inbox.connect(&node).await.cursor().id().to_owned();
    let ids = node.publish_all("device:42", 0..300).await;
    // What the node has in its hands already is not missed, whatever the store trims.
    node.metric_is("dispatched_total", 300.0).await;
    let kept = node.get_json("/v1/devices/42/events?limit=1").await["events"][0]["id"].as_str().unwrap().to_owned();
    let gap = |after: &str| Gap {
        stream: "device:42".into(),
        after: after.into(),
        next: kept.clone(),
        reason: "trimmed".into(),
    };
    let mut client = inbox.connect(&other).await;
    assert_eq!(client.gap().await, gap(&epoch));
    assert_eq!(client.event().await.id, kept);
    assert_eq!(acked(&node, &ids[4]).await, json!(ids[4]));
    let mut client = inbox.connect(&other).await;
    assert_eq!(client.gap().await, gap(&ids[4]));
    assert_eq!(client.event().await.id, kept);
    let first = ids.iter().position(|id| *id == kept).unwrap();
    assert_eq!(device(&node).await["pending"], json!(ids.len() - first), "what is gone is not pending");
    acked(&node, &kept).await;
    assert_eq!(inbox.connect(&other).await.event().await.id, ids[first + 1], "and no gap any more");
}

async fn pending_counts_what_is_to_be_delivered(world: World) {
    let node = world.node(&[]);
    assert_eq!(device(&node).await["pending"], json!(0));
    let ids = node.publish_all("device:42", 0..500).await;
    for _ in 0..5 {
        node.publish_with("device:42", "collapse=a", "1").await;
        node.publish_with("device:42", "ttl=1", "1").await;
    }
    eventually("five expire", async || (device(&node).await["pending"] == json!(501)).then_some(())).await;
    acked(&node, &ids[99]).await;
    assert_eq!(device(&node).await["pending"], json!(401));
    let last = device(&node).await["last"].as_str().unwrap().to_owned();
    acked(&node, &last).await;
    let state = device(&node).await;
    assert_eq!((&state["acked"], &state["pending"]), (&json!(last), &json!(0)));
}

async fn an_acknowledgement_outlives_the_events_and_the_node(world: World) {
    let settings = [("WHIMBREL_RETENTION", "*=1000/1")];
    let node = world.node(&settings);
    let ids = node.publish_all("device:42", 0..3).await;
    acked(&node, &ids[2]).await;
    eventually("the log expires", async || node.history("device:42").await.is_empty().then_some(())).await;
    drop(node);
    let node = world.node(&settings);
    assert_eq!(device(&node).await["acked"], json!(ids[2]));
    let mut client = world.wanted(&["device:42"]).after("ack").connect(&node).await;
    node.publish("device:42", "3").await;
    assert_eq!(client.data(1).await, ["3"], "no gap: it had acknowledged all there was");
}

async fn a_device_that_goes_on_at_its_acknowledgement_misses_nothing_though_nodes_are_killed(world: World) {
    let producer = world.node(&[]);
    let inbox = world.wanted(&["device:42"]).after("ack");
    let (mut published, mut dealt_with) = (Vec::new(), 0);
    // It reads some, acknowledges a part of that, and its node is gone.
    for (read, acknowledged) in [(7, 5), (20, 0), (1, 1), (30, 30), (3, 2), (12, 11)] {
        let node = world.node(&[]);
        published.extend(producer.publish_all("device:42", (0..10).map(|n| published.len() + n)).await);
        let mut client = inbox.connect(&node).await;
        for id in published[dealt_with..].iter().take(read) {
            assert_eq!(client.event().await.id, *id);
        }
        if acknowledged > 0 {
            dealt_with = (dealt_with + acknowledged).min(published.len());
            assert_eq!(acked(&node, &published[dealt_with - 1]).await, json!(published[dealt_with - 1]));
        }
        drop(node);
    }
    assert_eq!(device(&producer).await["pending"], json!(published.len() - dealt_with));
    let mut client = inbox.connect(&producer).await;
    for id in &published[dealt_with..] {
        assert_eq!(client.event().await.id, *id);
    }
}

#[tokio::test]
async fn over_websocket_an_acknowledgement_is_answered_with_the_position() {
    let world = World::on_redis(Transport::WebSocket);
    let [node, other] = world.nodes(&[]);
    let mut client = world.wanted(&["device:42"]).connect(&node).await;
    let ids = other.publish_all("device:42", 0..3).await;
    client.data(3).await;
    let ack = |id: &str, reference: u32| json!({"op": "ack", "stream": "device:42", "id": id, "ref": reference});
    let answer = client.ask(ack(&ids[1], 7)).await;
    assert_eq!(answer, json!({"op": "ok", "ref": 7, "stream": "device:42", "acked": ids[1]}));
    assert_eq!(client.ask(ack(&ids[0], 8)).await["acked"], json!(ids[1]), "only forward");
    let mut second = world.wanted(&[]).connect(&other).await;
    let answer = second.ask(json!({"op": "subscribe", "stream": "device:42", "after": "ack"})).await;
    assert_eq!(answer["position"], json!(ids[1]));
    assert_eq!(second.event().await.id, ids[2]);
    assert_eq!(device(&other).await["acked"], json!(ids[1]));
    // What makes no sense moves nothing.
    for (operation, code, named) in [
        (json!({"op": "ack", "stream": "topic:a", "id": ids[2]}), "bad-request", "topic"),
        (json!({"op": "ack", "stream": "device:42"}), "bad-request", "id"),
        (json!({"op": "ack", "stream": "device:42", "id": "soon"}), "bad-request", "'soon'"),
        (json!({"op": "ack", "stream": "42", "id": ids[2]}), "bad-request", "42"),
        (json!({"op": "ack", "id": ids[2]}), "bad-request", "stream"),
        (json!({"op": "ack", "stream": "device:42", "id": ids[2], "upto": 1}), "bad-request", "upto"),
        (json!({"op": "ack", "stream": "device:42", "id": "99999999999999-1"}), "not-published", "99999999999999-1"),
        (json!({"op": "subscribe", "stream": "topic:a", "after": "ack"}), "bad-request", "topic"),
    ] {
        let answer = client.ask(operation.clone()).await;
        assert_eq!((&answer["op"], &answer["code"]), (&json!("error"), &json!(code)), "{operation}");
        assert!(answer["detail"].as_str().unwrap().contains(named), "{answer}");
    }
    assert_eq!(device(&other).await["acked"], json!(ids[1]));
}

#[tokio::test]
async fn an_acknowledgement_that_makes_no_sense_is_refused_and_moves_nothing() {
    let node = Node::start(&[]);
    let ids = node.publish_all("device:42", 0..2).await;
    acked(&node, &ids[0]).await;
    let ahead = acknowledge(&node, "99999999999999-1").await;
    let (slug, detail) = ahead.problem(422);
    assert!(slug == "not-published" && detail.contains(&ids[1]), "{detail}");
    for body in ["", "{}", "[]", "5", r#"{"id":5}"#, r#"{"id":"x"}"#, r#"{"id":"1-1","more":1}"#, r#"{"id":null}"#] {
        let answer = node.call("POST", "/v1/devices/42/ack", &[], body).await;
        assert_eq!(answer.problem(400).0, "bad-request", "{body}");
    }
    let large = json!({"id": "1".repeat(2000)}).to_string();
    assert_eq!(node.call("POST", "/v1/devices/42/ack", &[], large).await.problem(413).0, "too-large");
    let text = [("Content-Type", "text/plain")];
    let answer = node.call("POST", "/v1/devices/42/ack", &text, json!({"id": ids[1]}).to_string()).await;
    assert_eq!(answer.problem(415).0, "unsupported-media-type");
    let answer = node.call("POST", "/v1/devices/a%20b/ack", &[], json!({"id": ids[1]}).to_string()).await;
    assert_eq!(answer.problem(400).0, "invalid-name");
    let answer = node.call("POST", "/v1/devices/42/ack?id=1", &[], json!({"id": ids[1]}).to_string()).await;
    assert!(answer.problem(400).1.contains("'id'"));
    // Topics have readers, but no reader of their own.
    let answer = node.call("POST", "/v1/topics/42/ack", &[], json!({"id": ids[1]}).to_string()).await;
    assert_eq!(answer.problem(404).0, "not-found");
    assert!(node.get("/v1/sse?topic=a&after=ack").await.problem(400).1.contains("topic:a"));
    assert!(node.get("/v1/sse?topic=a&device=42&after=topic:a/ack").await.problem(400).1.contains("topic:a"));
    assert_eq!(device(&node).await["acked"], json!(ids[0]));
}
