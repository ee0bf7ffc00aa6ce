//! What a token says of its bearer is shown beside the connection.

use serde_json::{Value, json};

use super::*;
use crate::support::backend::{Backend, Reply};
use crate::support::client::{Client, Transport, Wanted};
use crate::support::eventually;
use crate::support::token::token;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        info_is_shown_beside_a_connection_and_after_a_renewal_the_new_one,
        a_connection_without_info_has_none;
    on_redis:
        a_connection_that_was_lost_is_published_with_the_info_of_its_renewal,
}

const LIFECYCLE: &str = "/v1/topics/whimbrel:lifecycle/events?limit=1000";

fn named(name: &str) -> String {
    token(json!({"sub": "42", "whimbrel": {"subscribe": ["topic:room"], "info": {"name": name}}}))
}

async fn read(node: &Node, path: &str) -> Value {
    let answer = ask_as(node, Some(READ), "GET", path, "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Waits until the only connection of device 42 is shown with this.
async fn is_shown(node: &Node, info: &Value) {
    eventually("the info beside the connection", async || {
        let shown = read(node, "/v1/devices/42").await["connections"].clone();
        (shown.as_array()?.len() == 1 && shown[0]["info"] == *info).then_some(())
    })
    .await;
}

/// Waits for so many events of the lifecycle topic; the last one's type, reason and info.
async fn last_published(node: &Node, count: usize) -> (String, Value, Value) {
    eventually("the connects and disconnects", async || {
        let events = read(node, LIFECYCLE).await["events"].clone();
        let last = events.as_array()?.get(count - 1)?;
        Some((last["type"].as_str()?.to_owned(), last["data"]["reason"].clone(), last["data"]["info"].clone()))
    })
    .await
}

/// Another token for a connection: over WebSocket by itself, over SSE by a request to another node.
async fn renew(client: &mut Client, transport: Transport, other: &Node, token: &str) {
    match transport {
        Transport::WebSocket => assert_eq!(client.ask(json!({"op": "renew", "token": token})).await["op"], "ok"),
        Transport::Sse => {
            let path = format!("/v1/connections/{}/renew", client.connection());
            let renewed = ask_as(other, Some(token), "POST", &path, "").await;
            assert_eq!(renewed.status, 200, "{}", renewed.text());
        }
    }
}

async fn info_is_shown_beside_a_connection_and_after_a_renewal_the_new_one(world: World) {
    let keys = keys_file();
    let [node, other] = world.nodes(&borrowed(&closed(&keys)));
    let wanted = world.wanted(&["device:42", "topic:room"]).with("members", "1");
    let mut client = wanted.bearer(&named("Ann")).connect(&node).await;
    is_shown(&other, &json!({"name": "Ann"})).await;
    assert_eq!(last_published(&other, 1).await, ("connected".into(), Value::Null, json!({"name": "Ann"})));
    renew(&mut client, world.transport, &other, &named("Ann Smith")).await;
    is_shown(&other, &json!({"name": "Ann Smith"})).await;
    eventually("the info beside the member", async || {
        let members = read(&other, "/v1/topics/room/members").await["members"].clone();
        (members[0]["info"]["name"] == "Ann Smith").then_some(())
    })
    .await;
    drop(client);
    let left = last_published(&other, 2).await;
    assert_eq!(left, ("disconnected".into(), json!("client"), json!({"name": "Ann Smith"})));
}

async fn a_connection_without_info_has_none(world: World) {
    let keys = keys_file();
    let [node, other] = world.nodes(&borrowed(&closed(&keys)));
    let plain = token(json!({"sub": "42"}));
    let mut client = world.wanted(&["device:42"]).bearer(&named("Ann")).connect(&node).await;
    is_shown(&other, &json!({"name": "Ann"})).await;
    renew(&mut client, world.transport, &other, &plain).await;
    is_shown(&other, &Value::Null).await;
    let shown = read(&other, "/v1/devices/42").await["connections"][0].clone();
    assert!(!shown.as_object().unwrap().contains_key("info"), "{shown}");
    drop(client);
    assert_eq!(last_published(&other, 2).await.2, Value::Null);
    drop(world.wanted(&["device:42"]).bearer(&plain).connect(&node).await);
    last_published(&other, 4).await;
    let events = read(&other, LIFECYCLE).await["events"].clone();
    for event in &events.as_array().unwrap()[1..] {
        assert!(!event["data"].as_object().unwrap().contains_key("info"), "{event}");
    }
}

async fn a_connection_that_was_lost_is_published_with_the_info_of_its_renewal(world: World) {
    let keys = keys_file();
    let settings = [closed(&keys), vec![("WHIMBREL_LEASE_SECONDS", "1".to_owned())]].concat();
    let [doomed, other] = world.nodes(&borrowed(&settings));
    let mut client = world.wanted(&["device:42"]).bearer(&named("Ann")).connect(&doomed).await;
    last_published(&other, 1).await;
    renew(&mut client, world.transport, &other, &named("Bob")).await;
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    eventually("the store to keep the new info", async || {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*:open:*").query_async(&mut raw).await.unwrap();
        let open: Vec<String> = redis::cmd("HVALS").arg(keys.first()?).query_async(&mut raw).await.unwrap();
        open.iter().any(|open| open.contains("Bob")).then_some(())
    })
    .await;
    doomed.kill();
    let left = last_published(&other, 2).await;
    assert_eq!(left, ("disconnected".into(), json!("lost"), json!({"name": "Bob"})));
}

#[tokio::test]
async fn the_info_of_a_backends_answer_is_shown_as_that_of_a_token() {
    let backend = Backend::start(|_| Reply::json(json!({"device": "42", "info": {"name": "Ann"}}))).await;
    let keys = keys_file();
    let (url, file) = (backend.url("/authorize"), keys.path().to_str().unwrap().to_owned());
    let node = Node::start(&[("WHIMBREL_AUTHORIZE_URL", &url), ("WHIMBREL_API_KEYS_FILE", &file)]);
    let _client = Wanted::new(Transport::Sse, &["device:42"]).connect(&node).await;
    is_shown(&node, &json!({"name": "Ann"})).await;
    assert_eq!(last_published(&node, 1).await.2, json!({"name": "Ann"}));
}
