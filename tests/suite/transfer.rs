//! Streams that are taken from one store to another: subscribers go on with the cursors that they have.

use serde_json::Value;

use crate::support::client::{Client, Transport, Wanted};
use crate::support::cluster::Cluster;
use crate::support::command::{Outcome, run};
use crate::support::node::{Node, events_path};
use crate::support::redis::RedisServer;

const EVENTS: usize = 300;

async fn export(node: &Node, streams: &[&str]) -> Outcome {
    let url = node.url();
    let arguments: Vec<&str> = ["export", "--url", &url].into_iter().chain(streams.iter().copied()).collect();
    run(&arguments, &[], b"").await
}

async fn import(node: &Node, lines: &str) -> Outcome {
    run(&["import", "--url", &node.url()], &[], lines.as_bytes()).await
}

/// All that history shows of a stream: ids, types, times and data.
async fn shown(node: &Node, stream: &str) -> Value {
    node.get_json(&format!("{}?limit=1000", events_path(stream))).await["events"].clone()
}

async fn read(client: &mut Client, from: usize, to: usize) {
    let expected: Vec<_> = (from..to).map(|number| number.to_string()).collect();
    assert_eq!(client.data(to - from).await, expected);
}

/// Moves two streams, one of them a device's inbox, and their listeners.
async fn listeners_move(old: Node, new: Node) {
    old.publish_all("topic:news", 0..EVENTS / 2).await;
    let wanted = |transport| Wanted::new(transport, &["topic:news", "device:42"]);
    let transports = [Transport::Sse, Transport::WebSocket];
    let mut cursors = Vec::new();
    for transport in transports {
        let mut client = wanted(transport).after("earliest").connect(&old).await;
        read(&mut client, 0, EVENTS / 2).await;
        cursors.push(client.cursor());
    }
    old.publish_all("topic:news", EVENTS / 2..EVENTS).await;
    let inbox = old.publish_all("device:42", 0..5).await;
    let ack = format!(r#"{{"id":"{}"}}"#, inbox[1]);
    assert_eq!(old.call("POST", "/v1/devices/42/ack", &[], ack).await.status, 200);
    let (topic, device) = (shown(&old, "topic:news").await, shown(&old, "device:42").await);

    let exported = export(&old, &["topic:news", "device:42"]).await;
    assert_eq!(exported.code, Some(0), "{exported:?}");
    assert!(exported.stdout.lines().count() > 2 && exported.stderr.contains("305 events of 2 streams"), "{exported:?}");
    old.kill();
    let imported = import(&new, &exported.stdout).await;
    assert!(imported.code == Some(0) && imported.stderr.contains("305 events of 2 streams"), "{imported:?}");

    assert_eq!((shown(&new, "topic:news").await, shown(&new, "device:42").await), (topic, device));
    for (transport, cursor) in transports.into_iter().zip(&cursors) {
        let mut client = Wanted::new(transport, &["topic:news"]).from(cursor).connect(&new).await;
        read(&mut client, EVENTS / 2, EVENTS).await;
    }
    let mut client = Wanted::new(Transport::Sse, &["device:42"]).after("ack").connect(&new).await;
    read(&mut client, 2, 5).await;
    new.publish("device:42", "5").await;
    read(&mut client, 5, 6).await;
}

#[tokio::test]
async fn live_listeners_move_from_an_embedded_node_to_one_on_redis_and_miss_nothing() {
    let redis = RedisServer::start();
    listeners_move(Node::start(&[]), Node::on(&redis, &[])).await;
}

#[tokio::test]
async fn live_listeners_move_from_one_redis_to_a_cluster_and_miss_nothing() {
    let (redis, cluster) = (RedisServer::start(), Cluster::of_masters(3).await);
    let new = Node::start(&[("WHIMBREL_REDIS_URL", &cluster.url())]);
    listeners_move(Node::on(&redis, &[]), new).await;
}

#[tokio::test]
async fn events_arrive_byte_for_byte_with_all_that_they_had() {
    let (redis, old) = (RedisServer::start(), Node::start(&[]));
    let new = Node::on(&redis, &[]);
    old.publish_with("topic:a", "type=order.paid&ttl=3600", "{\"a\" :1.0}\n").await;
    old.publish_with("topic:a", "collapse=c", "2").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    old.call("POST", "/v1/topics/a/events", &[("traceparent", trace)], "3").await.id();
    old.publish_with("topic:a", "collapse=c", r#""\u00e9€""#).await;
    let exported = export(&old, &["topic:a"]).await;
    assert_eq!(import(&new, &exported.stdout).await.code, Some(0));
    // And back, to another.
    let back = export(&new, &["topic:a"]).await;
    assert_eq!(back.stdout, exported.stdout);
    let third = Node::start(&[]);
    assert_eq!(import(&third, &back.stdout).await.code, Some(0));
    for node in [&new, &third] {
        let wanted = Wanted::new(Transport::Sse, &["topic:a"]).after("earliest").with("trace", "1");
        let mut client = wanted.connect(node).await;
        let first = client.event().await;
        assert_eq!((first.kind.as_str(), first.data.as_str()), ("order.paid", "{\"a\" :1.0}\n"));
        // Another is superseded.
        let traced = client.event().await;
        assert_eq!((traced.data.as_str(), traced.trace.as_deref()), ("3", Some(trace)));
        assert_eq!(client.event().await.data, r#""\u00e9€""#);
    }
}

#[tokio::test]
async fn a_stream_in_use_is_refused_by_name_and_a_repeated_import_changes_nothing() {
    let (old, new) = (Node::start(&[]), Node::start(&[]));
    old.publish_all("topic:a", 0..200).await;
    old.publish("topic:b", "1").await;
    let exported = export(&old, &["topic:a", "topic:b"]).await.stdout;
    new.publish("topic:b", "\"other\"").await;
    let refused = import(&new, &exported).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("topic:b is in use"), "{refused:?}");
    assert_eq!(new.history("topic:b").await, ["\"other\""]);
    // All of topic:a was there by then, and goes on.
    new.publish("topic:a", "200").await;
    let again = import(&new, exported.lines().next().unwrap()).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(new.history("topic:a").await.len(), 201);

    let parts: Vec<&str> = exported.lines().collect();
    let third = Node::start(&[]);
    let skipped = import(&third, parts[1]).await;
    assert!(skipped.code == Some(1) && skipped.stderr.contains("right behind the one before"), "{skipped:?}");
    for (wrong, expected) in
        [("{}", "no part"), ("nonsense", "line 1"), (&parts[0].replace("\"prev\":\"", "\"prev\":\"9"), "out of order")]
    {
        let refused = import(&third, wrong).await;
        assert!(refused.code != Some(0) && refused.stderr.contains(expected), "{refused:?}");
    }
    let unused = export(&old, &["topic:nobody"]).await;
    assert!(unused.code == Some(1) && unused.stderr.contains("nobody ever used topic:nobody"), "{unused:?}");
}

#[tokio::test]
async fn what_is_imported_into_a_data_directory_survives_a_kill() {
    let directory = tempfile::TempDir::new().unwrap();
    let settings = [("WHIMBREL_DATA_DIR", directory.path().to_str().unwrap())];
    let (old, new) = (Node::start(&[]), Node::start(&settings));
    old.publish_all("topic:a", 0..200).await;
    let exported = export(&old, &["topic:a"]).await.stdout;
    assert_eq!(import(&new, &exported).await.code, Some(0));
    new.kill();
    let new = Node::start(&settings);
    assert_eq!(export(&new, &["topic:a"]).await.stdout, exported);
}
