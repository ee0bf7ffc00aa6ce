//! The lifecycle topic: one `connected` and one `disconnected` for each connection of a device, whatever becomes of
//! its node or the store.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use crate::regions::Regions;
use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::node::{Node, events_path};
use crate::support::producers::redis_cli;
use crate::support::receiver::{Manner, Receiver, SECRET};
use crate::support::redis::RedisServer;
use crate::support::world::{World, promises};
use crate::support::{Signal, eventually};

promises! {
    everywhere:
        each_connect_and_each_disconnect_of_a_device_is_published,
        the_reason_why_a_connection_ended_is_published,
        a_refused_connection_is_not_published,
        nobody_else_can_publish_there;
    on_redis:
        every_connection_has_its_pair_when_one_of_three_nodes_is_killed,
        a_node_that_others_took_for_dead_goes_on_with_its_connections_under_new_ids,
        a_drained_node_leaves_nothing_to_publish,
        what_happens_during_an_outage_of_the_store_is_published_after_it_in_few_batches,
        a_connection_of_an_outage_that_is_one_too_many_is_published_with_limit,
        after_a_flush_all_open_connections_are_published,
}

const LIFECYCLE: &str = "topic:whimbrel:lifecycle";
const SHORT_LEASE: (&str, &str) = ("WHIMBREL_LEASE_SECONDS", "1");

/// All events of the topic, oldest first: type and data.
async fn published(node: &Node) -> Vec<(String, Value)> {
    let history = node.get_json(&format!("{}?limit=1000", events_path(LIFECYCLE))).await;
    let events = history["events"].as_array().unwrap();
    events.iter().map(|event| (event["type"].as_str().unwrap().to_owned(), event["data"].clone())).collect()
}

/// What became of each published connection: its device, and the reason of its end. No connection may have
/// more than its pair, or a half of it in the wrong order.
fn connections(published: &[(String, Value)]) -> BTreeMap<String, (String, Option<String>)> {
    let mut known = BTreeMap::new();
    for (kind, data) in published {
        let field = |name: &str| data[name].as_str().map(str::to_owned);
        let (connection, device) = (field("connection").unwrap(), field("device").unwrap());
        match kind.as_str() {
            "connected" => {
                assert!(data["reason"].is_null());
                assert!(known.insert(connection, (device, None)).is_none(), "came twice: {data} in {published:?}");
            }
            "disconnected" => {
                let (came, reason) = known.get_mut(&connection).unwrap_or_else(|| panic!("never came: {data}"));
                assert_eq!(*came, device);
                assert_eq!(*reason, None, "left twice: {data} in {published:?}");
                *reason = Some(field("reason").unwrap());
            }
            other => panic!("{other}: {data}"),
        }
    }
    known
}

/// Waits until the topic has so many connections, of which so many are there, and gives their ends: device and
/// reason, sorted.
async fn ends(node: &Node, count: usize, here: usize) -> Vec<(String, String)> {
    eventually(&format!("{count} connections are published, and {here} of them stay"), async || {
        let known = connections(&published(node).await);
        let mut ends: Vec<_> =
            known.values().filter_map(|(device, reason)| Some((device.clone(), reason.clone()?))).collect();
        ends.sort();
        (known.len() == count && ends.len() == count - here).then_some(ends)
    })
    .await
}

fn end(device: &str, reason: &str) -> (String, String) {
    (device.to_owned(), reason.to_owned())
}

async fn kick(node: &Node, device: &str) {
    let answer = node.call("DELETE", &format!("/v1/devices/{device}/connections"), &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn each_connect_and_each_disconnect_of_a_device_is_published(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut follower = world.wanted(&[LIFECYCLE]).connect(&first).await;
    let _no_device = world.wanted(&["topic:news"]).connect(&second).await;
    let client = world.wanted(&["topic:news", "device:42"]).connect(&second).await;
    let came = follower.event().await;
    assert_eq!((came.stream.as_str(), came.kind.as_str()), (LIFECYCLE, "connected"));
    let data: Value = serde_json::from_str(&came.data).unwrap();
    let transport = if world.transport == Transport::Sse { "sse" } else { "websocket" };
    let device = first.get_json("/v1/devices/42").await;
    let expected = json!({
        "device": "42", "connection": device["connections"][0]["id"], "node": second.id().await, "region": "local",
        "transport": transport, "time": data["time"],
    });
    assert_eq!(data, expected);
    assert!(data["time"].as_str().unwrap().ends_with('Z'));
    drop(client);
    let left = follower.event().await;
    let gone: Value = serde_json::from_str(&left.data).unwrap();
    assert_eq!((left.kind.as_str(), &gone["reason"]), ("disconnected", &json!("client")));
    assert_eq!(gone["connection"], data["connection"]);
    // Another connection of the device is another pair, and a later listener can read all.
    drop(world.wanted(&["device:42"]).connect(&first).await);
    assert_eq!(ends(&second, 2, 0).await, [end("42", "client"), end("42", "client")]);
    let mut late = world.wanted(&[LIFECYCLE]).with("types", "disconnected").after("earliest").connect(&second).await;
    assert_eq!(late.event().await.id, left.id);
}

async fn the_reason_why_a_connection_ended_is_published(world: World) {
    let [first, second] =
        world.nodes(&[("WHIMBREL_CONNECTIONS_PER_DEVICE", "1"), ("WHIMBREL_DEVICE_OVERFLOW", "oldest")]);
    let _replaced = world.wanted(&["device:1"]).connect(&first).await;
    let _kicked = world.wanted(&["device:1"]).connect(&second).await;
    ends(&first, 2, 1).await;
    kick(&first, "1").await;
    let _stays = world.wanted(&["device:2"]).connect(&second).await;
    assert_eq!(ends(&second, 3, 1).await, [end("1", "kicked"), end("1", "replaced")]);
    if world.transport == Transport::WebSocket {
        let mut wrong = world.wanted(&["device:3"]).connect(&second).await;
        wrong.frames().send(0x3, true, b"?").await;
        assert_eq!(ends(&second, 4, 1).await[2], end("3", "protocol"));
    }
}

async fn a_refused_connection_is_not_published(world: World) {
    let [first, second] = world.nodes(&[("WHIMBREL_CONNECTIONS_PER_DEVICE", "1")]);
    let _here = world.wanted(&["device:1"]).connect(&first).await;
    let said = world.wanted(&["device:1"]).turned_away(&second).await;
    assert!(matches!(said, Said::Close { reason, .. } if reason == "limit"));
    let _later = world.wanted(&["device:2"]).connect(&second).await;
    assert_eq!(ends(&first, 2, 2).await, []);
}

async fn nobody_else_can_publish_there(world: World) {
    let node = world.node(&[]);
    let path = events_path(LIFECYCLE);
    for query in ["", "?ephemeral=1", "?type=connected", "?durable=disk"] {
        let answer = node.call("POST", &format!("{path}{query}"), &[], "{}").await;
        let (slug, detail) = answer.problem(403);
        assert_eq!(slug, "reserved");
        assert!(detail.contains(LIFECYCLE), "{detail}");
    }
    let batch = r#"[{"topic":"whimbrel:lifecycle","data":1},{"topic":"whimbrel:lifecycle","data":1,"ephemeral":true},
                    {"topic":"whimbrel:other","data":1},{"device":"whimbrel:lifecycle","data":1}]"#;
    let results = node.call("POST", "/v1/events", &[], batch).await.json()["results"].clone();
    let errors: Vec<_> = results.as_array().unwrap().iter().map(|result| result["error"].clone()).collect();
    assert_eq!(errors, ["reserved", "reserved", "invalid-name", "invalid-name"]);
    if world.transport == Transport::WebSocket {
        let mut client = world.wanted(&["topic:news"]).connect(&node).await;
        for ephemeral in [false, true] {
            let publish = json!({"op": "publish", "stream": LIFECYCLE, "data": 1, "ephemeral": ephemeral, "ref": 1});
            let answer = client.ask(publish).await;
            assert_eq!((&answer["op"], &answer["code"]), (&json!("error"), &json!("reserved")));
        }
    }
    if let Some(redis) = &world.redis {
        redis_cli(redis, &["XADD", "whimbrel:ingress", "*", "topic", "whimbrel:lifecycle", "data", "1"]).await;
        eventually("the entry is rejected", async || {
            let rejected = redis_cli(redis, &["XRANGE", "whimbrel:ingress:rejected", "-", "+"]).await;
            rejected.to_string().contains("only the service itself publishes").then_some(())
        })
        .await;
        let keys =
            ["events", "nodes", "meta", "collapse", "once:-"].map(|key| format!("whimbrel:{{{LIFECYCLE}}}:{key}"));
        let mut call = vec!["FCALL", "whimbrel_publish", "5"];
        call.extend(keys.iter().map(String::as_str));
        call.push("1");
        eventually("the function is there, and refuses", async || {
            redis_cli(redis, &call).await.to_string().contains("invalid-name").then_some(())
        })
        .await;
    }
    assert!(published(&node).await.is_empty());
}

async fn every_connection_has_its_pair_when_one_of_three_nodes_is_killed(world: World) {
    let [doomed, second, third] = world.nodes(&[SHORT_LEASE]);
    let mut clients = Vec::new();
    for (place, node) in [&doomed, &second, &third].into_iter().enumerate() {
        let connecting = (0..20).map(|number| (world.wanted(&[&format!("device:{place}-{number}")]), node));
        clients.push(join_all(connecting.map(async |(wanted, node)| wanted.connect(node).await)).await);
    }
    assert_eq!(ends(&second, 60, 60).await, []);
    // The store may have these, or not.
    let late = (0..20).map(|number| world.wanted(&[&format!("device:late-{number}")]));
    let late = join_all(late.map(async |wanted| wanted.connect(&doomed).await)).await;
    doomed.kill();
    let back = (0..20).map(|number| world.wanted(&[&format!("device:0-{number}")]));
    let back = join_all(back.map(async |wanted| wanted.connect(&third).await)).await;
    eventually("all of the dead node are published as lost", async || {
        let known = connections(&published(&second).await);
        let lost = known.values().filter(|(_, reason)| reason.as_deref() == Some("lost")).count();
        let here = known.values().filter(|(_, reason)| reason.is_none()).count();
        (lost >= 20 && here == 60).then_some(())
    })
    .await;
    drop((clients, late, back));
    let known = eventually("everybody has left", async || {
        let known = connections(&published(&third).await);
        known.values().all(|(_, reason)| reason.is_some()).then_some(known)
    })
    .await;
    let count = |wanted: &str| known.values().filter(|(_, reason)| reason.as_deref() == Some(wanted)).count();
    assert_eq!((count("client"), count("lost")), (60, known.len() - 60));
    assert!((80..=100).contains(&known.len()), "{}", known.len());
    let on_the_dead_node = known.values().filter(|(device, _)| device.starts_with("0-")).count();
    assert_eq!(on_the_dead_node, 40, "each of its clients once there and once on another node");
}

async fn a_node_that_others_took_for_dead_goes_on_with_its_connections_under_new_ids(world: World) {
    let [sleeper, other] = world.nodes(&[SHORT_LEASE]);
    let mut client = world.wanted(&["device:42"]).connect(&sleeper).await;
    let _stays = world.wanted(&["device:41"]).connect(&other).await;
    ends(&other, 2, 2).await;
    sleeper.signal(Signal::STOP);
    assert_eq!(ends(&other, 2, 1).await, [end("42", "lost")]);
    sleeper.signal(Signal::CONT);
    assert_eq!(ends(&other, 3, 2).await, [end("42", "lost")]);
    let (_, anew) = published(&other).await.pop().unwrap();
    eventually("the device is known under the new id", async || {
        let connections = other.get_json("/v1/devices/42").await["connections"].clone();
        (connections.as_array()?.len() == 1 && connections[0]["id"] == anew["connection"]).then_some(())
    })
    .await;
    // Its client noticed nothing.
    other.publish("device:42", "1").await;
    assert_eq!(client.data(1).await, ["1"]);
    drop(client);
    assert_eq!(ends(&other, 3, 1).await, [end("42", "client"), end("42", "lost")]);
}

async fn a_drained_node_leaves_nothing_to_publish(world: World) {
    let [stopping, other] = world.nodes(&[("WHIMBREL_DRAIN_DELAY_SECONDS", "0"), ("WHIMBREL_DRAIN_SECONDS", "1")]);
    let connecting = (0..10).map(|number| world.wanted(&[&format!("device:{number}")]));
    let mut clients: Vec<Client> = join_all(connecting.map(async |wanted| wanted.connect(&stopping).await)).await;
    stopping.signal(Signal::TERM);
    for client in &mut clients {
        assert!(matches!(client.next().await, Said::Close { reason, .. } if reason == "drain"));
    }
    drop(clients);
    assert!(stopping.ended().await.success());
    let expected: Vec<_> = (0..10).map(|number| end(&number.to_string(), "drain")).collect();
    assert_eq!(ends(&other, 10, 0).await, expected);
}

/// A Redis that has on disk what it acknowledged, and so has it again after a restart.
fn durable(world: &mut World) {
    world.redis = Some(RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]));
}

async fn store_is(node: &Node, up: bool) {
    eventually(&format!("the store is up: {up}"), async || {
        (node.get("/health/ready").await.json()["store"]["up"] == up).then_some(())
    })
    .await;
}

async fn what_happens_during_an_outage_of_the_store_is_published_after_it_in_few_batches(mut world: World) {
    durable(&mut world);
    let node = world.node(&[("WHIMBREL_LEASE_SECONDS", "2"), ("WHIMBREL_CONNECTIONS_PER_DEVICE", "100")]);
    let before = world.wanted(&["device:42"]).connect(&node).await;
    let _stays = world.wanted(&["device:42"]).connect(&node).await;
    ends(&node, 2, 2).await;
    world.redis.as_mut().unwrap().kill();
    store_is(&node, false).await;
    // The node follows the device already, so others of it are let in.
    let mut during = join_all((0..40).map(async |_| world.wanted(&["device:42"]).connect(&node).await)).await;
    drop(before);
    during.truncate(15);
    node.metric_is("connections_closed_total{reason=\"client\"}", 26.0).await;
    world.redis.as_mut().unwrap().revive();
    assert_eq!(ends(&node, 42, 16).await, vec![end("42", "client"); 26]);
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let sessions: BTreeMap<String, String> = raw.hgetall(format!("whimbrel:{{{LIFECYCLE}}}:sessions")).await.unwrap();
    let batches =
        sessions.values().find_map(|session| session.strip_prefix("open ")?.split(' ').next()?.parse::<usize>().ok());
    assert!(batches.unwrap() <= 12, "{sessions:?}");
    drop(during);
    assert_eq!(ends(&node, 42, 1).await, vec![end("42", "client"); 41]);
}

async fn a_connection_of_an_outage_that_is_one_too_many_is_published_with_limit(mut world: World) {
    durable(&mut world);
    let node = world.node(&[("WHIMBREL_LEASE_SECONDS", "2"), ("WHIMBREL_CONNECTIONS_PER_DEVICE", "1")]);
    let _here = world.wanted(&["device:42"]).connect(&node).await;
    ends(&node, 1, 1).await;
    world.redis.as_mut().unwrap().kill();
    store_is(&node, false).await;
    let mut second = world.wanted(&["device:42"]).connect(&node).await;
    world.redis.as_mut().unwrap().revive();
    assert!(matches!(second.next().await, Said::Close { reason, .. } if reason == "limit"));
    assert_eq!(ends(&node, 2, 1).await, [end("42", "limit")]);
}

async fn after_a_flush_all_open_connections_are_published(world: World) {
    let node = world.node(&[SHORT_LEASE]);
    let one = world.wanted(&["device:1"]).connect(&node).await;
    let two = world.wanted(&["device:2"]).connect(&node).await;
    ends(&node, 2, 2).await;
    drop(two);
    ends(&node, 2, 1).await;
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
    assert_eq!(ends(&node, 1, 1).await, []);
    drop(one);
    assert_eq!(ends(&node, 1, 0).await, [end("1", "client")]);
}

#[tokio::test]
async fn a_webhook_gets_what_the_topic_gets() {
    let receiver = Receiver::start(Manner::Take).await;
    let node = Node::start(&[("WHIMBREL_WEBHOOK_URL", &receiver.url()), ("WHIMBREL_WEBHOOK_SECRET", SECRET)]);
    drop(Wanted::new(Transport::Sse, &["device:42"]).connect(&node).await);
    ends(&node, 1, 0).await;
    let history = node.get_json(&events_path(LIFECYCLE)).await["events"].clone();
    eventually("the webhook has all", async || {
        let requests = receiver.requests();
        let sent: Vec<_> =
            requests.iter().flat_map(|delivery| delivery.body["events"].as_array().unwrap().clone()).collect();
        (json!(sent) == history).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_topic_has_the_connections_of_all_regions() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let _survivor = regions.node("us", &[]);
    eu.publish("device:1", "0").await;
    let at_home = Wanted::new(Transport::Sse, &["device:1"]).connect(&eu).await;
    let _abroad = Wanted::new(Transport::WebSocket, &["device:1"]).connect(&us).await;
    assert_eq!(ends(&us, 2, 2).await, []);
    let mut regions: Vec<_> = published(&eu).await.into_iter().map(|(_, data)| data["region"].clone()).collect();
    regions.sort_by_key(Value::to_string);
    assert_eq!(regions, ["eu", "us"]);
    us.kill();
    assert_eq!(ends(&eu, 2, 1).await, [end("1", "lost")]);
    drop(at_home);
    assert_eq!(ends(&eu, 2, 0).await, [end("1", "client"), end("1", "lost")]);
}
