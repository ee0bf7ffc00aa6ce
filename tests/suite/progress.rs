//! How far an event got: stored, told, acknowledged; and waiting for it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        an_event_is_stored_then_told_then_acknowledged,
        a_wait_is_answered_once_the_event_is_acknowledged_on_any_node;
    on_redis:
        an_event_that_is_trimmed_during_a_wait_is_still_answered,
}

fn path(id: &str) -> String {
    format!("/v1/devices/42/events/{id}")
}

async fn status(node: &Node, id: &str) -> String {
    node.get_json(&path(id)).await["status"].as_str().unwrap().to_owned()
}

async fn acknowledge(node: &Node, id: &str) {
    let answer = node.call("POST", "/v1/devices/42/ack", &[], json!({"id": id}).to_string()).await;
    assert_eq!(answer.status, 200);
}

async fn an_event_is_stored_then_told_then_acknowledged(world: World) {
    let [node, other] = world.nodes(&[]);
    let first = node.publish("device:42", "1").await;
    let answer = node.get_json(&path(&first)).await;
    assert_eq!((&answer["id"], &answer["data"], &answer["status"]), (&json!(first), &json!(1), &json!("stored")));
    let mut client = world.wanted(&["device:42"]).after("earliest").connect(&other).await;
    client.data(1).await;
    assert_eq!(status(&node, &first).await, "told");
    let second = node.publish("device:42", "2").await;
    assert_eq!(status(&other, &second).await, "told");
    acknowledge(&node, &first).await;
    assert_eq!(status(&other, &first).await, "acknowledged");
    assert_eq!(status(&other, &second).await, "told");
    // Its node lets the stream go some seconds after the client; what was sent to it stays `told`.
    drop(client);
    let third = eventually("no node is notified any more", async || {
        let answer = node.call("POST", "/v1/devices/42/events", &[], "3").await.json();
        (answer["nodes"] == 0).then(|| answer["id"].as_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(status(&node, &second).await, "told");
    assert_eq!(status(&node, &third).await, "stored");
    assert_eq!(node.get_json("/v1/devices/42/events?limit=1").await["events"][0].get("status"), None);
}

async fn a_wait_is_answered_once_the_event_is_acknowledged_on_any_node(world: World) {
    let [node, other] = world.nodes(&[]);
    let id = node.publish("device:42", "1").await;
    // A while without an acknowledgement is answered with what there is.
    let start = Instant::now();
    assert_eq!(node.get_json(&format!("{}?wait=1", path(&id))).await["status"], "stored");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(node.get_json(&format!("{}?wait=0", path(&id))).await["status"], "stored");
    // Long waits end with the acknowledgement.
    let waiting = {
        let (node, path) = (node.clone(), format!("{}?wait=60", path(&id)));
        tokio::spawn(async move { node.get_json(&path).await })
    };
    let _client = world.wanted(&["device:42"]).after("earliest").connect(&other).await;
    acknowledge(&other, &id).await;
    let answer = waiting.await.unwrap();
    assert_eq!((&answer["id"], &answer["status"]), (&json!(id), &json!("acknowledged")));
    assert_eq!(node.get_json(&format!("{}?wait=60", path(&id))).await["status"], "acknowledged", "at once");
    // Nobody acknowledges topics, so there is nothing to wait for.
    let id = node.publish("topic:news", "1").await;
    let answer = node.get_json(&format!("/v1/topics/news/events/{id}?wait=60")).await;
    assert_eq!(answer["status"], "stored");
}

async fn an_event_that_is_trimmed_during_a_wait_is_still_answered(world: World) {
    let node = world.node(&[]);
    let id = node.publish("device:42", "1").await;
    let waiting = {
        let (node, path) = (node.clone(), format!("{}?wait=60", path(&id)));
        tokio::spawn(async move { node.get_json(&path).await })
    };
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    // The first was for the stream's birth.
    eventually("the event is read", async || {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut raw.clone()).await.unwrap();
        let calls = info.split("cmdstat_xrevrange:calls=").nth(1)?.split(',').next()?;
        (calls.parse::<u32>().unwrap() > 1).then_some(())
    })
    .await;
    let _: () = redis::cmd("DEL").arg("whimbrel:{device:42}:events").query_async(&mut raw).await.unwrap();
    acknowledge(&node, &id).await;
    let answer = waiting.await.unwrap();
    assert_eq!((&answer["data"], &answer["status"]), (&json!(1), &json!("acknowledged")));
}

#[tokio::test]
async fn a_wait_that_makes_no_sense_is_refused() {
    let node = Node::start(&[]);
    let id = node.publish("device:42", "1").await;
    for wait in ["", "-1", "%2B5", "61", "1.5", "soon", "99999999999999999999"] {
        let (slug, detail) = node.get(&format!("{}?wait={wait}", path(&id))).await.problem(400);
        assert!(slug == "bad-request" && detail.contains("'wait'"), "{wait}: {detail}");
    }
    assert!(node.get(&format!("{}?wait=1&wait=2", path(&id))).await.problem(400).1.contains("more than once"));
    assert_eq!(node.get(&format!("{}?wait=60", path("1-1"))).await.problem(404).0, "not-found");
}
