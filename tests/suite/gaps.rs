//! Where events are missing a client gets an exact notice; where none are it gets none.

use crate::support::client::{Gap, Said, Transport};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        trimmed_history_is_reported_exactly,
        expired_history_is_reported_exactly,
        a_client_up_to_date_gets_no_gap_when_the_history_has_expired;
    on_redis:
        a_flush_is_reported_to_connected_clients_and_later_events_arrive,
        a_flush_is_reported_to_clients_that_come_back,
}

/// Without a ring a node can only give what the store still has.
const NO_RING: (&str, &str) = ("WHIMBREL_RING_BYTES", "0");

fn gap(after: &str, next: &str, reason: &str) -> Gap {
    Gap { stream: "topic:news".into(), after: after.into(), next: next.into(), reason: reason.into() }
}

async fn history_is_empty(node: &Node) {
    eventually("the history has expired", async || {
        let history = node.get_json("/v1/topics/news/events").await;
        history["events"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

async fn trimmed_history_is_reported_exactly(world: World) {
    let [first, second] = world.nodes(&[NO_RING, ("WHIMBREL_RETENTION", "*=10/3600")]);
    let mut client = world.wanted(&["topic:news"]).connect(&first).await;
    let mut published = first.publish_all("topic:news", 0..3).await;
    client.data(3).await;
    let cursor = client.cursor();
    drop(client);
    published.extend(first.publish_all("topic:news", 3..300).await);
    // What the node has in its hands already is not missed, whatever the store trims.
    first.metric_is("dispatched_total", 300.0).await;
    let kept = first.get_json("/v1/topics/news/events?limit=1").await["events"][0]["id"].as_str().unwrap().to_owned();
    let from = published.iter().position(|id| *id == kept).unwrap();
    assert!(from > 3, "something was trimmed");
    assert!(published.len() - from >= 10, "never fewer than said: {}", published.len() - from);

    let mut client = world.wanted(&["topic:news"]).from(&cursor).connect(&second).await;
    assert_eq!(client.gap().await, gap(&published[2], &kept, "trimmed"));
    for id in &published[from..] {
        assert_eq!(client.event().await.id, *id);
    }
    let history = second.get_json(&format!("/v1/topics/news/events?after={}", published[2])).await;
    assert_eq!(history["gap"]["next"], kept);
    // Who was at the last event that is gone has missed nothing.
    let mut lucky = world.wanted(&["topic:news"]).after(&published[from - 1]).connect(&second).await;
    assert_eq!(lucky.event().await.id, kept);
    let mut unlucky = world.wanted(&["topic:news"]).after(&published[from - 2]).connect(&second).await;
    assert_eq!(unlucky.gap().await, gap(&published[from - 2], &kept, "trimmed"));
    // And from the beginning means from what there is.
    let mut earliest = world.wanted(&["topic:news"]).after("earliest").connect(&second).await;
    assert_eq!(earliest.event().await.id, kept);
}

async fn expired_history_is_reported_exactly(world: World) {
    let [first, second] = world.nodes(&[NO_RING, ("WHIMBREL_RETENTION", "*=1000/1")]);
    let mut client = world.wanted(&["topic:news"]).connect(&first).await;
    let seen = first.publish("topic:news", "1").await;
    client.data(1).await;
    let cursor = client.cursor();
    drop(client);
    let missed = first.publish("topic:news", "2").await;
    history_is_empty(&first).await;
    let mut client = world.wanted(&["topic:news"]).from(&cursor).connect(&second).await;
    assert_eq!(client.gap().await, gap(&seen, &missed, "expired"));
    assert_eq!(client.next().await, Said::Position);
    assert_eq!(client.cursor().id(), missed, "the gap is behind it for good");
    first.publish("topic:news", "3").await;
    assert_eq!(client.data(1).await, ["3"]);
}

async fn a_client_up_to_date_gets_no_gap_when_the_history_has_expired(world: World) {
    let [first, second] = world.nodes(&[NO_RING, ("WHIMBREL_RETENTION", "*=1000/1")]);
    let mut client = world.wanted(&["topic:news"]).connect(&first).await;
    first.publish("topic:news", "1").await;
    client.data(1).await;
    let cursor = client.cursor();
    history_is_empty(&first).await;
    let mut resumed = world.wanted(&["topic:news"]).from(&cursor).connect(&second).await;
    first.publish("topic:news", "2").await;
    assert_eq!(resumed.data(1).await, ["2"]);
    assert_eq!(client.data(1).await, ["2"]);
    history_is_empty(&first).await;
    first.publish("topic:news", "3").await;
    assert_eq!(resumed.data(1).await, ["3"]);
    assert_eq!(client.data(1).await, ["3"]);
}

/// So that a node soon sees that its lease is gone with the rest.
const SHORT: &[(&str, &str)] = &[("WHIMBREL_LEASE_SECONDS", "1"), ("WHIMBREL_SYNC_SECONDS", "1")];

async fn flush(world: &World) {
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    redis::cmd("FLUSHALL").exec_async(&mut raw).await.unwrap();
}

async fn a_flush_is_reported_to_connected_clients_and_later_events_arrive(world: World) {
    let [first, second] = world.nodes(SHORT);
    let mut clients =
        [world.wanted(&["topic:news"]).connect(&first).await, world.wanted(&["topic:news"]).connect(&second).await];
    let seen = first.publish("topic:news", "1").await;
    for client in &mut clients {
        client.data(1).await;
    }
    flush(&world).await;
    let next = first.publish("topic:news", "2").await;
    for client in &mut clients {
        let notice = client.gap().await;
        assert_eq!((notice.after.as_str(), notice.reason.as_str()), (seen.as_str(), "lost"));
        assert_eq!(client.event().await.id, next);
    }
    let last = second.publish("topic:news", "3").await;
    for client in &mut clients {
        assert_eq!(client.event().await.id, last);
    }
}

async fn a_flush_is_reported_to_clients_that_come_back(world: World) {
    let [first, second] = world.nodes(SHORT);
    let mut client = world.wanted(&["topic:news"]).connect(&first).await;
    let seen = first.publish("topic:news", "1").await;
    client.data(1).await;
    let cursor = client.cursor();
    drop(client);
    flush(&world).await;
    let next = second.publish("topic:news", "2").await;
    let mut client = world.wanted(&["topic:news"]).from(&cursor).connect(&second).await;
    assert_eq!(client.gap().await, gap(&seen, &next, "lost"));
    assert_eq!(client.event().await.id, next);
    let last = first.publish("topic:news", "3").await;
    assert_eq!(client.event().await.id, last);
}

#[tokio::test]
async fn an_empty_stream_of_a_flushed_store_is_told_too() {
    let world = World::on_redis(Transport::Sse);
    let node = world.node(SHORT);
    let cursor = world.wanted(&["topic:news"]).connect(&node).await.cursor();
    flush(&world).await;
    let next = node.publish("topic:news", "1").await;
    let mut client = world.wanted(&["topic:news"]).from(&cursor).connect(&node).await;
    assert_eq!(client.gap().await, gap(cursor.id(), &next, "lost"));
    assert_eq!(client.event().await.id, next);
}
