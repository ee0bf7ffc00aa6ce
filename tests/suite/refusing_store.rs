//! A store that answers, and refuses: what lasts is logged when it begins and when it ends, and shown meanwhile.

use redis::AsyncCommands as _;
use serde_json::Value;

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::redis::RedisServer;

const EVENTS: &str = "whimbrel:{topic:b}:events";

/// Lines of the log that say that something begins to be refused, and that it is no longer.
fn lines(node: &Node) -> (usize, usize) {
    let log = node.log();
    let warnings = |what: &str| log.lines().filter(|line| line.contains(" WARN ") && line.contains(what)).count();
    (warnings("the store refuses what it is asked for"), warnings("the store no longer refuses it"))
}

async fn refused(node: &Node, what: &str) -> Value {
    eventually(&format!("a refusal of {what}"), async || {
        let store = node.get("/health/ready").await.json()["store"].clone();
        let known = store["refuses"].as_array().unwrap().iter().any(|refused| refused["what"] == what);
        known.then_some(store)
    })
    .await
}

async fn nothing_refused(node: &Node) {
    eventually("nothing refused", async || {
        let store = node.get("/health/ready").await.json()["store"].clone();
        (store["error"].is_null() && store["refuses"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
}

fn command<'a>(words: &'a [&'a str]) -> redis::Cmd {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
}

#[tokio::test]
async fn what_is_refused_is_logged_when_it_begins_and_when_it_ends_and_shown_meanwhile() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    node.publish("topic:b", "1").await;
    let mut raw = redis.raw().await;
    let cases = [
        ("topic:a", &["CONFIG", "SET", "maxmemory", "1mb"][..], &["CONFIG", "SET", "maxmemory", "0"][..], 503, "full"),
        (
            "topic:a",
            &["ACL", "SETUSER", "default", "-xadd"],
            &["ACL", "SETUSER", "default", "+@all"],
            503,
            "can't run this command",
        ),
        ("topic:b", &["RENAME", EVENTS, "kept"], &["RENAME", "kept", EVENTS], 503, "WRONGTYPE"),
    ];
    for (count, (stream, begin, end, status, reason)) in (1..).zip(cases) {
        let () = command(begin).query_async(&mut raw).await.unwrap();
        if begin[0] == "RENAME" {
            let () = raw.set(EVENTS, "x").await.unwrap();
        }
        let path = crate::support::node::events_path(stream);
        for _ in 0..3 {
            let (_, detail) = node.call("POST", &path, &[], "1").await.problem(status);
            assert!(!detail.contains("script") && !detail.contains("WRONGTYPE") && !detail.contains("OOM"), "{detail}");
        }
        // What works elsewhere ends nothing that one stream is refused for.
        if stream == "topic:b" {
            node.publish("topic:c", "1").await;
        }
        let store = refused(&node, "publish").await;
        assert!(store["error"].as_str().unwrap().contains(reason) && store["up"] == true, "{store}");
        assert!(!store.to_string().contains("script:"), "{store}");
        node.metric_is("store_refuses{work=\"publish\"}", 1.0).await;
        let what = format!("one line about {stream} {reason}");
        eventually(&what, async || (lines(&node) == (count, count - 1)).then_some(())).await;
        if stream == "topic:b" {
            let answer = node.get(&path).await;
            let (slug, _) = answer.problem(503);
            let title = answer.json()["title"].as_str().unwrap().to_owned();
            assert!(slug == "unavailable" && title.contains("read") && !title.contains("stored"), "{title}");
            let () = raw.del(EVENTS).await.unwrap();
        }
        let () = command(end).query_async(&mut raw).await.unwrap();
        eventually("an end of what was refused", async || {
            node.publish(stream, "1").await;
            if stream == "topic:b" {
                node.get_json(&path).await;
            }
            let ended = if stream == "topic:b" { count + 1 } else { count };
            (lines(&node).1 == ended).then_some(())
        })
        .await;
        nothing_refused(&node).await;
        node.metric_is("store_refuses{work=\"publish\"}", 0.0).await;
    }
}

#[tokio::test]
async fn an_ingress_stream_that_can_not_be_read_is_reported() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "1")]);
    let mut raw = redis.raw().await;
    let () = raw.del("whimbrel:ingress").await.unwrap();
    let () = raw.set("whimbrel:ingress", "x").await.unwrap();
    let store = refused(&node, "ingress").await;
    assert!(store["error"].as_str().unwrap().contains("WRONGTYPE"), "{store}");
    eventually("a line about the beginning", async || (lines(&node) == (1, 0)).then_some(())).await;
    let () = raw.del("whimbrel:ingress").await.unwrap();
    nothing_refused(&node).await;
    eventually("a line about the end", async || (lines(&node) == (1, 1)).then_some(())).await;
}

#[tokio::test]
async fn an_embedded_store_that_is_full_is_reported_too() {
    let node = Node::start(&[("WHIMBREL_EMBEDDED_BYTES", "1048576"), ("WHIMBREL_RETENTION", "*=1000000/3600")]);
    let data = format!("\"{}\"", "x".repeat(60_000));
    while node.call("POST", "/v1/topics/a/events", &[], &data).await.status == 201 {}
    let store = refused(&node, "publish").await;
    assert!(store["error"].as_str().unwrap().contains("full"), "{store}");
    eventually("a line about the beginning", async || (lines(&node) == (1, 0)).then_some(())).await;
}
