//! What else a node knows after its end: keys, acknowledgements, erasures, connections, leases, revocations.

use serde_json::{Value, json};

use super::Data;
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::{Node, events_path};

/// The node after a kill.
fn killed(data: &Data, node: Node) -> Node {
    node.kill();
    data.node(&[])
}

#[tokio::test]
async fn an_idempotency_key_is_remembered() {
    let data = Data::new();
    let node = data.node(&[]);
    let publish = async |node: &Node, body: &str| {
        node.call("POST", "/v1/topics/a/events", &[("Idempotency-Key", "k")], body).await
    };
    let first = publish(&node, "1").await;
    let node = killed(&data, node);
    let second = publish(&node, "1").await;
    assert_eq!((first.status, second.status, second.id()), (201, 200, first.id()));
    assert_eq!(second.json()["duplicate"], json!(true));
    publish(&node, "2").await.problem(422);
    assert_eq!(node.history("topic:a").await, ["1"]);
}

#[tokio::test]
async fn an_acknowledged_position_and_what_is_pending_are_remembered() {
    let data = Data::new();
    let node = data.node(&[]);
    let ids = node.publish_all("device:42", 0..5).await;
    let body = json!({"id": ids[2]}).to_string();
    assert_eq!(node.call("POST", "/v1/devices/42/ack", &[], body).await.status, 200);
    let node = killed(&data, node);
    let device = node.get_json("/v1/devices/42").await;
    assert_eq!((&device["acked"], &device["last"], &device["pending"]), (&json!(ids[2]), &json!(ids[4]), &json!(2)));
    let mut client = Wanted::new(Transport::Sse, &["device:42"]).after("ack").connect(&node).await;
    assert_eq!(client.data(2).await, ["3", "4"]);
}

#[tokio::test]
async fn what_was_erased_stays_erased_and_ids_go_on_above_it() {
    let data = Data::new();
    let node = data.node(&[]);
    let ids = node.publish_all("topic:a", 0..3).await;
    assert_eq!(node.call("DELETE", "/v1/topics/a", &[], "").await.status, 204);
    let node = killed(&data, node);
    assert_eq!(node.history("topic:a").await, [""; 0]);
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).after(&ids[0]).connect(&node).await;
    assert_eq!(client.gap().await.reason, "expired");
    let next = node.publish("topic:a", "\"new\"").await;
    let number =
        |id: &str| id.split_once('-').map(|(ms, seq)| (ms.parse::<u64>().unwrap(), seq.parse::<u64>().unwrap()));
    assert!(number(&next) > number(&ids[2]), "{next} is not above {}", ids[2]);
}

#[tokio::test]
async fn events_expire_and_collapse_as_they_would_have() {
    let data = Data::new();
    let node = data.node(&[]);
    node.publish_with("topic:a", "collapse=c", "1").await;
    node.publish_with("topic:a", "collapse=c", "2").await;
    node.publish_with("topic:a", "ttl=1", "3").await;
    node.publish_with("topic:a", "ttl=3600&type=order.paid", "{\"a\" :4}").await;
    let node = killed(&data, node);
    eventually("the third event expires", async || (node.history("topic:a").await.len() < 4).then_some(())).await;
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).after("earliest").connect(&node).await;
    assert_eq!(client.event().await.data, "2");
    let event = client.event().await;
    assert_eq!((event.data.as_str(), event.kind.as_str()), ("{\"a\" :4}", "order.paid"));
}

#[tokio::test]
async fn connections_that_a_killed_node_left_are_published_as_lost_once() {
    let data = Data::new();
    let short = [("WHIMBREL_LEASE_SECONDS", "1")];
    let node = data.node(&short);
    let published = async |node: &Node| {
        let history = node.get_json(&events_path("topic:whimbrel:lifecycle")).await;
        let events = history["events"].as_array().unwrap().clone();
        let of =
            |event: &Value| (event["type"].clone(), event["data"]["device"].clone(), event["data"]["reason"].clone());
        events.iter().map(of).collect::<Vec<_>>()
    };
    let client = Wanted::new(Transport::Sse, &["device:42"]).connect(&node).await;
    eventually("it is published", async || (published(&node).await.len() == 1).then_some(())).await;
    node.kill();
    drop(client);
    let node = data.node(&short);
    eventually("its end is published", async || (published(&node).await.len() == 2).then_some(())).await;
    node.kill();
    let node = data.node(&short);
    // Published later, so anything that was to come would have been.
    let client = Wanted::new(Transport::Sse, &["device:43"]).connect(&node).await;
    eventually("the next is published", async || (published(&node).await.len() > 2).then_some(())).await;
    let (connected, lost) = (json!("connected"), json!("disconnected"));
    let expected = [
        (connected.clone(), json!("42"), Value::Null),
        (lost, json!("42"), json!("lost")),
        (connected, json!("43"), Value::Null),
    ];
    assert_eq!(published(&node).await, expected);
    drop(client);
}

#[tokio::test]
async fn the_lapse_of_a_lease_is_published_although_the_node_was_killed() {
    let data = Data::new();
    let node = data.node(&[]);
    let answer = node.call("PUT", "/v1/topics/a/lease", &[], r#"{"seconds":1}"#).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let node = killed(&data, node);
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).after("earliest").connect(&node).await;
    assert_eq!(client.event().await.kind, "whimbrel:abandoned");
}

#[tokio::test]
async fn a_revocation_stands() {
    let data = Data::new();
    let secret = [("WHIMBREL_JWT_SECRET", "a secret that is long enough")];
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), r#"[{"name":"ops","key":"a key that is long enough","scopes":["admin"]}]"#).unwrap();
    let settings = [secret[0], ("WHIMBREL_API_KEYS_FILE", keys.path().to_str().unwrap())];
    let admin = [("Authorization", "Bearer a key that is long enough")];
    let node = data.node(&settings);
    let answer = node.call("POST", "/v1/revocations", &admin, r#"{"device":"42"}"#).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    node.kill();
    let node = data.node(&settings);
    let answer = node.call("GET", &format!("/v1/revocations/{}", answer.id()), &admin, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
