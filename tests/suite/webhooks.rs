//! Webhooks: events of the lifecycle topic reach a receiver at least once and in order, whatever
//! fails in between.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use serde_json::{Value, json};
use whimbrel::model::{Draft, StreamName};
use whimbrel::store::redis::RedisStore;
use whimbrel::store::{EventLog as _, RetentionRules};

use crate::conformance::connect;
use crate::regions::Regions;
use crate::support::client::{Transport, Wanted};
use crate::support::command::run;
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::producers::python_with;
use crate::support::proxy::{Cut, Proxy};
use crate::support::receiver::{Delivery, Manner, Receiver, SECRET};
use crate::support::redis::RedisServer;
use crate::support::world::{World, promises};
use crate::support::{Signal, eventually, free_port, in_time};

const META: &str = "whimbrel:{topic:whimbrel:lifecycle}:meta";
const SHORT_LEASE: (&str, &str) = ("WHIMBREL_LEASE_SECONDS", "1");

/// The stream, as those who tell something on it see it.
async fn lifecycle(redis: &RedisServer, rules: &str) -> RedisStore {
    connect(redis, rules.parse::<RetentionRules>().unwrap()).await
}

/// Makes things happen, and returns the ids of the events.
async fn happen(store: &RedisStore, numbers: Range<usize>) -> Vec<String> {
    let kind = |number: usize| if number.is_multiple_of(2) { "connected" } else { "disconnected" };
    let draft =
        |number| Draft::new(kind(number).parse().unwrap(), json!({"device": "42", "number": number}).to_string());
    let batch: Vec<_> = numbers.map(|number| (StreamName::lifecycle(), draft(number))).collect();
    let answers = store.publish_all(&batch).await;
    answers.into_iter().map(|answer| answer.unwrap().id.to_string()).collect()
}

/// A node that tells this address.
fn node(redis_url: &str, url: &str, more: &[(&str, &str)]) -> Arc<Node> {
    let settings =
        [("WHIMBREL_REDIS_URL", redis_url), ("WHIMBREL_WEBHOOK_URL", url), ("WHIMBREL_WEBHOOK_SECRET", SECRET)];
    Arc::new(Node::start(&[&settings, more].concat()))
}

/// The node that delivers.
async fn deliverer(nodes: &[Arc<Node>]) -> Arc<Node> {
    eventually("a node that delivers", async || {
        for node in nodes {
            if node.metric("webhook_delivering").await == 1.0 {
                return Some(node.clone());
            }
        }
        None
    })
    .await
}

/// Waits until a node has logged it.
async fn logs(node: &Node, text: &str) {
    eventually(text, async || node.log().contains(text).then_some(())).await;
}

/// Waits until it is written down that all of these were taken, and nothing is on its way.
async fn is_written_down(redis: &RedisServer, events: &[String]) {
    let raw = redis.raw().await;
    eventually("it is written down", async || {
        let checkpoint: Option<String> = raw.clone().hget(META, "checkpoint").await.unwrap();
        (checkpoint.as_ref() == events.last()).then_some(())
    })
    .await;
}

promises! {
    everywhere:
        a_backend_gets_connects_and_disconnects;
    on_redis:
        the_connections_of_a_killed_node_are_published_as_lost,
}

/// What a receiver took of a device: types, and data.
fn taken_of(receiver: &Receiver, device: &str) -> Vec<(String, Value)> {
    let taken = receiver.taken();
    let events = taken.iter().flat_map(|delivery| delivery.body["events"].as_array().unwrap());
    let of_device = events.filter(|event| event["data"]["device"] == device);
    of_device.map(|event| (event["type"].as_str().unwrap().to_owned(), event["data"].clone())).collect()
}

/// Waits until so much was taken of a device.
async fn events_of(receiver: &Receiver, device: &str, count: usize) -> Vec<(String, Value)> {
    let what = format!("{count} events of device {device}");
    eventually(&what, async || Some(taken_of(receiver, device)).filter(|taken| taken.len() >= count)).await
}

async fn a_backend_gets_connects_and_disconnects(world: World) {
    let receiver = Receiver::start(Manner::Take).await;
    let url = receiver.url();
    let settings = [
        ("WHIMBREL_WEBHOOK_URL", url.as_str()),
        ("WHIMBREL_WEBHOOK_SECRET", SECRET),
        ("WHIMBREL_DRAIN_DELAY_SECONDS", "0"),
        ("WHIMBREL_DRAIN_SECONDS", "0"),
    ];
    let [first, second] = world.nodes(&settings);
    let visitor = world.wanted(&["device:42"]).connect(&first).await;
    let _stays = world.wanted(&["device:7", "topic:news"]).connect(&second).await;
    let id = first.id().await;
    drop(visitor);
    let [came, left]: [_; 2] = events_of(&receiver, "42", 2).await.try_into().unwrap();
    assert_eq!((came.0.as_str(), left.0.as_str()), ("connected", "disconnected"));
    assert_eq!((&came.1["node"], &came.1["connection"]), (&json!(id), &left.1["connection"]));
    assert_eq!(events_of(&receiver, "7", 1).await[0].0, "connected");
    // Whoever is let go when its node stops has left too, also where there is no other node to tell it.
    second.signal(Signal::TERM);
    assert!(second.ended().await.success());
    let requests = events_of(&receiver, "7", 2).await;
    assert_eq!((requests[1].0.as_str(), &requests[1].1["reason"]), ("disconnected", &json!("drain")));
    assert_eq!((taken_of(&receiver, "42").len(), requests.len()), (2, 2), "once each");
}

async fn the_connections_of_a_killed_node_are_published_as_lost(world: World) {
    let receiver = Receiver::start(Manner::Take).await;
    let url = receiver.url();
    let settings = [("WHIMBREL_WEBHOOK_URL", url.as_str()), ("WHIMBREL_WEBHOOK_SECRET", SECRET), SHORT_LEASE];
    let [killed, _other] = world.nodes(&settings);
    let _client = world.wanted(&["device:42"]).connect(&killed).await;
    events_of(&receiver, "42", 1).await;
    killed.kill();
    let requests = events_of(&receiver, "42", 2).await;
    assert_eq!((requests[1].0.as_str(), &requests[1].1["reason"]), ("disconnected", &json!("lost")));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_regions_one_node_delivers_for_all() {
    let (regions, receiver) = (Regions::start(), Receiver::start(Manner::Take).await);
    let url = receiver.url();
    let settings = [("WHIMBREL_WEBHOOK_URL", url.as_str()), ("WHIMBREL_WEBHOOK_SECRET", SECRET)];
    let nodes = regions.nodes(&settings).map(Arc::new);
    let mut clients = Vec::new();
    for (device, node) in ["1", "2"].iter().zip(&nodes) {
        clients.push(Wanted::new(Transport::Sse, &[&format!("device:{device}")]).connect(node).await);
        events_of(&receiver, device, 1).await;
    }
    // Whichever region the one that tells is in, a node of the other one goes on.
    let killed = deliverer(&nodes).await;
    killed.kill();
    let other = nodes.iter().find(|node| !Arc::ptr_eq(node, &killed)).unwrap();
    let _visitor = Wanted::new(Transport::WebSocket, &["device:3"]).connect(other).await;
    assert_eq!(events_of(&receiver, "3", 1).await[0].0, "connected");
    assert_eq!((taken_of(&receiver, "1").len(), taken_of(&receiver, "2").len()), (1, 1), "once each");
}

#[tokio::test]
async fn every_event_is_sent_once_in_order_and_signed() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Take).await);
    let store = lifecycle(&redis, "*=1000/3600").await;
    // Those that are kept from before the first start, too.
    let mut events = happen(&store, 0..3).await;
    let node = node(&redis.url(), &receiver.url(), &[]);
    receiver.takes(&events).await;
    events.extend(happen(&store, 3..260).await);
    receiver.takes(&events).await;
    let requests = receiver.requests();
    assert!(requests.len() >= 4, "at most 100 events a request");
    assert_eq!(requests[0].body["gap"], json!(null));
    let first = &requests[0].body["events"][0];
    assert_eq!((&first["type"], &first["data"]), (&json!("connected"), &json!({"device": "42", "number": 0})));
    assert!(first["time"].as_str().unwrap().ends_with('Z'), "{first}");
    node.metric_is("webhook_events_total", 260.0).await;
    node.metric_is("webhook_lag_seconds", 0.0).await;
    node.metric_is("webhook_batches_total", requests.len() as f64).await;
    assert!(!node.log().contains("MfKQ9r8"), "the secret is in the log");
}

#[tokio::test]
async fn a_receiver_of_cloudevents_gets_them_signed_one_by_one_or_in_an_array() {
    for (format, media_type) in
        [("cloudevents", "application/cloudevents+json"), ("cloudevents-batch", "application/cloudevents-batch+json")]
    {
        let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Take).await);
        let store = lifecycle(&redis, "*=1000/3600").await;
        let events = happen(&store, 0..5).await;
        let _node = node(&redis.url(), &receiver.url(), &[("WHIMBREL_WEBHOOK_FORMAT", format)]);
        let all = eventually("all events", async || {
            let mut all = Vec::new();
            for delivery in receiver.taken() {
                assert_eq!(delivery.content_type, media_type);
                match delivery.body {
                    Value::Array(several) => all.extend(several),
                    one => all.push(one),
                }
            }
            (all.len() >= events.len()).then_some(all)
        })
        .await;
        let ids: Vec<_> = all.iter().map(|event| event["whimbrelid"].as_str().unwrap()).collect();
        assert_eq!(ids, events);
        let first = &all[0];
        assert_eq!((&first["specversion"], &first["type"]), (&json!("1.0"), &json!("connected")));
        assert_eq!(
            (&first["source"], &first["data"]["device"]),
            (&json!("/v1/topics/whimbrel:lifecycle"), &json!("42"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_is_sent_again_under_the_same_id_until_it_is() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Refuse(500, None)).await);
    let proxy = Proxy::to(receiver.address());
    let store = lifecycle(&redis, "*=1000/3600").await;
    let mut events = happen(&store, 0..5).await;
    let url = format!("http://{}/hook", proxy.address());
    let node = node(&redis.url(), &url, &[("WHIMBREL_WEBHOOK_TIMEOUT_SECONDS", "1")]);
    let failed = async |reason: &str| {
        let name = format!("webhook_failures_total{{reason=\"{reason}\"}}");
        eventually(reason, async || (node.metric(&name).await > 0.0).then_some(())).await;
    };
    failed("status").await;
    receiver.be(Manner::Hang);
    failed("timeout").await;
    events.extend(happen(&store, 5..10).await);
    proxy.refuse(true);
    proxy.cut(Cut::Reset);
    failed("unreachable").await;
    assert!(node.metric("webhook_lag_seconds").await > 0.0);
    receiver.be(Manner::Take);
    proxy.refuse(false);
    receiver.takes(&events).await;
    let requests = receiver.requests();
    let again = requests.iter().filter(|again| again.id == requests[0].id).count();
    assert!(again >= 3 && requests[0].events() == events[..5], "{requests:?}");
    logs(&node, "500 Internal Server Error").await;
    logs(&node, "the webhook is taken again").await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_rest_gets_it() {
    let rest = Some(("retry-after", "3".to_owned()));
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Refuse(429, rest)).await);
    let events = happen(&lifecycle(&redis, "*=1000/3600").await, 0..1).await;
    let _node = node(&redis.url(), &receiver.url(), &[]);
    receiver.received(1).await;
    let since = Instant::now();
    receiver.be(Manner::Take);
    receiver.takes(&events).await;
    assert!(since.elapsed() > Duration::from_millis(2500), "it came again after {:?}", since.elapsed());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start(Manner::Take).await;
    let location = Some(("location", elsewhere.url()));
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Refuse(307, location)).await);
    let events = happen(&lifecycle(&redis, "*=1000/3600").await, 0..1).await;
    let node = node(&redis.url(), &receiver.url(), &[]);
    receiver.received(2).await;
    receiver.be(Manner::Take);
    receiver.takes(&events).await;
    assert!(elsewhere.requests().is_empty());
    logs(&node, "redirects are not followed").await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_a_node_starts() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Refuse(410, None)).await);
    let store = lifecycle(&redis, "*=1000/3600").await;
    let mut events = happen(&store, 0..1).await;
    // Long enough that the turn is not lost by the way, on a busy machine.
    let lease = [("WHIMBREL_LEASE_SECONDS", "5")];
    let first = node(&redis.url(), &receiver.url(), &lease);
    first.metric_is("webhook_gone", 1.0).await;
    receiver.be(Manner::Take);
    events.extend(happen(&store, 1..2).await);
    // It keeps the turn, or each node would try once more.
    let second = node(&redis.url(), &receiver.url(), &lease);
    first.metric_is("webhook_delivering", 1.0).await;
    logs(&first, "410 Gone").await;
    assert_eq!(receiver.requests().len(), 1);
    first.kill();
    receiver.takes(&events).await;
    second.metric_is("webhook_delivering", 1.0).await;
}

#[tokio::test]
async fn when_the_delivering_node_is_killed_another_goes_on() {
    const STEPS: usize = 20;
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Take).await);
    let store = lifecycle(&redis, "*=100000/3600").await;
    let mut nodes: Vec<_> = (0..3).map(|_| node(&redis.url(), &receiver.url(), &[SHORT_LEASE])).collect();
    let mut events = Vec::new();
    for step in 0..STEPS {
        events.extend(happen(&store, step * 50..(step + 1) * 50).await);
        if step % 8 == 7 {
            let killed = deliverer(&nodes).await;
            receiver.received(1).await;
            killed.kill();
            nodes.retain(|node| !Arc::ptr_eq(node, &killed));
        }
    }
    receiver.takes(&events).await;
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_with_the_node_comes_again_under_the_same_id() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Hang).await);
    let store = lifecycle(&redis, "*=1000/3600").await;
    let mut events = happen(&store, 0..3).await;
    let killed = node(&redis.url(), &receiver.url(), &[SHORT_LEASE]);
    let first = receiver.received(1).await.remove(0);
    // There is more by the time, and still the same is sent.
    events.extend(happen(&store, 3..6).await);
    receiver.be(Manner::Take);
    killed.kill();
    let since = Instant::now();
    let _other = node(&redis.url(), &receiver.url(), &[SHORT_LEASE]);
    let again = receiver.received(2).await.remove(1);
    assert!(since.elapsed() < Duration::from_secs(10), "taken over after {:?}", since.elapsed());
    assert_eq!((&again.id, &again.body), (&first.id, &first.body));
    receiver.takes(&events).await;
}

#[tokio::test]
async fn a_node_that_was_stopped_and_wakes_undoes_nothing() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Hang).await);
    let store = lifecycle(&redis, "*=1000/3600").await;
    let mut events = happen(&store, 0..3).await;
    let nodes: Vec<_> = (0..2).map(|_| node(&redis.url(), &receiver.url(), &[SHORT_LEASE])).collect();
    let stopped = deliverer(&nodes).await;
    let awake = nodes.iter().find(|node| !Arc::ptr_eq(node, &stopped)).unwrap();
    receiver.received(1).await;
    stopped.signal(Signal::STOP);
    receiver.be(Manner::Take);
    events.extend(happen(&store, 3..6).await);
    receiver.takes(&events).await;
    awake.metric_is("webhook_delivering", 1.0).await;
    is_written_down(&redis, &events).await;
    stopped.signal(Signal::CONT);
    stopped.metric_is("webhook_delivering", 0.0).await;
    is_written_down(&redis, &events).await;
    events.extend(happen(&store, 6..9).await);
    receiver.takes(&events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_nothing_is_lost() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Take).await);
    let store = lifecycle(&redis, "*=1000/3600").await;
    let proxy = Proxy::to(redis.address());
    let url = format!("redis://{}/", proxy.address());
    let node = node(&url, &receiver.url(), &[SHORT_LEASE, ("WHIMBREL_WEBHOOK_TIMEOUT_SECONDS", "1")]);
    let mut events = happen(&store, 0..3).await;
    receiver.takes(&events).await;
    // In the middle of a request, too.
    receiver.be(Manner::Hang);
    events.extend(happen(&store, 3..6).await);
    receiver.received(2).await;
    proxy.refuse(true);
    proxy.cut(Cut::Reset);
    node.metric_is("store_up", 0.0).await;
    events.extend(happen(&store, 6..9).await);
    receiver.be(Manner::Take);
    proxy.refuse(false);
    receiver.takes(&events).await;
}

#[tokio::test]
async fn events_that_were_trimmed_before_they_could_be_sent_are_reported_as_a_gap() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Refuse(503, None)).await);
    let store = lifecycle(&redis, "*=10/3600").await;
    let before = happen(&store, 0..3).await;
    let node = node(&redis.url(), &receiver.url(), &[("WHIMBREL_RETENTION", "*=10/3600")]);
    receiver.received(1).await;
    let after = happen(&store, 3..303).await;
    receiver.be(Manner::Take);
    let last = after.last().unwrap();
    let all = async || {
        let taken = receiver.taken();
        taken.iter().any(|delivery| delivery.events().contains(last)).then_some(taken)
    };
    let taken = eventually("the newest event", all).await;
    assert_eq!((taken[0].events(), &taken[0].body["gap"]), (before.clone(), &json!(null)));
    let gap = taken[1].body["gap"].clone();
    let rest: Vec<String> = taken[1..].iter().flat_map(Delivery::events).collect();
    assert_eq!(gap, json!({"after": before[2], "next": rest[0], "reason": "trimmed"}));
    assert!(rest.len() >= 10 && after.ends_with(&rest), "the newest events without another hole: {rest:?}");
    node.metric_is("webhook_gaps_total", 1.0).await;
}

#[tokio::test]
async fn a_flush_is_told_as_a_gap_by_the_node_that_saw_it() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Take).await);
    let store = lifecycle(&redis, "*=1000/3600").await;
    let before = happen(&store, 0..3).await;
    let _node = node(&redis.url(), &receiver.url(), &[SHORT_LEASE]);
    receiver.takes(&before).await;
    is_written_down(&redis, &before).await;
    redis::cmd("FLUSHALL").exec_async(&mut redis.raw().await).await.unwrap();
    let after = happen(&store, 3..5).await;
    receiver.takes(&[before.clone(), after].concat()).await;
    let gap = receiver
        .taken()
        .into_iter()
        .find_map(|delivery| Some(delivery.body["gap"].clone()).filter(|gap| !gap.is_null()));
    let gap = gap.expect("a gap is sent");
    assert_eq!((&gap["after"], &gap["reason"]), (&json!(before[2]), &json!("lost")));
}

#[tokio::test]
async fn the_receiver_in_the_docs_verifies_requests_with_a_stock_library() {
    let (_, code) = include_str!("../../docs/webhooks.md").split_once("```python\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let script = dir.path().join("receiver.py");
    std::fs::write(&script, code).unwrap();
    let redis = RedisServer::start();
    let store = lifecycle(&redis, "*=1000/3600").await;
    happen(&store, 0..3).await;
    let url = format!("http://127.0.0.1:{port}/whimbrel");
    // It has two secrets, the receiver one of them.
    let secrets = format!("whsec_{} {SECRET}", "A".repeat(32));
    let _node = node(&redis.url(), &url, &[("WHIMBREL_WEBHOOK_SECRET", &secrets)]);
    let environment = [("WHIMBREL_WEBHOOK_SECRET", SECRET)];
    let mut receiver = python_with(script.to_str().unwrap(), &[&port.to_string()], &environment);
    let mut lines = receiver.lines();
    for expected in ["connected 42", "disconnected 42", "connected 42"] {
        let line = in_time("a line of the receiver", lines.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    // A stranger is not believed.
    let mut stranger = Http::connect(([127, 0, 0, 1], port).into()).await;
    let body = br#"{"events":[{"type":"connected","data":{"device":"0"}}],"gap":null}"#;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
    let headers = [("webhook-id", "x"), ("webhook-timestamp", now.as_str()), ("webhook-signature", "v1,aGVsbG8=")];
    stranger.request("POST", "/whimbrel", &headers, body).await;
    assert!(in_time("an answer", stranger.rest()).await.starts_with(b"HTTP/1.0 400"));
}

#[tokio::test]
async fn an_address_or_a_secret_that_can_not_work_ends_the_start_with_one_line() {
    let url = ("WHIMBREL_WEBHOOK_URL", "http://127.0.0.1:9/hook");
    let secret = ("WHIMBREL_WEBHOOK_SECRET", SECRET);
    let short = ("WHIMBREL_WEBHOOK_SECRET", "whsec_c2hvcnQ=");
    let asymmetric = ("WHIMBREL_WEBHOOK_SECRET", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let plain = ("WHIMBREL_WEBHOOK_SECRET", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    for (settings, named) in [
        ([("WHIMBREL_WEBHOOK_URL", "127.0.0.1:9/hook"), secret], "WHIMBREL_WEBHOOK_URL"),
        ([("WHIMBREL_WEBHOOK_URL", "ws://127.0.0.1:9/hook"), secret], "WHIMBREL_WEBHOOK_URL"),
        ([url, ("WHIMBREL_WEBHOOK_SECRET", "")], "WHIMBREL_WEBHOOK_URL"),
        ([("WHIMBREL_WEBHOOK_URL", ""), secret], "WHIMBREL_WEBHOOK_SECRET"),
        ([url, short], "WHIMBREL_WEBHOOK_SECRET"),
        ([url, asymmetric], "WHIMBREL_WEBHOOK_SECRET"),
        ([url, plain], "WHIMBREL_WEBHOOK_SECRET"),
    ] {
        for command in ["serve", "check"] {
            let outcome = run(&[command], &settings, b"").await;
            assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(2), 1), "{settings:?}: {outcome:?}");
            assert!(outcome.stderr.contains(&format!("{named} (--")), "{outcome:?}");
            assert!(!outcome.stderr.contains("MfKQ9r8") && !outcome.stderr.contains("c2hvcnQ"), "{outcome:?}");
        }
    }
}
