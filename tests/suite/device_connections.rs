//! Several connections of one device, on any nodes: how many there may be, and ending them.

use redis::AsyncCommands as _;

use crate::support::client::{Client, Cursor, Said, Transport};
use crate::support::eventually;
use crate::support::javascript::javascript;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        each_connection_of_a_device_gets_everything,
        a_kick_ends_all_connections_wherever_they_are_and_none_that_comes_after,
        over_the_limit_the_newest_is_refused,
        a_refused_client_comes_back_later_and_later_and_gets_in_once_there_is_room,
        over_the_limit_the_oldest_gives_way_where_that_is_set,
        a_place_is_free_when_its_connection_left,
        a_client_that_reconnects_after_a_final_close_is_stopped_and_one_that_connects_on_purpose_is_not;
    on_redis:
        a_kick_whose_message_is_lost_is_found_with_the_next_sync,
        places_are_taken_again_after_a_flush,
        places_that_outlived_their_connections_keep_nobody_out,
}

fn closed(world: &World, reason: &str, code: u16) -> Said {
    Said::Close { reason: reason.into(), code: (world.transport == Transport::WebSocket).then_some(code) }
}

async fn kick(node: &Node, device: &str) -> serde_json::Value {
    let answer = node.call("DELETE", &format!("/v1/devices/{device}/connections"), &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn publish_and_see(node: &Node, clients: &mut [&mut Client], data: &str) {
    node.publish("device:42", data).await;
    for client in clients {
        assert_eq!(client.data(1).await, [data]);
    }
}

async fn each_connection_of_a_device_gets_everything(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut tab = world.wanted(&["device:42"]).connect(&first).await;
    let mut other_tab = world.wanted(&["device:42", "topic:news"]).connect(&first).await;
    let mut phone = world.wanted(&["device:42"]).connect(&second).await;
    publish_and_see(&second, &mut [&mut tab, &mut other_tab, &mut phone], "1").await;
}

async fn a_kick_ends_all_connections_wherever_they_are_and_none_that_comes_after(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut one = world.wanted(&["device:42"]).connect(&first).await;
    let mut two = world.wanted(&["topic:news", "device:42"]).connect(&second).await;
    let mut other = world.wanted(&["device:41"]).connect(&second).await;
    assert_eq!(kick(&second, "42").await, serde_json::json!({"device": "42", "closed": 2}));
    let mut after = world.wanted(&["device:42"]).connect(&first).await;
    for kicked in [&mut one, &mut two] {
        assert_eq!(kicked.next().await, closed(&world, "kicked", 4003));
    }
    publish_and_see(&first, &mut [&mut after], "1").await;
    second.publish("device:41", "1").await;
    assert_eq!(other.data(1).await, ["1"]);
    assert_eq!(kick(&second, "nobody").await["closed"], 0);
}

async fn a_kick_whose_message_is_lost_is_found_with_the_next_sync(world: World) {
    let node = world.node(&[("WHIMBREL_SYNC_SECONDS", "1")]);
    let mut kicked = world.wanted(&["device:42"]).connect(&node).await;
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut raw).await.unwrap();
    // What the script leaves behind, without the message to the node.
    let mark = format!("{} 0", seconds * 1_000_000 + micros);
    let () = raw.hset("whimbrel:{device:42}:meta", "kick", &mark).await.unwrap();
    let () = raw.del("whimbrel:{device:42}:connections").await.unwrap();
    let mut after = world.wanted(&["device:42"]).connect(&node).await;
    assert_eq!(kicked.next().await, closed(&world, "kicked", 4003));
    publish_and_see(&node, &mut [&mut after], "1").await;
}

const TWO: (&str, &str) = ("WHIMBREL_CONNECTIONS_PER_DEVICE", "2");

async fn over_the_limit_the_newest_is_refused(world: World) {
    let [first, second] = world.nodes(&[TWO]);
    let mut one = world.wanted(&["device:42"]).connect(&first).await;
    let mut two = world.wanted(&["device:42"]).connect(&second).await;
    for node in [&first, &second] {
        let said = world.wanted(&["topic:news", "device:42"]).turned_away(node).await;
        assert_eq!(said, closed(&world, "limit", 4006));
    }
    // Who follows no device has no such limit, and neither has a topic.
    let _other = world.wanted(&["device:41"]).connect(&first).await;
    let _topic = world.wanted(&["topic:news"]).connect(&first).await;
    publish_and_see(&first, &mut [&mut one, &mut two], "1").await;
}

async fn over_the_limit_the_oldest_gives_way_where_that_is_set(world: World) {
    let [first, second] = world.nodes(&[TWO, ("WHIMBREL_DEVICE_OVERFLOW", "oldest")]);
    let mut oldest = world.wanted(&["device:42"]).connect(&first).await;
    let mut middle = world.wanted(&["device:42"]).connect(&second).await;
    let mut newest = world.wanted(&["device:42"]).connect(&second).await;
    assert_eq!(oldest.next().await, closed(&world, "replaced", 4001));
    publish_and_see(&first, &mut [&mut middle, &mut newest], "1").await;
    // On the node that has seen the first event for certain: it counts as past there.
    let mut last = world.wanted(&["device:42"]).connect(&second).await;
    assert_eq!(middle.next().await, closed(&world, "replaced", 4001));
    publish_and_see(&first, &mut [&mut newest, &mut last], "2").await;
}

async fn a_refused_client_comes_back_later_and_later_and_gets_in_once_there_is_room(world: World) {
    let node = world.node(&[("WHIMBREL_CONNECTIONS_PER_DEVICE", "1")]);
    let here = world.wanted(&["device:42"]).connect(&node).await;
    let wanted = world.wanted(&["device:42"]);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let (said, client) = wanted.let_go(&node).await;
        assert_eq!(said, closed(&world, "limit", 4006));
        waits.push(client.retry_ms.unwrap());
    }
    assert!(waits.is_sorted_by(|shorter, longer| shorter < longer), "{waits:?}");
    drop(here);
    eventually("there is room", async || wanted.try_connect(&node).await).await;
}

async fn a_place_is_free_when_its_connection_left(world: World) {
    let [first, second] = world.nodes(&[("WHIMBREL_CONNECTIONS_PER_DEVICE", "1")]);
    let mut here = world.wanted(&["device:42"]).connect(&first).await;
    for node in [&second, &first, &second] {
        assert_eq!(world.wanted(&["device:42"]).turned_away(node).await, closed(&world, "limit", 4006));
        drop(here);
        here = eventually("the place is free", async || world.wanted(&["device:42"]).try_connect(node).await).await;
    }
}

async fn places_are_taken_again_after_a_flush(world: World) {
    let node = world.node(&[("WHIMBREL_LEASE_SECONDS", "1"), TWO]);
    let _here = [world.wanted(&["device:42"]).connect(&node).await, world.wanted(&["device:42"]).connect(&node).await];
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
    eventually("both have their places again", async || {
        let mut raw = raw.clone();
        let places: usize = raw.hlen("whimbrel:{device:42}:connections").await.unwrap();
        (places == 2).then_some(())
    })
    .await;
    assert_eq!(world.wanted(&["device:42"]).turned_away(&node).await, closed(&world, "limit", 4006));
}

async fn places_that_outlived_their_connections_keep_nobody_out(world: World) {
    let [first, second] = world.nodes(&[TWO]);
    let mut one = world.wanted(&["device:42"]).connect(&first).await;
    let key = "whimbrel:{device:42}:connections";
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let places: Vec<(String, String)> = raw.hgetall(key).await.unwrap();
    // As if a failover had brought back what the node had given back.
    for _ in 0..2 {
        let () = raw.hset(key, uuid::Uuid::new_v4().to_string(), &places[0].1).await.unwrap();
    }
    let mut two = world.wanted(&["device:42"]).connect(&second).await;
    assert_eq!(world.wanted(&["device:42"]).turned_away(&first).await, closed(&world, "limit", 4006));
    publish_and_see(&second, &mut [&mut one, &mut two], "1").await;
}

async fn a_client_that_reconnects_after_a_final_close_is_stopped_and_one_that_connects_on_purpose_is_not(world: World) {
    let node = world.node(&[]);
    for streams in [&["device:42"][..], &["device:42", "topic:news"]] {
        let mut client = world.wanted(streams).connect(&node).await;
        publish_and_see(&node, &mut [&mut client], "1").await;
        kick(&node, "42").await;
        assert_eq!(client.next().await, closed(&world, "kicked", 4003));
        node.publish("device:42", "2").await;
        let cursor = client.cursor();
        if let Cursor::Opaque(id) = &cursor {
            assert!(id.ends_with(".stop"), "{id}");
            // What an EventSource does by itself.
            let answer = world.wanted(streams).last_event_id(id).refused(&node).await;
            assert_eq!((answer.status, answer.text()), (204, ""));
        }
        let wanted = world.wanted(streams);
        let wanted = match &cursor {
            Cursor::Opaque(id) => wanted.after(id),
            Cursor::Ids(_) => wanted.from(&cursor),
        };
        let mut on_purpose = wanted.connect(&node).await;
        assert_eq!(on_purpose.data(1).await, ["2"], "it goes on where it was");
    }
}

#[tokio::test]
async fn two_tabs_that_are_one_too_many_do_not_evict_each_other_for_ever() {
    for world in [World::embedded(Transport::Sse), World::on_redis(Transport::Sse)] {
        let node = world.node(&[("WHIMBREL_CONNECTIONS_PER_DEVICE", "1"), ("WHIMBREL_DEVICE_OVERFLOW", "oldest")]);
        javascript("tabs.mjs", &[&node.url()]).await;
    }
}

#[tokio::test]
async fn a_tab_too_many_gets_in_by_itself_once_another_is_closed() {
    let world = World::embedded(Transport::Sse);
    let node = world.node(&[("WHIMBREL_CONNECTIONS_PER_DEVICE", "1")]);
    javascript("waiting-tab.mjs", &[&node.url()]).await;
}
