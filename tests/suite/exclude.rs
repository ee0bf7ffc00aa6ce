//! Events that one connection is not given: the one that published them, mostly.

use serde_json::json;

use crate::support::client::{Client, Said, Transport};
use crate::support::eventually;
use crate::support::node::{Node, events_path};
use crate::support::world::{World, promises};

promises! {
    everywhere:
        everyone_but_the_excluded_connection_is_given_an_event,
        an_excluded_event_moves_the_position,
        a_reader_of_pages_is_excluded_too;
    on_redis:
}

async fn everyone_but_the_excluded_connection_is_given_an_event(world: World) {
    let [node, other] = world.nodes(&[]);
    let mut own = world.wanted(&["topic:a"]).connect(&node).await;
    let mut friend = world.wanted(&["topic:a"]).connect(&node).await;
    let mut far = world.wanted(&["topic:a", "device:1"]).connect(&other).await;
    let exclude = format!("exclude={}", own.connection());
    other.publish_with("topic:a", &exclude, "1").await;
    for client in [&mut friend, &mut far] {
        assert_eq!(client.data(1).await, ["1"]);
    }
    // Ephemeral events have no place in the order, so each is awaited before the next is published.
    let ephemeral = format!("{}?ephemeral=true&{exclude}", events_path("topic:a"));
    assert_eq!(other.call("POST", &ephemeral, &[], "2").await.status, 202);
    for client in [&mut friend, &mut far] {
        assert!(matches!(client.next().await, Said::Ephemeral { data, .. } if data == "2"));
    }
    let entry = json!([{"topic": "a", "data": 3, "exclude": own.connection()}]);
    assert_eq!(other.call("POST", "/v1/events", &[], entry.to_string()).await.status, 200);
    node.publish("topic:a", "4").await;
    for client in [&mut friend, &mut far] {
        assert_eq!(client.data(2).await, ["3", "4"]);
    }
    assert_eq!(own.data(1).await, ["4"]);
}

async fn an_excluded_event_moves_the_position(world: World) {
    let node = world.node(&[("WHIMBREL_PING_SECONDS", "1")]);
    let mut own = world.wanted(&["topic:a"]).connect(&node).await;
    let id = node.publish_with("topic:a", &format!("exclude={}", own.connection()), "1").await;
    assert_eq!(own.next().await, Said::Position);
    assert_eq!(own.cursor().id(), id);
}

/// What the live end could not be given is read from the store.
async fn a_reader_of_pages_is_excluded_too(world: World) {
    let node = world.node(&[("WHIMBREL_RING_BYTES", "0"), ("WHIMBREL_OUTBOX_BYTES", "4096")]);
    let mut own = world.wanted(&["topic:a"]).narrow().connect(&node).await;
    // More than the sockets between them hold.
    let (large, count) = ("x".repeat(60_000), 200);
    let pairs = (0..count).flat_map(|_| {
        [json!({"topic": "a", "data": large}), json!({"topic": "a", "data": 1, "exclude": own.connection()})]
    });
    let batch: Vec<_> = pairs.collect();
    let answer = node.call("POST", "/v1/events", &[], serde_json::to_vec(&batch).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    node.publish("topic:a", "2").await;
    eventually("it is off the live end", async || (node.metric("temporary_dispatchers").await == 1.0).then_some(()))
        .await;
    let data = own.data(count + 1).await;
    assert!(data[..count].iter().all(|data| data.len() == large.len() + 2) && data[count] == "2");
}

#[tokio::test]
async fn a_client_publishes_without_an_echo() {
    let node = Node::start(&[]);
    let world = World::embedded(Transport::WebSocket);
    let connect = async || -> Client { world.wanted(&["topic:a"]).connect(&node).await };
    let (mut own, mut friend) = (connect().await, connect().await);
    let publish = |data: u32, echo: bool| json!({"op": "publish", "stream": "topic:a", "data": data, "echo": echo});
    assert_eq!(own.ask(publish(1, false)).await["op"], "ok");
    let mut typing = publish(2, false);
    typing["ephemeral"] = true.into();
    assert_eq!(own.ask(typing).await["op"], "ok");
    own.say(&publish(3, true)).await;
    assert_eq!(friend.data(1).await, ["1"]);
    assert!(matches!(friend.next().await, Said::Ephemeral { data, .. } if data == "2"));
    assert_eq!(friend.data(1).await, ["3"]);
    let mut said = [own.next().await, own.next().await];
    said.sort_by_key(|said| matches!(said, Said::Event(_)));
    let [Said::Answer(answer), Said::Event(event)] = said else { panic!("{said:?}") };
    assert_eq!((&answer["op"], event.data.as_str()), (&json!("ok"), "3"));
}

#[tokio::test]
async fn what_can_be_no_connection_is_refused() {
    let node = Node::start(&[]);
    let (_, detail) = node.call("POST", "/v1/topics/a/events?exclude=me", &[], "1").await.problem(400);
    assert!(detail.contains("'me'") && detail.contains("UUID"), "{detail}");
    let entry = r#"[{"topic":"a","data":1,"exclude":"me"}]"#;
    let answer = node.call("POST", "/v1/events", &[], entry).await.json();
    assert_eq!(answer["results"][0]["error"], "invalid-entry");
}
