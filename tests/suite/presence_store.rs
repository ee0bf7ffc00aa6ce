//! Who is connected, as both stores keep it: each test runs once against each.

use uuid::Uuid;
use whimbrel::model::{Info, Marks, NodeId, StreamName};
use whimbrel::store::presence::{Claim, Claimed, DeviceLimit, Overflow, Slot};
use whimbrel::store::{ChannelMessage, Control, Store, Subscription};

use crate::conformance::{route, stream};
use crate::support::in_time;
use crate::support::stores::for_each_store;

for_each_store! {
    the_newest_over_the_limit_is_refused;
    the_oldest_over_the_limit_gives_way_and_its_node_is_notified;
    a_kick_is_for_all_before_it_and_for_nobody_after;
    a_place_counts_for_as_long_as_its_nodes_route_holds;
    a_place_that_is_asserted_again_stays_the_same;
    what_is_shown_beside_a_connection_is_that_of_its_last_claim;
    a_claim_whose_answer_was_lost_takes_no_second_place;
    an_evicted_connection_can_not_assert_its_place_again;
    nobody_comes_to_be_by_being_kicked;
    what_one_node_sends_another_receives;
}

fn device() -> StreamName {
    stream("device:42")
}

/// A node with a route to the device.
async fn node(store: &impl Store) -> NodeId {
    let node = NodeId::random();
    store.sync(&device(), &route(&node, 1), None).await.unwrap();
    node
}

fn claim(node: &NodeId) -> Claim {
    Claim { connection: Uuid::new_v4(), node: node.clone(), transport: "sse", info: None, slot: None }
}

fn most(most: usize, overflow: Overflow) -> DeviceLimit {
    DeviceLimit { most, overflow }
}

const MANY: DeviceLimit = DeviceLimit { most: 100, overflow: Overflow::Newest };

async fn slot(store: &impl Store, claim: &Claim, limit: DeviceLimit) -> Slot {
    match store.claim_slot(&device(), claim, limit).await.unwrap() {
        Claimed::Granted(slot) => slot,
        other => panic!("no slot but {other:?}"),
    }
}

async fn connections(store: &impl Store) -> Vec<Uuid> {
    store.device(&device()).await.unwrap().connections.into_iter().map(|holder| holder.connection).collect()
}

async fn heard(subscription: &mut Box<dyn Subscription>) -> Control {
    let messages = in_time("a message", subscription.next(1)).await.unwrap();
    match messages.into_iter().next().unwrap() {
        ChannelMessage::Control(control) => control,
        other => panic!("{other:?}"),
    }
}

async fn the_newest_over_the_limit_is_refused(store: &impl Store) {
    let (first, second) = (node(store).await, node(store).await);
    let limit = most(3, Overflow::Newest);
    let claims = [claim(&first), claim(&second), claim(&first)];
    let mut stamps = Vec::new();
    for claim in &claims {
        stamps.push(slot(store, claim, limit).await.stamp);
    }
    assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    assert_eq!(store.claim_slot(&device(), &claim(&second), limit).await, Ok(Claimed::Full));
    let known = store.device(&device()).await.unwrap();
    let ids: Vec<_> = known.connections.iter().map(|holder| (holder.connection, holder.node.clone())).collect();
    assert_eq!(ids, claims.clone().map(|claim| (claim.connection, claim.node)), "oldest first");
    assert_eq!(known.connections[0].transport, "sse");
    assert!(known.last.is_some());
    store.release_slots(&[(device(), claims[1].connection)]).await.unwrap();
    slot(store, &claim(&second), limit).await;
    assert_eq!(
        store.claim_slot(&stream("device:other"), &claim(&second), limit).await.ok().map(|s| s != Claimed::Full),
        Some(true)
    );
}

async fn the_oldest_over_the_limit_gives_way_and_its_node_is_notified(store: &impl Store) {
    let (first, second) = (node(store).await, node(store).await);
    let mut subscription = store.coordination().subscribe(&first).await.unwrap();
    let limit = most(2, Overflow::Oldest);
    let (old, kept, new) = (claim(&first), claim(&second), claim(&second));
    let gone = slot(store, &old, limit).await;
    slot(store, &kept, limit).await;
    slot(store, &new, limit).await;
    assert_eq!(connections(store).await, [kept.connection, new.connection]);
    let marks = Marks { kicked: 0, replaced: gone.stamp };
    assert_eq!(heard(&mut subscription).await, Control::new("kick", format!("device:42 {marks}")));
    let page = store.sync(&device(), &route(&first, 1), None).await.unwrap();
    assert_eq!(page.marks, marks, "a node that misses the message finds it with a sync");
}

async fn a_kick_is_for_all_before_it_and_for_nobody_after(store: &impl Store) {
    let nodes = [node(store).await, node(store).await];
    let mut before = Vec::new();
    for node in &nodes {
        before.push(slot(store, &claim(node), MANY).await.stamp);
    }
    let mut subscription = store.coordination().subscribe(&nodes[1]).await.unwrap();
    assert_eq!(store.kick(&device()).await, Ok(2));
    assert!(connections(store).await.is_empty());
    let after = claim(&nodes[0]);
    let stamp = slot(store, &after, MANY).await.stamp;
    let marks = store.sync(&device(), &route(&nodes[0], 1), None).await.unwrap().marks;
    assert!(
        before.iter().all(|before| *before <= marks.kicked) && stamp > marks.kicked,
        "{before:?} {marks:?} {stamp}"
    );
    assert_eq!(heard(&mut subscription).await, Control::new("kick", format!("device:42 {marks}")));
    assert_eq!(connections(store).await, [after.connection]);
    let other = store.sync(&stream("device:other"), &route(&nodes[0], 1), None).await.unwrap();
    assert_eq!(other.marks, Marks::default());
}

async fn a_place_counts_for_as_long_as_its_nodes_route_holds(store: &impl Store) {
    let (dying, other) = (node(store).await, node(store).await);
    let limit = most(1, Overflow::Newest);
    slot(store, &claim(&dying), limit).await;
    assert_eq!(store.claim_slot(&device(), &claim(&other), limit).await, Ok(Claimed::Full));
    store.detach(&device(), &dying, None).await.unwrap();
    assert!(connections(store).await.is_empty());
    slot(store, &claim(&other), limit).await;
}

async fn a_place_that_is_asserted_again_stays_the_same(store: &impl Store) {
    let (before, after) = (node(store).await, node(store).await);
    let (mut old, new) = (claim(&before), claim(&before));
    let place = slot(store, &old, MANY).await;
    slot(store, &new, MANY).await;
    // Its node lost its lease, and goes on under another id.
    store.detach(&device(), &before, None).await.unwrap();
    old.node = after.clone();
    old.slot = Some(place);
    assert_eq!(slot(store, &old, MANY).await, place);
    let known = store.device(&device()).await.unwrap().connections;
    assert_eq!((known.len(), known[0].connection, known[0].slot), (1, old.connection, place));
    assert_eq!(known[0].node, after);
}

async fn what_is_shown_beside_a_connection_is_that_of_its_last_claim(store: &impl Store) {
    let node = node(store).await;
    let mut wanted = Claim { info: Info::recall(r#"{"a": [1, 2]}"#), ..claim(&node) };
    wanted.slot = Some(slot(store, &wanted, MANY).await);
    let shown = async || store.device(&device()).await.unwrap().connections[0].info.clone();
    assert_eq!(shown().await, wanted.info);
    for info in [Info::recall(r#"{"b": " "}"#), None] {
        wanted.info = info;
        assert_eq!(slot(store, &wanted, MANY).await, wanted.slot.unwrap());
        assert_eq!(shown().await, wanted.info);
    }
}

async fn a_claim_whose_answer_was_lost_takes_no_second_place(store: &impl Store) {
    let claim = claim(&node(store).await);
    let limit = most(1, Overflow::Newest);
    let place = slot(store, &claim, limit).await;
    assert_eq!(slot(store, &claim, limit).await, place);
    assert_eq!(connections(store).await, [claim.connection]);
}

async fn an_evicted_connection_can_not_assert_its_place_again(store: &impl Store) {
    let node = node(store).await;
    let (mut kicked, limit) = (claim(&node), most(1, Overflow::Oldest));
    kicked.slot = Some(slot(store, &kicked, limit).await);
    assert_eq!(store.kick(&device()).await, Ok(1));
    assert!(matches!(store.claim_slot(&device(), &kicked, limit).await, Ok(Claimed::Passed(_))));
    let mut replaced = claim(&node);
    replaced.slot = Some(slot(store, &replaced, limit).await);
    let newest = claim(&node);
    slot(store, &newest, limit).await;
    assert!(matches!(store.claim_slot(&device(), &replaced, limit).await, Ok(Claimed::Passed(_))));
    assert_eq!(connections(store).await, [newest.connection]);
}

async fn nobody_comes_to_be_by_being_kicked(store: &impl Store) {
    assert_eq!(store.kick(&device()).await, Ok(0));
    assert_eq!(store.device(&device()).await.unwrap().last, None);
}

async fn what_one_node_sends_another_receives(store: &impl Store) {
    let node = NodeId::random();
    let mut subscription = store.coordination().subscribe(&node).await.unwrap();
    store.coordination().signal(&NodeId::random(), &Control::new("news", "for somebody else")).await.unwrap();
    let said = Control::new("news", "two\nlines");
    store.coordination().signal(&node, &said).await.unwrap();
    assert_eq!(heard(&mut subscription).await, said);
}
