//! A node that loses its store keeps its clients, reports it, and goes on when the store is back.

use crate::support::client::{Client, Gap, Said, Transport};
use crate::support::command::start;
use crate::support::http::Http;
use crate::support::node::{Node, events_path};
use crate::support::redis::RedisServer;
use crate::support::world::{World, promises};
use crate::support::{Signal, eventually, free_port};

promises! {
    everywhere: ;
    on_redis:
        clients_stay_and_everything_goes_on_when_the_store_is_back,
        a_store_that_comes_back_empty_is_reported_as_lost,
        new_listeners_are_asked_to_come_back,
}

const SETTINGS: &[(&str, &str)] = &[("WHIMBREL_LEASE_SECONDS", "2"), ("WHIMBREL_SYNC_SECONDS", "1")];

/// A Redis that has on disk what it acknowledged, and so has it again after a restart.
fn durable(world: &mut World) {
    world.redis = Some(RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]));
}

async fn store_is(node: &Node, up: bool) {
    eventually(&format!("the store is up: {up}"), async || {
        let ready = node.get("/health/ready").await;
        assert_eq!(ready.status, 200, "a node that lost its store stays ready");
        (ready.json()["store"]["up"] == up).then_some(())
    })
    .await;
}

/// Waits until publishes are refused, and checks how.
async fn publishes_are_refused(node: &Node) {
    eventually("publishes are refused", async || {
        let answer = node.call("POST", &events_path("topic:news"), &[], "\"refused\"").await;
        // What was on its way when the store went has an unknown outcome.
        assert!(matches!(answer.status, 503 | 504), "{} {}", answer.status, answer.text());
        (answer.status == 503).then_some(())
    })
    .await;
    let answer = node.call("POST", &events_path("topic:news"), &[], "\"refused\"").await;
    assert_eq!(answer.problem(503).0, "unavailable");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    let batch = node.call("POST", "/v1/events", &[], r#"[{"topic":"news","data":"refused"}]"#).await;
    assert!(batch.status == 503 || batch.json()["results"][0]["error"] == "unavailable", "{}", batch.text());
}

/// Publishes as soon as it can be.
async fn publish(node: &Node, data: &str) -> String {
    eventually("a publish is taken", async || {
        let answer = node.call("POST", &events_path("topic:news"), &[], data).await;
        (answer.status == 201).then(|| answer.id())
    })
    .await
}

async fn clients_stay_and_everything_goes_on_when_the_store_is_back(mut world: World) {
    durable(&mut world);
    let [first, second] = world.nodes(SETTINGS);
    let mut clients =
        [world.wanted(&["topic:news"]).connect(&first).await, world.wanted(&["topic:news"]).connect(&second).await];
    for round in 0..2 {
        let before = publish(&first, &format!("\"before {round}\"")).await;
        for client in &mut clients {
            assert_eq!(client.event().await.id, before);
        }
        world.redis.as_mut().unwrap().kill();
        for node in [&first, &second] {
            publishes_are_refused(node).await;
            store_is(node, false).await;
            assert_eq!(node.metric("store_up").await, 0.0);
        }
        world.redis.as_mut().unwrap().revive();
        for node in [&first, &second] {
            store_is(node, true).await;
        }
        let after = [publish(&first, "1").await, publish(&second, "2").await];
        for client in &mut clients {
            // No gap: nothing was lost, and what was refused was not stored.
            assert_eq!([client.event().await.id, client.event().await.id], after);
        }
    }
}

async fn a_store_that_comes_back_empty_is_reported_as_lost(mut world: World) {
    let node = world.node(SETTINGS);
    let mut client = world.wanted(&["topic:news"]).connect(&node).await;
    let seen = publish(&node, "1").await;
    assert_eq!(client.event().await.id, seen);
    world.redis.as_mut().unwrap().kill();
    publishes_are_refused(&node).await;
    world.redis.as_mut().unwrap().revive();
    let next = publish(&node, "2").await;
    assert_eq!(gap_then_event(&mut client, &next).await, seen);
    let last = publish(&node, "3").await;
    assert_eq!(client.event().await.id, last);
}

/// The `after` of the gap notices that have to come before the event.
async fn gap_then_event(client: &mut Client, id: &str) -> String {
    let Gap { after, reason, .. } = client.gap().await;
    assert_eq!(reason, "lost");
    assert_eq!(client.event().await.id, id);
    after
}

async fn new_listeners_are_asked_to_come_back(mut world: World) {
    durable(&mut world);
    let node = world.node(SETTINGS);
    let mut client = world.wanted(&["topic:news"]).connect(&node).await;
    world.redis.as_mut().unwrap().kill();
    publishes_are_refused(&node).await;
    let code = (world.transport == Transport::WebSocket).then_some(1013);
    let away = Said::Close { reason: "unavailable".into(), code };
    assert_eq!(world.wanted(&["topic:new"]).turned_away(&node).await, away);
    if world.transport == Transport::WebSocket {
        let answer = client.ask(serde_json::json!({"op": "subscribe", "stream": "topic:other", "ref": 1})).await;
        assert_eq!((&answer["op"], &answer["code"]), (&"error".into(), &"unavailable".into()));
        let answer = client.ask(serde_json::json!({"op": "publish", "stream": "topic:news", "data": 1})).await;
        assert_eq!((&answer["op"], &answer["code"]), (&"error".into(), &"unavailable".into()));
    }
    assert_eq!(node.get("/v1/topics/news/events").await.problem(503).0, "unavailable");
    assert_eq!(node.get("/health/live").await.status, 200);
    world.redis.as_mut().unwrap().revive();
    store_is(&node, true).await;
    let mut new = world.wanted(&["topic:news", "topic:new"]).connect_in_time(&node).await;
    publish(&node, "1").await;
    assert_eq!((new.data(1).await, client.data(1).await), (vec!["1".into()], vec!["1".into()]));
}

#[tokio::test]
async fn a_node_may_start_before_its_store() {
    let mut world = World::on_redis(Transport::Sse);
    let redis = world.redis.as_mut().unwrap();
    redis.kill();
    let node = world.node(&[]);
    assert_eq!(node.get("/health/live").await.status, 200);
    let ready = node.get("/health/ready").await;
    assert_eq!((ready.status, &ready.json()["store"]["up"]), (503, &false.into()), "{}", ready.text());
    let kind = ready.json()["store"]["kind"].clone();
    eventually("the reason is reported", async || {
        node.get("/health/ready").await.json()["store"]["error"]
            .as_str()
            .map(|why| assert!(why.contains("refused"), "{why}"))
    })
    .await;
    let refused = node.call("POST", "/v1/topics/news/events", &[], "1").await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.problem(503).0, "unavailable");
    let listener = node.get("/v1/sse?topic=news").await;
    assert_eq!(listener.status, 200, "an EventSource must come back");
    assert!(listener.text().contains(r#"{"reason":"unavailable","retry":"#), "{}", listener.text());
    for (name, value) in [("cache-control", "no-store, no-transform"), ("x-accel-buffering", "no"), ("vary", "Accept")]
    {
        assert_eq!(listener.header(name), Some(value), "{name}");
    }
    assert_eq!(node.get("/metrics").await.status, 200);
    assert_eq!(node.metric("store_up").await, 0.0);
    for foreign in [("Host", "evil.example"), ("Origin", "https://evil.example")] {
        for path in ["/", "/v1/sse?topic=news", "/metrics", "/health/ready"] {
            assert_eq!(node.call("GET", path, &[foreign], "").await.problem(403).0, "forbidden", "{path}");
        }
    }

    world.redis.as_mut().unwrap().revive();
    eventually("ready", async || (node.get("/health/ready").await.status == 200).then_some(())).await;
    assert_eq!(node.get_json("/health/ready").await["store"]["kind"], kind, "named alike before and after");
    let mut client = world.wanted(&["topic:news"]).connect_in_time(&node).await;
    publish(&node, "1").await;
    assert_eq!(client.data(1).await, ["1"]);
}

#[tokio::test]
async fn a_node_on_a_replica_is_not_ready_and_becomes_so_when_that_may_be_written() {
    let master = RedisServer::start_with(&[]);
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let listen = format!("127.0.0.1:{}", free_port());
    let node = start(&["serve", "--listen", &listen, "--redis-url", &replica.url()], &[]);
    let address = listen.parse().unwrap();
    let ask = async |path: &str| Http::connect(address).await.call("GET", path, &[], b"").await;
    node.said("reached, but read-only: 127.0.0.1:").await;
    let ready = ask("/health/ready").await;
    let error = ready.json()["store"]["error"].to_string();
    assert!(ready.status == 503 && error.contains("reached, but read-only"), "{error}");
    assert_eq!(ask("/health/live").await.status, 200);
    assert_eq!(ask("/v1/topics/news/events").await.problem(503).0, "unavailable");
    let _: () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut replica.raw().await).await.unwrap();
    eventually("ready", async || (ask("/health/ready").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_node_that_waits_for_its_store_stops_at_a_signal() {
    let mut world = World::on_redis(Transport::Sse);
    world.redis.as_mut().unwrap().kill();
    let node = world.node(&[]);
    assert_eq!(node.get("/health/live").await.status, 200);
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn a_strict_node_is_unready_while_its_store_is_away() {
    let mut world = World::on_redis(Transport::Sse);
    let node = world.node(&[("WHIMBREL_READY_STRICT", "true"), ("WHIMBREL_LEASE_SECONDS", "1")]);
    let redis = world.redis.as_mut().unwrap();
    assert_eq!(node.get("/health/ready").await.status, 200);
    redis.kill();
    eventually("unready", async || (node.get("/health/ready").await.status == 503).then_some(())).await;
    redis.revive();
    eventually("ready", async || (node.get("/health/ready").await.status == 200).then_some(())).await;
}
