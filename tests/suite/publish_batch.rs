//! Publishing many events at once.

use serde_json::{Value, json};

use crate::support::client::Transport;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        one_bad_entry_does_not_fail_the_others,
        lines_are_entries_too,
        the_order_within_a_batch_is_kept;
    on_redis:
        keys_of_entries_are_honoured,
}

async fn post(node: &Node, kind: Option<&str>, body: &str) -> Vec<Value> {
    let headers: Vec<_> = kind.map(|kind| ("Content-Type", kind)).into_iter().collect();
    let answer = node.call("POST", "/v1/events", &headers, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"].as_array().unwrap().clone()
}

async fn one_bad_entry_does_not_fail_the_others(world: World) {
    let node = world.node(&[("WHIMBREL_MAX_EVENT_BYTES", "100")]);
    let mut client = world.wanted(&["device:1", "device:2", "topic:a"]).connect(&node).await;
    let large = format!(r#"{{"topic":"a","data":"{}"}}"#, "x".repeat(100));
    let entries = [
        r#"{"device":"1","data":{"n" : 1}}"#,
        r#"{"topic":"a b","data":1}"#,
        r#"{"topic":"a","data":2,"type":"price"}"#,
        r#"{"topic":"a"}"#,
        r#"{"data":3}"#,
        r#"{"topic":"a","device":"1","data":3}"#,
        r#"{"topic":"a","data":3,"bogus":1}"#,
        r#"{"topic":"a","data":3,"type":"open"}"#,
        r#"{"topic":"a","data":3,"ttl":0}"#,
        r#"{"topic":"a","data":3,"ttl":"5"}"#,
        r#"{"topic":"a","data":3,"collapse":"a b"}"#,
        r#"{"topic":"a","data":3,"collapse":5}"#,
        r#"{"topic":"a","data":3,"ephemeral":true,"key":"k"}"#,
        r#"{"topic":"a","data":3,"ephemeral":true,"ttl":5}"#,
        r#"{"topic":"a","data":3,"ephemeral":"yes"}"#,
        r#"{"topic":"a","data":3,"key":"a b"}"#,
        r#"{"topic":"a","data":3,"key":""}"#,
        r#"{"topic":"a","data":3,"key":5}"#,
        r#"{"topic":"a","data":3,"type":5}"#,
        r#"{"topic":"a","data":3,"type":"whimbrel:gap"}"#,
        r#"{"topic":"a","data":3,"collapse":""}"#,
        r#"{"topic":"a","data":3,"durable":"disk"}"#,
        r#"{"topic":"a","data":3,"data":4}"#,
        r#"{"topic":"whimbrel:x","data":3}"#,
        r#"{"device":"","data":3}"#,
        r#"{"device":42,"data":3}"#,
        r#"{"devices":"1","data":3}"#,
        &large,
        "17",
        r#"{"devices":["1","bad name","2"],"data":4}"#,
        r#"{"topic":"a","data":null}"#,
    ];
    let results = post(&node, None, &format!("[{}]", entries.join(" ,\n"))).await;
    let received: Vec<&str> = results.iter().map(|r| r["error"].as_str().or(r["stream"].as_str()).unwrap()).collect();
    assert_eq!(
        received,
        [
            "device:1",
            "invalid-name",
            "topic:a",
            "invalid-entry",
            "invalid-entry",
            "invalid-entry",
            "invalid-entry",
            "invalid-type",
            "invalid-ttl",
            "invalid-ttl",
            "invalid-collapse",
            "invalid-entry",
            "invalid-ephemeral",
            "invalid-ephemeral",
            "invalid-entry",
            "invalid-key",
            "invalid-key",
            "invalid-entry",
            "invalid-entry",
            "invalid-type",
            "invalid-collapse",
            "invalid-entry",
            "invalid-entry",
            "invalid-name",
            "invalid-name",
            "invalid-entry",
            "invalid-entry",
            "too-large",
            "invalid-entry",
            "device:1",
            "invalid-name",
            "device:2",
            "topic:a",
        ]
    );
    for result in &results {
        assert_ne!(result["id"].is_string(), result["detail"].is_string(), "{result}");
    }
    assert!(results[8]["detail"].as_str().unwrap().contains("ttl"));
    let mut events = Vec::new();
    for _ in 0..5 {
        events.push(client.event().await);
    }
    let of = |stream: &str| -> Vec<(&str, &str)> {
        events.iter().filter(|e| e.stream == stream).map(|e| (e.kind.as_str(), e.data.as_str())).collect()
    };
    assert_eq!(of("device:1"), [("message", "{\"n\" : 1}"), ("message", "4")]);
    assert_eq!(of("device:2"), [("message", "4")]);
    assert_eq!(of("topic:a"), [("price", "2"), ("message", "null")]);
}

async fn lines_are_entries_too(world: World) {
    let node = world.node(&[]);
    let mut client = world.wanted(&["topic:a"]).connect(&node).await;
    let body = "{\"topic\":\"a\",\"data\":1}\r\n\n{oops\n  \n{\"topic\":\"a\",\"data\":[ 2 ]}";
    let results = post(&node, Some("application/x-ndjson"), body).await;
    assert_eq!(results.len(), 3);
    assert_eq!(results[1]["error"], "invalid-entry");
    assert_eq!(client.data(2).await, ["1", "[ 2 ]"]);
}

async fn the_order_within_a_batch_is_kept(world: World) {
    let node = world.node(&[]);
    let streams = ["topic:a", "topic:b", "device:c"];
    let mut client = world.wanted(&streams).connect(&node).await;
    let entries: Vec<String> = (0..600)
        .map(|n| {
            let (kind, name) = streams[n % 3].split_once(':').unwrap();
            format!(r#"{{"{kind}":"{name}","data":{n}}}"#)
        })
        .collect();
    let results = post(&node, None, &format!("[{}]", entries.join(","))).await;
    let mut received: Vec<Vec<(String, usize)>> = vec![Vec::new(); 3];
    for _ in 0..600 {
        let event = client.event().await;
        let at = streams.iter().position(|stream| *stream == event.stream).unwrap();
        received[at].push((event.id, event.data.parse().unwrap()));
    }
    for (at, received) in received.iter().enumerate() {
        let expected: Vec<_> =
            (at..600).step_by(3).map(|n| (results[n]["id"].as_str().unwrap().to_owned(), n)).collect();
        assert_eq!(*received, expected);
    }
}

async fn keys_of_entries_are_honoured(world: World) {
    let node = world.node(&[]);
    let mut client = world.wanted(&["topic:a"]).connect(&node).await;
    let body =
        r#"[{"topic":"a","data":1,"key":"k"},{"topic":"a","data":1,"key":"k"},{"topic":"a","data":2,"key":"k"}]"#;
    let results = post(&node, None, body).await;
    assert_eq!(results[0]["duplicate"], false);
    assert_eq!((&results[1]["id"], &results[1]["duplicate"]), (&results[0]["id"], &json!(true)));
    assert_eq!(results[2]["error"], "key-reused");
    assert_eq!(post(&node, None, body).await[0]["duplicate"], true);
    node.publish("topic:a", "3").await;
    assert_eq!(client.data(2).await, ["1", "3"]);
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_refused_whole() {
    let node = Node::start(&[]);
    let post = async |headers: &[(&str, &str)], body: &str| node.call("POST", "/v1/events", headers, body).await;
    for body in ["", "{}", "[1,", "nonsense", r#"{"topic":"a","data":1}"#] {
        assert_eq!(post(&[], body).await.problem(400).0, "bad-request", "{body:?}");
    }
    let (_, detail) = post(&[], "[\n1,\n oops]").await.problem(400);
    assert!(detail.contains("line 3 column 2"), "{detail}");
    assert_eq!(post(&[("Content-Type", "text/plain")], "[]").await.problem(415).0, "unsupported-media-type");
    assert_eq!(post(&[("Content-Encoding", "gzip")], "[]").await.status, 415);
    for kind in ["multipart/form-data; boundary=x", "application/cloudevents-batch+json"] {
        assert_eq!(post(&[("Content-Type", kind)], "[]").await.problem(415).0, "unsupported-media-type");
    }
    let answer = node.call("POST", "/v1/events?type=a", &[], r#"[{"topic":"a","data":1}]"#).await;
    assert!(answer.problem(400).1.contains("'type'"));
    assert!(post(&[("Idempotency-Key", "k")], "[]").await.problem(400).1.contains("Idempotency-Key"));
    assert_eq!(post(&[], "[]").await.json(), json!({"results": []}));
    let many = format!("[{}]", vec![r#"{"topic":"a","data":1}"#; 10_001].join(","));
    assert_eq!(post(&[], &many).await.problem(413).0, "too-large");
    let devices = format!(r#"[{{"devices":[{}],"data":1}}]"#, vec!["\"d\""; 10_001].join(","));
    assert_eq!(post(&[], &devices).await.problem(413).0, "too-large");
    assert_eq!(node.get_json("/v1/topics/a/events").await["events"], json!([]));
}

#[tokio::test]
async fn an_entry_may_be_for_thousands_of_devices() {
    let world = World::on_redis(Transport::Sse);
    let node = world.node(&[]);
    let mut last = world.wanted(&["device:4999"]).connect(&node).await;
    let devices: Vec<String> = (0..5000).map(|n| format!("\"{n}\"")).collect();
    let results = post(&node, None, &format!(r#"[{{"devices":[{}],"data":"hi"}}]"#, devices.join(","))).await;
    assert_eq!(results.len(), 5000);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["stream"], format!("device:{n}"), "{result}");
    }
    assert_eq!(last.data(1).await, ["\"hi\""]);
}

#[tokio::test]
async fn every_entry_counts_sound_or_not_and_bounds_the_answer() {
    let node = Node::start(&[]);
    let send = async |lines: bool, body: String| {
        let kind = if lines { "application/x-ndjson" } else { "application/json" };
        node.call("POST", "/v1/events", &[("Content-Type", kind)], body).await
    };
    let array = |entries: &[String]| format!("[{}]", entries.join(","));
    let repeated = |entry: &str, count: usize| vec![entry.to_owned(); count];
    for entry in ["1", r#"{"topic":"a"}"#, r#"{"topic":"a","data":1}"#] {
        for lines in [false, true] {
            let body = |count| {
                if lines { format!("{entry}\n").repeat(count) } else { array(&repeated(entry, count)) }
            };
            let answer = send(lines, body(10_000)).await;
            assert_eq!((answer.status, answer.json()["results"].as_array().unwrap().len()), (200, 10_000), "{entry}");
            let (slug, detail) = send(lines, body(10_001)).await.problem(413);
            assert_eq!(slug, "too-large");
            assert!(detail.contains("10001") && detail.contains("10000"), "{detail}");
        }
    }
    // Many more than are allowed cost the answer nothing.
    assert_eq!(send(true, "1\n".repeat(1_000_000)).await.problem(413).0, "too-large");
    assert_eq!(send(false, array(&repeated("1", 1_000_000))).await.problem(413).0, "too-large");
    // Those of a list of devices count one by one, beside what is malformed.
    let devices = |count: usize| format!(r#"{{"devices":[{}],"data":1}}"#, repeated("\"d\"", count).join(","));
    assert_eq!(send(false, array(&[devices(10_001)])).await.problem(413).0, "too-large");
    assert_eq!(send(false, array(&[devices(9_999), "1".into(), "1".into()])).await.problem(413).0, "too-large");
    // What is wrong is quoted only so far.
    let long = "x".repeat(1_000_000);
    for entry in [format!("{{\"{long}\":1}}"), format!("\"{long}\"")] {
        let answer = send(false, array(&[entry])).await;
        assert_eq!(answer.json()["results"][0]["error"], "invalid-entry");
        assert!(answer.body.len() < 1000, "{}", answer.body.len());
    }
}
