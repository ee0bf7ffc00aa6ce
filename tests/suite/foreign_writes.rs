//! What others write into the store's keys and channels: it is judged like what comes from outside, stops no stream,
//! and erasing repairs what can't be read.

use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::{Node, events_path};
use crate::support::redis::RedisServer;

const MAX_ID: &str = "18446744073709551615-18446744073709551615";

fn key(stream: &str, part: &str) -> String {
    format!("whimbrel:{{{stream}}}:{part}")
}

async fn last(raw: &MultiplexedConnection, stream: &str) -> String {
    raw.clone().hget(key(stream, "meta"), "last").await.unwrap()
}

async fn last_of(node: &Node, stream: &str) -> String {
    node.get_json(&events_path(stream)).await["last"].as_str().unwrap().to_owned()
}

fn count(node: &Node, line: &str) -> usize {
    node.log().lines().filter(|known| known.contains(line)).count()
}

#[tokio::test]
async fn a_message_that_names_an_event_ahead_of_the_clock_stops_no_stream() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut client = Wanted::new(Transport::Sse, &["topic:t"]).connect(&node).await;
    node.publish("topic:t", "0").await;
    assert_eq!(client.data(1).await, ["0"]);
    let mut raw = redis.raw().await;
    let channel = format!("whimbrel:node:{}", node.id().await);
    let tomorrow = format!("{}-1", (chrono_ms() + Duration::from_secs(2 * 86_400)).as_millis());
    for id in [MAX_ID, &tomorrow] {
        let forged = format!("topic:t {id} {} message\n\"forged\"", last(&raw, "topic:t").await);
        let heard: u32 = raw.publish(&channel, forged).await.unwrap();
        assert_eq!(heard, 1);
    }
    for number in 1..4 {
        node.publish("topic:t", &number.to_string()).await;
    }
    assert_eq!(client.data(3).await, ["1", "2", "3"]);
    assert_eq!(count(&node, "ahead of the store's clock"), 1);
    assert_eq!(node.history("topic:t").await, ["0", "1", "2", "3"]);
}

fn chrono_ms() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

#[tokio::test]
async fn messages_that_make_no_sense_are_dropped_and_do_not_fill_the_log() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut client = Wanted::new(Transport::WebSocket, &["topic:t"]).connect(&node).await;
    node.publish("topic:t", "0").await;
    assert_eq!(client.data(1).await, ["0"]);
    let mut raw = redis.raw().await;
    let channel = format!("whimbrel:node:{}", node.id().await);
    let (ms, last) = (chrono_ms().as_millis(), last(&raw, "topic:t").await);
    for payload in [
        b"nonsense".to_vec(),
        format!("topic:t {ms}-9 {last} message\n{{not json").into_bytes(),
        [format!("topic:t {ms}-9 {last} message\n\"").as_bytes(), b"\xff\""].concat(),
        format!("topic:t {last} {last} message\n1").into_bytes(),
        b"!now topic:t message\nnot json".to_vec(),
    ] {
        for _ in 0..200 {
            let _: u32 = raw.publish(&channel, &payload).await.unwrap();
        }
    }
    node.publish("topic:t", "1").await;
    assert_eq!(client.data(1).await, ["1"]);
    assert!(count(&node, "makes no sense") <= 2, "{}", node.log());
}

#[tokio::test]
async fn entries_that_are_no_events_are_passed_over_by_every_reader() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut raw = redis.raw().await;
    let stream = "device:1";
    node.publish(stream, "1").await;
    // As links of the chain, so that nothing but themselves is missing.
    for fields in [
        &[("d", &b"{not json"[..])][..],
        &[("d", b"\"\xff\"")],
        &[("x", b"y")],
        &[("d", b"\"\\ud83d\"")],
        &[("d", b"2"), ("t", b"\xff\xfe"), ("c", b"\xff")],
    ] {
        let prev = last(&raw, stream).await;
        let mut all = vec![("p", prev.as_bytes())];
        all.extend_from_slice(fields);
        let id: String = raw.xadd(key(stream, "events"), "*", &all).await.unwrap();
        let () = raw.hset(key(stream, "meta"), "last", id).await.unwrap();
    }
    node.publish(stream, "3").await;
    for transport in [Transport::Sse, Transport::WebSocket] {
        let mut client = Wanted::new(transport, &[stream]).after("earliest").connect(&node).await;
        assert_eq!(client.data(3).await, ["1", "2", "3"]);
    }
    assert_eq!(node.history(stream).await, ["1", "2", "3"]);
    assert_eq!(count(&node, "is no event"), 1);
}

#[tokio::test]
async fn a_position_that_makes_no_sense_fails_no_page_no_listing_and_no_publish() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut raw = redis.raw().await;
    for (field, value) in [
        ("last", "x"),
        ("last", "18446744073709551616-5"),
        ("last", MAX_ID),
        ("epoch", "5"),
        ("fork", "1-1 2-2"),
        ("fork", &format!("1-1 {MAX_ID} 1-1 {MAX_ID}")),
        ("erased", "a b"),
        ("kick", "z"),
        ("kept", "nan"),
        ("kept", "inf"),
        ("acked", MAX_ID),
        ("acked", "?"),
        ("told", "?"),
        ("ingress", "only=x"),
    ] {
        let () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
        node.publish("device:1", "1").await;
        let () = raw.hset(key("device:1", "meta"), field, value).await.unwrap();
        for path in ["/v1/devices/1", "/v1/devices/1/events", "/v1/devices/1/events?limit=1&before=9999999999999-0"] {
            let answer = node.get(path).await;
            assert_eq!(answer.status, 200, "{field} {value} {path}: {}", answer.text());
        }
        node.publish("device:1", "2").await;
        assert_eq!(node.history("device:1").await, ["1", "2"], "{field} {value}");
        let mut client = Wanted::new(Transport::Sse, &["device:1"]).after("earliest").connect(&node).await;
        assert_eq!(client.data(2).await, ["1", "2"], "{field} {value}");
        let () = raw.xadd("whimbrel:ingress", "*", &[("device", "1"), ("data", "3")]).await.unwrap();
        assert_eq!(client.data(1).await, ["3"], "{field} {value}");
    }
}

#[tokio::test]
async fn erasing_repairs_keys_of_another_type_and_a_log_whose_newest_entry_is_ahead_of_the_clock() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut raw = redis.raw().await;
    for part in ["events", "nodes", "meta", "collapse", "connections"] {
        let stream = format!("device:{part}");
        node.publish_with(&stream, "collapse=c", "1").await;
        let () = raw.del(key(&stream, part)).await.unwrap();
        let () = raw.set(key(&stream, part), "x").await.unwrap();
        let erased = node.call("DELETE", &format!("/v1/devices/{part}"), &[], "").await;
        assert_eq!(erased.status, 204, "{part}: {}", erased.text());
        node.publish_with(&stream, "collapse=c", "2").await;
        assert_eq!(node.history(&stream).await, ["2"], "{part}");
        assert_eq!(node.get(&format!("/v1/devices/{part}")).await.status, 200, "{part}");
    }
    node.publish("topic:t", "1").await;
    let () = raw.xadd(key("topic:t", "events"), MAX_ID, &[("d", "9"), ("p", "0-1")]).await.unwrap();
    assert_eq!(node.history("topic:t").await, ["1"], "what is ahead of the clock is nobody's");
    assert_ne!(node.call("POST", &events_path("topic:t"), &[], "2").await.status, 201);
    assert_eq!(node.call("DELETE", "/v1/topics/t", &[], "").await.status, 204);
    node.publish("topic:t", "3").await;
    assert_eq!(node.history("topic:t").await, ["3"]);
}

#[tokio::test]
async fn a_publish_that_is_refused_half_way_leaves_nothing_behind() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut raw = redis.raw().await;
    let mut client = Wanted::new(Transport::Sse, &["topic:t"]).connect(&node).await;
    node.publish("topic:t", "0").await;
    assert_eq!(client.data(1).await, ["0"]);
    for (command, key_of) in [("hset", None), ("xadd", None), ("set", Some("k")), ("pexpireat", None)] {
        // The log's life is not checked again with each event.
        let () = raw.hset(key("topic:t", "meta"), "kept", "0").await.unwrap();
        let acl = async |rule: String| {
            let () = redis::cmd("ACL").arg(&["SETUSER", "default", &rule]).query_async(&mut raw.clone()).await.unwrap();
        };
        acl(format!("-{command}")).await;
        let before = (last(&raw, "topic:t").await, raw.clone().xlen::<_, u64>(key("topic:t", "events")).await.unwrap());
        let headers: Vec<_> = key_of.map(|key| ("Idempotency-Key", key)).into_iter().collect();
        for _ in 0..3 {
            let (slug, _) = node.call("POST", &events_path("topic:t"), &headers, "\"lost\"").await.problem(503);
            assert_eq!(slug, "unavailable", "{command}");
        }
        let after = (last(&raw, "topic:t").await, raw.clone().xlen::<_, u64>(key("topic:t", "events")).await.unwrap());
        assert_eq!(before, after, "{command}");
        acl("+@all".to_owned()).await;
    }
    node.publish("topic:t", "1").await;
    // No gap, and nothing twice.
    assert_eq!(client.data(1).await, ["1"]);
    assert_eq!(node.history("topic:t").await, ["0", "1"]);
}

#[tokio::test]
async fn reading_writes_nothing() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let mut raw = redis.raw().await;
    node.publish("device:known", "1").await;
    let keys = async |raw: &mut MultiplexedConnection| {
        let mut keys: Vec<String> = raw.keys("whimbrel:{device:*").await.unwrap();
        keys.extend(raw.keys::<_, Vec<String>>("whimbrel:{topic:*").await.unwrap());
        keys.retain(|key| !key.contains("whimbrel:lifecycle"));
        keys.sort();
        keys
    };
    let before = keys(&mut raw).await;
    for path in [
        "/v1/devices/x/events",
        "/v1/devices/x/events?after=5-5",
        "/v1/devices/x/events?before=5-5",
        "/v1/devices/x/events/5-5",
        "/v1/devices/x",
        "/v1/topics/x",
        "/v1/topics/x/events",
        "/v1/topics/x/connections",
    ] {
        let answer = node.get(path).await;
        assert!(matches!(answer.status, 200 | 404), "{path}: {}", answer.text());
    }
    let acknowledged = node.call("POST", "/v1/devices/x/ack", &[], r#"{"id":"5-5"}"#).await;
    assert_eq!(acknowledged.problem(422).0, "not-published");
    assert_eq!(keys(&mut raw).await, before);
    // A reader that goes on from such a read misses nothing, and gets no gap.
    let last = last_of(&node, "topic:new").await;
    let answer: Value = node.get_json(&format!("/v1/topics/new/events?after={last}")).await;
    assert_eq!(answer["gap"], Value::Null);
    node.publish("topic:new", "1").await;
    let mut client = Wanted::new(Transport::Sse, &["topic:new"]).after(&last).connect(&node).await;
    assert_eq!(client.data(1).await, ["1"]);
}

#[tokio::test]
async fn a_node_without_a_lease_notes_no_streams_and_what_is_noted_expires() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "2")]);
    let _client = Wanted::new(Transport::Sse, &["topic:t"]).connect(&node).await;
    let mut raw = redis.raw().await;
    let noted = format!("whimbrel:{{node:{}}}:streams", node.id().await);
    assert!(raw.pttl::<_, i64>(&noted).await.unwrap() > 3_600_000);
    let () = raw.persist(&noted).await.unwrap();
    eventually("a renewed time with the lease", async || {
        (raw.clone().pttl::<_, i64>(&noted).await.unwrap() > 3_600_000).then_some(())
    })
    .await;
    let () = raw.del(format!("whimbrel:{{node:{}}}:lease", node.id().await)).await.unwrap();
    let () = raw.del(&noted).await.unwrap();
    let old = noted.clone();
    let _other = Wanted::new(Transport::Sse, &["topic:u"]).connect(&node).await;
    assert!(!raw.exists::<_, bool>(&old).await.unwrap(), "nobody would remove it");
}
