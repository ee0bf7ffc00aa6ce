//! What is SSE's own: envelopes, signs of life, one stream's own address.

use serde_json::json;

use crate::support::client::{Client, Event, Said, Transport, Wanted};
use crate::support::http::{Answer, Http};
use crate::support::node::Node;
use crate::support::world::World;

fn wanted(streams: &[&str]) -> Wanted {
    World::embedded(Transport::Sse).wanted(streams)
}

#[tokio::test]
async fn an_envelope_names_what_a_bare_event_does_not() {
    let node = Node::start(&[]);
    let mut bare = wanted(&["topic:news"]).connect(&node).await;
    let mut wrapped = wanted(&["topic:news"]).with("envelope", "1").connect(&node).await;
    let id = node.call("POST", "/v1/topics/news/events?type=price", &[], "{\"a\" :1}").await.id();
    let expected =
        Event { stream: "topic:news".into(), id: id.clone(), kind: "price".into(), data: "{\"a\" :1}".into() };
    assert_eq!(bare.event().await, expected);
    // The client checks the envelope's fields, and takes its event out of it.
    assert_eq!(wrapped.event().await, expected);
    assert_eq!((bare.cursor().id(), wrapped.cursor().id()), (id.as_str(), id.as_str()));
}

#[tokio::test]
async fn the_first_block_says_when_and_where_to_come_back() {
    let node = Node::start(&[]);
    let id = node.publish("topic:news", "1").await;
    let mut http = Http::connect(node.address()).await;
    http.request("GET", "/v1/sse?topic=news", &[], b"").await;
    assert_eq!(http.head().await.status, 200);
    let mut lines = Vec::new();
    while lines.last() != Some(&String::new()) {
        let mut line = String::new();
        crate::support::in_time("a line", tokio::io::AsyncBufReadExt::read_line(&mut http.socket, &mut line))
            .await
            .unwrap();
        lines.push(line.strip_suffix('\n').unwrap().to_owned());
    }
    let retry: u64 = lines[0].strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1..60_000).contains(&retry));
    assert_eq!(lines[1..3], [format!("id: {id}"), "event: whimbrel:position".into()]);
    let position: serde_json::Value = serde_json::from_str(lines[3].strip_prefix("data: ").unwrap()).unwrap();
    let connection = position["connection"].as_str().unwrap();
    assert!(uuid::Uuid::parse_str(connection).is_ok(), "{position}");
    assert_eq!(position, serde_json::json!({"connection": connection}));
}

#[tokio::test]
async fn an_idle_connection_gets_a_sign_of_life() {
    let node = Node::start(&[("WHIMBREL_PING_SECONDS", "1")]);
    let mut quiet = wanted(&["topic:news"]).connect(&node).await;
    // Comments alone, and the client takes no empty line after them.
    assert_eq!(quiet.next_or_ping().await, Said::Ping);
    assert_eq!(quiet.next_or_ping().await, Said::Ping);
    node.publish("topic:news", "1").await;
    assert_eq!(quiet.data(1).await, ["1"]);

    let mut http = Http::connect(node.address()).await;
    http.request("GET", "/v1/sse?topic=news&heartbeat=1", &[], b"").await;
    http.head().await;
    let mut text = String::new();
    while !text.contains("\n\nevent: whimbrel:ping\ndata: {}\n\n") {
        let read = tokio::io::AsyncBufReadExt::read_line(&mut http.socket, &mut text);
        crate::support::in_time("a heartbeat", read).await.unwrap();
    }
    assert!(!text.contains("\n:"), "a heartbeat is no comment: {text:?}");
}

#[tokio::test]
async fn a_streams_own_address_is_a_live_stream_for_who_accepts_one() {
    let node = Node::start(&[]);
    let id = node.publish("device:a:b", "1").await;
    for accept in ["text/event-stream", "text/html, Text/Event-Stream;q=0.9"] {
        let mut http = Http::connect(node.address()).await;
        let path = "/v1/devices/a%3Ab/events?after=earliest";
        http.request("GET", path, &[("Accept", accept)], b"").await;
        let head = http.head().await;
        assert!(head.header("content-type").unwrap().starts_with("text/event-stream"), "{head:?}");
        let mut text = String::new();
        while !text.ends_with(&format!("\nid: {id}\ndata: 1\n\n")) {
            let read = tokio::io::AsyncBufReadExt::read_line(&mut http.socket, &mut text);
            crate::support::in_time("the event", read).await.unwrap();
        }
    }
    let history = node.call("GET", "/v1/devices/a:b/events", &[("Accept", "*/*")], "").await;
    assert_eq!(history.header("content-type"), Some("application/json"));
    assert_eq!(history.json()["events"][0]["id"], id);
}

/// The headers that keep caches and proxies from holding a stream back.
#[track_caller]
fn is_no_stream_to_keep(answer: &Answer) {
    for (name, value) in [("cache-control", "no-store"), ("x-accel-buffering", "no"), ("vary", "Accept")] {
        assert_eq!(answer.header(name), Some(value), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn two_last_event_ids_are_refused_as_nobody_knows_which_one_is_meant() {
    let node = Node::start(&[]);
    let id = node.publish("topic:a", "1").await;
    let one = ("Last-Event-ID", id.as_str());
    for path in ["/v1/sse?topic=a", "/v1/topics/a/events"] {
        for second in [one, ("Last-Event-ID", "")] {
            let headers = [one, second, ("Accept", "text/event-stream")];
            let (slug, detail) = node.call("GET", path, &headers, "").await.problem(400);
            assert!(slug == "bad-request" && detail.contains("Last-Event-ID"), "{path}: {slug}: {detail}");
        }
    }
}

#[tokio::test]
async fn a_head_request_is_answered_with_the_length_of_the_answer_to_get() {
    let node = Node::start(&[]);
    node.publish("topic:a", "1").await;
    for path in ["/", "/openapi.json", "/health/live", "/v1/topics/a/events", "/v1/topics/a%20b/events", "/nothing"] {
        let get = node.get(path).await;
        let mut http = Http::connect(node.address()).await;
        let head = http.call("HEAD", path, &[], b"").await;
        assert_eq!((head.status, head.header("content-length")), (get.status, get.header("content-length")), "{path}");
        assert!(head.header("content-length").is_some() && head.text().is_empty(), "{path}: {head:?}");
        assert_eq!(http.call("GET", "/health/live", &[], b"").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_head_request_to_a_listening_path_ends() {
    let node = Node::start(&[]);
    let upgrade = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let stream: &[(&str, &str)] = &[("Accept", "text/event-stream")];
    // The second request shows that the connection is still one of requests and answers.
    for (path, headers, status) in [
        ("/v1/sse?topic=a", &[][..], 200),
        ("/v1/topics/a/events", stream, 200),
        ("/v1/topics/a/events", &[], 200),
        ("/v1/sse", &[], 400),
        ("/v1/ws?topic=a", &[], 400),
        ("/v1/ws?topic=a", &upgrade, 400),
    ] {
        let mut http = Http::connect(node.address()).await;
        let head = http.call("HEAD", path, headers, b"").await;
        assert_eq!(head.status, status, "{path}");
        if head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            assert_eq!(head.header("content-type"), Some("text/event-stream; charset=utf-8"));
            is_no_stream_to_keep(&head);
        }
        assert_eq!(http.call("GET", "/health/live", &[], b"").await.status, 200, "{path}");
    }
    assert_eq!(node.metric("connections{transport=\"sse\"}").await, 0.0);
}

#[tokio::test]
async fn a_request_sent_along_with_an_earlier_one_is_listened_to_as_well() {
    let node = Node::start(&[]);
    let mut http = Http::connect(node.address()).await;
    let host = format!("Host: {}\r\n", node.address());
    let publish = format!("POST /v1/topics/a/events HTTP/1.1\r\n{host}Content-Length: 1\r\n\r\n7");
    let listen = format!("GET /v1/sse?topic=a&after=earliest HTTP/1.1\r\n{host}\r\n");
    http.send(format!("{publish}{listen}")).await;
    let id = http.answer("POST").await.id();
    assert_eq!(http.head().await.status, 200);
    let mut text = String::new();
    while !text.ends_with(&format!("id: {id}\ndata: 7\n\n")) {
        let read = tokio::io::AsyncBufReadExt::read_line(&mut http.socket, &mut text);
        crate::support::in_time("the event", read).await.unwrap();
    }
}

/// What a client gets that asks in a body.
async fn asked_by_body(node: &Node, body: serde_json::Value) -> Client {
    let mut http = Http::connect(node.address()).await;
    http.request("POST", "/v1/sse", &[("Content-Type", "application/json")], body.to_string().as_bytes()).await;
    wanted(&["topic:news", "device:42"]).taken_over(http).await
}

#[tokio::test]
async fn a_client_may_say_what_it_wants_in_a_body() {
    let node = Node::start(&[]);
    let ids = node.publish_all("topic:news", 1..=3).await;
    node.publish_with("device:42", "type=note", "4").await;
    let streams = json!(["topic:news", "device:42"]);
    let mut client = asked_by_body(&node, json!({"streams": streams, "after": "earliest", "types": ["note"]})).await;
    assert_eq!(client.data(1).await, ["4"]);
    let after = json!({"topic:news": ids[1], "device:42": "earliest"});
    let mut client = asked_by_body(&node, json!({"streams": streams, "after": after})).await;
    let mut data = client.data(2).await;
    data.sort();
    assert_eq!(data, ["3", "4"]);
    let at = node.get_json("/v1/cursor?topic=news&device=42").await;
    let mut client = asked_by_body(&node, json!({"streams": streams, "after": at["cursor"]})).await;
    node.publish("topic:news", "5").await;
    assert_eq!(client.data(1).await, ["5"]);
}

#[tokio::test]
async fn a_body_that_makes_no_sense_is_refused() {
    let node = Node::start(&[("WHIMBREL_MAX_STREAMS", "2")]);
    let long = format!(r#"{{"streams":["topic:a"],"after":"{}"}}"#, "x".repeat(70_000));
    for (body, status, named) in [
        ("", 400, "expected an object"),
        (r#"{"streams":[]}"#, 400, "streams"),
        (r#"{"streams":["topic:a","topic:b","topic:c"]}"#, 400, "may follow 2"),
        (r#"{"streams":["topic:a","topic:b"],"after":"5-1"}"#, 400, "one event"),
        (r#"{"streams":["topic:a"],"after":"yesterday"}"#, 400, "yesterday"),
        (r#"{"streams":["topic:a"],"types":["a b"]}"#, 400, "a b"),
        (&long, 413, "65536"),
    ] {
        let (_, detail) = node.call("POST", "/v1/sse", &[], body).await.problem(status);
        assert!(detail.contains(named), "{body:.60}: {detail}");
    }
    let (_, detail) = node.call("POST", "/v1/sse?topic=a", &[], r#"{"streams":["topic:a"]}"#).await.problem(400);
    assert!(detail.contains("'topic'"), "{detail}");
    let multipart = [("Content-Type", "multipart/form-data")];
    node.call("POST", "/v1/sse", &multipart, r#"{"streams":["topic:a"]}"#).await.problem(415);
}
