//! CloudEvents: in, in the three modes of the HTTP binding, and out, over every way in which events are read.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::command::run;
use crate::support::http::Answer;
use crate::support::node::{Node, events_path};
use crate::support::producers::python;
use crate::support::redis::RedisServer;
use crate::support::token::{SECRET, device};
use crate::support::world::{World, promises};

promises! {
    everywhere:
        a_listener_is_given_the_data_alone_unless_it_asks_for_cloudevents,
        a_cloudevent_goes_out_as_it_came_with_its_stream_and_id,
        any_event_is_a_cloudevent_for_who_wants_them,
        a_client_of_cloudevents_resumes_and_catches_up,
        an_ephemeral_cloudevent_reaches_who_is_connected;
    on_redis:
        source_and_id_are_the_idempotency_key,
}

const STRUCTURED: (&str, &str) = ("Content-Type", "application/cloudevents+json; charset=utf-8");
const BATCH: (&str, &str) = ("Content-Type", "application/cloudevents-batch+json");
const NEWS: &str = "/v1/topics/news/cloudevents";

fn order(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": "com.example.order.paid", "subject": "order 17 – ü",
        "time": "2025-11-22T07:03:20.123456+01:00", "dataschema": "https://example.com/order", "partitionkey": "a",
        "sequence": 7, "test": true, "data": {"order": 17},
    })
}

async fn post(node: &Node, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    node.call("POST", path, headers, body).await
}

/// Publishes one, and returns the id of its event, which the answer has in its Location alone.
async fn stored(node: &Node, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> String {
    let answer = post(node, path, headers, body).await;
    assert_eq!((answer.status, answer.text()), (201, ""), "{answer:?}");
    answer.header("location").unwrap().rsplit('/').next().unwrap().to_owned()
}

async fn published(node: &Node, event: &Value) -> String {
    stored(node, NEWS, &[STRUCTURED], event.to_string()).await
}

/// The next event, as the CloudEvent that it is.
async fn next(client: &mut Client) -> Value {
    serde_json::from_str(&client.event().await.data).unwrap()
}

/// What is to come out where this went in.
fn placed(event: &Value, stream: &str, id: &str) -> Value {
    let mut placed = event.clone();
    (placed["whimbrelstream"], placed["whimbrelid"]) = (stream.into(), id.into());
    placed
}

fn of_clouds(world: &World, streams: &[&str]) -> Wanted {
    world.wanted(streams).with("format", "cloudevents")
}

async fn a_listener_is_given_the_data_alone_unless_it_asks_for_cloudevents(world: World) {
    let node = world.node(&[]);
    let mut client = world.wanted(&["topic:news"]).connect(&node).await;
    let data = r#"{"n" :1.0, "ä":"\u00e4"}"#;
    let head = r#""specversion":"1.0","id":"1","source":"/shop","type":"com.example.order.paid""#;
    let id = stored(&node, NEWS, &[STRUCTURED], format!("{{{head},\"data\": {data} }}")).await;
    let event = client.event().await;
    assert_eq!((event.id, event.data.as_str()), (id, data));
    assert_eq!(event.kind, "com.example.order.paid");
    // Attributes are headers, and the data is of whatever type.
    let binary = |id| [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/shop"), ("ce-type", "a.b")];
    for (id, kind, body, expected) in [
        ("2", "application/json", data.as_bytes(), data),
        ("3", "text/plain", "Grüße \"x\"".as_bytes(), r#""Grüße \"x\"""#),
        ("4", "application/octet-stream", b"\x00\x01\xff", r#""AAH/""#),
    ] {
        let headers: Vec<_> = binary(id).into_iter().chain([("Content-Type", kind)]).collect();
        stored(&node, NEWS, &headers, body).await;
        let event = client.event().await;
        assert_eq!((event.kind.as_str(), event.data.as_str()), ("a.b", expected), "{kind}");
    }
    stored(&node, NEWS, &binary("5"), "").await;
    assert_eq!(client.event().await.data, "null");
}

async fn a_cloudevent_goes_out_as_it_came_with_its_stream_and_id(world: World) {
    let [near, far] = world.nodes(&[]);
    let mut one = of_clouds(&world, &["topic:news"]).connect(&far).await;
    let mut several = of_clouds(&world, &["topic:news", "device:42"]).connect(&far).await;
    let id = published(&near, &order("A-17")).await;
    let expected = placed(&order("A-17"), "topic:news", &id);
    assert_eq!((next(&mut one).await, next(&mut several).await), (expected.clone(), expected.clone()));
    // Binary mode, with what has to be percent-encoded.
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "%22B%22%20%E2%82%AC"),
        ("ce-source", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
        ("ce-type", "com.example.file"),
        ("ce-subject", "\"quoted \\\"subject\\\"\""),
        ("ce-traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("Content-Type", "image/png"),
    ];
    let id = stored(&near, "/v1/devices/42/cloudevents", &headers, b"\x89PNG").await;
    let file = json!({
        "specversion": "1.0", "id": "\"B\" €", "source": "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "type": "com.example.file", "subject": "quoted \"subject\"", "datacontenttype": "image/png",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "data_base64": "iVBORw==",
    });
    let named = far.get("/v1/devices/42/log").await.json()["events"][0]["traceparent"].clone();
    assert_eq!(named, file["traceparent"], "the event's trace");
    let expected_file = placed(&file, "device:42", &id);
    assert_eq!(next(&mut several).await, expected_file);
    // Read back, also from the store.
    let history = near.get("/v1/topics/news/events?format=cloudevents").await;
    assert_eq!(history.header("content-type"), Some("application/cloudevents-batch+json"));
    assert_eq!(history.json(), json!([expected]));
    let event = far.get(&format!("/v1/devices/42/events/{id}?format=cloudevents")).await;
    assert_eq!(event.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(event.json(), expected_file);
}

async fn any_event_is_a_cloudevent_for_who_wants_them(world: World) {
    let node = world.node(&[]);
    let mut client = of_clouds(&world, &["device:a|b"]).connect(&node).await;
    let id = node.publish_with("device:a|b", "type=badge", "{\n\"n\" :1}").await;
    let written = next(&mut client).await;
    let time = written["time"].as_str().unwrap().to_owned();
    let ms = OffsetDateTime::parse(&time, &Rfc3339).unwrap().unix_timestamp_nanos() / 1_000_000;
    assert_eq!(id.split('-').next().unwrap(), ms.to_string());
    let expected = json!({
        "specversion": "1.0", "id": id, "source": "/v1/devices/a%7Cb", "type": "badge", "time": time,
        "datacontenttype": "application/json", "data": {"n": 1}, "whimbrelstream": "device:a|b", "whimbrelid": id,
    });
    assert_eq!(written, expected);
    assert_eq!(node.get_json(&format!("{}?format=cloudevents", events_path("device:a%7Cb"))).await, json!([expected]));
}

async fn a_client_of_cloudevents_resumes_and_catches_up(world: World) {
    let [first, second] = world.nodes(&[("WHIMBREL_RETENTION", "*=1000/3600")]);
    let mut client = of_clouds(&world, &["topic:news", "topic:sport"]).connect(&first).await;
    published(&first, &order("1")).await;
    assert_eq!(next(&mut client).await["id"], "1");
    let cursor = client.cursor();
    drop(client);
    for n in 2..200 {
        published(&first, &order(&n.to_string())).await;
    }
    first.publish("topic:sport", "\"plain\"").await;
    let mut client = of_clouds(&world, &["topic:news", "topic:sport"]).from(&cursor).connect(&second).await;
    let (mut ids, mut plain) = (Vec::new(), 0);
    while ids.len() + plain < 199 {
        let event = next(&mut client).await;
        match event["whimbrelstream"].as_str() {
            Some("topic:sport") => plain += 1,
            _ => ids.push(event["id"].as_str().unwrap().to_owned()),
        }
    }
    assert_eq!((ids, plain), ((2..200).map(|n| n.to_string()).collect(), 1));
    // Live again.
    published(&first, &order("200")).await;
    assert_eq!(next(&mut client).await["id"], "200");
}

async fn an_ephemeral_cloudevent_reaches_who_is_connected(world: World) {
    let node = world.node(&[]);
    let mut client = of_clouds(&world, &["topic:news"]).connect(&node).await;
    let answer = post(&node, &format!("{NEWS}?ephemeral=1"), &[STRUCTURED], order("1").to_string()).await;
    assert_eq!((answer.status, answer.text()), (202, ""));
    let Said::Ephemeral { data, kind, .. } = client.next().await else { panic!("nothing ephemeral") };
    let mut expected = order("1");
    expected["whimbrelstream"] = "topic:news".into();
    assert_eq!((kind.as_str(), serde_json::from_str::<Value>(&data).unwrap()), ("com.example.order.paid", expected));
    assert_eq!(node.history("topic:news").await, [""; 0]);
}

async fn source_and_id_are_the_idempotency_key(world: World) {
    let [node, other] = world.nodes(&[]);
    let id = published(&node, &order("1")).await;
    let repeated = post(&other, NEWS, &[STRUCTURED], order("1").to_string()).await;
    assert_eq!((repeated.status, repeated.text()), (204, ""));
    assert!(repeated.header("location").unwrap().ends_with(&id));
    let mut another = order("1");
    another["data"] = json!(18);
    assert_eq!(post(&node, NEWS, &[STRUCTURED], another.to_string()).await.problem(422).0, "key-reused");
    another["source"] = "/other".into();
    assert!(published(&node, &another).await != id);
    // A key in the header takes the place of theirs.
    let keyed = [STRUCTURED, ("Idempotency-Key", "mine")];
    let first = stored(&node, NEWS, &keyed, order("1").to_string()).await;
    assert!(first != id);
    assert_eq!(post(&node, NEWS, &keyed, order("2").to_string()).await.status, 204, "the same data under the same key");
    let outcomes = post(&node, NEWS, &[BATCH], json!([order("1"), order("9"), order("9")]).to_string()).await.json();
    let duplicates: Vec<_> =
        outcomes["results"].as_array().unwrap().iter().map(|result| &result["duplicate"]).collect();
    assert_eq!(duplicates, [true, false, true]);
}

#[tokio::test]
async fn a_batch_is_answered_entry_by_entry() {
    let node = Node::start(&[("WHIMBREL_MAX_EVENT_BYTES", "1000")]);
    let mut large = order("3");
    large["data"] = "x".repeat(1000).into();
    let mut odd = order("4");
    odd["type"] = "a b".into();
    let mut old = order("5");
    old["specversion"] = "0.3".into();
    let entries = json!([order("1"), 17, {"id": "2"}, large, odd, old, order("6")]);
    for kind in [BATCH, ("Content-Type", "application/json")] {
        let answer = post(&node, NEWS, &[kind], entries.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let results = answer.json()["results"].as_array().unwrap().clone();
        let said: Vec<_> = results.iter().map(|r| r["error"].as_str().or(r["stream"].as_str()).unwrap()).collect();
        let expected = [
            "topic:news",
            "invalid-entry",
            "invalid-entry",
            "too-large",
            "invalid-type",
            "invalid-entry",
            "topic:news",
        ];
        assert_eq!(said, expected);
        assert!(results[2]["detail"].as_str().unwrap().contains("'specversion' is missing"), "{results:?}");
        assert!(results[5]["detail"].as_str().unwrap().contains("0.3"), "{results:?}");
    }
    assert_eq!(node.history("topic:news").await.len(), 2);
    let refused = post(&node, &format!("{NEWS}?durable=disk"), &[BATCH], "[]").await;
    assert!(refused.problem(400).1.contains("durable"));
    let refused = post(&node, NEWS, &[BATCH, ("Idempotency-Key", "k")], "[]").await;
    assert!(refused.problem(400).1.contains("Idempotency-Key"));
    let many = format!("[{}]", vec!["1"; 10_001].join(","));
    assert_eq!(post(&node, NEWS, &[BATCH], many).await.problem(413).0, "too-large");
}

#[tokio::test]
async fn each_cloudevent_may_name_its_stream() {
    let node = Node::start(&[]);
    let path = "/v1/cloudevents";
    let to = |stream: &str, id: &str| placed(&order(id), stream, "1-1");
    let id = stored(&node, path, &[STRUCTURED], to("device:42", "1").to_string()).await;
    let read = node.get_json("/v1/devices/42/events?format=cloudevents").await;
    assert_eq!(read, json!([placed(&order("1"), "device:42", &id)]), "the id is the one that it has here");
    let batch = json!([to("topic:a", "2"), to("nowhere", "3"), order("4")]).to_string();
    let results = post(&node, path, &[BATCH], batch).await.json()["results"].clone();
    assert_eq!((&results[0]["stream"], &results[1]["error"]), (&json!("topic:a"), &json!("invalid-name")));
    assert!(results[2]["detail"].as_str().unwrap().contains("whimbrelstream"), "{results}");
    let missing = post(&node, path, &[STRUCTURED], order("5").to_string()).await;
    assert!(missing.problem(400).1.contains("'whimbrelstream' is missing"));
    // Where the address says it, that counts.
    stored(&node, NEWS, &[STRUCTURED], to("topic:a", "6").to_string()).await;
    assert_eq!(node.history("topic:a").await.len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_cloudevent_is_named() {
    let node = Node::start(&[]);
    let refused = async |headers: &[(&str, &str)], body: String| post(&node, NEWS, headers, body).await.problem(400).1;
    for (name, value, named) in [
        ("specversion", json!("0.3"), "'specversion' is '0.3'"),
        ("specversion", Value::Null, "'specversion' is missing"),
        ("id", Value::Null, "'id' is missing"),
        ("source", json!(""), "'source'"),
        ("type", Value::Null, "'type' is missing"),
        ("type", json!("x".repeat(129)), "'type'"),
        ("type", json!("whimbrel:gap"), "'type'"),
        ("time", json!("yesterday"), "'time'"),
        ("nested", json!({}), "'nested'"),
        ("not_a_name", json!("x"), "'not_a_name'"),
        ("data_base64", json!("AAH/"), "data_base64"),
        ("long", json!("x".repeat(9000)), "8192"),
    ] {
        let mut event = order("1");
        event[name] = value;
        let detail = refused(&[STRUCTURED], event.to_string()).await;
        assert!(detail.contains(named), "{name}: {detail}");
    }
    assert!(refused(&[STRUCTURED], "{".into()).await.contains("JSON"));
    assert!(refused(&[("Content-Type", "application/json")], "{\"a\":1}".into()).await.contains("missing"));
    let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "a")];
    let text = [("Content-Type", "application/json")];
    assert_eq!(post(&node, NEWS, &[&headers[..], &text].concat(), "{").await.problem(400).0, "invalid-json");
    assert!(refused(&[&headers[..], &[("ce-time", "now")]].concat(), "1".into()).await.contains("'time'"));
    for other in
        ["application/cloudevents+xml", "application/cloudevents+avro", "application/cloudevents+json; charset=latin1"]
    {
        let answer = post(&node, NEWS, &[("Content-Type", other)], "x").await;
        assert_eq!(answer.problem(415).0, "unsupported-media-type", "{other}");
    }
    assert_eq!(post(&node, NEWS, &[STRUCTURED, ("Content-Encoding", "gzip")], "x").await.status, 415);
    let known = node.get("/v1/topics/news/events?format=xml").await.problem(400).1;
    assert!(known.contains("known: cloudevents"), "{known}");
    let both = node.call("GET", "/v1/sse?topic=a&envelope=1&format=cloudevents", &[], "").await.problem(400).1;
    assert!(both.contains("'envelope'"), "{both}");
    assert_eq!(node.history("topic:news").await, [""; 0], "nothing was stored");
}

#[tokio::test]
async fn a_gap_has_its_place_in_a_history_of_cloudevents() {
    let redis = RedisServer::start_with(&["--stream-node-max-entries", "1"]);
    let node = Node::on(&redis, &[("WHIMBREL_RETENTION", "*=2/3600")]);
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(published(&node, &order(&n.to_string())).await);
    }
    let read = node.get_json(&format!("/v1/topics/news/events?format=cloudevents&after={}", ids[0])).await;
    let (gap, event) = (&read[0], &read[1]);
    assert_eq!((&gap["type"], &gap["data"]["reason"]), (&json!("whimbrel:gap"), &json!("trimmed")), "{read}");
    assert_eq!((&gap["data"]["after"], &gap["data"]["next"]), (&json!(ids[0]), &event["whimbrelid"]));
}

#[tokio::test]
async fn what_a_cloudevent_said_moves_with_its_stream_and_outlives_a_kill() {
    let (redis, data) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let settings = [("WHIMBREL_DATA_DIR", data.path().to_str().unwrap())];
    let node = Node::start(&settings);
    let id = published(&node, &order("1")).await;
    node.publish("topic:news", "2").await;
    node.kill();
    let node = Node::start(&settings);
    let read = "/v1/topics/news/events?format=cloudevents";
    let kept = node.get_json(read).await;
    assert_eq!(kept[0], placed(&order("1"), "topic:news", &id));
    let exported = run(&["export", "--url", &node.url(), "topic:news"], &[], b"").await;
    let other = Node::on(&redis, &[]);
    let imported = run(&["import", "--url", &other.url()], &[], exported.stdout.as_bytes()).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(other.get_json(read).await, kept);
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).with("format", "cloudevents").after("earliest");
    client = client.with("types", "com.example.order.paid");
    assert_eq!(next(&mut client.connect(&other).await).await, kept[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_cloudevents_sends_and_reads_them_on_both_stores() {
    let redis = RedisServer::start();
    for node in [Node::start(&[]), Node::on(&redis, &[])] {
        python("tests/tools/cloudevents_sdk.py", &[&node.url()]).end().await;
    }
}

#[tokio::test]
async fn a_sender_that_asks_for_consent_to_deliver_gets_it() {
    let node = Node::start(&[]);
    let asked = [("WebHook-Request-Origin", "eventgrid.azure.net"), ("WebHook-Request-Rate", "120")];
    let answer = node.call("OPTIONS", NEWS, &asked, "").await;
    assert_eq!((answer.status, answer.header("webhook-allowed-origin")), (204, Some("eventgrid.azure.net")));
    assert_eq!(answer.header("webhook-allowed-rate"), Some("*"));
    assert!(answer.header("allow").unwrap().contains("POST"));
    assert_eq!(node.call("OPTIONS", "/v1/topics/news/events", &asked, "").await.header("webhook-allowed-origin"), None);
}

#[tokio::test]
async fn a_sink_is_bound_by_the_rights_of_its_key() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let key = "a-key-that-publishes-orders-0123";
    let content = json!([{"name": "shop", "key": key, "scopes": ["publish"], "streams": ["topic:orders"]}]);
    std::fs::write(keys.path(), content.to_string()).unwrap();
    let settings = [("WHIMBREL_API_KEYS_FILE", keys.path().to_str().unwrap()), ("WHIMBREL_JWT_SECRET", SECRET)];
    let node = Node::start(&settings);
    let bearer = format!("Bearer {key}");
    let headers = [STRUCTURED, ("Authorization", &bearer)];
    stored(&node, "/v1/topics/orders/cloudevents", &headers, order("1").to_string()).await;
    assert_eq!(post(&node, NEWS, &headers, order("2").to_string()).await.status, 403);
    assert_eq!(post(&node, NEWS, &[STRUCTURED], order("2").to_string()).await.status, 401);
    // A sink that can only have an address.
    let token = device("sink", &[], &["topic:orders"]);
    let address = format!("/v1/topics/orders/cloudevents?token={token}");
    stored(&node, &address, &[STRUCTURED], order("3").to_string()).await;
    let elsewhere = placed(&order("4"), "topic:news", "1-1");
    let refused = post(&node, "/v1/cloudevents", &headers, elsewhere.to_string()).await;
    assert!(refused.problem(403).1.contains("topic:news"));
    let both = json!([placed(&order("5"), "topic:orders", "1-1"), elsewhere]).to_string();
    let results = post(&node, "/v1/cloudevents", &[BATCH, headers[1]], both).await.json()["results"].clone();
    assert_eq!((&results[0]["stream"], &results[1]["error"]), (&json!("topic:orders"), &json!("forbidden")));
}
