//! Erasing a stream's events.

use serde_json::json;

use crate::support::client::{Gap, Said, numbers};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        what_is_erased_is_nowhere_and_the_stream_goes_on_above_it;
    on_redis:
        nothing_of_the_events_is_left_in_redis,
}

async fn erase(node: &Node, path: &str) {
    let answer = node.call("DELETE", path, &[], "").await;
    assert_eq!((answer.status, answer.text()), (204, ""));
}

async fn what_is_erased_is_nowhere_and_the_stream_goes_on_above_it(world: World) {
    let [node, other] = world.nodes(&[]);
    // The events are in the rings of both nodes.
    let mut live = Vec::new();
    for node in [&node, &other] {
        live.push(world.wanted(&["device:42"]).connect(node).await);
    }
    let ids = node.publish_all("device:42", 0..5).await;
    for client in &mut live {
        client.data(5).await;
    }
    let ack = json!({"id": ids[1]}).to_string();
    assert_eq!(node.call("POST", "/v1/devices/42/ack", &[], ack).await.status, 200);
    erase(&node, "/v1/devices/42").await;
    assert_eq!(node.history("device:42").await, [""; 0]);
    assert_eq!(node.get(&format!("/v1/devices/42/events/{}", ids[4])).await.status, 404);
    let state = node.get_json("/v1/devices/42").await;
    assert_eq!((&state["last"], &state["pending"]), (&json!(ids[4]), &json!(0)));
    // A client that had not seen all gets a gap on either node, as soon as the erasure is there; one that had does not.
    let missed =
        Gap { stream: "device:42".into(), after: ids[1].clone(), next: ids[4].clone(), reason: "expired".into() };
    for node in [&node, &other] {
        for after in [&ids[1], "ack"] {
            let wanted = world.wanted(&["device:42"]).after(after);
            eventually("the rings are empty", async || {
                let said = wanted.connect(node).await.next().await;
                assert!(matches!(said, Said::Gap(_) | Said::Event(_)), "{said:?}");
                (said == Said::Gap(missed.clone())).then_some(())
            })
            .await;
        }
        live.push(world.wanted(&["device:42"]).after("earliest").connect(node).await);
        live.push(world.wanted(&["device:42"]).after(&ids[4]).connect(node).await);
    }
    let next = other.publish("device:42", "5").await;
    assert!(numbers(&next) > numbers(&ids[4]));
    for client in &mut live {
        assert_eq!(client.data(1).await, ["5"]);
    }
    erase(&node, "/v1/devices/42").await;
    erase(&node, "/v1/devices/never-heard-of").await;
    let refused = node.call("DELETE", "/v1/devices/a%20b", &[], "").await;
    assert_eq!(refused.problem(400).0, "invalid-name");
    assert!(node.call("DELETE", "/v1/devices/42?all=1", &[], "").await.problem(400).1.contains("'all'"));
}

async fn nothing_of_the_events_is_left_in_redis(world: World) {
    let node = world.node(&[]);
    node.publish_with("topic:a", "collapse=k", "1").await;
    node.publish("topic:b", "2").await;
    erase(&node, "/v1/topics/a").await;
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*{topic:*").query_async(&mut raw).await.unwrap();
    keys.sort();
    assert_eq!(keys, ["whimbrel:{topic:a}:meta", "whimbrel:{topic:b}:events", "whimbrel:{topic:b}:meta"]);
    let fields: Vec<String> = redis::cmd("HKEYS").arg("whimbrel:{topic:a}:meta").query_async(&mut raw).await.unwrap();
    assert!(fields.iter().all(|field| ["last", "epoch", "erased"].contains(&field.as_str())), "{fields:?}");
    assert_eq!(node.history("topic:b").await, ["2"], "another stream is as it was");
    // For an unknown stream nothing is written.
    erase(&node, "/v1/topics/unheard").await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*unheard*").query_async(&mut raw).await.unwrap();
    assert_eq!(keys, [""; 0]);
}
