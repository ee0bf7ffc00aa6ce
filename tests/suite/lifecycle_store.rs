//! Telling who came and who left, as both stores keep it: each test runs once against each.

use uuid::Uuid;
use whimbrel::model::{Info, NodeId, Start, StreamName, Time};
use whimbrel::store::Store;
use whimbrel::store::lifecycle::{BatchOutcome, Before, Change, ConnectionRef, LOST, LifecycleKind};

use crate::support::stores::for_each_store;

for_each_store! {
    a_batch_is_published_once_however_often_and_late_it_comes;
    one_batch_may_hold_a_coming_and_its_leaving;
    what_a_dead_node_left_open_is_closed_once;
    what_is_shown_beside_a_connection_later_is_kept_for_its_end_and_not_published;
    a_node_whose_session_others_ended_publishes_nothing_more;
    a_term_goes_on_under_another_id;
    a_term_that_goes_on_twice_is_found_where_it_is;
    a_term_is_ended_by_nodes_of_its_own_region;
    an_empty_batch_only_finds_out_how_things_stand;
}

const EU: &str = "eu";

fn subject(n: u128) -> ConnectionRef {
    let device = "device:42".parse().unwrap();
    ConnectionRef { connection: Uuid::from_u128(n), device, transport: "sse".into(), info: None }
}

fn change(n: u128, kind: LifecycleKind) -> Change {
    Change::new(subject(n), kind, &NodeId::from("n1".to_owned()), "eu", Time::from_ms(5))
}

fn came(n: u128) -> Change {
    change(n, LifecycleKind::Connected)
}

fn left(n: u128) -> Change {
    change(n, LifecycleKind::Disconnected("client"))
}

fn lost(n: u128) -> Change {
    change(n, LifecycleKind::Disconnected(LOST))
}

/// What the stream holds: connections, and what happened to them.
async fn published(store: &impl Store) -> Vec<String> {
    let page = store.read(&StreamName::lifecycle(), Start::Earliest, 100).await.unwrap();
    let shown = |event: &whimbrel::model::Event| {
        let data: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
        let connection: Uuid = data["connection"].as_str().unwrap().parse().unwrap();
        match data["reason"].as_str() {
            Some(reason) => format!("{} {} {reason}", connection.as_u128(), event.kind),
            None => format!("{} {}", connection.as_u128(), event.kind),
        }
    };
    page.events.iter().map(|event| shown(event)).collect()
}

/// A node whose session began.
async fn node(store: &impl Store) -> NodeId {
    let node = NodeId::random();
    assert_eq!(store.begin_session(&node, EU, None).await.unwrap().before, Before::Unknown);
    node
}

async fn a_batch_is_published_once_however_often_and_late_it_comes(store: &impl Store) {
    let node = node(store).await;
    let (first, second) = ([came(1), came(2)], [left(1)]);
    assert_eq!(store.publish_changes(&node, 2, &second).await, Ok(BatchOutcome::Behind(0)));
    for _ in 0..2 {
        assert_eq!(store.publish_changes(&node, 1, &first).await, Ok(BatchOutcome::Published(1)));
    }
    assert_eq!(store.publish_changes(&node, 2, &second).await, Ok(BatchOutcome::Published(2)));
    // A copy that was on its way for long.
    assert_eq!(store.publish_changes(&node, 1, &first).await, Ok(BatchOutcome::Published(2)));
    assert_eq!(published(store).await, ["1 connected", "2 connected", "1 disconnected client"]);
    assert_eq!(store.open(&node).await.unwrap(), [subject(2)]);
}

async fn one_batch_may_hold_a_coming_and_its_leaving(store: &impl Store) {
    let node = node(store).await;
    for _ in 0..2 {
        store.publish_changes(&node, 1, &[came(1), left(1), came(2)]).await.unwrap();
    }
    assert_eq!(published(store).await, ["1 connected", "1 disconnected client", "2 connected"]);
}

async fn what_a_dead_node_left_open_is_closed_once(store: &impl Store) {
    let (dead, alive) = (node(store).await, node(store).await);
    store.publish_changes(&dead, 1, &[came(1), came(2), left(1), came(3)]).await.unwrap();
    store.publish_changes(&alive, 1, &[came(4)]).await.unwrap();
    // Two at once.
    let mut open = [store.end_session(&dead, EU, 10).await.unwrap(), store.end_session(&dead, EU, 10).await.unwrap()];
    for open in &mut open {
        open.sort_by_key(|subject| subject.connection);
        assert_eq!(*open, [subject(2), subject(3)]);
        store.close(&dead, &[lost(2), lost(3)]).await.unwrap();
    }
    assert!(store.end_session(&dead, EU, 10).await.unwrap().is_empty());
    assert_eq!(published(store).await[4..], ["4 connected", "2 disconnected lost", "3 disconnected lost"]);
    assert_eq!(store.sessions(EU).await.unwrap(), [alive]);
}

async fn what_is_shown_beside_a_connection_later_is_kept_for_its_end_and_not_published(store: &impl Store) {
    let node = node(store).await;
    let renewed = |n| {
        let info = Info::recall(r#"{"name": "Ann"}"#);
        Change { subject: ConnectionRef { info, ..subject(n) }, ..change(n, LifecycleKind::Renewed) }
    };
    let batch = [came(1), renewed(1), came(2), left(2), renewed(2), renewed(3)];
    assert_eq!(store.publish_changes(&node, 1, &batch).await, Ok(BatchOutcome::Published(1)));
    assert_eq!(published(store).await, ["1 connected", "2 connected", "2 disconnected client"]);
    assert_eq!(store.end_session(&node, EU, 10).await, Ok(vec![renewed(1).subject]));
}

async fn a_node_whose_session_others_ended_publishes_nothing_more(store: &impl Store) {
    let slept = node(store).await;
    store.publish_changes(&slept, 1, &[came(1)]).await.unwrap();
    assert_eq!(store.end_session(&slept, EU, 10).await.unwrap(), [subject(1)]);
    assert_eq!(store.publish_changes(&slept, 2, &[left(1), came(2)]).await, Ok(BatchOutcome::Over));
    assert_eq!(store.begin_session(&slept, EU, Some(&slept)).await.unwrap().before, Before::Over);
    let again = NodeId::random();
    // Asked again because the first answer was lost.
    for _ in 0..2 {
        assert_eq!(store.begin_session(&again, EU, Some(&slept)).await.unwrap().before, Before::Lost(1));
    }
    store.close(&slept, &[lost(1)]).await.unwrap();
    assert_eq!(store.publish_changes(&again, 1, &[came(2)]).await, Ok(BatchOutcome::Published(1)));
    assert_eq!(published(store).await, ["1 connected", "1 disconnected lost", "2 connected"]);
}

async fn a_term_goes_on_under_another_id(store: &impl Store) {
    let before = node(store).await;
    store.publish_changes(&before, 1, &[came(1)]).await.unwrap();
    let after = NodeId::random();
    for _ in 0..2 {
        assert_eq!(store.begin_session(&after, EU, Some(&before)).await.unwrap().before, Before::Held(1));
    }
    assert!(store.end_session(&before, EU, 10).await.unwrap().is_empty(), "nothing is left there to clean up");
    assert_eq!(store.open(&after).await.unwrap(), [subject(1)]);
    assert_eq!(store.publish_changes(&before, 2, &[left(1)]).await, Ok(BatchOutcome::Over));
    assert_eq!(store.publish_changes(&after, 2, &[left(1)]).await, Ok(BatchOutcome::Published(2)));
    assert_eq!(published(store).await, ["1 connected", "1 disconnected client"]);
}

async fn a_term_that_goes_on_twice_is_found_where_it_is(store: &impl Store) {
    let first = node(store).await;
    store.publish_changes(&first, 1, &[came(1)]).await.unwrap();
    let (second, third) = (NodeId::random(), NodeId::random());
    // The node never heard the answer, and has yet another id by now.
    store.begin_session(&second, EU, Some(&first)).await.unwrap();
    assert_eq!(store.begin_session(&third, EU, Some(&first)).await.unwrap().before, Before::Moved(second.clone()));
    assert_eq!(store.begin_session(&third, EU, Some(&second)).await.unwrap().before, Before::Held(1));
    assert_eq!(store.open(&third).await.unwrap(), [subject(1)]);
    assert_eq!(store.sessions(EU).await.unwrap(), [third]);
}

async fn a_term_is_ended_by_nodes_of_its_own_region(store: &impl Store) {
    let (dead, never_began) = (node(store).await, NodeId::random());
    store.publish_changes(&dead, 1, &[came(1)]).await.unwrap();
    assert!(store.end_session(&dead, "us", 10).await.unwrap().is_empty());
    assert_eq!(store.publish_changes(&dead, 2, &[came(2)]).await, Ok(BatchOutcome::Published(2)));
    assert_eq!((store.sessions(EU).await, store.sessions("us").await), (Ok(vec![dead.clone()]), Ok(vec![])));
    assert!(store.end_session(&never_began, EU, 10).await.unwrap().is_empty());
    assert_eq!(store.begin_session(&never_began, "", None).await.unwrap().before, Before::Unknown);
    assert_eq!(store.sessions("").await, Ok(vec![never_began]));
}

async fn an_empty_batch_only_finds_out_how_things_stand(store: &impl Store) {
    let node = NodeId::random();
    assert_eq!(store.publish_changes(&node, 1, &[]).await, Ok(BatchOutcome::Over));
    let epoch = store.begin_session(&node, EU, None).await.unwrap().epoch;
    assert_eq!(store.begin_session(&node, EU, Some(&node)).await.unwrap().epoch, epoch);
    assert_eq!(store.publish_changes(&node, 1, &[]).await, Ok(BatchOutcome::Published(0)));
    assert_eq!(store.publish_changes(&node, 3, &[]).await, Ok(BatchOutcome::Behind(0)));
    assert_eq!(store.publish_changes(&node, 1, &[came(1)]).await, Ok(BatchOutcome::Published(1)));
}
