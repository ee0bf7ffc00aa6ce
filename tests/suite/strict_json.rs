//! What a strict parser can't read is refused, whichever way it comes in: a listener that meets it can't get past it.

use redis::AsyncCommands as _;
use serde_json::Value;

use crate::fcall::{keys, loaded};
use crate::support::client::{Transport, Wanted};
use crate::support::command::run;
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use whimbrel::model::MAX_NESTING;

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// The slug and the detail with which each way in refuses the data, `None` where it is taken.
async fn refusals(redis: &RedisServer, node: &Node, data: &str) -> Vec<(&'static str, Option<(String, String)>)> {
    let mut refusals = Vec::new();
    for (way, path) in [("REST", "/v1/topics/a/events"), ("ephemeral", "/v1/topics/a/events?ephemeral=true")] {
        let answer = node.call("POST", path, &[], data).await;
        refusals.push((way, (answer.status >= 400).then(|| answer.problem(400))));
    }
    let in_json = |value: &Value, slug: &str| {
        value[slug].as_str().map(|given| (given.to_owned(), value["detail"].as_str().unwrap().to_owned()))
    };
    let entry = format!(r#"{{"topic":"a","data":{data}}}"#);
    for (way, kind, body) in
        [("batch", "application/json", format!("[{entry}]")), ("lines", "application/x-ndjson", entry.clone())]
    {
        let answer = node.call("POST", "/v1/events", &[("Content-Type", kind)], body).await.json();
        refusals.push((way, in_json(&answer["results"][0], "error")));
    }
    let mut client = Wanted::new(Transport::WebSocket, &[]).connect(node).await;
    let operation = format!(r#"{{"op":"publish","stream":"topic:a","ref":1,"data":{data}}}"#);
    client.frames().send(1, true, operation.as_bytes()).await;
    refusals.push(("WebSocket", in_json(&client.answer().await, "code")));

    let mut raw = redis.raw().await;
    loaded(&raw, "whimbrel_publish").await;
    let answer: redis::RedisResult<String> = redis::cmd("FCALL")
        .arg("whimbrel_publish")
        .arg(5)
        .arg(keys("whimbrel", "topic:a", "-"))
        .arg(data)
        .query_async(&mut raw)
        .await;
    let detail_of = |error: redis::RedisError| {
        let text = error.to_string();
        let (slug, detail) = text.split_once("invalid-json").expect("a refusal by name");
        assert!(slug.len() < 64, "{text}");
        ("invalid-json".to_owned(), detail.to_owned())
    };
    refusals.push(("FCALL", answer.err().map(detail_of)));

    let _: String = raw.xadd("whimbrel:ingress", "*", &[("topic", "a"), ("data", data)]).await.unwrap();
    eventually("an empty ingress stream", async || {
        (raw.clone().xlen::<_, u64>("whimbrel:ingress").await.unwrap() == 0).then_some(())
    })
    .await;
    let rejected: redis::streams::StreamRangeReply = raw.xrange_all("whimbrel:ingress:rejected").await.unwrap();
    let reason = rejected.ids.last().map(|entry| entry.get::<String>("reason").unwrap());
    let _: () = raw.del("whimbrel:ingress:rejected").await.unwrap();
    refusals.push(("ingress", reason.map(|reason| ("invalid-json".to_owned(), reason))));

    let outcome = run(&["publish", "--url", &node.url(), "topic:a", data], &[], b"").await;
    refusals.push(("CLI", (outcome.code != Some(0)).then(|| ("invalid-json".to_owned(), outcome.stderr))));
    refusals
}

#[tokio::test]
async fn every_way_in_has_the_same_bound_on_nesting_and_refuses_lone_surrogates_with_their_place() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    for data in [nested(MAX_NESTING).as_str(), r#"{"\ud83d\ude00":"\\ud83d \u00e4"}"#] {
        for (way, refusal) in refusals(&redis, &node, data).await {
            assert_eq!(refusal, None, "{way}: {data}");
        }
    }
    for (data, named) in [
        (nested(MAX_NESTING + 1).as_str(), ["deeper than 60 levels", "byte 61"]),
        (&format!("{}1{}", r#"{"a":"#.repeat(61), "}".repeat(61)), ["deeper than 60 levels", "byte 301"]),
        (&nested(20_000), ["deeper than 60 levels", "byte 61"]),
        (r#"["\ud83d"]"#, ["lone surrogate", "byte 3"]),
        (r#"{"\uDE00\ud83d":1}"#, ["lone surrogate", "byte 3"]),
        (r#""\ud83d\ud83d\ude00""#, ["lone surrogate", "byte 2"]),
    ] {
        for (way, refusal) in refusals(&redis, &node, data).await {
            let (slug, detail) = refusal.unwrap_or_else(|| panic!("{way} took {data:.40}"));
            assert_eq!(slug, "invalid-json", "{way}: {detail}");
            assert!(named.iter().all(|named| detail.contains(named)), "{way}: {detail}");
        }
    }
    assert_eq!(node.get_json("/v1/topics/a/events").await["events"].as_array().unwrap().len(), 2 * 7);
}
