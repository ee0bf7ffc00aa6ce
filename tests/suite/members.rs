//! Presence in topics: the members, and the clients that are notified.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::node::Node;
use crate::support::token::{self, SECRET, bearer, hs256, now, token_by};
use crate::support::world::{World, promises};
use crate::support::{Signal, eventually};

promises! {
    everywhere:
        a_device_joins_with_its_first_connection_and_leaves_with_its_last,
        a_client_that_did_not_ask_is_no_member_and_is_not_notified,
        members_are_listed_page_by_page_once_each;
    on_redis:
        what_a_killed_node_had_leaves_within_two_lease_times,
        a_node_that_others_took_for_dead_brings_its_members_back,
        a_client_that_may_have_missed_notices_is_notified,
}

async fn member(world: &World, node: &Node, streams: &[&str]) -> Client {
    world.wanted(streams).with("members", "1").connect(node).await
}

/// The notice that has to come next: what happened, and to which device.
async fn notice(client: &mut Client) -> (String, String) {
    match client.next().await {
        Said::Member { kind, notice } => (kind, notice["device"].as_str().unwrap().to_owned()),
        other => panic!("not a notice of a member but {other:?}"),
    }
}

fn said(kind: &str, device: &str) -> (String, String) {
    (kind.to_owned(), device.to_owned())
}

/// The members of `topic:room`, by pages of two.
async fn members(node: &Node) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.get_json(&format!("/v1/topics/room/members?limit=2{after}")).await;
        all.extend(page["members"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { return all };
        after = format!("&after={next}");
    }
}

/// The members' devices, each with its connections.
async fn counts(node: &Node) -> Vec<(String, u64)> {
    let all = members(node).await;
    let count =
        |member: &Value| (member["device"].as_str().unwrap().to_owned(), member["connections"].as_u64().unwrap());
    all.iter().map(count).collect()
}

async fn a_device_joins_with_its_first_connection_and_leaves_with_its_last(world: World) {
    let [node, other] = world.nodes(&[]);
    let mut near = member(&world, &node, &["topic:room"]).await;
    let mut far = member(&world, &other, &["device:watcher", "topic:room", "topic:elsewhere"]).await;
    assert_eq!(notice(&mut near).await, said("joined", "watcher"));
    let phone = member(&world, &node, &["device:ann", "topic:room"]).await;
    // Who has its first frame is a member.
    assert_eq!(counts(&other).await, [("ann".into(), 1), ("watcher".into(), 1)]);
    for client in [&mut near, &mut far] {
        let Said::Member { kind, notice } = client.next().await else { panic!("not a notice") };
        assert!(OffsetDateTime::parse(notice["time"].as_str().unwrap(), &Rfc3339).is_ok(), "{notice}");
        let expected = json!({"stream": "topic:room", "device": "ann", "info": null, "time": notice["time"]});
        assert_eq!((kind.as_str(), notice), ("joined", expected));
    }
    let tab = member(&world, &other, &["topic:room", "device:ann"]).await;
    assert_eq!(counts(&node).await, [("ann".into(), 2), ("watcher".into(), 1)]);
    drop(phone);
    eventually("one connection is left", async || (counts(&node).await[0].1 == 1).then_some(())).await;
    let since = members(&node).await[0]["since"].clone();
    drop(tab);
    for client in [&mut near, &mut far] {
        assert_eq!(notice(client).await, said("left", "ann"), "no notice of what lay between");
    }
    assert_eq!(counts(&node).await, [("watcher".into(), 1)]);
    let _again = member(&world, &node, &["device:ann", "topic:room"]).await;
    assert_eq!((notice(&mut near).await, notice(&mut far).await), (said("joined", "ann"), said("joined", "ann")));
    assert_ne!(members(&node).await[0]["since"], since);
    // Notices have no id, and move no cursor.
    node.publish("topic:room", "1").await;
    assert_eq!(near.data(1).await, ["1"]);
}

async fn a_client_that_did_not_ask_is_no_member_and_is_not_notified(world: World) {
    let node = world.node(&[]);
    let mut silent = world.wanted(&["device:bob", "topic:room"]).connect(&node).await;
    let mut watcher = member(&world, &node, &["topic:room"]).await;
    let mut own = member(&world, &node, &["device:ann", "topic:room"]).await;
    assert_eq!(counts(&node).await, [("ann".into(), 1)]);
    let _tab = member(&world, &node, &["device:ann", "topic:room"]).await;
    let _inbox = member(&world, &node, &["device:carl"]).await;
    assert_eq!(notice(&mut watcher).await, said("joined", "ann"));
    node.publish("topic:room", "1").await;
    for client in [&mut silent, &mut watcher, &mut own] {
        assert_eq!(client.data(1).await, ["1"]);
    }
    for query in ["limit=0", "limit=1001", "after=a%20b", "page=2"] {
        assert_eq!(node.get(&format!("/v1/topics/room/members?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(node.get_json("/v1/topics/nobody/members").await, json!({"members": [], "next": null}));
}

async fn members_are_listed_page_by_page_once_each(world: World) {
    let [node, other] = world.nodes(&[]);
    let mut clients = Vec::new();
    for (number, node) in [&node, &other, &node, &other, &node].into_iter().enumerate() {
        clients.push(member(&world, node, &["topic:room", &format!("device:{number}")]).await);
        clients.push(member(&world, &other, &["topic:room", &format!("device:{number}")]).await);
    }
    let expected: Vec<_> = (0..5).map(|number| (number.to_string(), 2)).collect();
    assert_eq!(counts(&node).await, expected);
    let whole = other.get_json("/v1/topics/room/members").await;
    assert_eq!((whole["members"].as_array().unwrap().len(), &whole["next"]), (5, &Value::Null));
    clients.truncate(2);
    eventually("one is left", async || (counts(&node).await == expected[..1]).then_some(())).await;
}

const LEASE: Duration = Duration::from_secs(3);
const SETTINGS: [(&str, &str); 1] = [("WHIMBREL_LEASE_SECONDS", "3")];

async fn what_a_killed_node_had_leaves_within_two_lease_times(world: World) {
    let [doomed, survivor] = world.nodes(&SETTINGS);
    let mut watcher = member(&world, &survivor, &["topic:room"]).await;
    let _both = [
        member(&world, &doomed, &["device:both", "topic:room"]).await,
        member(&world, &survivor, &["device:both", "topic:room"]).await,
    ];
    let _gone = member(&world, &doomed, &["device:gone", "topic:room"]).await;
    assert_eq!(notice(&mut watcher).await, said("joined", "both"));
    assert_eq!(notice(&mut watcher).await, said("joined", "gone"));
    doomed.kill();
    let killed = Instant::now();
    assert_eq!(notice(&mut watcher).await, said("left", "gone"));
    let took = killed.elapsed();
    assert!(took < LEASE * 2, "{took:?}");
    assert_eq!(counts(&survivor).await, [("both".into(), 1)]);
    // There is no other notice of it.
    let _late = member(&world, &survivor, &["device:late", "topic:room"]).await;
    assert_eq!(notice(&mut watcher).await, said("joined", "late"));
}

async fn a_node_that_others_took_for_dead_brings_its_members_back(world: World) {
    let [stopped, node] = world.nodes(&[("WHIMBREL_LEASE_SECONDS", "1")]);
    let mut watcher = member(&world, &node, &["topic:room"]).await;
    let _ann = member(&world, &stopped, &["device:ann", "topic:room"]).await;
    assert_eq!(notice(&mut watcher).await, said("joined", "ann"));
    stopped.signal(Signal::STOP);
    assert_eq!(notice(&mut watcher).await, said("left", "ann"));
    assert_eq!(counts(&node).await, []);
    stopped.signal(Signal::CONT);
    assert_eq!(notice(&mut watcher).await, said("joined", "ann"));
    assert_eq!(counts(&node).await, [("ann".into(), 1)]);
}

async fn a_client_that_may_have_missed_notices_is_notified(world: World) {
    let node = world.node(&[]);
    let mut watcher = member(&world, &node, &["topic:room"]).await;
    let mut silent = world.wanted(&["topic:room"]).connect(&node).await;
    let _ann = member(&world, &node, &["device:ann", "topic:room"]).await;
    assert_eq!(notice(&mut watcher).await, said("joined", "ann"));
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let _: i64 = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("PUBSUB").query_async(&mut raw).await.unwrap();
    assert_eq!(watcher.next().await, Said::Member { kind: "members".into(), notice: json!({"reason": "missed"}) });
    assert_eq!(counts(&node).await, [("ann".into(), 1)]);
    node.publish("topic:room", "1").await;
    assert_eq!(silent.data(1).await, ["1"]);
}

#[tokio::test]
async fn a_websocket_joins_what_it_subscribes_and_leaves_what_it_unsubscribes() {
    let node = Node::start(&[]);
    let world = World::embedded(Transport::WebSocket);
    let mut watcher = member(&world, &node, &["topic:room"]).await;
    let mut ann = member(&world, &node, &["device:ann"]).await;
    assert_eq!(ann.ask(json!({"op": "subscribe", "stream": "topic:room"})).await["op"], "ok");
    assert_eq!(counts(&node).await, [("ann".into(), 1)]);
    assert_eq!(notice(&mut watcher).await, said("joined", "ann"));
    let _bob = member(&world, &node, &["device:bob", "topic:room"]).await;
    assert_eq!(notice(&mut ann).await, said("joined", "bob"));
    assert_eq!(notice(&mut watcher).await, said("joined", "bob"));
    assert_eq!(ann.ask(json!({"op": "unsubscribe", "stream": "topic:room"})).await["op"], "ok");
    assert_eq!(notice(&mut watcher).await, said("left", "ann"));
    // It is notified no more.
    drop(member(&world, &node, &["device:carl", "topic:room"]).await);
    assert_eq!(notice(&mut watcher).await, said("joined", "carl"));
    assert_eq!(notice(&mut watcher).await, said("left", "carl"));
    assert_eq!(ann.ask(json!({"op": "ping"})).await["op"], "pong");
}

#[tokio::test]
async fn a_node_that_stops_in_order_leaves_nobody_behind() {
    let world = World::on_redis(Transport::Sse);
    let [stopped, node] = world.nodes(&[("WHIMBREL_DRAIN_DELAY_SECONDS", "0"), ("WHIMBREL_DRAIN_SECONDS", "0")]);
    let mut watcher = member(&world, &node, &["topic:room"]).await;
    let _ann = member(&world, &stopped, &["device:ann", "topic:room"]).await;
    assert_eq!(notice(&mut watcher).await, said("joined", "ann"));
    stopped.signal(Signal::TERM);
    assert_eq!(notice(&mut watcher).await, said("left", "ann"));
    assert_eq!(counts(&node).await, []);
}

#[tokio::test]
async fn a_member_is_shown_with_the_info_of_its_token() {
    let node = Node::start(&[("WHIMBREL_JWT_SECRET", SECRET)]);
    let info = "{\"name\":\n\"Ann\"}";
    let rights = format!(r#"{{"subscribe":["topic:room"],"info":{info}}}"#);
    let claims = format!(r#"{{"sub":"ann","exp":{},"whimbrel":{rights}}}"#, now() + 3600);
    let ann = token_by(r#"{"alg":"HS256","typ":"JWT"}"#, &claims, hs256(SECRET));
    let bob = token::device("bob", &["topic:room"], &[]);
    let wanted = |token: &str| Wanted::new(Transport::Sse, &["topic:room"]).with("members", "1").with("token", token);
    let mut watcher = wanted(&bob).connect(&node).await;
    let mut own = wanted(&ann).connect(&node).await;
    let Said::Member { kind, notice: joined } = watcher.next().await else { panic!("not a notice") };
    assert_eq!((kind.as_str(), &joined["device"], &joined["info"]), ("joined", &json!("ann"), &json!({"name": "Ann"})));
    let answer = node.call("GET", "/v1/topics/room/members", &[("Authorization", &bearer(&ann))], "").await.json();
    let shown: Vec<_> = answer["members"].as_array().unwrap().iter().map(|member| &member["info"]).collect();
    assert_eq!(shown, [&json!({"name": "Ann"}), &Value::Null]);
    drop(watcher);
    assert_eq!(notice(&mut own).await, said("left", "bob"), "and nothing of itself");
}
