//! Rates, and the answers beyond them.

use serde_json::json;

use crate::support::client::{Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::http::{Answer, Http};
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        connects_of_one_address_beyond_the_rate_get_a_retry_after,
        an_address_has_no_more_connections_than_it_may;
    on_redis:
}

/// Asks for a stream, as forwarded for this client.
async fn connect(world: &World, node: &Node, client: &str, headers: &[(&str, &str)]) -> (Answer, Http) {
    let mut all = vec![("X-Forwarded-For", client)];
    all.extend_from_slice(headers);
    world.ask(node, &all).await
}

async fn connects_of_one_address_beyond_the_rate_get_a_retry_after(world: World) {
    let node = world.node(&[("WHIMBREL_RATE_CONNECT", "2"), ("WHIMBREL_TRUSTED_PROXIES", "127.0.0.0/8")]);
    let welcome = if world.transport == Transport::Sse { 200 } else { 101 };
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..8 {
        let (answer, http) = connect(&world, &node, "192.0.2.1", &[]).await;
        if answer.status == 429 {
            assert!((1..=4).contains(&answer.header("retry-after").unwrap().parse::<u64>().unwrap()), "{answer:?}");
            refused += 1;
        } else {
            assert_eq!(answer.status, welcome);
            held.push(http);
        }
    }
    assert!(held.len() >= 2 && refused >= 1, "{refused} refused");
    node.metric_is("requests_refused_total{reason=\"rate\"}", f64::from(refused)).await;
    // Others are not held up, and a client's own word about its address is not believed.
    assert_eq!(connect(&world, &node, "192.0.2.2", &[]).await.0.status, welcome);
    let spoofing = async |n: u32| connect(&world, &node, &format!("10.9.9.{n}, 192.0.2.3"), &[]).await.0.status;
    let mut answers = Vec::new();
    for n in 0..8 {
        answers.push(spoofing(n).await);
    }
    assert!(answers.contains(&429), "{answers:?}");
    // Probes and producers are not counted.
    for _ in 0..10 {
        assert_eq!(node.get("/health/ready").await.status, 200);
        node.publish("topic:news", "1").await;
    }
    eventually("the rate allows one more", async || {
        (connect(&world, &node, "192.0.2.1", &[]).await.0.status == welcome).then_some(())
    })
    .await;
}

async fn an_address_has_no_more_connections_than_it_may(world: World) {
    let node = world.node(&[("WHIMBREL_CONNECTIONS_PER_ADDRESS", "2")]);
    let wanted = world.wanted(&["topic:news"]);
    let mut first = wanted.connect(&node).await;
    let second = wanted.connect(&node).await;
    let code = (world.transport == Transport::WebSocket).then_some(1013);
    assert_eq!(wanted.turned_away(&node).await, Said::Close { reason: "overload".into(), code });
    node.publish("topic:news", "1").await;
    assert_eq!(first.data(1).await, ["1"]);
    drop(second);
    eventually("there is room", async || (node.get("/health/ready").await.json()["connections"] == 1).then_some(()))
        .await;
    let mut third = wanted.connect(&node).await;
    node.publish("topic:news", "2").await;
    assert_eq!(third.data(1).await, ["2"]);
}

#[tokio::test]
async fn an_event_source_that_comes_back_too_soon_is_not_lost_for_good() {
    let world = World::embedded(Transport::Sse);
    let node = world.node(&[("WHIMBREL_RATE_CONNECT", "1"), ("WHIMBREL_TRUSTED_PROXIES", "127.0.0.0/8")]);
    let id = node.publish("topic:news", "1").await;
    // The first uses up what there is; were the machine slow, the next would.
    let refusal = eventually("a refusal", async || {
        let (answer, mut http) = connect(&world, &node, "192.0.2.1", &[("Last-Event-ID", id.as_str())]).await;
        assert_eq!(answer.status, 200);
        let length = answer.header("content-length")?.parse().unwrap();
        let mut body = vec![0; length];
        tokio::io::AsyncReadExt::read_exact(&mut http.socket, &mut body).await.unwrap();
        Some(String::from_utf8(body).unwrap())
    })
    .await;
    assert!(refusal.starts_with("retry: ") && refusal.contains("\"reason\":\"overload\""), "{refusal}");
}

#[tokio::test]
async fn a_device_publishes_no_faster_than_it_may() {
    let node = Node::start(&[("WHIMBREL_RATE_DEVICE", "5")]);
    let mut device = Wanted::new(Transport::WebSocket, &["device:42"]).connect(&node).await;
    let mut answers = Vec::new();
    for number in 0..30 {
        let publish = json!({"op": "publish", "stream": "topic:chat", "data": number, "ref": number});
        let answer = device.ask(publish).await;
        assert_eq!(answer["ref"], number);
        answers.push(if answer["op"] == "ok" { "ok" } else { "rate" });
        assert!(answer["op"] == "ok" || answer["code"] == "rate", "{answer}");
    }
    assert!(answers.starts_with(&["ok"; 5]) && answers.contains(&"rate"), "{answers:?}");
    let stored = answers.iter().filter(|answer| **answer == "ok").count();
    assert_eq!(node.history("topic:chat").await.len(), stored);
    let mut other = Wanted::new(Transport::WebSocket, &["device:43"]).connect(&node).await;
    let answer = other.ask(json!({"op": "publish", "stream": "topic:chat", "data": 1, "ref": 1})).await;
    assert_eq!(answer["op"], "ok", "{answer}");
}

#[tokio::test]
async fn a_websocket_client_that_floods_is_refused_and_then_let_go() {
    let node = Node::start(&[("WHIMBREL_RATE_MESSAGES", "20")]);
    let mut flooding = Wanted::new(Transport::WebSocket, &["topic:news"]).connect(&node).await;
    let mut calm = Wanted::new(Transport::WebSocket, &["topic:news"]).connect(&node).await;
    for number in 0..200 {
        flooding.say(&json!({"op": "ping", "ref": number})).await;
    }
    let (mut answered, mut refused) = (0, 0);
    let end = loop {
        match flooding.next().await {
            Said::Answer(answer) if answer["op"] == "pong" => answered += 1,
            Said::Answer(answer) => {
                assert_eq!(answer["code"], "rate", "{answer}");
                assert!(answer["ref"].is_u64(), "{answer}");
                refused += 1;
            }
            end => break end,
        }
    };
    assert_eq!(end, Said::Close { reason: "protocol".into(), code: Some(1008) });
    assert!(answered >= 20 && refused >= 20, "{answered} answered, {refused} refused");
    node.publish("topic:news", "1").await;
    assert_eq!(calm.data(1).await, ["1"]);
}
