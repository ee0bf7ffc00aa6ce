//! The function with which producers publish in one round trip: it takes what a node would take, and refuses the
//! rest by name.

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, FromRedisValue, RedisResult, Value};
use serde_json::json;

use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::producers::{python, redis_cli};
use crate::support::redis::RedisServer;
use crate::support::world::{World, promises};

promises! {
    everywhere: ;
    on_redis:
        what_the_function_publishes_is_an_event_like_any_other,
}

/// The keys of a stream, with the idempotency key.
pub fn keys(prefix: &str, stream: &str, key: &str) -> Vec<String> {
    let base = format!("{prefix}:{{{stream}}}");
    ["events", "nodes", "meta", "collapse", &format!("once:{key}")]
        .iter()
        .map(|part| format!("{base}:{part}"))
        .collect()
}

pub async fn call<T: FromRedisValue>(
    raw: &MultiplexedConnection,
    function: &str,
    keys: &[String],
    arguments: &[&[u8]],
) -> RedisResult<T> {
    let mut fcall = redis::cmd("FCALL");
    fcall.arg(function).arg(keys.len()).arg(keys);
    for argument in arguments {
        fcall.arg(*argument);
    }
    fcall.query_async(&mut raw.clone()).await
}

/// Publishes under the default prefix, without an idempotency key.
async fn publish(raw: &MultiplexedConnection, stream: &str, arguments: &[&str]) -> RedisResult<String> {
    let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
    call(raw, "whimbrel_publish", &keys("whimbrel", stream, "-"), &arguments).await
}

/// Waits until the server has the function.
pub async fn loaded(raw: &MultiplexedConnection, function: &str) {
    let has = async || {
        let listed: Value = redis::cmd("FUNCTION").arg("LIST").query_async(&mut raw.clone()).await.unwrap();
        format!("{listed:?}").contains(&format!("{function:?}")).then_some(())
    };
    eventually("the function library", has).await;
}

/// The function's description.
async fn description(redis: &RedisServer) -> String {
    let listed = redis_cli(redis, &["FUNCTION", "LIST", "LIBRARYNAME", "whimbrel"]).await;
    listed[0]["functions"][0]["description"].as_str().unwrap_or_default().to_owned()
}

async fn what_the_function_publishes_is_an_event_like_any_other(world: World) {
    let redis = world.redis.as_ref().unwrap();
    let node = world.node(&[]);
    let raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    let mut client = world.wanted(&["topic:news"]).connect(&node).await;
    let before = node.publish("topic:news", "0").await;
    let id = publish(&raw, "topic:news", &["{\"a\": \"ä\"}", "type", "order.paid", "ttl", "60", "collapse", "c"])
        .await
        .unwrap();
    let after = node.publish("topic:news", "2").await;
    let outcome = [client.event().await, client.event().await, client.event().await];
    let outcome = outcome.map(|event| (event.id, event.kind, event.data));
    let event = |id: String, kind: &str, data: &str| (id, kind.to_owned(), data.to_owned());
    assert_eq!(
        outcome,
        [event(before, "message", "0"), event(id, "order.paid", "{\"a\": \"ä\"}"), event(after, "message", "2")]
    );
    // As somebody at a terminal does, with a key.
    let keys = keys("whimbrel", "device:42", "k1").join(" ");
    let command = format!("FCALL whimbrel_publish 5 {keys} 1 key k1 type message");
    let command: Vec<&str> = command.split(' ').collect();
    let first = redis_cli(redis, &command).await;
    assert_eq!(redis_cli(redis, &command).await, first, "a repeat answers with the first id");
    let answer = node.call("POST", "/v1/devices/42/events", &[("Idempotency-Key", "k1")], "1").await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &first), "also over another way");
    assert_eq!(node.get_json("/v1/devices/42/events").await["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_stores_nothing() {
    let redis = RedisServer::start();
    let _node = Node::on(&redis, &[]);
    let raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    let refused = async |keys: &[String], arguments: &[&str]| {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        let answer: RedisResult<String> = call(&raw, "whimbrel_publish", keys, &arguments).await;
        answer.expect_err(&format!("{keys:?} {arguments:?}")).to_string()
    };
    let news = keys("whimbrel", "topic:news", "-");
    let long = "x".repeat(129);
    let large = format!("\"{}\"", "x".repeat(65_535));
    for (arguments, slug, named) in [
        (&[][..], "invalid-data", "missing"),
        (&["{\"a\":"], "invalid-json", "byte 6"),
        (&[&large], "too-large", "65537 bytes; allowed are 65536"),
        (&["1", "type", ""], "invalid-type", "''"),
        (&["1", "type", "open"], "invalid-type", "'open'"),
        (&["1", "type", "a b"], "invalid-type", "'a b'"),
        (&["1", "type", "whimbrel:gap"], "invalid-type", "whimbrel:gap"),
        (&["1", "type", &long], "invalid-type", "1 to 128"),
        (&["1", "ttl", "0"], "invalid-ttl", "'0'"),
        (&["1", "ttl", "1.5"], "invalid-ttl", "'1.5'"),
        (&["1", "ttl", "999999999999"], "invalid-ttl", "whole seconds"),
        (&["1", "collapse", ""], "invalid-collapse", "collapse key"),
        (&["1", "collapse", "a b"], "invalid-collapse", "collapse key"),
        (&["1", "key", "a b"], "invalid-key", "idempotency key"),
        (&["1", "key", &long], "invalid-key", "128"),
        (&["1", "key", "k"], "invalid-keys", "expected 'whimbrel:{topic:news}:once:k'"),
        (&["1", "typ", "x"], "invalid-option", "'typ'"),
        (&["1", "type"], "invalid-option", "type is missing"),
        (&["1", "type", "a", "type", "a"], "invalid-option", "type is given more than once"),
    ] {
        let outcome = refused(&news, arguments).await;
        assert!(outcome.contains(&format!("{slug}: ")) && outcome.contains(named), "{arguments:?}: {outcome}");
    }
    let with = |place: usize, key: &str| {
        let mut keys = news.clone();
        keys[place] = key.to_owned();
        keys
    };
    let name = "x".repeat(201);
    for (keys, slug, named) in [
        (news[..4].to_vec(), "invalid-keys", "expected 5 keys"),
        (Vec::new(), "invalid-keys", "expected 5 keys"),
        (keys("other", "topic:news", "-"), "invalid-keys", "expected whimbrel:{device:NAME}:events"),
        (with(0, "whimbrel:topic:news:events"), "invalid-keys", "the first key"),
        (with(1, "whimbrel:{topic:news2}:nodes"), "invalid-keys", "key 2"),
        (with(2, "whimbrel:{topic:news}:nodes"), "invalid-keys", "key 3"),
        (with(3, "whimbrel:{topic:news}:collapsed"), "invalid-keys", "key 4"),
        (with(4, "whimbrel:{topic:other}:once:-"), "invalid-keys", "key 5"),
        (with(4, "whimbrel:{topic:news}:once:k"), "invalid-keys", "key 5"),
        (keys("whimbrel", "queue:news", "-"), "invalid-name", "'queue:news' is not a stream"),
        (keys("whimbrel", "news", "-"), "invalid-name", "'news' is not a stream"),
        (keys("whimbrel", "topic:", "-"), "invalid-name", "''"),
        (keys("whimbrel", "topic:..", "-"), "invalid-name", "'..'"),
        (keys("whimbrel", "topic:a b", "-"), "invalid-name", "'a b'"),
        (keys("whimbrel", "topic:whimbrel:lifecycle", "-"), "invalid-name", "whimbrel:lifecycle"),
        (keys("whimbrel", &format!("topic:{name}"), "-"), "invalid-name", "1 to 200"),
    ] {
        let outcome = refused(&keys, &["1"]).await;
        assert!(outcome.contains(&format!("{slug}: ")) && outcome.contains(named), "{keys:?}: {outcome}");
    }
    let stored: Vec<String> = raw.clone().keys("whimbrel:{*}:events").await.unwrap();
    assert!(stored.is_empty(), "{stored:?}");
    let outcome = publish(&raw, "topic:news", &["1"]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let keyed = keys("whimbrel", "topic:news", "k");
    let outcome: RedisResult<String> = call(&raw, "whimbrel_publish", &keyed, &[b"1", b"key", b"k"]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(refused(&keyed, &["2", "key", "k"]).await.contains("key-reused: "));
}

/// What the node's own reader takes for JSON is what the function takes.
#[tokio::test]
async fn the_function_takes_just_what_is_json() {
    let redis = RedisServer::start();
    let _node = Node::on(&redis, &[]);
    let raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    let texts: &[&[u8]] = &[
        b"null",
        b"true",
        b"false",
        b"0",
        b"-0",
        b"12.5e+10",
        b"1E5",
        b"-1.5",
        b"\"\"",
        b"[]",
        b"{}",
        b" \t\r\n{ } ",
        b"[1,[2,{\"a\":[]}],\"x\"]",
        b"{\"a\":1,\"b\":{\"c\":null}}",
        b"\"\\u00e4\\n\\\\\\/\\\"\"",
        "\"äöü €😀\"".as_bytes(),
        b"[\"a\\\\\",\"b\"]",
        b"[1 , 2 ]",
        b"",
        b" ",
        b"nul",
        b"nulll",
        b"True",
        b"NaN",
        b"Infinity",
        b"-",
        b"01",
        b"-01",
        b"1.",
        b".5",
        b"1e",
        b"0x1f",
        b"+1",
        b"\"",
        b"\"a",
        b"\"\\x\"",
        b"\"\\u12g4\"",
        b"\"\n\"",
        b"\"\t\"",
        b"\"\x00\"",
        b"'a'",
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"{",
        b"{1:2}",
        b"{\"a\"}",
        b"{\"a\":}",
        b"{\"a\":1,}",
        b"{\"a\" 1}",
        b"[}",
        b"{]",
        b"1 2",
        b"{}{}",
        b"[]]",
        b"\"\xff\"",
        b"\"\xc0\x80\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xe2\x82\"",
        b"\xef\xbb\xbf1",
        b"//x\n1",
    ];
    for text in texts {
        let json = serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok();
        let answer: RedisResult<String> =
            call(&raw, "whimbrel_publish", &keys("whimbrel", "topic:json", "-"), &[text]).await;
        assert_eq!(answer.is_ok(), json, "{:?}: {answer:?}", String::from_utf8_lossy(text));
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(publish(&raw, "topic:json", &[&nested(60)]).await.is_ok());
    let outcome = publish(&raw, "topic:json", &[&nested(30_000)]).await.unwrap_err().to_string();
    assert!(outcome.contains("invalid-json"), "{outcome}");
}

#[tokio::test]
async fn the_function_keeps_as_much_history_as_the_settings_say() {
    let redis = RedisServer::start();
    let rules = "topic:short:*=10/60 topic:a*b*c=20/70 *=2000/3600";
    let _node = Node::on(&redis, &[("WHIMBREL_RETENTION", rules), ("WHIMBREL_POSITION_SECONDS", "100")]);
    let raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    for (stream, least, most, seconds, position) in [
        ("topic:short:x", 10, 200, 60, 100),
        ("topic:axbyc", 20, 200, 70, 100),
        ("topic:axby", 1000, 1000, 3600, 3600),
        ("device:short:x", 1000, 1000, 3600, 3600),
    ] {
        for _ in 0..1000 {
            publish(&raw, stream, &["1"]).await.unwrap();
        }
        let base = format!("whimbrel:{{{stream}}}");
        let kept: usize = raw.clone().xlen(format!("{base}:events")).await.unwrap();
        assert!((least..=most).contains(&kept), "{stream}: {kept}");
        // In milliseconds: the sixteenth that a life is prolonged ahead is no whole number of seconds.
        let ttl: i64 = raw.clone().pttl(format!("{base}:events")).await.unwrap();
        let life = seconds * 1000;
        assert!((life - 5000..=life * 17 / 16).contains(&ttl), "{stream}: {ttl} ms");
        let ttl: i64 = raw.clone().ttl(format!("{base}:meta")).await.unwrap();
        assert!((position - 5..=position + 120).contains(&ttl), "{stream}: {ttl}");
    }
}

#[tokio::test]
async fn an_older_library_is_replaced_and_a_newer_one_is_kept() {
    let redis = RedisServer::start();
    let library = |version: &str| {
        format!(
            "#!lua name=whimbrel\nredis.register_function{{function_name='whimbrel_publish', \
             callback=function() return 'theirs' end, description='whimbrel {version} abc'}}"
        )
    };
    let load = async |version: &str| {
        redis_cli(&redis, &["FUNCTION", "LOAD", "REPLACE", &library(version)]).await;
    };
    let ours = format!("whimbrel {}", env!("CARGO_PKG_VERSION"));
    let replaced = async || description(&redis).await.starts_with(&ours).then_some(());
    load("0.0.9").await;
    let node = Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "1")]);
    eventually("an older one is replaced", replaced).await;
    // Also one that comes while nodes run, as of a node that was long stopped.
    load("0.0.9").await;
    eventually("an older one is replaced again", replaced).await;
    redis_cli(&redis, &["FUNCTION", "FLUSH"]).await;
    eventually("a library that was lost is loaded again", replaced).await;
    load("99.0.0").await;
    let other = Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "1")]);
    let raw = redis.raw().await;
    // Each has looked again since: it drains, and that needs as many looks at the lease.
    for node in [&node, &other] {
        node.publish("topic:news", "1").await;
    }
    redis_cli(&redis, &["XADD", "whimbrel:ingress", "*", "topic", "news", "data", "1"]).await;
    eventually("the entry", async || {
        (raw.clone().xlen::<_, u64>("whimbrel:ingress").await.unwrap() == 0).then_some(())
    })
    .await;
    assert!(description(&redis).await.starts_with("whimbrel 99.0.0"));
    assert_eq!(publish(&raw, "topic:news", &["1"]).await.unwrap(), "theirs");
}

#[tokio::test]
async fn other_settings_of_the_same_version_take_effect_with_the_node_that_brings_them() {
    let redis = RedisServer::start();
    let _old = Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "1")]);
    let raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    let old = description(&redis).await;
    let wide = format!("\"{}\"", "x".repeat(70_000));
    assert!(publish(&raw, "topic:news", &[&wide]).await.is_err());
    let _new = Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "1"), ("WHIMBREL_MAX_EVENT_BYTES", "100000")]);
    eventually("the new settings", async || publish(&raw, "topic:news", &[&wide]).await.ok()).await;
    assert_ne!(description(&redis).await, old, "the description differs");
}

#[tokio::test]
async fn many_nodes_that_start_at_once_agree_on_one_library() {
    let redis = RedisServer::start();
    let nodes: Vec<Node> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| Node::on(&redis, &[]))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    assert!(publish(&raw, "topic:news", &["1"]).await.is_ok());
    let warned: Vec<String> = nodes.iter().map(Node::log).filter(|log| log.contains("can't be loaded")).collect();
    assert!(warned.is_empty(), "{warned:?}");
}

#[tokio::test]
async fn prefixes_share_a_server_without_sharing_functions() {
    let redis = RedisServer::start();
    let nodes = ["whimbrel", "acme", "Acme", "a.b"].map(|prefix| Node::on(&redis, &[("WHIMBREL_PREFIX", prefix)]));
    let raw = redis.raw().await;
    for function in ["whimbrel_publish", "acme_publish"] {
        loaded(&raw, function).await;
    }
    let listed = async || {
        let listed = redis_cli(&redis, &["FUNCTION", "LIST"]).await;
        let functions = listed.as_array().unwrap().iter().flat_map(|library| library["functions"].as_array().unwrap());
        let names = functions.map(|function| function["name"].as_str().unwrap().to_owned());
        let names: Vec<String> = names.filter(|name| name.ends_with("_publish")).collect();
        (names.len() == 4).then_some(names)
    };
    let names = eventually("four libraries", listed).await;
    let of = |start: &str| names.iter().find(|name| name.starts_with(start) && name.len() > start.len() + 8).unwrap();
    for (node, (prefix, function)) in nodes.iter().zip([
        ("whimbrel", "whimbrel_publish"),
        ("acme", "acme_publish"),
        ("Acme", of("acme_")),
        ("a.b", of("a_b_")),
    ]) {
        let id: String = call(&raw, function, &keys(prefix, "topic:news", "-"), &[b"1"]).await.unwrap();
        let history = node.get_json("/v1/topics/news/events").await;
        assert_eq!(history["events"][0]["id"], json!(id), "{prefix}");
        let foreign: RedisResult<String> = call(&raw, function, &keys("foreign", "topic:news", "-"), &[b"1"]).await;
        assert!(foreign.unwrap_err().to_string().contains("invalid-keys"));
    }
}

#[tokio::test]
async fn a_stock_client_publishes_in_pipelines_and_gets_the_ids() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await;
    let port = redis.port().to_string();
    let printed = python("tests/tools/fcall.py", &[&port, "topic:news", "500"]).end().await;
    for (number, id) in printed.lines().enumerate() {
        let event = client.event().await;
        assert_eq!((event.data, &*event.id), (number.to_string(), id));
    }
    assert_eq!(printed.lines().count(), 500);
}
