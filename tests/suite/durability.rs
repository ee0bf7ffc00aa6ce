//! Durability receipts: an answer shows how far the event got, and never claims more.

use serde_json::json;

use super::support::node::Node;
use super::support::redis::RedisServer;
use super::support::{eventually, http::Answer};
use crate::support::Signal;

const PATH: &str = "/v1/topics/orders/events";

async fn publish(node: &Node, durable: &str, headers: &[(&str, &str)]) -> Answer {
    node.call("POST", &format!("{PATH}?durable={durable}"), headers, "1").await
}

/// A server that copies everything from `master`, once it has caught up.
async fn replica_of(master: &RedisServer) -> RedisServer {
    let port = master.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let mut raw = replica.raw().await;
    eventually("the replica is in step", async || {
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut raw.clone()).await.unwrap();
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    let _: () = redis::cmd("PING").query_async(&mut raw).await.unwrap();
    replica
}

#[tokio::test]
async fn a_publish_that_waits_for_a_replica_is_answered_once_the_replica_has_it() {
    let master = RedisServer::start();
    let replica = replica_of(&master).await;
    let node = Node::on(&master, &[]);
    let answer = publish(&node, "replicas:1", &[]).await;
    assert_eq!((answer.status, answer.json()["durable"].clone()), (201, json!({"replicas": 1})));
    let mut raw = replica.raw().await;
    let events: usize = redis::cmd("XLEN").arg("whimbrel:{topic:orders}:events").query_async(&mut raw).await.unwrap();
    assert_eq!(events, 1, "the replica has it by the time of the answer");
}

#[tokio::test]
async fn a_replica_that_does_not_answer_in_time_is_a_504_with_the_id_and_the_event_is_stored() {
    let master = RedisServer::start();
    let replica = replica_of(&master).await;
    let node = Node::on(&master, &[]);
    replica.signal(Signal::STOP);
    let key = [("idempotency-key", "order-1")];
    let answer = publish(&node, "replicas:1", &key).await;
    let (slug, _) = answer.problem(504);
    let receipt = answer.json();
    assert_eq!((slug.as_str(), &receipt["reached"]), ("not-durable", &json!({"replicas": 0})));
    let kept = node.get_json(PATH).await;
    assert_eq!(kept["events"][0]["id"], receipt["id"]);

    // Asked again with the same key: nothing is stored twice, and the wait is for the first one.
    replica.signal(Signal::CONT);
    let again = eventually("the replica has it", async || {
        let again = publish(&node, "replicas:1", &key).await;
        (again.status != 504).then_some(again)
    })
    .await;
    assert_eq!((again.status, &again.json()["id"]), (200, &receipt["id"]));
    assert_eq!(again.json()["durable"], json!({"replicas": 1}));
    assert_eq!(node.get_json(PATH).await["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_duplicate_is_not_called_durable_before_the_first_publish_is() {
    let master = RedisServer::start();
    let replica = replica_of(&master).await;
    let node = Node::on(&master, &[]);
    replica.signal(Signal::STOP);
    let key = [("idempotency-key", "order-1")];
    assert_eq!(node.call("POST", PATH, &key, "1").await.status, 201);
    let answer = publish(&node, "replicas:1", &key).await;
    assert_eq!(answer.problem(504).0, "not-durable");
    replica.signal(Signal::CONT);
}

#[tokio::test]
async fn a_publish_to_disk_is_answered_once_it_is_there() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::on(&redis, &[]);
    let answer = publish(&node, "disk", &[]).await;
    assert_eq!((answer.status, answer.json()["durable"].clone()), (201, json!({"disk": true})));
}

#[tokio::test]
async fn what_nothing_can_confirm_is_refused_before_anything_is_stored() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let (slug, detail) = publish(&node, "disk", &[]).await.problem(400);
    assert!(slug == "unsupported" && detail.contains("appendonly"), "{detail}");
    let embedded = Node::start(&[]);
    let (slug, detail) = publish(&embedded, "replicas:1", &[]).await.problem(400);
    assert!(slug == "unsupported" && detail.contains("embedded"), "{detail}");
    for node in [&node, &embedded] {
        assert_eq!(node.get_json(PATH).await["events"], json!([]));
        for wrong in ["replicas", "replicas:0", "both"] {
            let (_, detail) = publish(node, wrong, &[]).await.problem(400);
            assert!(detail.contains("replicas:N"), "{detail}");
        }
    }
}
