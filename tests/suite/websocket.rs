//! What is WebSocket's own: operations, their answers, and frames of every kind.

use serde_json::{Value, json};

use crate::support::client::{Client, Cursor, Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::world::World;

fn wanted(streams: &[&str]) -> Wanted {
    Wanted::new(Transport::WebSocket, streams)
}

/// A frame's opcode.
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

fn closed(code: u16) -> Said {
    Said::Close { reason: "protocol".into(), code: Some(code) }
}

#[track_caller]
fn fault(answer: &Value, reference: &Value, named: &str) {
    assert_eq!((&answer["op"], &answer["ref"]), (&json!("error"), reference), "{answer}");
    assert!(answer["code"].as_str().is_some_and(|code| !code.is_empty()), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains(named), "{named}: {answer}");
}

#[tokio::test]
async fn ready_has_the_connection_its_node_and_its_positions() {
    let node = Node::start(&[]);
    let id = node.publish("device:42", "1").await;
    let client = wanted(&["topic:news", "device:42"]).connect(&node).await;
    let ready = &client.ready;
    assert!(ready["connection"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
    assert_eq!((&ready["node"], &ready["device"]), (&json!(node.id().await), &json!("42")));
    assert_eq!(ready["positions"]["device:42"], id);
    assert!(ready["positions"]["topic:news"].is_string());
}

#[tokio::test]
async fn the_subprotocol_is_confirmed_where_it_is_offered() {
    let node = Node::start(&[]);
    for (offered, confirmed) in [(Some("chat, whimbrel.v1"), Some("whimbrel.v1")), (Some("chat"), None), (None, None)] {
        let mut http = Http::connect(node.address()).await;
        let mut headers = vec![
            ("Upgrade", "WebSocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        headers.extend(offered.map(|offered| ("Sec-WebSocket-Protocol", offered)));
        http.request("GET", "/v1/ws?topic=a", &headers, b"").await;
        let head = http.head().await;
        assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, confirmed));
    }
}

#[tokio::test]
async fn a_subscription_is_answered_with_its_position_before_its_events() {
    let world = World::on_redis(Transport::WebSocket);
    let node = world.node(&[]);
    let ids = node.publish_all("topic:news", 0..300).await;
    let mut client = wanted(&[]).connect(&node).await;
    let answer =
        client.ask(json!({"op": "subscribe", "stream": "topic:news", "after": ids[9], "ref": {"my": 7}})).await;
    assert_eq!(answer, json!({"op": "ok", "ref": {"my": 7}, "stream": "topic:news", "position": ids[9]}));
    assert_eq!(client.data(290).await, (10..300).map(|n| n.to_string()).collect::<Vec<_>>());
    // From now on, which the answer makes a position to come back to.
    let answer = client.ask(json!({"op": "subscribe", "stream": "topic:sport"})).await;
    assert_eq!(answer.get("ref"), None);
    let Cursor::Ids(cursor) = client.cursor() else { unreachable!() };
    assert_eq!(answer["position"], cursor["topic:sport"]);
    node.publish("topic:sport", "1").await;
    assert_eq!(client.data(1).await, ["1"]);
    let late = wanted(&["topic:sport"]).after(&cursor["topic:sport"]);
    assert_eq!(late.connect(&node).await.data(1).await, ["1"]);
}

#[tokio::test]
async fn what_is_unsubscribed_brings_nothing_more_and_can_be_followed_again() {
    let node = Node::start(&[]);
    let mut client = wanted(&["topic:a", "topic:b"]).connect(&node).await;
    for round in 0..5 {
        let answer = client.ask(json!({"op": "unsubscribe", "stream": "topic:a", "ref": round})).await;
        assert_eq!(answer, json!({"op": "ok", "ref": round, "stream": "topic:a"}));
        node.publish("topic:a", "\"unheard\"").await;
        node.publish("topic:b", "\"heard\"").await;
        assert_eq!(client.data(1).await, ["\"heard\""]);
        assert_eq!(client.ask(json!({"op": "subscribe", "stream": "topic:a"})).await["op"], "ok");
        node.publish("topic:a", "\"again\"").await;
        assert_eq!(client.data(1).await, ["\"again\""]);
    }
}

#[tokio::test]
async fn a_publish_is_answered_with_its_id_and_delivered_byte_for_byte() {
    let node = Node::start(&[]);
    let mut client = wanted(&[]).connect(&node).await;
    let mut other = wanted(&["topic:a"]).connect(&node).await;
    let operation =
        r#"{"op":"publish","stream":"topic:a","type":"price","key":"k","ref":1,"data": { "a" : [1.0, "\u00e9"] } }"#;
    let mut publish = async || {
        client.frames().send(TEXT, true, operation.as_bytes()).await;
        client.answer().await
    };
    let (first, repeat) = (publish().await, publish().await);
    let event = other.event().await;
    assert_eq!((event.kind.as_str(), event.data.as_str()), ("price", r#"{ "a" : [1.0, "\u00e9"] }"#));
    assert_eq!(first, json!({"op": "ok", "ref": 1, "id": event.id, "stream": "topic:a", "duplicate": false}));
    assert_eq!(repeat, json!({"op": "ok", "ref": 1, "id": event.id, "stream": "topic:a", "duplicate": true}));
    let null = client.ask(json!({"op": "publish", "stream": "topic:a", "data": null})).await;
    assert_eq!(null["op"], "ok");
    assert_eq!(other.data(1).await, ["null"]);
}

#[tokio::test]
async fn a_publish_may_say_all_that_it_may_say_over_rest() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::on(&redis, &[]);
    let mut client = wanted(&[]).connect(&node).await;
    let mut other = wanted(&["topic:a"]).connect(&node).await;
    let publish = |data: u8| json!({"op": "publish", "stream": "topic:a", "data": data});
    let with = |data: u8, fields: Value| {
        let mut operation = publish(data);
        operation.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        operation
    };
    for operation in [
        with(1, json!({"ttl": 1, "type": "brief"})),
        with(2, json!({"collapse": "score"})),
        with(3, json!({"collapse": "score", "ttl": 1000})),
    ] {
        assert_eq!(client.ask(operation).await["op"], "ok");
    }
    let durable = client.ask(with(4, json!({"durable": "disk"}))).await;
    assert_eq!((&durable["op"], &durable["durable"]), (&json!("ok"), &json!({"disk": true})));
    let sent = client.ask(with(5, json!({"ephemeral": true, "type": "typing"}))).await;
    assert_eq!(sent, json!({"op": "ok", "stream": "topic:a", "nodes": 1}));
    // Unless this took so long that the first is no longer delivered.
    let mut received = Vec::new();
    let ephemeral = loop {
        match other.next().await {
            Said::Event(event) => received.push(event.data),
            Said::Position => {}
            said => break said,
        }
    };
    let expected = Said::Ephemeral { stream: "topic:a".into(), kind: "typing".into(), data: "5".into(), trace: None };
    assert_eq!((&received[received.len() - 3..], ephemeral), (&["2", "3", "4"].map(String::from)[..], expected));
    eventually("the brief one expires", async || (node.history("topic:a").await.len() == 3).then_some(())).await;
    let mut late = wanted(&["topic:a"]).after("earliest").connect(&node).await;
    assert_eq!(late.data(2).await, ["3", "4"], "neither what has expired nor what is superseded");
}

#[tokio::test]
async fn an_operation_that_makes_no_sense_is_an_error_with_its_ref_and_no_end() {
    let node = Node::start(&[("WHIMBREL_MAX_STREAMS", "2"), ("WHIMBREL_MAX_EVENT_BYTES", "100")]);
    let mut client = wanted(&["topic:a"]).connect(&node).await;
    for (operation, named) in [
        (json!({"op": "dance"}), "dance"),
        (json!({}), "op"),
        (json!({"op": "subscribe"}), "stream"),
        (json!({"op": "subscribe", "stream": "news"}), "news"),
        (json!({"op": "subscribe", "stream": "topic:a"}), "topic:a"),
        (json!({"op": "subscribe", "stream": "topic:b", "after": "yesterday"}), "yesterday"),
        (json!({"op": "unsubscribe", "stream": "topic:b"}), "topic:b"),
        (json!({"op": "publish", "stream": "topic:b"}), "data"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "type": "open"}), "open"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "key": "a b"}), "key"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "ttl": 0}), "ttl"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "ttl": "5"}), "ttl"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "collapse": "a b"}), "collapse"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "durable": "often"}), "often"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "durable": "disk"}), "disk"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "ephemeral": true, "ttl": 5}), "a ttl"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "ephemeral": true, "key": "k"}), "an idempotency key"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "ephemeral": 1}), "boolean"),
        (json!({"op": "subscribe", "stream": "topic:b", "after": "since:now"}), "'now'"),
        (json!({"op": "subscribe", "stream": "topic:b", "after": 5}), "string"),
        (json!({"op": "subscribe", "stream": 5}), "string"),
        (json!({"op": "subscribe", "stream": "topic:a b"}), "' '"),
        (json!({"op": "subscribe", "stream": "device:whimbrel:x"}), "whimbrel:"),
        (json!({"op": "unsubscribe", "stream": "topic:"}), "empty"),
        (json!({"op": "unsubscribe"}), "stream"),
        (json!({"op": "publish", "stream": "topic:whimbrel:lifecycle", "data": 1}), "whimbrel:"),
        (json!({"op": "publish", "stream": format!("topic:{}", "n".repeat(201)), "data": 1}), "201"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "type": "whimbrel:gap"}), "whimbrel:gap"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "type": ""}), "type"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "key": ""}), "key"),
        (json!({"op": "publish", "data": 1}), "stream"),
        // Misspelt, it would be another thing than was meant.
        (json!({"op": "subscribe", "stream": "topic:b", "afer": "earliest"}), "afer"),
        (json!({"op": "unsubscribe", "stream": "topic:a", "streams": []}), "streams"),
        (json!({"op": "publish", "stream": "topic:b", "data": 1, "tll": 5}), "tll"),
        (json!({"op": "publish", "stream": "topic:b", "data": "x".repeat(200)}), "100"),
    ] {
        let mut with_ref = operation.clone();
        with_ref["ref"] = json!("r");
        fault(&client.ask(with_ref).await, &json!("r"), named);
        let answer = client.ask(operation).await;
        assert!(answer["op"] == "error" && answer.get("ref").is_none(), "{answer}");
    }
    for nonsense in ["", "nonsense", "17", "[]", "{\"op\":\"ping\"", "{\"op\":5}"] {
        client.frames().send(TEXT, true, nonsense.as_bytes()).await;
        assert_eq!(client.answer().await["op"], "error", "{nonsense:?}");
    }
    assert_eq!(client.ask(json!({"op": "subscribe", "stream": "topic:b"})).await["op"], "ok");
    fault(&client.ask(json!({"op": "subscribe", "stream": "topic:c", "ref": 1})).await, &json!(1), "2 streams");
    assert_eq!(client.ask(json!({"op": "ping", "ref": 9})).await, json!({"op": "pong", "ref": 9}));
    assert_eq!(client.ask(json!({"op": "ping"})).await, json!({"op": "pong"}));
    node.publish("topic:a", "1").await;
    assert_eq!(client.data(1).await, ["1"], "it is still connected");
    assert_eq!(node.history("topic:b").await, [""; 0], "nothing is stored");
}

#[tokio::test]
async fn answers_come_in_the_order_of_their_operations() {
    let node = Node::start(&[]);
    let mut client = wanted(&[]).connect(&node).await;
    for n in 0..50 {
        client.say(&json!({"op": "publish", "stream": "topic:a", "data": n, "ref": n})).await;
    }
    for n in 0..50 {
        let answer = client.answer().await;
        assert_eq!((&answer["op"], &answer["ref"]), (&json!("ok"), &json!(n)));
    }
    let mut reader = wanted(&["topic:a"]).after("earliest").connect(&node).await;
    assert_eq!(reader.data(50).await, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_comes_with_the_handshake_is_not_lost() {
    let node = Node::start(&[]);
    let mut http = Http::connect(node.address()).await;
    let ping = crate::support::frame(TEXT, true, br#"{"op":"ping","ref":1}"#);
    let head = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        node.address()
    );
    http.send([head.as_bytes(), &ping].concat()).await;
    let mut client = wanted(&[]).taken_over(http).await;
    assert_eq!(client.answer().await, json!({"op": "pong", "ref": 1}));
}

#[tokio::test]
async fn frames_may_come_in_any_form_that_the_protocol_allows() {
    let node = Node::start(&[]);
    let mut client = wanted(&[]).connect(&node).await;
    client.frames().send(PING, true, b"are you there").await;
    assert_eq!(client.answer().await, json!({"frame": "are you there"}));
    // A message in fragments, with a control frame between them.
    client.frames().send(TEXT, false, br#"{"op":"pi"#).await;
    client.frames().send(PING, true, b"between").await;
    client.frames().send(CONTINUATION, false, br#"ng","re"#).await;
    assert_eq!(client.answer().await, json!({"frame": "between"}));
    client.frames().send(CONTINUATION, true, br#"f":2}"#).await;
    assert_eq!(client.answer().await, json!({"op": "pong", "ref": 2}));
    // One byte at a time.
    for byte in crate::support::frame(TEXT, true, br#"{"op":"ping","ref":3}"#) {
        client.frames().send_raw(&[byte]).await;
    }
    assert_eq!(client.answer().await, json!({"op": "pong", "ref": 3}));
    // A long one, and several at once.
    let padding = " ".repeat(60_000);
    client.frames().send(TEXT, true, format!(r#"{{"op":"ping",{padding}"ref":4}}"#).as_bytes()).await;
    assert_eq!(client.answer().await["ref"], 4);
    let two = [5, 6].map(|n| crate::support::frame(TEXT, true, format!(r#"{{"op":"ping","ref":{n}}}"#).as_bytes()));
    client.frames().send_raw(&two.concat()).await;
    assert_eq!((client.answer().await["ref"].clone(), client.answer().await["ref"].clone()), (json!(5), json!(6)));
}

#[tokio::test]
async fn what_is_not_allowed_ends_the_connection_with_its_code() {
    let node = Node::start(&[("WHIMBREL_MAX_EVENT_BYTES", "1000")]);
    let connect = async || wanted(&["topic:a"]).connect(&node).await;
    let end = async |mut client: Client| client.next().await;

    let mut client = connect().await;
    client.frames().send(BINARY, true, b"{}").await;
    assert_eq!(end(client).await, closed(1003));

    let mut client = connect().await;
    client.frames().send(TEXT, true, &b" ".repeat(10_000)).await;
    assert_eq!(end(client).await, closed(1009));

    // Announced only, and in fragments that are small each for itself.
    let mut client = connect().await;
    client.frames().send_raw(&[0x81, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 1, 2, 3, 4]).await;
    assert_eq!(end(client).await, closed(1009));
    let mut client = connect().await;
    client.frames().send(TEXT, false, &b" ".repeat(3000)).await;
    client.frames().send(CONTINUATION, false, &b" ".repeat(3000)).await;
    assert_eq!(end(client).await, closed(1009));

    let mut client = connect().await;
    client.frames().send(TEXT, true, b"\xff\xfe").await;
    assert_eq!(end(client).await, closed(1007));

    for wrong in [
        &[0x81, 2, b'{', b'}'][..], // not masked
        &[0xf1, 0x80, 0, 0, 0, 0],  // reserved bits
        &[0x83, 0x80, 0, 0, 0, 0],  // an unknown opcode
        &[0x09, 0x80, 0, 0, 0, 0],  // a control frame in fragments
        &[0x80, 0x80, 0, 0, 0, 0],  // the end of nothing
    ] {
        let mut client = connect().await;
        client.frames().send_raw(wrong).await;
        assert_eq!(end(client).await, closed(1002), "{wrong:x?}");
    }
    node.metric_is("connections{transport=\"websocket\"}", 0.0).await;
}

#[tokio::test]
async fn a_client_may_close() {
    let node = Node::start(&[]);
    let mut client = wanted(&["topic:a"]).connect(&node).await;
    client.frames().send(CLOSE, true, &[0x03, 0xe8, b'b', b'y', b'e']).await;
    assert_eq!(client.frames().closing().await, 1000);
    node.metric_is("connections{transport=\"websocket\"}", 0.0).await;
}

#[tokio::test]
async fn a_client_that_stops_answering_pings_is_ended_and_one_that_answers_is_not() {
    let node = Node::start(&[("WHIMBREL_PING_SECONDS", "1")]);
    let mut alive = wanted(&["topic:a"]).connect(&node).await;
    let mut dead = wanted(&["topic:a"]).connect(&node).await;
    dead.ignore_pings();
    let read = tokio::spawn(async move {
        let end = dead.next().await;
        (end, dead.pings)
    });
    while alive.pings < 4 {
        assert_eq!(alive.next_or_ping().await, Said::Ping);
    }
    let (end, pings) = crate::support::in_time("the end of the dead one", read).await.unwrap();
    assert_eq!(end, Said::Close { reason: "slow".into(), code: Some(4004) });
    assert!(pings >= 2, "it was asked more than once");
    node.publish("topic:a", "1").await;
    assert_eq!(alive.data(1).await, ["1"]);
    assert_eq!(node.metric("connections_closed_total{reason=\"slow\"}").await, 1.0);
}
