//! Events for the connections of this moment, which are not stored.

use serde_json::{Value, json};

use crate::support::client::{Client, Said, Transport};
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        an_ephemeral_event_reaches_connected_clients_and_leaves_no_trace,
        a_type_filter_holds_for_them_too,
        a_batch_may_hold_some,
        a_slow_reader_does_without;
    on_redis:
}

async fn send(node: &Node, stream: &str, parameters: &str, data: &str) -> Value {
    let path = format!("{}?ephemeral=true{parameters}", crate::support::node::events_path(stream));
    let answer = node.call("POST", &path, &[], data).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("location"), None, "there is nothing to be read");
    answer.json()
}

async fn ephemeral(client: &mut Client) -> (String, String, String) {
    match client.next().await {
        Said::Ephemeral { stream, kind, data, .. } => (stream, kind, data),
        other => panic!("not an ephemeral event but {other:?}"),
    }
}

async fn an_ephemeral_event_reaches_connected_clients_and_leaves_no_trace(world: World) {
    let [node, other] = world.nodes(&[]);
    assert_eq!(send(&node, "topic:a", "", "0").await, json!({"stream": "topic:a", "nodes": 0}));
    assert!(world.redis.is_some() || node.history("topic:a").await.is_empty());
    let before = node.publish("topic:a", "1").await;
    let mut clients = vec![
        world.wanted(&["topic:a"]).connect(&node).await,
        world.wanted(&["topic:a"]).with("envelope", "1").connect(&other).await,
        world.wanted(&["topic:a", "device:1"]).connect(&other).await,
    ];
    let nodes = if world.redis.is_some() { 2 } else { 1 };
    let received = send(&node, "topic:a", "&type=typing", r#"{"who": "ann"}"#).await;
    assert_eq!(received, json!({"stream": "topic:a", "nodes": nodes}));
    let cursors: Vec<_> = clients.iter().map(|client| client.cursor()).collect();
    for client in &mut clients {
        let (stream, kind, data) = ephemeral(client).await;
        assert_eq!((stream.as_str(), kind.as_str(), data.as_str()), ("topic:a", "typing", r#"{"who": "ann"}"#));
    }
    // The position is as it was, and neither the history nor a later listener has the event.
    for (client, cursor) in clients.iter().zip(&cursors) {
        assert_eq!(client.cursor(), *cursor);
    }
    let history = node.get_json("/v1/topics/a/events").await;
    assert_eq!((history["events"].as_array().unwrap().len(), &history["last"]), (1, &json!(before)));
    let mut late = world.wanted(&["topic:a"]).after("earliest").connect(&node).await;
    node.publish("topic:a", "2").await;
    assert_eq!(late.data(2).await, ["1", "2"]);
    for client in &mut clients {
        assert_eq!(client.data(1).await, ["2"], "the chain goes on");
    }
}

async fn a_type_filter_holds_for_them_too(world: World) {
    let node = world.node(&[]);
    let mut client = world.wanted(&["topic:a"]).with("types", "price").connect(&node).await;
    send(&node, "topic:a", "&type=typing", "1").await;
    send(&node, "topic:a", "&type=price", "2").await;
    assert_eq!(ephemeral(&mut client).await.2, "2");
}

async fn a_batch_may_hold_some(world: World) {
    let node = world.node(&[]);
    let mut client = world.wanted(&["topic:a"]).connect(&node).await;
    let body = r#"[{"topic":"a","data":1},{"topic":"a","data":2,"ephemeral":true},
        {"topics":[]},{"devices":["1","a b"],"data":3,"ephemeral":true},{"topic":"a","data":4}]"#;
    let results = node.call("POST", "/v1/events", &[], body).await.json()["results"].clone();
    assert!(results[0]["id"].is_string() && results[5]["id"].is_string(), "{results}");
    assert_eq!(results[1], json!({"stream": "topic:a", "nodes": 1}));
    assert_eq!(results[2]["error"], "invalid-entry");
    assert_eq!(results[3], json!({"stream": "device:1", "nodes": 0}));
    assert_eq!(results[4]["error"], "invalid-name");
    let mut received = [client.next().await, client.next().await, client.next().await].map(|said| match said {
        Said::Event(event) => (true, event.data),
        Said::Ephemeral { data, .. } => (false, data),
        other => panic!("{other:?}"),
    });
    received.sort();
    assert_eq!(received, [(false, "2".into()), (true, "1".into()), (true, "4".into())]);
}

async fn a_slow_reader_does_without(world: World) {
    let node = world.node(&[("WHIMBREL_OUTBOX_BYTES", "4096")]);
    let mut slow = world.wanted(&["topic:a"]).narrow().connect(&node).await;
    let fill = "x".repeat(50_000);
    for n in 0..200 {
        send(&node, "topic:a", "", &format!("\"{n} {fill}\"")).await;
    }
    assert!(node.metric("ephemeral_dropped_total").await > 0.0);
    node.metric_is("temporary_dispatchers", 0.0).await;
    node.publish("topic:a", "1").await;
    let mut received = 0;
    loop {
        match slow.next().await {
            Said::Ephemeral { .. } => received += 1,
            Said::Event(event) => {
                assert_eq!(event.data, "1");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(received < 200);
}

#[tokio::test]
async fn what_only_a_stored_event_can_have_is_refused_with_an_ephemeral_one() {
    let node = Node::start(&[]);
    let mut client = World::embedded(Transport::Sse).wanted(&["topic:a"]).connect(&node).await;
    for (parameters, named) in [("ttl=5", "ttl"), ("collapse=a", "collapse"), ("durable=disk", "durability")] {
        let answer = node.call("POST", &format!("/v1/topics/a/events?ephemeral=true&{parameters}"), &[], "1").await;
        let (slug, detail) = answer.problem(422);
        assert!(slug == "invalid-ephemeral" && detail.contains(named), "{detail}");
    }
    let key = [("Idempotency-Key", "k")];
    let answer = node.call("POST", "/v1/topics/a/events?ephemeral=1", &key, "1").await;
    assert!(answer.problem(422).1.contains("idempotency key"));
    let answer = node.call("POST", "/v1/topics/a/events?ephemeral=perhaps", &[], "1").await;
    assert!(answer.problem(400).1.contains("'ephemeral'"));
    assert_eq!(node.call("POST", "/v1/topics/a/events?ephemeral=1", &[], "{").await.problem(400).0, "invalid-json");
    let large = format!("\"{}\"", "x".repeat(70_000));
    assert_eq!(node.call("POST", "/v1/topics/a/events?ephemeral=1", &[], large).await.problem(413).0, "too-large");
    node.publish("topic:a", "2").await;
    assert_eq!(client.data(1).await, ["2"], "the others were not sent");
}
