//! What is SSE's own: envelopes, signs of life, one stream's own address.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::support::chunks::Chunks;
use crate::support::client::{Client, Event, Said, Transport, Wanted};
use crate::support::http::{Answer, Http};
use crate::support::in_time;
use crate::support::node::Node;
use crate::support::producers::python;
use crate::support::world::World;

fn wanted(streams: &[&str]) -> Wanted {
    World::embedded(Transport::Sse).wanted(streams)
}

/// The text of an event stream.
struct Text(Chunks<BufReader<TcpStream>>);

impl Text {
    fn of(http: Http) -> Self {
        Text(Chunks::of(http.socket))
    }

    /// Reads on until the text ends so.
    async fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let line = in_time(end, self.0.line()).await.unwrap().unwrap_or_else(|| panic!("it ends after {text}"));
            text += &String::from_utf8(line).unwrap();
            text.push('\n');
        }
        text
    }
}

/// Reads from a socket until the bytes end so.
async fn bytes_until(http: &mut Http, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        assert!(in_time(end, http.socket.read_buf(&mut bytes)).await.unwrap() > 0, "{bytes:?}");
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn each_block_is_a_chunk_of_its_own() {
    // No ping comes in between.
    let node = Node::start(&[("WHIMBREL_PING_SECONDS", "600")]);
    for (query, several) in [("topic=news", false), ("topic=news&envelope=1", false), ("topic=news&topic=b", true)] {
        let mut http = Http::connect(node.address()).await;
        http.request("GET", &format!("/v1/sse?{query}"), &[], b"").await;
        let head = http.head().await;
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        bytes_until(&mut http, "\"}\n\n\r\n").await;
        node.publish("topic:news", "{\"a\":1}").await;
        let chunk = bytes_until(&mut http, "\n\n\r\n").await;
        let (size, block) = chunk.split_once("\r\n").unwrap();
        let block = block.strip_suffix("\r\n").unwrap();
        assert_eq!(usize::from_str_radix(size, 16), Ok(block.len()), "{chunk:?}");
        // With its position, which is another for each connection of several streams.
        assert!(block.starts_with(if several { "id: c1." } else { "id: " }), "{chunk:?}");
        assert!(block.contains("\ndata: ") && block.ends_with("\n\n"), "{chunk:?}");
    }
}

#[tokio::test]
async fn a_client_that_reads_in_blocks_is_given_each_event_at_once() {
    let node = Node::start(&[("WHIMBREL_DRAIN_DELAY_SECONDS", "0"), ("WHIMBREL_DRAIN_SECONDS", "0")]);
    let mut client = python("tests/tools/read_in_blocks.py", &[&format!("{}/v1/sse?topic=news", node.url())]);
    let mut printed = client.lines();
    let mut next = async || in_time("a line of the client", printed.next_line()).await.unwrap().unwrap();
    assert!(next().await.starts_with("{\"connection\":"));
    for n in 0..5 {
        node.publish("topic:news", &n.to_string()).await;
        // Nothing follows it that could push it out.
        assert_eq!(next().await, n.to_string());
    }
    node.signal(crate::support::Signal::TERM);
    assert!(next().await.contains("\"reason\":\"drain\""));
    assert_eq!(next().await, "the end", "to the client it is an orderly one");
    client.end().await;
}

#[tokio::test]
async fn a_stream_that_breaks_has_no_last_chunk() {
    let node = Node::start(&[]);
    let mut client = wanted(&["topic:news"]).connect(&node).await;
    node.publish("topic:news", "1").await;
    client.event().await;
    node.kill();
    assert_eq!(client.next().await, Said::Broken);
}

#[tokio::test]
async fn an_http_1_0_client_gets_blocks_without_chunks_until_the_connection_ends() {
    let drain = [("WHIMBREL_DRAIN_DELAY_SECONDS", "0"), ("WHIMBREL_DRAIN_SECONDS", "0")];
    let node = Node::start(&[drain[0], drain[1], ("WHIMBREL_PING_SECONDS", "600")]);
    let mut clients = Vec::new();
    for query in ["topic=news", "topic=news&heartbeat=1&envelope=1", "topic=news&topic=b"] {
        let mut http = Http::connect(node.address()).await;
        http.send(format!("GET /v1/sse?{query} HTTP/1.0\r\nHost: {}\r\n\r\n", node.address())).await;
        let head = http.head().await;
        assert_eq!((head.status, head.header("transfer-encoding"), head.header("content-length")), (200, None, None));
        let first = bytes_until(&mut http, "\"}\n\n").await;
        assert!(first.starts_with("retry: ") && !first.contains('\r'), "{first:?}");
        clients.push(http);
    }
    // One who speaks 1.1 shares the bytes.
    let mut modern = wanted(&["topic:news"]).connect(&node).await;
    let ids = [node.publish("topic:news", "1").await, node.publish("topic:news", "2").await];
    assert_eq!(modern.data(2).await, ["1", "2"]);
    let bare = bytes_until(&mut clients[0], "data: 2\n\n").await;
    assert_eq!(bare, format!("id: {}\ndata: 1\n\nid: {}\ndata: 2\n\n", ids[0], ids[1]));
    node.signal(crate::support::Signal::TERM);
    for mut http in clients {
        let rest = String::from_utf8(http.rest().await).unwrap();
        assert!(
            !rest.contains('\r') && rest.contains("event: whimbrel:close\n") && rest.ends_with("}\n\n"),
            "{rest:?}"
        );
    }
}

#[tokio::test]
async fn an_envelope_names_what_a_bare_event_does_not() {
    let node = Node::start(&[]);
    let mut bare = wanted(&["topic:news"]).connect(&node).await;
    let mut wrapped = wanted(&["topic:news"]).with("envelope", "1").connect(&node).await;
    let id = node.call("POST", "/v1/topics/news/events?type=price", &[], "{\"a\" :1}").await.id();
    let expected = Event {
        stream: "topic:news".into(),
        id: id.clone(),
        kind: "price".into(),
        data: "{\"a\" :1}".into(),
        trace: None,
    };
    assert_eq!(bare.event().await, expected);
    // The client checks the envelope's fields, and takes its event out of it.
    assert_eq!(wrapped.event().await, expected);
    assert_eq!((bare.cursor().id(), wrapped.cursor().id()), (id.as_str(), id.as_str()));
}

#[tokio::test]
async fn the_first_block_has_the_retry_and_the_position() {
    let node = Node::start(&[]);
    let id = node.publish("topic:news", "1").await;
    let mut http = Http::connect(node.address()).await;
    http.request("GET", "/v1/sse?topic=news", &[], b"").await;
    assert_eq!(http.head().await.status, 200);
    let text = Text::of(http).until("\n\n").await;
    let lines: Vec<_> = text.split('\n').collect();
    let retry: u64 = lines[0].strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1..60_000).contains(&retry));
    assert_eq!(lines[1..3], [&format!("id: {id}"), "event: whimbrel:position"]);
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
    let text = Text::of(http).until("\n\nevent: whimbrel:ping\ndata: {}\n\n").await;
    assert!(!text.contains("\n:"), "a heartbeat is no comment: {text:?}");
}

#[tokio::test]
async fn a_streams_own_address_is_a_live_stream_for_clients_that_accept_one() {
    let node = Node::start(&[]);
    let id = node.publish("device:a:b", "1").await;
    for accept in ["text/event-stream", "text/html, Text/Event-Stream;q=0.9"] {
        let mut http = Http::connect(node.address()).await;
        let path = "/v1/devices/a%3Ab/events?after=earliest";
        http.request("GET", path, &[("Accept", accept)], b"").await;
        let head = http.head().await;
        assert!(head.header("content-type").unwrap().starts_with("text/event-stream"), "{head:?}");
        Text::of(http).until(&format!("\nid: {id}\ndata: 1\n\n")).await;
    }
    let history = node.call("GET", "/v1/devices/a:b/events", &[("Accept", "*/*")], "").await;
    assert_eq!(history.header("content-type"), Some("application/json"));
    assert_eq!(history.json()["events"][0]["id"], id);
}

/// The headers that keep caches and proxies from holding a stream back.
#[track_caller]
fn is_no_stream_to_keep(answer: &Answer) {
    for (name, value) in [("cache-control", "no-store, no-transform"), ("x-accel-buffering", "no"), ("vary", "Accept")]
    {
        assert_eq!(answer.header(name), Some(value), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn two_last_event_ids_are_refused_as_ambiguous() {
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
    Text::of(http).until(&format!("id: {id}\ndata: 7\n\n")).await;
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
    let after = json!([at["cursor"], format!("topic:news/{}", ids[1])]);
    let mut client = asked_by_body(&node, json!({"streams": streams, "after": after})).await;
    assert_eq!(client.data(1).await, ["3"], "of several, each overrides those before it");
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
