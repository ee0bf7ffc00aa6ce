//! Publishing one event: what is taken, what is answered, what is refused.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::client::Transport;
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        data_arrives_byte_for_byte;
    on_redis:
        a_repeat_with_the_same_key_stores_nothing,
}

async fn data_arrives_byte_for_byte(world: World) {
    let node = world.node(&[]);
    let mut client = world.wanted(&["topic:news"]).connect(&node).await;
    let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let datas = [
        r#"{"a":1}"#,
        "  { \"a\" :\t1 , \"a\": 2 }  ",
        "{\n  \"a\": [\n    1\n  ]\n}\n",
        r#""é \u00e9 \ud83d\ude00 😀 \/ \\ \" \n \u2028""#,
        "\"\u{2028}\u{7f}\u{feff}\"",
        "1.0",
        "1e400",
        "-0",
        "12345678901234567890123456789",
        "null",
        "\"\"",
        &deep,
    ];
    for data in datas {
        let id = node.publish("topic:news", data).await;
        let event = client.event().await;
        // In a WebSocket message, white space around the data is the message's own.
        let expected = if world.transport == Transport::Sse { data } else { data.trim() };
        assert_eq!((event.data.as_str(), event.id.as_str()), (expected, id.as_str()));
        let location = format!("/v1/topics/news/events/{id}");
        let read = node.get(&location).await;
        let (start, end) = (read.text().find("\"data\":").unwrap() + 7, read.text().len());
        assert!(read.text()[start..end].starts_with(data), "{}", read.text());
    }
    // Over SSE a carriage return in white space becomes a line feed, and nothing else changes.
    node.publish("topic:news", "{\"a\":\r\n1,\r\"b\\r\":2}").await;
    let expected = match world.transport {
        Transport::Sse => "{\"a\":\n\n1,\n\"b\\r\":2}",
        Transport::WebSocket => "{\"a\":\r\n1,\r\"b\\r\":2}",
    };
    assert_eq!(client.data(1).await, [expected]);
}

#[tokio::test]
async fn an_answer_shows_what_is_stored_and_where_to_read_it() {
    let node = Node::start(&[]);
    for (path, stream) in [("/v1/devices/a%7Cb:c/events", "device:a|b:c"), ("/v1/topics/n/events", "topic:n")] {
        let answer = node.call("POST", &format!("{path}?type=a/b"), &[], "[1, 2]").await;
        assert_eq!((answer.status, answer.header("content-type")), (201, Some("application/json")));
        let id = answer.id();
        assert_eq!(answer.json(), json!({"id": id, "stream": stream, "nodes": 0, "duplicate": false}));
        let location = answer.header("location").unwrap();
        let event = node.get_json(location).await;
        assert_eq!((&event["id"], &event["type"], &event["data"]), (&json!(id), &json!("a/b"), &json!([1, 2])));
        assert!(OffsetDateTime::parse(event["time"].as_str().unwrap(), &Rfc3339).is_ok());
    }
    assert_eq!(node.get("/v1/topics/n/events/1-1").await.problem(404).0, "not-found");
    assert_eq!(node.get("/v1/topics/n/events/one").await.problem(400).0, "bad-request");
}

#[tokio::test]
async fn text_becomes_a_json_string() {
    let node = Node::start(&[]);
    let mut client = World::embedded(Transport::Sse).wanted(&["topic:a"]).connect(&node).await;
    let text = "Grüße, \"Welt\"\n\\ \u{1} {\"a\":1}";
    let plain = [("Content-Type", "text/plain; charset=UTF-8")];
    node.call("POST", "/v1/topics/a/events", &plain, text).await.id();
    let data = client.data(1).await.remove(0);
    assert_eq!(serde_json::from_str::<String>(&data).unwrap(), text);
    let latin = node.call("POST", "/v1/topics/a/events", &plain, b"Gr\xfc\xdfe").await;
    assert!(latin.problem(400).1.contains("byte 2"));
}

#[tokio::test]
async fn text_that_looks_like_json_is_published_with_a_hint() {
    let node = Node::start(&[]);
    let publish = async |path: &str, kind: &str, body: &str| {
        node.call("POST", path, &[("Content-Type", kind)], body).await.json()["note"].clone()
    };
    let path = "/v1/topics/a/events";
    for body in [r#"{"a":1}"#, " [1, 2]\n"] {
        let note = publish(path, "text/plain;charset=UTF-8", body).await;
        assert!(note.as_str().unwrap().contains("Content-Type: application/json"), "{note}");
        assert!(publish("/v1/topics/a/events?ephemeral=1", "text/plain", body).await.is_string());
        assert!(publish(path, "application/json", body).await.is_null());
    }
    for body in ["hello", "{hello}", "5", "\"hello\""] {
        assert!(publish(path, "text/plain", body).await.is_null(), "{body}");
    }
}

#[tokio::test]
async fn what_names_no_other_kind_is_json_and_what_would_be_misread_is_refused() {
    let node = Node::start(&[]);
    let publish =
        async |name: &str, value: &str| node.call("POST", "/v1/topics/a/events", &[(name, value)], "{\"a\":1}").await;
    for taken in ["application/json", "application/x-www-form-urlencoded", "application/JSON; charset=utf-8", "x/y"] {
        publish("Content-Type", taken).await.id();
    }
    publish("Content-Encoding", "identity").await.id();
    for refused in [
        "multipart/form-data; boundary=x",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/json; charset=latin1",
    ] {
        assert_eq!(publish("Content-Type", refused).await.problem(415).0, "unsupported-media-type", "{refused}");
    }
    assert_eq!(publish("Content-Encoding", "gzip").await.problem(415).0, "unsupported-media-type");
    let detail = publish("Content-Type", "application/cloudevents+json").await.problem(415).1;
    assert!(detail.contains("/v1/topics/{topic}/cloudevents"), "it names the right address: {detail}");
}

#[tokio::test]
async fn an_ambiguous_publish_is_refused_and_nothing_is_stored() {
    let node = Node::start(&[]);
    let publish =
        async |headers: &[(&str, &str)], body: &str| node.call("POST", "/v1/topics/a/events", headers, body).await;
    let keys = publish(&[("Idempotency-Key", "a"), ("Idempotency-Key", "b")], "1").await;
    assert!(keys.problem(400).1.contains("Idempotency-Key"));
    for headers in [
        [("Content-Type", "text/plain"), ("Content-Type", "application/json")],
        [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
    ] {
        assert_eq!(publish(&headers, "1").await.problem(415).0, "unsupported-media-type");
    }
    let mut http = Http::connect(node.address()).await;
    let head = format!("POST /v1/topics/a/events HTTP/1.1\r\nHost: {}\r\n", node.address());
    http.send(format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n")).await;
    assert!(http.answer("POST").await.problem(415).1.contains("Transfer-Encoding"));
    for query in ["type=a&type=b", "ttl=5&ttl=6", "collapse=a&collapse=b", "ephemeral=1&ephemeral=0", "TYPE=a", "=1"] {
        let answer = node.call("POST", &format!("/v1/topics/a/events?{query}"), &[], "1").await;
        assert_eq!(answer.problem(400).0, "bad-request", "{query}");
    }
    assert_eq!(node.history("topic:a").await, [""; 0]);
}

#[tokio::test]
async fn a_bad_name_is_refused_wherever_it_stands() {
    let node = Node::start(&[]);
    let long = "n".repeat(201);
    for name in ["", "a%20b", "whimbrel:x", "..", "a%", "a%zz", "%C3%A9", &long] {
        for (method, rest) in [
            ("POST", "/events"),
            ("POST", "/cloudevents"),
            ("GET", "/events"),
            ("GET", "/events/1-1"),
            ("GET", ""),
            ("DELETE", ""),
            ("PUT", "/region"),
        ] {
            for kind in ["devices", "topics"] {
                let answer = node.call(method, &format!("/v1/{kind}/{name}{rest}"), &[], "1").await;
                assert_eq!(answer.problem(400).0, "invalid-name", "{method} {kind} {name}{rest}");
            }
        }
        for (method, path) in
            [("POST", "devices/NAME/ack"), ("DELETE", "devices/NAME/connections"), ("GET", "topics/NAME/connections")]
        {
            let answer = node.call(method, &format!("/v1/{}", path.replace("NAME", name)), &[], "1").await;
            assert_eq!(answer.problem(400).0, "invalid-name", "{method} {path} {name}");
        }
    }
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused_on_every_path_of_the_api() {
    let node = Node::start(&[]);
    let id = node.publish("device:42", "1").await;
    for (method, path) in [
        ("POST", "/v1/devices/42/events"),
        ("POST", "/v1/events"),
        ("GET", "/v1/devices/42/events"),
        ("GET", &format!("/v1/devices/42/events/{id}")),
        ("GET", "/v1/devices/42"),
        ("POST", "/v1/devices/42/ack"),
        ("DELETE", "/v1/devices/42/connections"),
        ("DELETE", "/v1/devices/42"),
        ("PUT", "/v1/devices/42/region"),
        ("GET", "/v1/topics/a"),
        ("GET", "/v1/topics/a/connections"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/regions"),
        ("GET", "/v1/sse"),
        ("GET", "/v1/ws"),
    ] {
        let (slug, detail) = node.call(method, &format!("{path}?bogus=1"), &[], "1").await.problem(400);
        assert!(slug == "bad-request" && detail.contains("'bogus'"), "{method} {path}: {detail}");
    }
    assert_eq!(node.history("device:42").await, ["1"], "nothing is stored, and nothing is gone");
}

#[tokio::test]
async fn bad_json_is_refused_with_its_place() {
    let node = Node::start(&[]);
    for (body, place) in [
        ("{\"a\":\n oops}", "line 2 column 2"),
        ("", "line 1 column 0"),
        ("{\"a\":1} x", "line 1 column 9"),
        ("'a'", "line 1 column 1"),
        ("[1,]", "line 1 column 4"),
        ("\"\\ud800\\u0041", "line 1"),
    ] {
        let (slug, detail) = node.call("POST", "/v1/topics/a/events", &[], body).await.problem(400);
        assert_eq!(slug, "invalid-json");
        assert!(detail.contains(place), "{body}: {detail}");
    }
    let (slug, _) = node.call("POST", "/v1/topics/a/events", &[], b"\"\xff\"").await.problem(400);
    assert_eq!(slug, "invalid-json");
    assert_eq!(node.get_json("/v1/topics/a/events").await["events"], json!([]));
}

#[tokio::test]
async fn an_event_may_be_as_large_as_was_set_and_no_larger() {
    let node = Node::start(&[("WHIMBREL_MAX_EVENT_BYTES", "1000")]);
    let mut client = World::embedded(Transport::WebSocket).wanted(&["topic:a"]).connect(&node).await;
    let data = format!("\"{}\"", "x".repeat(998));
    node.publish("topic:a", &data).await;
    assert_eq!(client.data(1).await, [data.as_str()]);
    let larger = format!("\"{}\"", "x".repeat(999));
    assert_eq!(node.call("POST", "/v1/topics/a/events", &[], &larger).await.problem(413).0, "too-large");
    // Without a length, and refused before it is there in whole.
    let mut http = Http::connect(node.address()).await;
    let head = format!("POST /v1/topics/a/events HTTP/1.1\r\nHost: {}\r\n", node.address());
    http.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3e9\r\n{larger}\r\n")).await;
    assert_eq!(http.answer("POST").await.problem(413).0, "too-large");
    let mut http = Http::connect(node.address()).await;
    http.send(format!("{head}Content-Length: 99999999999\r\n\r\n")).await;
    assert_eq!(http.answer("POST").await.problem(413).0, "too-large");
}

async fn a_repeat_with_the_same_key_stores_nothing(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut client = world.wanted(&["topic:a", "topic:b"]).connect(&second).await;
    let publish = async |node: &Node, topic: &str, key: &str, data: &str| {
        node.call("POST", &format!("/v1/topics/{topic}/events"), &[("Idempotency-Key", key)], data).await
    };
    let stored = publish(&first, "a", "\"k1\"", "1").await;
    assert_eq!(stored.status, 201);
    // Bare or quoted, on any node.
    let repeat = publish(&second, "a", "k1", "1").await;
    assert_eq!((repeat.status, repeat.id()), (200, stored.id()));
    assert_eq!(repeat.json()["duplicate"], true);
    assert_eq!(publish(&first, "a", "k1", "2").await.problem(422).0, "key-reused");
    // Another stream's keys are its own.
    assert_eq!(publish(&first, "b", "k1", "3").await.status, 201);
    for key in ["", "\"\"", "a b", &"k".repeat(129), "\u{e9}"] {
        assert_eq!(publish(&first, "a", key, "1").await.problem(400).0, "invalid-key", "{key:?}");
    }
    assert_eq!(publish(&first, "a", &"k".repeat(128), "4").await.status, 201);
    let mut received = client.data(3).await;
    received.sort();
    assert_eq!(received, ["1", "3", "4"]);
}

#[tokio::test]
async fn names_are_held_to_their_alphabet() {
    let node = Node::start(&[]);
    let longest = "n".repeat(200);
    for name in ["a", "A-Z.a_z~0:9@x%7C=", &longest, "...", "%61"] {
        assert_eq!(node.call("POST", &format!("/v1/devices/{name}/events"), &[], "1").await.status, 201, "{name}");
    }
    for name in
        ["a%20b", ".", "..", "%2E%2E", "whimbrel:x", "%2561", "a%2Fb", "a%00", "%C3%A9", "a,b", &"n".repeat(201)]
    {
        let answer = node.call("POST", &format!("/v1/devices/{name}/events"), &[], "1").await;
        assert_eq!(answer.problem(400).0, "invalid-name", "{name}");
    }
    assert_eq!(node.call("POST", "/v1/devices/%FF/events", &[], "1").await.status, 400);
    assert_eq!(node.call("POST", "/v1/topics/a/events?bogus=1", &[], "1").await.problem(400).0, "bad-request");
    for kind in ["open", "error", "whimbrel:x", "a%20b", "", &"t".repeat(129)] {
        let answer = node.call("POST", &format!("/v1/topics/a/events?type={kind}"), &[], "1").await;
        assert!(answer.problem(400).1.contains("type"), "{kind}");
    }
    assert_eq!(node.history("topic:a").await, [""; 0], "nothing is stored");
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_answered_as_problems() {
    let node = Node::start(&[]);
    for path in ["/nothing", "/v1", "/v1/", "/v1/topics", "/v1/topics/a/events/1-1/x", "/v2/events", "//", "/%2e%2e"] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        let (slug, detail) = answer.problem(404);
        assert!(slug == "not-found" && detail.contains(path), "{path}: {slug} {detail}");
    }
    for (method, path, allowed) in [
        ("DELETE", "/v1/topics/a/events", &["GET", "POST"][..]),
        ("GET", "/v1/events", &["POST"]),
        ("PUT", "/v1/sse", &["GET", "POST"]),
        ("PUT", "/v1/ws", &["GET"]),
        ("POST", "/metrics", &["GET"]),
        ("PATCH", "/health/ready", &["GET"]),
    ] {
        let answer = node.call(method, path, &[], "").await;
        assert_eq!(answer.problem(405).0, "method-not-allowed");
        let allow: Vec<&str> = answer.header("allow").unwrap().split(", ").collect();
        assert!(allowed.iter().all(|method| allow.contains(method)), "{method} {path}: {allow:?}");
        assert!(!allow.contains(&method), "{method} {path}: {allow:?}");
    }
    let options = node.call("OPTIONS", "/v1/events", &[], "").await;
    assert_eq!((options.status, options.header("allow")), (204, Some("POST, OPTIONS")));
}
