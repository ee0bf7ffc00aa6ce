//! One validation of an event's options for every way in: HTTP, a batch, WebSocket, the ingress stream, and the
//! function in Redis, which checks by itself.

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Map, Value, json};

use crate::fcall::{call, keys, loaded};
use crate::support::client::{Client, Transport, Wanted};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::redis::RedisServer;

/// An option, its value, and the part of a refusal that names what is wrong; `None` where it is taken.
type Case<'a> = (&'a str, &'a str, Option<&'a str>);

struct Ways {
    node: Node,
    raw: MultiplexedConnection,
    websocket: Client,
}

impl Ways {
    /// All ways into a node on this server.
    async fn of(redis: &RedisServer) -> Self {
        let node = Node::on(redis, &[]);
        let raw = redis.raw().await;
        loaded(&raw, "whimbrel_publish").await;
        let websocket = Wanted::new(Transport::WebSocket, &["topic:quiet"]).connect(&node).await;
        Ways { node, raw, websocket }
    }

    async fn http(&mut self, name: &str, value: &str) -> Result<(), String> {
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = "/v1/topics/http/events";
        let answer = match name {
            "key" => self.node.call("POST", path, &[("Idempotency-Key", value)], "1").await,
            "traceparent" => self.node.call("POST", path, &[("traceparent", value)], "1").await,
            _ => self.node.call("POST", &format!("{path}?{name}={encoded}"), &[], "1").await,
        };
        if answer.status == 201 { Ok(()) } else { Err(answer.problem(400).1) }
    }

    async fn batch(&mut self, name: &str, value: &str) -> Result<(), String> {
        let entry = with(json!({"topic": "batch", "data": 1}), name, value);
        let answer = self.node.call("POST", "/v1/events", &[], json!([entry]).to_string()).await.json();
        let result = &answer["results"][0];
        if result["id"].is_string() { Ok(()) } else { Err(result["detail"].as_str().unwrap().to_owned()) }
    }

    async fn websocket(&mut self, name: &str, value: &str) -> Result<(), String> {
        let operation = with(json!({"op": "publish", "stream": "topic:websocket", "data": 1}), name, value);
        let answer = self.websocket.ask(operation).await;
        if answer["op"] == "ok" { Ok(()) } else { Err(answer["detail"].as_str().unwrap().to_owned()) }
    }

    async fn ingress(&mut self, name: &str, value: &str) -> Result<(), String> {
        let stored: u64 = self.raw.xlen("whimbrel:{topic:ingress}:events").await.unwrap();
        let rejected: u64 = self.raw.xlen("whimbrel:ingress:rejected").await.unwrap();
        let fields = [("topic", "ingress"), ("data", "1"), (name, value)];
        let _: String = self.raw.xadd("whimbrel:ingress", "*", &fields).await.unwrap();
        eventually("the entry is taken or rejected", async || {
            let mut raw = self.raw.clone();
            if raw.xlen::<_, u64>("whimbrel:{topic:ingress}:events").await.unwrap() > stored {
                return Some(Ok(()));
            }
            if raw.xlen::<_, u64>("whimbrel:ingress:rejected").await.unwrap() == rejected {
                return None;
            }
            let last: redis::streams::StreamRangeReply =
                raw.xrevrange_count("whimbrel:ingress:rejected", "+", "-", 1).await.unwrap();
            Some(Err(last.ids[0].get::<String>("reason").unwrap()))
        })
        .await
    }

    async fn function(&mut self, name: &str, value: &str) -> Result<(), String> {
        let key = if name == "key" { value } else { "-" };
        let arguments = [&b"1"[..], name.as_bytes(), value.as_bytes()];
        let answer =
            call::<String>(&self.raw, "whimbrel_publish", &keys("whimbrel", "topic:function", key), &arguments).await;
        answer.map(drop).map_err(|error| error.to_string())
    }
}

/// Adds an option to a JSON object; a number as one, if it can be one.
fn with(mut object: Value, name: &str, value: &str) -> Value {
    let number = || serde_json::from_str::<Value>(value).ok().filter(|value| name == "ttl" && value.is_number());
    let fields: &mut Map<String, Value> = object.as_object_mut().unwrap();
    fields.insert(name.to_owned(), number().unwrap_or_else(|| value.into()));
    object
}

#[tokio::test]
async fn options_are_taken_and_refused_alike_on_every_way_in() {
    let redis = RedisServer::start();
    let mut ways = Ways::of(&redis).await;
    let [longest, too_long] = [128, 129].map(|count| "x".repeat(count));
    let visible = "128 visible ASCII characters";
    let cases: [Case<'_>; 28] = [
        ("type", "a.b_c:d/e-f", None),
        ("type", "message", None),
        ("type", &longest, None),
        ("type", &too_long, Some("1 to 128 characters")),
        ("type", "", Some("1 to 128 characters")),
        ("type", "open", Some("'open'")),
        ("type", "error", Some("'error'")),
        ("type", "whimbrel:gap", Some("whimbrel:")),
        ("type", "a b", Some("'a b'")),
        ("type", "caf\u{e9}", Some("1 to 128 characters")),
        ("ttl", "1", None),
        ("ttl", "31536000", None),
        ("ttl", "31536001", Some("31536001")),
        ("ttl", "0", Some("'0'")),
        ("ttl", "-1", Some("'-1'")),
        ("ttl", "1.5", Some("'1.5'")),
        ("ttl", "99999999999999999999", Some("ttl")),
        ("ttl", "1e3", Some("ttl")),
        ("collapse", "match-7", None),
        ("collapse", &longest, None),
        ("collapse", &too_long, Some(visible)),
        ("collapse", "", Some(visible)),
        ("collapse", "a b", Some(visible)),
        ("collapse", "caf\u{e9}", Some(visible)),
        ("key", &longest, None),
        ("key", &too_long, Some(visible)),
        ("key", "a b", Some(visible)),
        ("key", "caf\u{e9}", Some(visible)),
    ];
    for (name, value, wrong) in cases {
        let outcomes = [
            ("HTTP", ways.http(name, value).await),
            ("a batch", ways.batch(name, value).await),
            ("WebSocket", ways.websocket(name, value).await),
            ("the ingress stream", ways.ingress(name, value).await),
            ("the function", ways.function(name, value).await),
        ];
        for (way, outcome) in outcomes {
            match (outcome, wrong) {
                (Ok(()), None) => {}
                (Err(detail), Some(wrong)) if detail.contains(wrong) => {}
                (outcome, _) => panic!("{name} '{value}' over {way}: {outcome:?}, expected {wrong:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_trace_is_read_alike_on_every_way_in_and_refuses_no_event() {
    let redis = RedisServer::start();
    let mut ways = Ways::of(&redis).await;
    let streams = ["topic:http", "topic:batch", "topic:websocket", "topic:ingress", "topic:function"];
    let mut listener = Wanted::new(Transport::Sse, &streams).with("trace", "1").connect(&ways.node).await;
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let sound = |flags: &str| format!("00-{trace}-{parent}-{flags}");
    let (no_trace, no_parent) = ("0".repeat(32), "0".repeat(16));
    let cases = [
        (sound("01"), Some(sound("01"))),
        (sound("00"), Some(sound("00"))),
        (sound("03"), Some(sound("03"))),
        (sound("fd"), Some(sound("01"))),
        (format!("cc-{trace}-{parent}-01"), Some(sound("01"))),
        (format!("cc-{trace}-{parent}-01-more"), Some(sound("01"))),
        (format!("cc-{trace}-{parent}-01more"), None),
        (sound("01-more"), None),
        (sound("1"), None),
        (format!("ff-{trace}-{parent}-01"), None),
        (format!("00-{}-{parent}-01", trace.to_uppercase()), None),
        (format!("00-{no_trace}-{parent}-01"), None),
        (format!("00-{trace}-{no_parent}-01"), None),
        (format!("00-{parent}-{trace}-01"), None),
        ("none".to_owned(), None),
        (format!("00-{trace}-{parent}-{}", "\u{e9}"), None),
    ];
    for (given, expected) in cases {
        assert_eq!(ways.http("traceparent", &given).await, Ok(()));
        assert_eq!(ways.batch("traceparent", &given).await, Ok(()));
        assert_eq!(ways.websocket("traceparent", &given).await, Ok(()));
        assert_eq!(ways.ingress("traceparent", &given).await, Ok(()));
        assert_eq!(ways.function("traceparent", &given).await, Ok(()));
        for _ in streams {
            let event = listener.event().await;
            assert_eq!(event.trace, expected, "{given} over {}", event.stream);
        }
    }
}

/// A way in that takes leading zeros takes them as the others do.
#[tokio::test]
async fn a_ttl_with_leading_zeros_is_the_same_number_to_the_function() {
    let redis = RedisServer::start();
    let mut ways = Ways::of(&redis).await;
    assert_eq!(ways.http("ttl", "060").await, Ok(()));
    assert_eq!(ways.ingress("ttl", "060").await, Ok(()));
    assert_eq!(ways.function("ttl", "060").await, Ok(()));
}
