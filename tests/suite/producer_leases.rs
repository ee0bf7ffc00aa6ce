//! Producers that hold a lease of their stream: when one is gone its readers are notified, once, and when it is done
//! or only late they are not.

use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use serde_json::{Value, json};
use whimbrel::model::{LeaseId, LeaseTime, NodeId};
use whimbrel::store::producers::{Producers as _, Taking};
use whimbrel::store::{JobKind, Leaders as _, RetentionRules};

use crate::conformance::{connect, stream};
use crate::support::client::{Client, Event, Transport, Wanted};
use crate::support::command::{run, start};
use crate::support::http::Answer;
use crate::support::node::{Node, events_path};
use crate::support::producers::redis_cli;
use crate::support::redis::RedisServer;
use crate::support::world::{World, promises};
use crate::support::{Signal, eventually};

promises! {
    everywhere:
        a_lapse_is_published_once_to_live_and_to_later_listeners,
        a_renewal_after_the_lapse_is_refused_and_the_next_lease_is_another;
    on_redis:
        a_lapse_is_published_once_whichever_nodes_are_killed_meanwhile,
        a_node_that_was_stopped_over_a_lapse_publishes_nothing_a_second_time,
}

const ABANDONED: &str = "whimbrel:abandoned";
const LEASES: &str = "whimbrel:{producers}:leases";
const SHORT_LEASE: &[(&str, &str)] = &[("WHIMBREL_LEASE_SECONDS", "1")];

fn path(stream: &str) -> String {
    events_path(stream).replace("/events", "/lease")
}

async fn put(node: &Node, stream: &str, body: &Value) -> Answer {
    node.call("PUT", &path(stream), &[], body.to_string()).await
}

/// Takes the lease of a stream, and gives its id.
async fn take(node: &Node, stream: &str, seconds: u64) -> String {
    let answer = put(node, stream, &json!({ "seconds": seconds })).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let taken = answer.json();
    assert_eq!((&taken["stream"], &taken["seconds"]), (&json!(stream), &json!(seconds)));
    taken["lease"].as_str().unwrap().to_owned()
}

async fn renew(node: &Node, stream: &str, lease: &str, seconds: u64) -> Answer {
    put(node, stream, &json!({ "seconds": seconds, "lease": lease })).await
}

async fn end(node: &Node, stream: &str, lease: &str) -> Answer {
    node.call("DELETE", &format!("{}?lease={lease}", path(stream)), &[], "").await
}

/// The types of a stream's events.
async fn types(node: &Node, stream: &str) -> Vec<String> {
    let history = node.get_json(&format!("{}?limit=1000", events_path(stream))).await;
    let events = history["events"].as_array().unwrap().iter();
    events.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// How often a stream has the event that its producer is gone.
async fn lapses(node: &Node, stream: &str) -> usize {
    types(node, stream).await.iter().filter(|kind| *kind == ABANDONED).count()
}

async fn is_published(node: &Node, stream: &str) {
    eventually(&format!("{stream} has the event"), async || (lapses(node, stream).await > 0).then_some(())).await;
}

/// Waits until all leases were looked at once more: another one lapses and is published.
async fn looked_again(node: &Node) {
    let stream = format!("topic:{}", LeaseId::random());
    take(node, &stream, 1).await;
    is_published(node, &stream).await;
}

async fn next_is_abandoned(client: &mut Client, stream: &str, lease: &str, seconds: u64) -> Event {
    let event = client.event().await;
    assert_eq!((&*event.stream, &*event.kind), (stream, ABANDONED));
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!((&data["lease"], &data["seconds"]), (&json!(lease), &json!(seconds)));
    assert!(data["renewed"].as_str().unwrap().ends_with('Z'), "{data}");
    event
}

async fn a_lapse_is_published_once_to_live_and_to_later_listeners(world: World) {
    let [one, other] = world.nodes(&[]);
    for stream in ["topic:answer", "device:42"] {
        let mut listening = world.wanted(&[stream]).connect(&other).await;
        let mut choosy = world.wanted(&[stream]).with("types", "end,whimbrel:abandoned").connect(&one).await;
        let lease = take(&one, stream, 1).await;
        one.publish(stream, "1").await;
        assert_eq!(listening.event().await.data, "1");
        let event = next_is_abandoned(&mut listening, stream, &lease, 1).await;
        assert_eq!(next_is_abandoned(&mut choosy, stream, &lease, 1).await, event);
        looked_again(&other).await;
        one.publish(stream, "2").await;
        let mut late = world.wanted(&[stream]).after("earliest").connect(&one).await;
        assert_eq!(late.event().await.data, "1");
        assert_eq!(late.event().await, event);
        for client in [&mut listening, &mut late] {
            assert_eq!(client.event().await.data, "2");
        }
    }
}

async fn renewed_or_ended(world: World) {
    let [one, other] = world.nodes(&[]);
    let lease = take(&one, "topic:renewed", 5).await;
    let answer = renew(&other, "topic:renewed", &lease, 3600).await;
    assert_eq!((answer.status, &answer.json()["lease"]), (200, &json!(lease)));
    let lease = take(&one, "topic:ended", 5).await;
    assert_eq!(end(&other, "topic:ended", &lease).await.status, 204);
    // The first two would have lapsed before this one.
    take(&one, "topic:silent", 5).await;
    is_published(&one, "topic:silent").await;
    looked_again(&one).await;
    for stream in ["topic:renewed", "topic:ended"] {
        assert_eq!(lapses(&other, stream).await, 0, "{stream}");
    }
    let next = take(&one, "topic:ended", 5).await;
    assert_ne!(next, lease);
}

#[tokio::test]
async fn a_lease_that_is_renewed_or_ended_publishes_nothing() {
    renewed_or_ended(World::on_redis(Transport::Sse)).await;
}

#[tokio::test]
async fn on_the_embedded_store_a_lease_that_is_renewed_or_ended_publishes_nothing() {
    renewed_or_ended(World::embedded(Transport::Sse)).await;
}

#[tokio::test]
async fn only_its_holder_renews_and_ends_a_lease() {
    held(World::on_redis(Transport::Sse)).await;
}

#[tokio::test]
async fn only_its_holder_renews_and_ends_a_lease_of_the_embedded_store() {
    held(World::embedded(Transport::Sse)).await;
}

async fn held(world: World) {
    let [one, other] = world.nodes(&[]);
    let lease = take(&one, "topic:answer", 3600).await;
    let (slug, detail) = put(&other, "topic:answer", &json!({"seconds": 5})).await.problem(409);
    assert_eq!(slug, "lease-held");
    assert!(detail.contains("topic:answer has a lease") && detail.contains("it does in 3"), "{detail}");
    let wrong = LeaseId::random().to_string();
    let refused = [
        renew(&other, "topic:answer", &wrong, 5).await,
        end(&other, "topic:answer", &wrong).await,
        // The lease is of the one stream.
        renew(&other, "topic:other", &lease, 5).await,
        end(&other, "topic:other", &lease).await,
        renew(&other, "device:answer", &lease, 5).await,
    ];
    for answer in refused {
        assert_eq!(answer.problem(409).0, "lease-lost");
    }
    assert_eq!(renew(&other, "topic:answer", &lease, 3600).await.status, 200);
    // A producer that did not get the answer repeats the request, and is recognised by the key.
    let keyed = async |key: &str| {
        one.call("PUT", "/v1/topics/keyed/lease", &[("Idempotency-Key", key)], r#"{"seconds":3600}"#).await
    };
    let first = keyed("a").await;
    let again = keyed("\"a\"").await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(keyed("b").await.problem(409).0, "lease-held");
    assert_eq!(end(&one, "topic:answer", &lease).await.status, 204);
    assert_eq!(end(&one, "topic:answer", &lease).await.problem(409).0, "lease-lost");
}

async fn a_renewal_after_the_lapse_is_refused_and_the_next_lease_is_another(world: World) {
    let [one, other] = world.nodes(&[]);
    let mut client = world.wanted(&["topic:answer"]).connect(&other).await;
    let first = take(&one, "topic:answer", 1).await;
    next_is_abandoned(&mut client, "topic:answer", &first, 1).await;
    let refused = renew(&other, "topic:answer", &first, 60).await;
    let (slug, detail) = refused.problem(409);
    assert!(slug == "lease-lost" && detail.contains("lapsed"), "{slug}: {detail}");
    let second = eventually("the next lease", async || {
        let answer = put(&other, "topic:answer", &json!({"seconds": 1})).await;
        (answer.status == 201).then(|| answer.json()["lease"].as_str().unwrap().to_owned())
    })
    .await;
    next_is_abandoned(&mut client, "topic:answer", &second, 1).await;
    assert_eq!(lapses(&one, "topic:answer").await, 2);
}

/// The node whose turn it is to look.
async fn looker<'a>(redis: &RedisServer, nodes: impl IntoIterator<Item = &'a Node>) -> &'a Node {
    let mut raw = redis.raw().await;
    let id: String = eventually("a turn", async || raw.clone().get("whimbrel:{producers}:looker").await.unwrap()).await;
    for node in nodes {
        if node.id().await == id {
            return node;
        }
    }
    let kept: i64 = raw.pttl("whimbrel:{producers}:looker").await.unwrap();
    panic!("{id} has the turn for {kept} ms, and is none of the nodes");
}

async fn a_lapse_is_published_once_whichever_nodes_are_killed_meanwhile(world: World) {
    const COUNT: usize = 300;
    let redis = world.redis.as_ref().unwrap();
    let nodes = world.nodes::<3>(SHORT_LEASE);
    let killed = looker(redis, nodes.iter().map(|node| &**node)).await;
    let survivor = nodes.iter().find(|node| !std::ptr::eq(&***node, killed)).unwrap();
    let streams: Vec<String> = (0..COUNT).map(|number| format!("topic:{number}")).collect();
    let mut client = world.wanted(&["topic:0", "topic:299"]).connect(survivor).await;
    for stream in &streams {
        take(survivor, stream, 2).await;
    }
    // In the middle of publishing.
    is_published(survivor, "topic:0").await;
    killed.kill();
    for stream in &streams {
        is_published(survivor, stream).await;
    }
    looked_again(survivor).await;
    for stream in &streams {
        assert_eq!(lapses(survivor, stream).await, 1, "{stream}");
    }
    assert_eq!((client.event().await.kind, client.event().await.kind), (ABANDONED.into(), ABANDONED.into()));
    assert_eq!(redis.raw().await.hlen::<_, u64>(LEASES).await.unwrap(), 0);
}

async fn a_node_that_was_stopped_over_a_lapse_publishes_nothing_a_second_time(world: World) {
    let redis = world.redis.as_ref().unwrap();
    let [one, other] = world.nodes(SHORT_LEASE);
    let stopped = looker(redis, [&*one, &*other]).await;
    let awake = if std::ptr::eq(stopped, &*one) { &other } else { &one };
    let mut client = world.wanted(&["topic:answer"]).connect(awake).await;
    let lease = take(awake, "topic:answer", 2).await;
    stopped.signal(Signal::STOP);
    next_is_abandoned(&mut client, "topic:answer", &lease, 2).await;
    stopped.signal(Signal::CONT);
    looked_again(stopped).await;
    assert_eq!(lapses(stopped, "topic:answer").await, 1);
}

/// A node that ended a lease and died before it could publish is followed by the next.
#[tokio::test]
async fn what_a_dead_node_had_ended_and_not_published_is_published_by_the_next() {
    let redis = RedisServer::start();
    let store = connect(&redis, RetentionRules::default()).await;
    let (answer, id) = (stream("topic:answer"), LeaseId::random());
    let second = LeaseTime::from_seconds(1).unwrap();
    assert_eq!(store.take_lease(&answer, id, second, None).await, Ok(Taking::Taken));
    let ended = eventually("the lapse", async || {
        let clock = store.lapsed(0, Duration::ZERO, 0).await.unwrap().now_ms;
        store.lapsed(10, Duration::from_secs(60), clock).await.unwrap().lapsed.pop()
    })
    .await;
    assert_eq!((ended.id, &ended.stream), (id, &answer));
    assert_eq!(store.renew_lease(&answer, id, second).await, Ok(false));
    assert_eq!(store.end_lease(&answer, id).await, Ok(false), "the node that publishes it forgets it");
    let node = Node::on(&redis, &[]);
    is_published(&node, "topic:answer").await;
    looked_again(&node).await;
    assert_eq!(lapses(&node, "topic:answer").await, 1);
}

/// As after a failover that lost the newest: the lease is back although its lapse was published.
#[tokio::test]
async fn what_was_published_and_not_forgotten_is_not_published_again() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let lease = take(&node, "topic:answer", 1).await;
    is_published(&node, "topic:answer").await;
    let mut raw = redis.raw().await;
    let connection = raw.clone();
    let forgotten = async || (connection.clone().hlen::<_, u64>(LEASES).await.unwrap() == 0).then_some(());
    eventually("that it is forgotten", forgotten).await;
    let _: () = raw.hset(LEASES, "topic:answer", format!("{lease} 1000 5 lapsed ")).await.unwrap();
    let _: () = raw.zadd("whimbrel:{producers}:deadlines", "topic:answer", 5).await.unwrap();
    eventually("that it is forgotten again", forgotten).await;
    assert_eq!(lapses(&node, "topic:answer").await, 1);
}

/// One whose lapse can't be published keeps no other waiting, and is published when it can be.
#[tokio::test]
async fn a_lapse_is_published_once_its_stream_takes_events_again() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut raw = redis.raw().await;
    let broken = "whimbrel:{topic:broken}:events";
    let _: () = raw.set(broken, "not a stream").await.unwrap();
    take(&node, "topic:broken", 1).await;
    looked_again(&node).await;
    let _: () = raw.del(broken).await.unwrap();
    is_published(&node, "topic:broken").await;
}

#[tokio::test]
async fn after_an_outage_a_lease_holds_for_its_time_once_more() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let nodes = [Node::on(&redis, SHORT_LEASE), Node::on(&redis, SHORT_LEASE)];
    let mut client = Wanted::new(Transport::Sse, &["topic:there", "topic:gone"]).connect(&nodes[1]).await;
    let there = take(&nodes[0], "topic:there", 5).await;
    let gone = take(&nodes[0], "topic:gone", 5).await;
    // The nodes have known for long that the store is there.
    let since = Instant::now();
    redis.kill();
    eventually("the end of the leases", async || (since.elapsed() > Duration::from_secs(6)).then_some(())).await;
    redis.revive();
    let renewed = eventually("an answer", async || {
        let answer = renew(&nodes[0], "topic:there", &there, 3600).await;
        (answer.status != 503 && answer.status != 504).then_some(answer)
    })
    .await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    next_is_abandoned(&mut client, "topic:gone", &gone, 5).await;
    looked_again(&nodes[0]).await;
    assert_eq!((lapses(&nodes[0], "topic:there").await, lapses(&nodes[0], "topic:gone").await), (0, 1));
}

#[tokio::test]
async fn a_node_that_stops_hands_the_looking_over_at_once() {
    let redis = RedisServer::start();
    let store = connect(&redis, RetentionRules::default()).await;
    // With this lease nobody could wait for its end.
    let settings = [("WHIMBREL_LEASE_SECONDS", "600"), ("WHIMBREL_DRAIN_DELAY_SECONDS", "0")];
    let node = Node::on(&redis, &settings);
    looker(&redis, [&node]).await;
    node.signal(Signal::TERM);
    node.ended().await;
    assert_eq!(store.acquire(JobKind::Producers, &NodeId::random(), Duration::from_secs(1)).await, Ok(true));
}

#[tokio::test]
async fn what_makes_no_sense_of_a_lease_is_refused_and_nothing_is_taken() {
    let node = Node::start(&[]);
    let lease = LeaseId::random().to_string();
    let bodies = [
        "",
        "{",
        "[]",
        "5",
        "{}",
        r#"{"seconds":0}"#,
        r#"{"seconds":-5}"#,
        r#"{"seconds":1.5}"#,
        r#"{"seconds":"5"}"#,
        r#"{"seconds":3601}"#,
        r#"{"seconds":99999999999999999999}"#,
        r#"{"seconds":5,"lease":"x"}"#,
        r#"{"seconds":5,"lease":5}"#,
        r#"{"seconds":5,"lease":null}"#,
        r#"{"seconds":5,"holder":"me"}"#,
        r#"{"seconds":5,"seconds":6}"#,
    ];
    for body in bodies {
        let answer = node.call("PUT", "/v1/topics/answer/lease", &[], body).await;
        assert_eq!(answer.problem(400).0, "bad-request", "{body}");
    }
    let put = async |path: &str, header: (&str, &str), body: &str| node.call("PUT", path, &[header], body).await;
    let (sound, none) = (r#"{"seconds":5}"#, ("X-None", "1"));
    let path = "/v1/topics/answer/lease";
    for (answer, status, slug) in [
        (put(path, ("Idempotency-Key", "a b"), sound).await, 400, "invalid-key"),
        (put(path, ("Content-Type", "text/plain"), sound).await, 415, "unsupported-media-type"),
        (put("/v1/topics/a%20b/lease", none, sound).await, 400, "invalid-name"),
        (put("/v1/topics/whimbrel:lifecycle/lease", none, sound).await, 403, "reserved"),
        (put("/v1/topics/answer/lease?seconds=5", none, "").await, 400, "bad-request"),
        (put(path, none, &" ".repeat(2000)).await, 413, "too-large"),
        (node.call("DELETE", path, &[], "").await, 400, "bad-request"),
        (node.call("DELETE", &format!("{path}?lease=5"), &[], "").await, 400, "bad-request"),
        (node.call("DELETE", &format!("{path}?lease={lease}&lease={lease}"), &[], "").await, 400, "bad-request"),
        (node.call("GET", path, &[], "").await, 405, "method-not-allowed"),
        (node.call("POST", path, &[], sound).await, 405, "method-not-allowed"),
        // Only the service publishes this type.
        (node.call("POST", "/v1/topics/answer/events?type=whimbrel:abandoned", &[], "1").await, 400, "bad-request"),
    ] {
        assert_eq!(answer.problem(status).0, slug, "{}", answer.text());
    }
    take(&node, "topic:answer", 5).await;
}

#[tokio::test]
async fn a_publisher_that_is_killed_is_missed() {
    let redis = RedisServer::start();
    let nodes = [Node::on(&redis, &[]), Node::on(&redis, &[])];
    let mut client = Wanted::new(Transport::Sse, &["topic:answer"]).connect(&nodes[1]).await;
    let url = nodes[0].url();
    let mut publish = start(&["publish", "topic:answer", "--heartbeat", "5", "--url", &url], &[]);
    publish.write(b"one\ntwo\n").await;
    assert_eq!(client.data(2).await, ["\"one\"", "\"two\""]);
    // It keeps its lease while it has nothing to say.
    let mut raw = redis.raw().await;
    let taken: String = raw.hget(LEASES, "topic:answer").await.unwrap();
    let renewed = async || {
        let now: String = raw.clone().hget(LEASES, "topic:answer").await.unwrap();
        (now != taken).then_some(())
    };
    eventually("a renewal", renewed).await;
    publish.signal(Signal::KILL);
    let event = client.event().await;
    assert_eq!(event.kind, ABANDONED);
    assert!(taken.starts_with(serde_json::from_str::<Value>(&event.data).unwrap()["lease"].as_str().unwrap()));
    let printed = run(
        &[
            "subscribe",
            "topic:answer",
            "--after",
            "earliest",
            "--types",
            ABANDONED,
            "--limit",
            "1",
            "--json",
            "--url",
            &url,
        ],
        &[],
        b"",
    )
    .await;
    let printed: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!((&printed["type"], &printed["id"]), (&json!(ABANDONED), &json!(event.id)));
}

#[tokio::test]
async fn a_publisher_that_comes_to_its_end_is_not_missed_and_one_that_fails_is() {
    let node = Node::start(&[]);
    let url = node.url();
    let publish = async |topic: &str, rest: &[&str], input: &[u8]| {
        run(&[&["publish", topic, "--url", &url, "--heartbeat"], rest].concat(), &[], input).await
    };
    let outcome = publish("topic:whole", &["1", "--json"], b"1\n2\n").await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = publish("topic:half", &["1", "--json"], b"1\n{oops\n").await;
    assert!(outcome.code == Some(1) && outcome.stderr.contains("line 2"), "{outcome:?}");
    is_published(&node, "topic:half").await;
    assert_eq!(types(&node, "topic:half").await, ["message", ABANDONED]);
    assert_eq!(types(&node, "topic:whole").await, ["message", "message"]);
    take(&node, "topic:whole", 3600).await;
    let outcome = publish("topic:whole", &["5", "--retry-seconds", "0"], b"3\n").await;
    assert!(outcome.code == Some(1) && outcome.stderr.contains("topic:whole has a lease"), "{outcome:?}");
    assert_eq!(types(&node, "topic:whole").await.len(), 2, "nothing is published without the lease");
    for wrong in [&["0"][..], &["soon"], &["3601"], &["5", "1"]] {
        assert_eq!(publish("topic:whole", wrong, b"").await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_publisher_that_lost_its_lease_stops() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let publish = start(&["publish", "topic:answer", "--heartbeat", "3", "--url", &node.url()], &[]);
    let mut raw = redis.raw().await;
    let taken = async || raw.clone().hexists::<_, _, bool>(LEASES, "topic:answer").await.unwrap().then_some(());
    eventually("its lease", taken).await;
    let _: () = raw.del(LEASES).await.unwrap();
    publish.said("the lease is lost").await;
    let outcome = publish.end().await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
}

#[tokio::test]
async fn a_producer_at_redis_holds_a_lease_by_a_function() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let lease = async |words: &[&str]| {
        let keys = ["FCALL", "whimbrel_lease", "2", LEASES, "whimbrel:{producers}:deadlines"];
        redis_cli(&redis, &[&keys, words].concat()).await.as_str().unwrap().to_owned()
    };
    let loaded = async || (!lease(&["end", "topic:a", "x"]).await.contains("not found")).then_some(());
    eventually("the function", loaded).await;
    let long = "x".repeat(129);
    for (words, slug) in [
        (&[][..], "invalid-option"),
        (&["take", "topic:answer"], "invalid-option"),
        (&["keep", "topic:answer", "5"], "invalid-option"),
        (&["take", "topic:answer", "5", "key"], "invalid-option"),
        (&["take", "topic:answer", "5", "kei", "k"], "invalid-option"),
        (&["take", "topic:answer", "5", "key", &long], "invalid-key"),
        (&["take", "queue:answer", "5"], "invalid-name"),
        (&["take", "topic:a b", "5"], "invalid-name"),
        (&["take", "topic:answer", "0"], "invalid-seconds"),
        (&["take", "topic:answer", "1.5"], "invalid-seconds"),
        (&["take", "topic:answer", "3601"], "invalid-seconds"),
        (&["renew", "topic:answer", "x", "5"], "lease-lost"),
        (&["end", "topic:answer", "x"], "lease-lost"),
    ] {
        let answer = lease(words).await;
        assert!(answer.contains(&format!("{slug}: ")), "{words:?}: {answer}");
    }
    let odd_keys = redis_cli(&redis, &["FCALL", "whimbrel_lease", "2", LEASES, "x", "end", "topic:a", "x"]).await;
    assert!(odd_keys.as_str().unwrap().contains("invalid-keys"), "{odd_keys}");
    let id = lease(&["take", "topic:answer", "3600", "key", "k"]).await;
    assert_eq!(lease(&["take", "topic:answer", "3600", "key", "k"]).await, id);
    assert!(lease(&["take", "topic:answer", "5"]).await.contains("lease-held: "));
    // It is one lease, whatever the way in.
    assert_eq!(put(&node, "topic:answer", &json!({"seconds": 5})).await.problem(409).0, "lease-held");
    assert_eq!(renew(&node, "topic:answer", &id, 3600).await.status, 200);
    assert_eq!(lease(&["renew", "topic:answer", &id, "1"]).await, id);
    is_published(&node, "topic:answer").await;
    assert!(lease(&["renew", "topic:answer", &id, "1"]).await.contains("lease-lost: "));
    let ended = lease(&["take", "device:42", "5"]).await;
    assert_eq!(lease(&["end", "device:42", &ended]).await, ended);
    take(&node, "device:42", 5).await;
}
