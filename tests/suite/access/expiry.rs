//! Tokens end, are renewed, and are revoked, while their clients are connected.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::redis::RedisServer;
use crate::support::token::{now, token};

/// A token of device 42 that ends in so many seconds, and may follow these topics.
fn ending_in(seconds: u64, topics: &[&str]) -> String {
    token(json!({"sub": "42", "iat": now(), "exp": now() + seconds, "whimbrel": {"subscribe": topics}}))
}

fn closed_for(reason: &str, transport: Transport, code: u16) -> Said {
    Said::Close { reason: reason.into(), code: (transport == Transport::WebSocket).then_some(code) }
}

/// A client's next message apart from the notice that its token ends.
async fn after_the_notice(client: &mut Client) -> Said {
    match client.next().await {
        Said::Expiring => client.next().await,
        said => said,
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_token_and_is_notified_before_once() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    for transport in [Transport::Sse, Transport::WebSocket] {
        let wanted = Wanted::new(transport, &["device:42"]);
        let mut client = wanted.bearer(&ending_in(2, &[])).connect(&node).await;
        assert_eq!(client.next().await, Said::Expiring);
        assert_eq!(client.next().await, closed_for("expired", transport, 4002));
    }
    node.metric_is_for(ADMIN, "connections_closed_total{reason=\"expired\"}", 2.0).await;
}

#[tokio::test]
async fn a_websocket_renews_its_token_and_loses_what_the_new_one_does_not_name() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let streams = ["device:42", "topic:news", "topic:sport"];
    let first = ending_in(5, &streams[1..]);
    let mut client = Wanted::new(Transport::WebSocket, &streams).bearer(&first).connect(&node).await;
    assert_eq!(client.next().await, Said::Expiring);
    let other = token(json!({"sub": "7", "exp": now() + 3600}));
    assert_eq!(client.ask(json!({"op": "renew", "token": other})).await["code"], "forbidden");
    assert_eq!(client.ask(json!({"op": "renew", "token": "made up"})).await["code"], "unauthorized");
    client.say(&json!({"op": "renew", "token": ending_in(3600, &["topic:news"]), "ref": 1})).await;
    assert_eq!(client.answer().await, json!({"op": "unsubscribed", "stream": "topic:sport"}));
    let renewed = client.answer().await;
    assert!(renewed["op"] == "ok" && renewed["expires"].as_u64().unwrap() > now() + 3000, "{renewed}");
    // The first token's time passes, and the client is still there.
    eventually("the end of the first token", async || (now() > first_end(&first)).then_some(())).await;
    let id = ask_as(&node, Some(PUBLISH), "POST", "/v1/topics/news/events", "1").await.id();
    assert_eq!(client.event().await.id, id);
    assert_eq!(client.ask(json!({"op": "subscribe", "stream": "topic:sport"})).await["code"], "forbidden");
}

/// The `exp` of a token.
fn first_end(token: &str) -> u64 {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["exp"].as_u64().unwrap()
}

#[tokio::test]
async fn any_node_renews_an_sse_connection_wherever_it_is() {
    let (redis, keys) = (RedisServer::start(), keys_file());
    let settings = closed(&keys);
    let nodes = [Node::on(&redis, &borrowed(&settings)), Node::on(&redis, &borrowed(&settings))];
    for asked in [&nodes[0], &nodes[1]] {
        let first = ending_in(5, &["topic:news"]);
        // One that follows no inbox, and so is in no list of its device.
        let mut client = Wanted::new(Transport::Sse, &["topic:news"]).bearer(&first).connect(&nodes[0]).await;
        let path = format!("/v1/connections/{}/renew", client.connection());
        let renewed = ask_as(asked, Some(&ending_in(3600, &["topic:news"])), "POST", &path, "").await;
        assert_eq!(renewed.status, 200, "{}", renewed.text());
        let other = token(json!({"sub": "7", "whimbrel": {"subscribe": ["topic:news"]}}));
        ask_as(asked, Some(&other), "POST", &path, "").await.problem(403);
        ask_as(asked, None, "POST", &path, "").await.problem(401);
        eventually("the end of the first token", async || (now() > first_end(&first)).then_some(())).await;
        let id = ask_as(&nodes[1], Some(PUBLISH), "POST", "/v1/topics/news/events", "1").await.id();
        let event = after_the_notice(&mut client).await;
        assert!(matches!(&event, Said::Event(event) if event.id == id), "{event:?}");
        // A token that no longer names the stream ends it.
        assert_eq!(ask_as(asked, Some(&ending_in(3600, &[])), "POST", &path, "").await.status, 200);
        assert_eq!(client.next().await, closed_for("expired", Transport::Sse, 0));
    }
    let gone = format!("/v1/connections/{}/renew", uuid::Uuid::new_v4());
    ask_as(&nodes[1], Some(&ending_in(60, &[])), "POST", &gone, "").await.problem(404);
}

#[tokio::test]
async fn a_token_for_one_more_stream_lasts_until_its_own_expiry() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let mut client = Wanted::new(Transport::WebSocket, &[]).bearer(&ending_in(3600, &[])).connect(&node).await;
    let others = token(json!({"sub": "7", "whimbrel": {"subscribe": ["topic:news"]}}));
    let subscribe = |token: &str| json!({"op": "subscribe", "stream": "topic:news", "token": token});
    assert_eq!(client.ask(subscribe(&others)).await["code"], "forbidden");
    assert_eq!(client.ask(subscribe(&ending_in(2, &["topic:other"]))).await["code"], "forbidden");
    assert_eq!(client.ask(subscribe(&ending_in(2, &["topic:news"]))).await["op"], "ok");
    assert_eq!(client.answer().await, json!({"op": "unsubscribed", "stream": "topic:news"}));
    assert_eq!(client.ask(json!({"op": "ping"})).await["op"], "pong", "the connection goes on");
}

/// Revokes with a key that may, and returns the id.
async fn revoke(node: &Node, body: serde_json::Value) -> String {
    let answer = ask_as(node, Some(ADMIN), "POST", "/v1/revocations", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn status_with(node: &Node, token: &str) -> u16 {
    ask_as(node, Some(token), "GET", "/v1/whoami", "").await.status
}

#[tokio::test]
async fn a_revocation_ends_connections_on_all_nodes_and_holds_on_those_that_start_later() {
    let (redis, keys) = (RedisServer::start(), keys_file());
    let settings = closed(&keys);
    let nodes = [Node::on(&redis, &borrowed(&settings)), Node::on(&redis, &borrowed(&settings))];
    let old = token(json!({"sub": "42", "iat": now() - 10}));
    let without = token(json!({"sub": "42"}));
    let others = token(json!({"sub": "7", "iat": now() - 10}));
    for transport in [Transport::Sse, Transport::WebSocket] {
        let mut bystander = Wanted::new(transport, &["device:7"]).bearer(&others).connect(&nodes[1]).await;
        let mut clients = Vec::new();
        for node in &nodes {
            clients.push(Wanted::new(transport, &["device:42"]).bearer(&old).connect(node).await);
        }
        let id = revoke(&nodes[0], json!({"device": "42"})).await;
        let begun = Instant::now();
        for client in &mut clients {
            assert_eq!(client.next().await, closed_for("revoked", transport, 4005));
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let later = Node::on(&redis, &borrowed(&settings));
        for node in [&nodes[0], &nodes[1], &later] {
            let refusal = ask_as(node, Some(&old), "GET", "/v1/whoami", "").await.problem(401);
            assert!(refusal.1.contains("revoked"), "{}", refusal.1);
            assert_eq!(status_with(node, &without).await, 401, "without iat it counts as issued before");
            assert_eq!(status_with(node, &token(json!({"sub": "42", "iat": now() + 2}))).await, 200);
            assert_eq!(status_with(node, &others).await, 200);
        }
        let id_of = ask_as(&nodes[1], Some(PUBLISH), "POST", "/v1/devices/7/events", "1").await.id();
        assert_eq!(bystander.event().await.id, id_of);
        let path = format!("/v1/revocations/{id}");
        assert_eq!(ask_as(&later, Some(ADMIN), "GET", &path, "").await.json()["device"], "42");
        assert_eq!(ask_as(&later, Some(ADMIN), "DELETE", &path, "").await.status, 204);
        ask_as(&later, Some(ADMIN), "GET", &path, "").await.problem(404);
        for node in &nodes {
            eventually("the lifting", async || (status_with(node, &old).await == 200).then_some(())).await;
        }
    }
}

#[tokio::test]
async fn an_sse_client_that_was_revoked_is_stopped_from_reconnecting() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let token = token(json!({"sub": "42", "jti": "t-1"}));
    let wanted = Wanted::new(Transport::Sse, &["device:42"]).bearer(&token);
    let mut client = wanted.connect(&node).await;
    revoke(&node, json!({"token": "t-1", "seconds": 60})).await;
    assert_eq!(client.next().await, closed_for("revoked", Transport::Sse, 0));
    // With a new token that it was given since, the stop mark still stops an EventSource.
    let renewed = Wanted::new(Transport::Sse, &["device:42"]).bearer(&ending_in(60, &[])).from(&client.cursor());
    assert_eq!(renewed.refused(&node).await.status, 204);
    wanted.refused(&node).await.problem(401);
    let listed = ask_as(&node, Some(ADMIN), "GET", "/v1/revocations", "").await.json();
    assert_eq!(listed["revocations"][0]["token"], "t-1", "{listed}");
}

#[tokio::test]
async fn a_revocation_outlives_the_store_that_lost_it_and_is_over_in_time() {
    let (redis, keys) = (RedisServer::start(), keys_file());
    let settings = closed(&keys);
    let node = Node::on(&redis, &borrowed(&settings));
    let token = token(json!({"sub": "42", "jti": "t-1"}));
    revoke(&node, json!({"token": "t-1"})).await;
    let mut raw = redis.raw().await;
    // As a failover to a replica that had not seen it yet.
    let _: () = redis::cmd("DEL").arg("whimbrel:revocations").query_async(&mut raw).await.unwrap();
    eventually("the node to put it back", async || {
        let count: u32 = redis::cmd("HLEN").arg("whimbrel:revocations").query_async(&mut raw).await.unwrap();
        (count > 1).then_some(())
    })
    .await;
    assert_eq!(status_with(&Node::on(&redis, &borrowed(&settings)), &token).await, 401);
    let short = super::super::support::token::token(json!({"sub": "42", "jti": "t-2"}));
    revoke(&node, json!({"token": "t-2", "seconds": 1})).await;
    assert_eq!(status_with(&node, &short).await, 401);
    eventually("the end of the revocation", async || (status_with(&node, &short).await == 200).then_some(())).await;
}
