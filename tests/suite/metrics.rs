//! Figures that tell where time and bytes go: `/metrics` of real nodes.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::client::{Client, Transport, Wanted};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::{Signal, eventually};

async fn listen(node: &Node, stream: &str) -> Client {
    Wanted::new(Transport::Sse, &[stream]).connect(node).await
}

async fn first_writes(node: &Node, path: &str) -> f64 {
    node.metric(&format!("first_write_seconds_count{{path=\"{path}\"}}")).await
}

/// Waits until the figure is as wanted.
async fn until(node: &Node, name: &str, wanted: impl Fn(f64) -> bool) {
    eventually(name, async || wanted(node.metric(name).await).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_to_the_first_write_is_shown_by_the_path_of_the_event() {
    let redis = RedisServer::start();
    let settings = [("WHIMBREL_LINK_LISTEN", "127.0.0.1:0"), ("WHIMBREL_LINK_SECRET", "a-secret-that-all-nodes-have")];
    let (one, other) = (Node::on(&redis, &settings), Node::on(&redis, &settings));
    let (mut own, mut far) = (listen(&one, "topic:a").await, listen(&other, "topic:a").await);
    // The first go over the channel; a link opens once it pays.
    eventually("each path was taken", async || {
        one.publish("topic:a", "1").await;
        assert_eq!((own.data(1).await, far.data(1).await), (vec!["1".into()], vec!["1".into()]));
        let (local, link) = (first_writes(&one, "local").await, first_writes(&other, "link").await);
        (local > 0.0 && link > 0.0 && first_writes(&other, "channel").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(first_writes(&other, "local").await, 0.0, "nothing was published there");
    // Nobody to write to.
    drop(own);
    one.metric_is("connections{transport=\"sse\"}", 0.0).await;
    let before = first_writes(&one, "local").await;
    one.publish("topic:a", "2").await;
    assert_eq!(far.data(1).await, ["2"]);
    assert_eq!(first_writes(&one, "local").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trips_to_redis_are_timed_and_what_it_has_not_answered_is_counted() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let lane = |figure: &str| format!("store_{figure}{{role=\"lane\"}}");
    let before = node.metric(&lane("round_trip_seconds_count")).await;
    node.publish("topic:a", "1").await;
    assert!(node.metric(&lane("round_trip_seconds_count")).await > before);
    assert!(node.metric("store_round_trip_seconds_count{role=\"membership\"}").await > 0.0);
    assert_eq!(node.metric(&lane("waiting")).await, 0.0);
    redis.signal(Signal::STOP);
    let publish = async {
        // Whatever becomes of it: the server stands still for as long as the figure takes to show.
        node.call("POST", "/v1/topics/a/events", &[], "2").await;
    };
    let shown = async {
        until(&node, &lane("outstanding"), |count| count > 0.0).await;
        redis.signal(Signal::CONT);
    };
    tokio::join!(publish, shown);
    until(&node, &lane("outstanding"), |count| count == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sync_lag_grows_while_the_store_is_away_and_falls_when_it_is_back() {
    let mut redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_SYNC_SECONDS", "1")]);
    let _listener = listen(&node, "topic:a").await;
    until(&node, "sync_lag_seconds", |lag| lag < 1.0).await;
    redis.kill();
    until(&node, "sync_lag_seconds", |lag| lag > 2.0).await;
    redis.revive();
    until(&node, "sync_lag_seconds", |lag| lag < 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_wait_for_slow_clients_are_shown_until_these_have_taken_them_or_left() {
    let node = Node::start(&[("WHIMBREL_OUTBOX_BYTES", "1000000")]);
    let slow = || async { Wanted::new(Transport::Sse, &["topic:a"]).narrow().connect(&node).await };
    let (mut reads, leaves) = (slow().await, slow().await);
    node.metric_is("outbox_bytes", 0.0).await;
    let mut published = 0;
    // One outbox alone takes less.
    eventually("both sockets are full", async || {
        let large = (0..20).map(|n| format!("\"{n} {}\"", "x".repeat(60_000)));
        published += node.publish_all("topic:a", large).await.len();
        (node.metric("outbox_bytes").await > 1_100_000.0).then_some(())
    })
    .await;
    for _ in 0..published {
        reads.event().await;
    }
    assert!(node.metric("outbox_bytes").await > 0.0, "the other one takes nothing");
    drop(leaves);
    node.metric_is("outbox_bytes", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_leads_each_task_and_each_shows_when_it_renewed_its_lease() {
    let redis = RedisServer::start();
    let nodes = [Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "1")]), Node::on(&redis, &[])];
    let leaders = async |task: &str| {
        let name = format!("leading{{task=\"{task}\"}}");
        nodes[0].metric(&name).await + nodes[1].metric(&name).await
    };
    for task in ["ingress", "producers"] {
        eventually("a leader", async || (leaders(task).await == 1.0).then_some(())).await;
    }
    let renewed = async |node: &Node| node.metric("lease_renewed_timestamp_seconds").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for node in &nodes {
        assert!((renewed(node).await - now).abs() < 600.0);
    }
    let first = renewed(&nodes[0]).await;
    eventually("a renewal", async || (renewed(&nodes[0]).await > first).then_some(())).await;
}
