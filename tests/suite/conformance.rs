//! One behaviour of all stores: each test runs once against each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;
use uuid::Uuid;
use whimbrel::model::{
    Draft, Event, EventId, EventType, NodeId, Page, Published, Route, Start, StreamName, TraceParent,
};
use whimbrel::store::memory::MemoryStore;
use whimbrel::store::redis::RedisStore;
use whimbrel::store::{
    ChannelMessage, Checkpoint, DueSync, JobKind, NodeInfo, PAGE_BYTES, PAGE_EVENTS, Renewal, RetentionRules, Store,
    StoreError, Subscription,
};

use crate::support::redis::{RedisServer, config};
use crate::support::{eventually, in_time, stores};

const POSITION_TIME: Duration = Duration::from_secs(3600);
const HOUR: Duration = Duration::from_secs(3600);

/// A store, and what has to live as long.
struct Rig<S> {
    store: S,
    _server: Option<RedisServer>,
    _directory: Option<TempDir>,
}

async fn memory(rules: &str) -> Rig<impl Store> {
    let store = MemoryStore::new(rules.parse().unwrap(), POSITION_TIME, 64 * 1024 * 1024);
    Rig { store, _server: None, _directory: None }
}

async fn on_disk(rules: &str) -> Rig<impl Store> {
    let (store, directory) = stores::on_disk(rules.parse().unwrap(), POSITION_TIME, 64 * 1024 * 1024);
    Rig { store, _server: None, _directory: Some(directory) }
}

async fn redis(rules: &str) -> Rig<impl Store> {
    let server = RedisServer::start();
    let store = connect(&server, rules.parse().unwrap()).await;
    Rig { store, _server: Some(server), _directory: None }
}

pub async fn connect(server: &RedisServer, rules: RetentionRules) -> RedisStore {
    RedisStore::connect(&config(&server.url()), "whimbrel", rules, POSITION_TIME).await.unwrap()
}

/// Every test once a store: `conformance::memory::…`, `conformance::on_disk::…` and `conformance::redis::…`.
macro_rules! for_each_store {
    ($($name:ident($rules:literal);)*) => {
        for_each_store!(@ memory $($name $rules)*);
        for_each_store!(@ on_disk $($name $rules)*);
        for_each_store!(@ redis $($name $rules)*);
    };
    (@ $kind:ident $($name:ident $rules:literal)*) => {
        mod $kind {
            $(#[tokio::test]
            async fn $name() {
                let rig = super::$kind($rules).await;
                super::$name(&rig.store).await;
            })*
        }
    };
}

for_each_store! {
    a_publish_is_read_back_byte_for_byte("*=1000/3600");
    ids_ascend_and_prev_chains_even_within_a_millisecond("*=1000/3600");
    a_first_touch_gives_a_birth_id_that_stays("*=1000/3600");
    attach_returns_last_and_then_publishes_reach_the_channel_in_order("*=1000/3600");
    sync_with_a_head_reads_what_is_newer("*=1000/3600");
    streams_synced_together_are_answered_each_for_itself("*=1000/3600");
    nodes_with_routes_are_counted_and_lapsed_routes_are_not("*=1000/3600");
    detach_removes_only_its_own_registration("*=1000/3600");
    a_page_ends_at_its_limits_and_shows_that_there_is_more("*=1000/3600");
    reading_begins_where_the_caller_wants("*=1000/3600");
    reading_before_an_id_gives_the_newest_before_it("*=1000/3600");
    trimming_keeps_at_least_the_retention_and_first_shows_it("*=10/3600");
    a_log_that_expires_leaves_its_position_behind("*=1000/1");
    each_stream_is_kept_by_the_first_pattern_that_matches("topic:brief:*=1000/1 topic:brief=2000/3600 topic:*=10/3600");
    a_repeated_key_stores_nothing_and_another_body_is_refused("*=1000/3600");
    a_batch_is_answered_in_its_order_each_for_itself("*=1000/3600");
    a_time_to_live_a_collapse_key_and_a_trace_come_back_from_log_and_channel("*=1000/3600");
    pages_say_what_is_superseded_and_what_has_expired("*=1000/3600");
    the_newest_of_256_collapse_keys_are_known("*=100000/3600");
    an_ephemeral_event_is_not_stored("*=1000/3600");
    an_acknowledged_position_moves_only_forward_and_never_above_last("*=1000/3600");
    what_waits_is_counted_behind_the_acknowledged_position("*=100000/3600");
    the_store_keeps_up_to_where_nodes_were_notified("*=1000/3600");
    erased_events_are_gone_and_the_positions_stay("*=1000/3600");
    the_largest_and_least_ids_are_positions_too("*=1000/3600");
    a_handover_goes_on_only_from_where_it_is("*=1000/3600");
    what_a_dead_node_left_is_found_and_taken_away("*=1000/3600");
    a_lease_is_renewed_only_while_it_exists("*=1000/3600");
    a_beat_comes_back("*=1000/3600");
    a_subscription_that_nobody_reads_names_the_streams_of_which_it_dropped_events("*=1000/3600");
}

pub fn stream(name: &str) -> StreamName {
    name.parse().unwrap()
}

pub fn draft(data: impl Into<Bytes>) -> Draft {
    Draft::new(EventType::MESSAGE, data)
}

pub fn route(node: &NodeId, registration: u64) -> Route {
    Route { node: node.clone(), registration, ttl: HOUR, noted: false }
}

async fn publish(store: &impl Store, stream: &StreamName, count: usize) -> Vec<EventId> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(store.publish(stream, &draft(format!("{n}"))).await.unwrap().id);
    }
    ids
}

pub fn ids(page: &Page) -> Vec<EventId> {
    page.events.iter().map(|event| event.id).collect()
}

/// The next `count` events of a channel.
async fn receive(subscription: &mut Box<dyn Subscription>, count: usize) -> Vec<(StreamName, Arc<Event>)> {
    let mut events = Vec::new();
    while events.len() < count {
        let messages = in_time("messages", subscription.next(64)).await.expect("the subscription lives");
        for message in messages {
            match message {
                ChannelMessage::Event(stream, event) => events.push((stream, event)),
                other => panic!("nobody sent {other:?}"),
            }
        }
    }
    events
}

async fn a_publish_is_read_back_byte_for_byte(store: &impl Store) {
    let stream = stream("device:42");
    let big = format!("\"{}\"", "é".repeat(60_000));
    let texts = ["1", "null", "{\"a\" :\r\n\t\"ä €😀\\u0000\"}\n", "\"-ERR 5-1\"", &big];
    for text in texts {
        let kind = "order.paid".parse().unwrap();
        store.publish(&stream, &Draft { kind, ..draft(text.to_owned()) }).await.unwrap();
    }
    store.publish(&stream, &draft("2")).await.unwrap();
    let page = store.read(&stream, Start::Earliest, 100).await.unwrap();
    let read: Vec<&[u8]> = page.events.iter().map(|event| &event.data[..]).collect();
    let written: Vec<&[u8]> = texts.iter().copied().chain(["2"]).map(str::as_bytes).collect();
    assert!(read == written);
    assert_eq!(page.events[0].kind.as_str(), "order.paid");
    assert!(page.events.last().unwrap().kind.is_message());
}

async fn ids_ascend_and_prev_chains_even_within_a_millisecond(store: &impl Store) {
    let stream = stream("topic:busy");
    let batch = vec![(stream.clone(), draft("1")); 300];
    let stored: Vec<EventId> = store.publish_all(&batch).await.into_iter().map(|answer| answer.unwrap().id).collect();
    assert!(stored.is_sorted_by(|a, b| a < b));
    let mut position = store.read(&stream, Start::Last(0), 1).await.unwrap().epoch;
    let mut read = Vec::new();
    loop {
        let page = store.read(&stream, Start::After(position), 100).await.unwrap();
        for event in &page.events {
            assert_eq!(event.prev, position);
            position = event.id;
            read.push(event.id);
        }
        if !page.more {
            assert_eq!(page.last, position);
            break;
        }
    }
    assert_eq!(read, stored);
}

async fn a_first_touch_gives_a_birth_id_that_stays(store: &impl Store) {
    let stream = stream("topic:new");
    let epoch = store.sync(&stream, &route(&NodeId::random(), 1), None).await.unwrap();
    assert!(epoch.last > EventId::new(1, 0));
    assert_eq!((epoch.last, epoch.first, epoch.fork), (epoch.epoch, None, None));
    let again = store.read(&stream, Start::After(epoch.last), 10).await.unwrap();
    assert_eq!((again.last, again.epoch, again.events.len(), again.more), (epoch.last, epoch.epoch, 0, false));
    assert!(again.now_ms >= epoch.now_ms && epoch.now_ms >= epoch.epoch.ms);
    let id = store.publish(&stream, &draft("1")).await.unwrap().id;
    let page = store.read(&stream, Start::After(epoch.last), 10).await.unwrap();
    assert_eq!((page.events[0].prev, page.last, page.epoch), (epoch.epoch, id, epoch.epoch));
}

async fn attach_returns_last_and_then_publishes_reach_the_channel_in_order(store: &impl Store) {
    let (stream, other, node) = (stream("topic:news"), stream("topic:other"), NodeId::random());
    let before = publish(store, &stream, 3).await;
    let mut subscription = store.coordination().subscribe(&node).await.unwrap();
    let attached = store.sync(&stream, &route(&node, 1), None).await.unwrap();
    assert_eq!(attached.last, before[2]);
    assert_eq!((attached.events.len(), attached.from, attached.first), (0, before[2], Some(before[0])));
    publish(store, &other, 1).await;
    let after = publish(store, &stream, 50).await;
    let mut position = attached.last;
    for (n, (of, event)) in receive(&mut subscription, 50).await.into_iter().enumerate() {
        assert_eq!((of, event.prev, event.id), (stream.clone(), position, after[n]));
        assert_eq!((&event.data[..], event.kind.as_str()), (n.to_string().as_bytes(), "message"));
        position = event.id;
    }
}

async fn sync_with_a_head_reads_what_is_newer(store: &impl Store) {
    let (stream, node) = (stream("topic:news"), NodeId::random());
    let stored = publish(store, &stream, PAGE_EVENTS + 3).await;
    let page = store.sync(&stream, &route(&node, 1), Some(stored[1])).await.unwrap();
    assert_eq!((page.from, page.more), (stored[1], true));
    assert_eq!(ids(&page), stored[2..2 + PAGE_EVENTS]);
    let page = store.sync(&stream, &route(&node, 1), Some(stored[PAGE_EVENTS + 2])).await.unwrap();
    assert_eq!((page.events.len(), page.more), (0, false));
    assert_eq!(store.publish(&stream, &draft("1")).await.unwrap().nodes, 1);
}

/// The answers to syncs that were asked for together, in the order of what was due.
pub async fn sync_each(store: &impl Store, due: &[DueSync]) -> Vec<Result<Page, StoreError>> {
    let answers: Vec<Mutex<Option<_>>> = due.iter().map(|_| Mutex::default()).collect();
    let answered = |place: usize, answer| assert!(answers[place].lock().replace(answer).is_none(), "answered twice");
    store.sync_each(due, &answered).await;
    answers.into_iter().map(|answer| answer.into_inner().expect("each is answered")).collect()
}

async fn streams_synced_together_are_answered_each_for_itself(store: &impl Store) {
    let node = NodeId::random();
    // The first is attached.
    let first = stream("device:first");
    publish(store, &first, 1).await;
    let mut due: Vec<DueSync> = vec![(first, Route { noted: false, ..route(&node, 1) }, None)];
    let mut newer = vec![Vec::new()];
    for n in 0..20 {
        let stream = stream(&format!("device:{n}"));
        let stored = publish(store, &stream, n + 1).await;
        due.push((stream, Route { noted: n % 3 > 0, ..route(&node, 1) }, Some(stored[n / 2])));
        newer.push(stored[n / 2 + 1..].to_vec());
    }
    let read: Vec<_> = sync_each(store, &due).await.into_iter().map(|answer| ids(&answer.unwrap())).collect();
    assert_eq!(read, newer);
    for (stream, ..) in &due {
        assert_eq!(store.publish(stream, &draft("1")).await.unwrap().nodes, 1, "the route of {stream}");
    }
}

async fn nodes_with_routes_are_counted_and_lapsed_routes_are_not(store: &impl Store) {
    let (stream, first, second) = (stream("topic:news"), NodeId::random(), NodeId::random());
    assert_eq!(store.publish(&stream, &draft("1")).await.unwrap().nodes, 0);
    store.sync(&stream, &route(&first, 1), None).await.unwrap();
    let short = Route { ttl: Duration::from_secs(2), ..route(&second, 1) };
    store.sync(&stream, &short, None).await.unwrap();
    assert_eq!(store.publish(&stream, &draft("1")).await.unwrap().nodes, 2);
    eventually("the short route lapses", || async {
        (store.publish(&stream, &draft("1")).await.unwrap().nodes == 1).then_some(())
    })
    .await;
    store.sync(&stream, &short, None).await.unwrap();
    assert_eq!(store.publish(&stream, &draft("1")).await.unwrap().nodes, 2);
}

async fn detach_removes_only_its_own_registration(store: &impl Store) {
    let (stream, node) = (stream("topic:news"), NodeId::random());
    store.sync(&stream, &route(&node, 1), None).await.unwrap();
    store.sync(&stream, &route(&node, 2), None).await.unwrap();
    store.detach(&stream, &node, Some(1)).await.unwrap();
    store.detach(&stream, &NodeId::random(), None).await.unwrap();
    assert_eq!(store.publish(&stream, &draft("1")).await.unwrap().nodes, 1);
    store.detach(&stream, &node, Some(2)).await.unwrap();
    assert_eq!(store.publish(&stream, &draft("1")).await.unwrap().nodes, 0);
    store.sync(&stream, &route(&node, 3), None).await.unwrap();
    store.detach(&stream, &node, None).await.unwrap();
    assert_eq!(store.publish(&stream, &draft("1")).await.unwrap().nodes, 0);
}

async fn a_page_ends_at_its_limits_and_shows_that_there_is_more(store: &impl Store) {
    let stream = stream("device:1");
    let stored = publish(store, &stream, 40).await;
    let page = store.read(&stream, Start::Earliest, 40).await.unwrap();
    assert_eq!((page.events.len(), page.more), (40, false));
    let page = store.read(&stream, Start::Earliest, 39).await.unwrap();
    assert_eq!((page.events.len(), page.more), (39, true));
    let page = store.read(&stream, Start::After(stored[38]), 1).await.unwrap();
    assert_eq!((ids(&page), page.more), (vec![stored[39]], false));
    // The event that crosses the line of bytes is still in the page.
    let big = "x".repeat(PAGE_BYTES / 4);
    for _ in 0..6 {
        store.publish(&stream, &draft(format!("\"{big}\""))).await.unwrap();
    }
    let page = store.read(&stream, Start::After(stored[39]), 40).await.unwrap();
    assert_eq!((page.events.len(), page.more), (4, true));
    let page = store.read_before(&stream, EventId::new(u64::MAX, u64::MAX), 40).await.unwrap();
    assert_eq!((page.events.len(), page.more), (4, true));
}

async fn reading_begins_where_the_caller_wants(store: &impl Store) {
    let stream = stream("device:1");
    let stored = publish(store, &stream, 20).await;
    let read = async |start| store.read(&stream, start, 100).await.unwrap();
    let earliest = read(Start::Earliest).await;
    assert_eq!((ids(&earliest), earliest.from), (stored.clone(), earliest.epoch));
    let after = read(Start::After(stored[4])).await;
    assert_eq!((ids(&after), after.from), (stored[5..].to_vec(), stored[4]));
    let last = read(Start::Last(3)).await;
    assert_eq!((ids(&last), last.from, last.more), (stored[17..].to_vec(), stored[16], false));
    let all = read(Start::Last(500)).await;
    assert_eq!((ids(&all), all.from), (stored.clone(), all.epoch));
    let none = read(Start::Last(0)).await;
    assert_eq!((none.events.len(), none.from, none.more), (0, stored[19], false));
    let paged = store.read(&stream, Start::Last(10), 4).await.unwrap();
    assert_eq!((ids(&paged), paged.more), (stored[10..14].to_vec(), true));
    let beyond = EventId::new(stored[19].ms + 1_000_000, 1);
    let ahead = read(Start::After(beyond)).await;
    assert_eq!((ahead.events.len(), ahead.from, ahead.last), (0, beyond, stored[19]));
}

async fn reading_before_an_id_gives_the_newest_before_it(store: &impl Store) {
    let stream = stream("device:1");
    let stored = publish(store, &stream, 20).await;
    let page = store.read_before(&stream, stored[10], 4).await.unwrap();
    assert_eq!((ids(&page), page.more, page.from), (stored[6..10].to_vec(), true, stored[5]));
    let page = store.read_before(&stream, stored[2], 4).await.unwrap();
    assert_eq!((ids(&page), page.more), (stored[..2].to_vec(), false));
    let page = store.read_before(&stream, stored[0], 4).await.unwrap();
    assert_eq!((page.events.len(), page.more, page.last), (0, false, stored[19]));
}

async fn trimming_keeps_at_least_the_retention_and_first_shows_it(store: &impl Store) {
    let stream = stream("device:1");
    let stored = publish(store, &stream, 300).await;
    let page = store.read(&stream, Start::Earliest, 300).await.unwrap();
    assert!((10..300).contains(&page.events.len()), "{}", page.events.len());
    assert_eq!(page.first, Some(page.events[0].id));
    assert_eq!(ids(&page), stored[300 - page.events.len()..]);
    // The chain goes on into what is gone, which is how a reader finds out.
    assert_eq!(page.events[0].prev, stored[299 - page.events.len()]);
    let overtaken = store.read(&stream, Start::After(stored[2]), 300).await.unwrap();
    assert_eq!((overtaken.from, ids(&overtaken)), (stored[2], ids(&page)));
    // Trimming is no loss: no reader must get a fork.
    let recovered = store.recover(&stream, stored[2], page.epoch, &[stored[2], stored[1]]).await.unwrap();
    assert_eq!((recovered.from, recovered.fork, recovered.last), (stored[2], None, stored[299]));
}

async fn a_log_that_expires_leaves_its_position_behind(store: &impl Store) {
    let stream = stream("device:1");
    let stored = publish(store, &stream, 2).await;
    let page = eventually("the log expires", || async {
        Some(store.read(&stream, Start::Earliest, 10).await.unwrap()).filter(|page| page.first.is_none())
    })
    .await;
    assert_eq!((page.last, page.from, page.events.len()), (stored[1], stored[1], 0));
    let recovered = store.recover(&stream, stored[1], page.epoch, &stored).await.unwrap();
    assert_eq!((recovered.last, recovered.fork), (stored[1], None));
    let id = store.publish(&stream, &draft("1")).await.unwrap().id;
    let page = store.read(&stream, Start::After(stored[1]), 10).await.unwrap();
    assert_eq!((page.events[0].prev, page.events[0].id), (stored[1], id));
}

async fn each_stream_is_kept_by_the_first_pattern_that_matches(store: &impl Store) {
    let streams = ["topic:brief:a", "topic:brief", "topic:brie", "device:1"].map(stream);
    for stream in &streams {
        let batch: Vec<_> = (0..500).map(|n| (stream.clone(), draft(n.to_string()))).collect();
        for answer in store.publish_all(&batch).await {
            answer.unwrap();
        }
    }
    let kept = async |which: usize| {
        let mut kept = 0;
        let mut start = Start::Earliest;
        loop {
            let page = store.read(&streams[which], start, 1000).await.unwrap();
            kept += page.events.len();
            match page.events.last() {
                Some(last) if page.more => start = Start::After(last.id),
                _ => return kept,
            }
        }
    };
    assert_eq!(kept(1).await, 500);
    // A store may keep some more than the retention.
    assert!((10..500).contains(&kept(2).await));
    // No pattern matches it, and by default a stream keeps a thousand.
    assert_eq!(kept(3).await, 500);
    eventually("the brief one expires", async || (kept(0).await == 0).then_some(())).await;
    assert_eq!(kept(1).await, 500);
}

async fn a_repeated_key_stores_nothing_and_another_body_is_refused(store: &impl Store) {
    let (stream, node) = (stream("device:1"), NodeId::random());
    let keyed = |data: &str, kind: &str, key: &str| Draft {
        key: Some(key.to_owned()),
        ..Draft::new(kind.parse().unwrap(), data.to_owned())
    };
    store.sync(&stream, &route(&node, 1), None).await.unwrap();
    let first = store.publish(&stream, &keyed("1", "a", "k")).await.unwrap();
    assert_eq!((first.nodes, first.duplicate), (1, false));
    let repeat = store.publish(&stream, &keyed("1", "a", "k")).await.unwrap();
    assert_eq!(repeat, Published { nodes: 0, duplicate: true, ..first.clone() });
    let short = Draft { ttl: Some(HOUR), ..keyed("1", "a", "k") };
    let grouped = Draft { collapse: Some("c".to_owned()), ..keyed("1", "a", "k") };
    for other in [keyed("2", "a", "k"), keyed("1", "b", "k"), short, grouped] {
        assert_eq!(store.publish(&stream, &other).await, Err(StoreError::KeyReused));
    }
    let other = store.publish(&stream, &keyed("1", "a", "-")).await.unwrap();
    assert!(!other.duplicate);
    let elsewhere = store.publish(&self::stream("device:2"), &keyed("1", "a", "k")).await.unwrap();
    assert!(!elsewhere.duplicate);
    let page = store.read(&stream, Start::Earliest, 10).await.unwrap();
    assert_eq!(ids(&page), [first.id, other.id]);
}

async fn a_time_to_live_a_collapse_key_and_a_trace_come_back_from_log_and_channel(store: &impl Store) {
    let (stream, node) = (stream("device:1"), NodeId::random());
    let mut subscription = store.coordination().subscribe(&node).await.unwrap();
    let attached = store.sync(&stream, &route(&node, 1), None).await.unwrap();
    let trace = Some(TraceParent::new([7; 16], [8; 8], true));
    let given = Draft { ttl: Some(HOUR), collapse: Some("a=b:c".to_owned()), trace, ..draft("1") };
    store.publish(&stream, &given).await.unwrap();
    store.publish(&stream, &draft("2")).await.unwrap();
    let stored = receive(&mut subscription, 2).await;
    let page = store.read(&stream, Start::Earliest, 10).await.unwrap();
    for (read, (_, stored)) in page.events.iter().zip(&stored) {
        assert_eq!(read, stored);
    }
    let event = &page.events[0];
    assert_eq!((event.collapse.as_deref(), event.trace()), (Some("a=b:c"), trace));
    let hour = HOUR.as_millis() as u64;
    let expires_ms = event.expires_ms.unwrap();
    assert!((attached.now_ms + hour..=page.now_ms + hour).contains(&expires_ms), "on the store's clock: {expires_ms}");
    assert!(!event.is_expired(page.now_ms) && event.is_expired(page.now_ms + hour + 1000));
    assert_eq!((page.events[1].expires_ms, &page.events[1].collapse, page.events[1].trace()), (None, &None, None));
}

async fn pages_say_what_is_superseded_and_what_has_expired(store: &impl Store) {
    let (stream, node) = (stream("device:1"), NodeId::random());
    let keyed = |key: &str| Draft { collapse: Some(key.to_owned()), ..draft("1") };
    let brief = Draft { ttl: Some(Duration::from_millis(1)), ..draft("\"brief\"") };
    let mut stored = Vec::new();
    for draft in [keyed("a"), keyed("b"), brief, keyed("a"), draft("2"), keyed("a")] {
        stored.push(store.publish(&stream, &draft).await.unwrap().id);
    }
    let superseded = [stored[0], stored[3]];
    let page = eventually("the brief one expires", async || {
        let page = store.read(&stream, Start::Earliest, 100).await.unwrap();
        page.events[2].is_expired(page.now_ms).then_some(page)
    })
    .await;
    assert_eq!((ids(&page), &page.superseded[..]), (stored.clone(), &superseded[..]));
    for pair in page.events.windows(2) {
        assert_eq!(pair[1].prev, pair[0].id, "the chain is whole");
    }
    assert_eq!(page.unexpired().count(), 5);
    let after = store.read(&stream, Start::After(stored[0]), 2).await.unwrap();
    assert_eq!((ids(&after), after.superseded.len()), (stored[1..3].to_vec(), 0));
    let after = store.read(&stream, Start::After(stored[1]), 2).await.unwrap();
    assert_eq!(after.superseded, [stored[3]], "what supersedes it is on another page");
    let before = store.read_before(&stream, stored[5], 100).await.unwrap();
    assert_eq!((ids(&before), &before.superseded[..]), (stored[..5].to_vec(), &superseded[..]));
    let synced = store.sync(&stream, &route(&node, 1), Some(stored[2])).await.unwrap();
    assert_eq!(synced.superseded, [stored[3]]);
    let recovered = store.recover(&stream, stored[2], synced.epoch, &[stored[2]]).await.unwrap();
    assert_eq!(recovered.superseded, [stored[3]]);
    let since = store.read(&stream, Start::Since(stored[0].ms), 100).await.unwrap();
    assert_eq!((since.from, since.events[0].id), (since.epoch, stored[0]));
    let since = store.read(&stream, Start::Since(stored[5].ms + 1), 100).await.unwrap();
    assert_eq!((since.from, since.events.len()), (stored[5], 0));
}

async fn the_newest_of_256_collapse_keys_are_known(store: &impl Store) {
    let stream = stream("topic:prices");
    let keyed = |n: usize| (stream.clone(), Draft { collapse: Some(format!("k{n}")), ..draft(n.to_string()) });
    let twice: Vec<_> = (0..300).chain(0..300).map(keyed).collect();
    for answer in store.publish_all(&twice).await {
        answer.unwrap();
    }
    let page = store.read(&stream, Start::Earliest, 1000).await.unwrap();
    assert_eq!(page.events.len(), 600);
    let superseded = page.superseded.len();
    assert!((150..=256).contains(&superseded), "{superseded}");
    // Those that were used last.
    assert_eq!(page.superseded, ids(&page)[300 - superseded..300]);
}

async fn an_ephemeral_event_is_not_stored(store: &impl Store) {
    let (stream, node) = (stream("topic:a"), NodeId::random());
    let trace = Some(TraceParent::new([7; 16], [8; 8], false));
    let typing = Draft { exclude: Some(Uuid::new_v4()), trace, ..Draft::new("typing".parse().unwrap(), "{\n}") };
    assert_eq!(store.publish_ephemeral(&stream, &typing).await, Ok(0));
    let mut subscription = store.coordination().subscribe(&node).await.unwrap();
    let attached = store.sync(&stream, &route(&node, 1), None).await.unwrap();
    assert_eq!(store.publish_ephemeral(&stream, &typing).await, Ok(1));
    let messages = in_time("a message", subscription.next(64)).await.unwrap();
    let expected = ChannelMessage::Ephemeral(stream.clone(), Arc::new(typing.ephemeral()));
    assert_eq!(messages, [expected]);
    let page = store.read(&stream, Start::Earliest, 10).await.unwrap();
    assert_eq!((page.events.len(), page.last), (0, attached.last));
}

async fn an_acknowledged_position_moves_only_forward_and_never_above_last(store: &impl Store) {
    let stream = stream("device:1");
    let acknowledge = async |id: Option<EventId>| store.acknowledge(&stream, id).await.unwrap();
    let first = acknowledge(None).await;
    assert_eq!((first.acked, first.last, first.position()), (None, first.epoch, first.epoch));
    for id in [EventId::ZERO, first.epoch, EventId::new(u64::MAX, u64::MAX)] {
        assert_eq!(acknowledge(Some(id)).await, first, "there is nothing to be acknowledged yet");
    }
    let stored = publish(store, &stream, 10).await;
    let epoch = acknowledge(None).await.epoch;
    for (id, acked) in [
        (stored[3], stored[3]),
        (stored[1], stored[3]),
        (EventId::new(u64::MAX, u64::MAX), stored[3]),
        (EventId::new(stored[9].ms, stored[9].seq + 1), stored[3]),
        (stored[8], stored[8]),
        (stored[9], stored[9]),
    ] {
        let after = acknowledge(Some(id)).await;
        assert_eq!((after.acked, after.last, after.epoch), (Some(acked), stored[9], epoch), "{id}");
    }
    assert_eq!(acknowledge(None).await.position(), stored[9]);
    publish(store, &stream, 1).await;
    assert_eq!(acknowledge(None).await.acked, Some(stored[9]));
}

async fn what_waits_is_counted_behind_the_acknowledged_position(store: &impl Store) {
    let stream = stream("device:1");
    assert_eq!(store.inbox(&stream).await.unwrap().pending, 0);
    // More than one look takes.
    let batch: Vec<_> = (0..1000).map(|n| (stream.clone(), draft(n.to_string()))).collect();
    let stored: Vec<_> = store.publish_all(&batch).await.into_iter().map(|answer| answer.unwrap().id).collect();
    let pending = async || store.inbox(&stream).await.unwrap().pending;
    assert_eq!(pending().await, 1000);
    store.acknowledge(&stream, Some(stored[299])).await.unwrap();
    let inbox = store.inbox(&stream).await.unwrap();
    assert_eq!((inbox.standing.acked, inbox.standing.last, inbox.pending), (Some(stored[299]), stored[999], 700));
    for _ in 0..3 {
        store.publish(&stream, &Draft { collapse: Some("a".to_owned()), ..draft("1") }).await.unwrap();
        store.publish(&stream, &Draft { ttl: Some(Duration::from_millis(1)), ..draft("1") }).await.unwrap();
    }
    eventually("three expire, and two are superseded", async || (pending().await == 701).then_some(())).await;
}

async fn the_store_keeps_up_to_where_nodes_were_notified(store: &impl Store) {
    let (stream, nodes) = (stream("device:1"), [NodeId::random(), NodeId::random()]);
    let sent = async || store.acknowledge(&stream, None).await.unwrap().told;
    let before = publish(store, &stream, 2).await;
    assert_eq!(sent().await, None);
    // A node that comes has all that is there within its reach.
    store.sync(&stream, &route(&nodes[0], 1), None).await.unwrap();
    assert_eq!(sent().await, Some(before[1]));
    let during = publish(store, &stream, 2).await;
    store.sync(&stream, &route(&nodes[1], 1), None).await.unwrap();
    store.detach(&stream, &nodes[0], None).await.unwrap();
    assert_eq!(sent().await, Some(during[1]), "one is still there");
    let still = publish(store, &stream, 1).await;
    store.detach(&stream, &nodes[1], Some(2)).await.unwrap();
    assert_eq!(sent().await, Some(still[0]));
    store.detach(&stream, &nodes[1], Some(1)).await.unwrap();
    publish(store, &stream, 2).await;
    assert_eq!(sent().await, Some(still[0]), "nobody was there any more");
    // A route that lapses was good for what came before.
    let brief = Route { ttl: Duration::from_secs(4), ..route(&nodes[0], 2) };
    store.sync(&stream, &brief, None).await.unwrap();
    let last = publish(store, &stream, 1).await[0];
    assert_eq!(sent().await, Some(last));
    let later = eventually("the route lapses", async || {
        let published = store.publish(&stream, &draft("1")).await.unwrap();
        (published.nodes == 0).then_some(published.id)
    })
    .await;
    let sent = sent().await.unwrap();
    assert!(last <= sent && sent < later, "{last} {sent} {later}");
}

async fn erased_events_are_gone_and_the_positions_stay(store: &impl Store) {
    let (stream, node) = (stream("device:1"), NodeId::random());
    store.erase(&stream).await.unwrap();
    let mut subscription = store.coordination().subscribe(&node).await.unwrap();
    let attached = store.sync(&stream, &route(&node, 1), None).await.unwrap();
    assert_eq!(attached.erased, None);
    let keyed = Draft { collapse: Some("a".to_owned()), ..draft("1") };
    let first = store.publish(&stream, &keyed).await.unwrap().id;
    let stored = publish(store, &stream, 3).await;
    store.acknowledge(&stream, Some(stored[0])).await.unwrap();
    receive(&mut subscription, 4).await;
    store.erase(&stream).await.unwrap();
    let messages = in_time("a message", subscription.next(64)).await.unwrap();
    assert_eq!(messages, [ChannelMessage::Erased(stream.clone())]);
    let page = store.sync(&stream, &route(&node, 1), Some(stored[2])).await.unwrap();
    assert_eq!((page.events.len(), page.last, page.first), (0, stored[2], None));
    assert_eq!((page.erased, page.epoch), (Some(stored[2]), attached.epoch));
    assert_eq!(store.inbox(&stream).await.unwrap().standing.acked, Some(stored[0]));
    assert_eq!(store.read(&stream, Start::After(first), 10).await.unwrap().events, []);
    // What is known of the collapse keys went with the events.
    let next = store.publish(&stream, &keyed).await.unwrap().id;
    let page = store.read(&stream, Start::Earliest, 10).await.unwrap();
    assert_eq!((ids(&page), page.events[0].prev, page.erased), (vec![next], stored[2], Some(stored[2])));
    assert_eq!(store.inbox(&stream).await.unwrap().pending, 1);
}

async fn a_batch_is_answered_in_its_order_each_for_itself(store: &impl Store) {
    let streams: Vec<StreamName> = (0..20).map(|n| stream(&format!("device:{n}"))).collect();
    let mut batch: Vec<(StreamName, Draft)> =
        (0..200).map(|n| (streams[n * 7 % 20].clone(), draft(n.to_string()))).collect();
    let key = Some("k".to_owned());
    batch[3].1.key = key.clone();
    batch.insert(100, (batch[3].0.clone(), Draft { key, ..draft("other") }));
    let answers = store.publish_all(&batch).await;
    assert_eq!(answers.len(), batch.len());
    for (n, (answer, (stream, draft))) in answers.iter().zip(&batch).enumerate() {
        if n == 100 {
            assert_eq!(answer, &Err(StoreError::KeyReused));
            continue;
        }
        let published = answer.as_ref().unwrap();
        assert_eq!(&published.stream, stream);
        let page = store.read_before(stream, EventId::new(published.id.ms, published.id.seq + 1), 1).await.unwrap();
        assert_eq!((page.events[0].id, &page.events[0].data), (published.id, &draft.data));
    }
    for stream in &streams {
        let page = store.read(stream, Start::Earliest, 100).await.unwrap();
        let numbers = page.events.iter().map(|event| str::from_utf8(&event.data).unwrap().parse::<u32>().unwrap());
        assert!(numbers.is_sorted());
        assert_eq!(page.events.len(), 10);
    }
    assert!(store.publish_all(&[]).await.is_empty());
}

async fn the_largest_and_least_ids_are_positions_too(store: &impl Store) {
    let (stream, largest) = (stream("device:1"), EventId::new(u64::MAX, u64::MAX));
    let stored = publish(store, &stream, 2).await;
    let page = store.read(&stream, Start::After(largest), 10).await.unwrap();
    assert_eq!((page.events.len(), page.from, page.last), (0, largest, stored[1]));
    let page = store.read(&stream, Start::After(EventId::ZERO), 10).await.unwrap();
    assert_eq!(ids(&page), stored);
    let page = store.read_before(&stream, EventId::ZERO, 10).await.unwrap();
    assert_eq!((page.events.len(), page.more), (0, false));
    let page = store.read_before(&stream, largest, 10).await.unwrap();
    assert_eq!(ids(&page), stored);
}

async fn alive(store: &impl Store) -> Vec<NodeId> {
    let nodes = store.coordination().nodes().await.unwrap();
    nodes.into_iter().filter(|known| !known.lapsed).map(|known| known.node).collect()
}

async fn a_handover_goes_on_only_from_where_it_is(store: &dyn Store) {
    let (leaders, stream, node) = (store.leaders(), StreamName::lifecycle(), NodeId::random());
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(store.publish(&stream, &draft("1")).await.unwrap().id);
    }
    assert_eq!(leaders.checkpoint(&stream).await, Ok(None));
    assert!(leaders.acquire(JobKind::Webhook, &node, HOUR).await.unwrap());
    let first = Checkpoint::at(ids[0]);
    let sent = Checkpoint { sent: Some(ids[1]), ..first };
    let mut known = None;
    for to in [first, sent, Checkpoint::at(ids[1])] {
        assert!(leaders.advance(&stream, &node, known, to).await.unwrap());
        assert!(!leaders.advance(&stream, &node, known, Checkpoint::at(ids[2])).await.unwrap(), "it went on since");
        known = Some(to);
        assert_eq!(leaders.checkpoint(&stream).await, Ok(known));
    }
    store.erase(&stream).await.unwrap();
    assert_eq!(leaders.checkpoint(&stream).await, Ok(known), "a position outlives the events");
}

async fn what_a_dead_node_left_is_found_and_taken_away(store: &impl Store) {
    let (dead, survivor) = (NodeId::random(), NodeId::random());
    let streams: Vec<StreamName> = (0..5).map(|n| stream(&format!("device:left-{n}"))).collect();
    store.coordination().register(&dead, &NodeInfo::default(), HOUR).await.unwrap();
    for left in &streams {
        store.sync(left, &route(&dead, 1), None).await.unwrap();
    }
    assert_eq!(store.coordination().claim(&dead, &survivor, HOUR).await, Ok(true));
    assert_eq!(store.coordination().claim(&dead, &survivor, HOUR).await, Ok(true), "it is still theirs");
    let mut found = Vec::new();
    loop {
        let some = store.coordination().streams_of(&dead, 2).await.unwrap();
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 2);
        for left in some {
            store.detach(&left, &dead, None).await.unwrap();
            found.push(left);
        }
    }
    found.sort();
    assert_eq!(found, streams);
    assert_eq!(store.publish(&streams[0], &draft("1")).await.unwrap().nodes, 0);
}

async fn a_lease_is_renewed_only_while_it_exists(store: &impl Store) {
    let (first, second, info) = (NodeId::random(), NodeId::random(), NodeInfo::default());
    assert_eq!(store.coordination().renew(&first, HOUR).await, Ok(Renewal::Gone));
    store.coordination().register(&first, &info, HOUR).await.unwrap();
    assert_eq!(store.coordination().renew(&first, HOUR).await, Ok(Renewal::Held { nodes: 1 }));
    store.coordination().register(&second, &info, Duration::from_secs(2)).await.unwrap();
    assert_eq!(store.coordination().renew(&first, HOUR).await, Ok(Renewal::Held { nodes: 2 }));
    assert_eq!(alive(store).await.len(), 2);
    eventually("the short lease lapses", || async { (alive(store).await == [first.clone()]).then_some(()) }).await;
    // The list of nodes may say so a moment before the lease itself ends.
    eventually("the lapsed lease is gone", || async {
        (store.coordination().renew(&second, Duration::from_millis(1)).await == Ok(Renewal::Gone)).then_some(())
    })
    .await;
    assert_eq!(store.coordination().renew(&first, HOUR).await, Ok(Renewal::Held { nodes: 1 }));
    store.coordination().release(&first).await.unwrap();
    assert_eq!(store.coordination().renew(&first, HOUR).await, Ok(Renewal::Gone));
    assert_eq!(alive(store).await, []);
    assert_eq!(
        store.coordination().nodes().await.unwrap().iter().filter(|known| known.lapsed).count(),
        1,
        "until it is cleaned up after"
    );
    store.coordination().release(&second).await.unwrap();
    assert_eq!(store.coordination().nodes().await, Ok(vec![]));
}

async fn a_beat_comes_back(store: &impl Store) {
    let (node, other) = (NodeId::random(), NodeId::random());
    let mut subscription = store.coordination().subscribe(&node).await.unwrap();
    store.coordination().beat(&other).await.unwrap();
    store.coordination().beat(&node).await.unwrap();
    let messages = in_time("the beat", subscription.next(10)).await;
    assert_eq!(messages, Some(vec![ChannelMessage::Beat]));
}

async fn a_subscription_that_nobody_reads_names_the_streams_of_which_it_dropped_events(store: &impl Store) {
    let (stream, node) = (stream("topic:news"), NodeId::random());
    let mut subscription = store.coordination().subscribe(&node).await.unwrap();
    store.sync(&stream, &route(&node, 1), None).await.unwrap();
    let data = format!("\"{}\"", "x".repeat(64 * 1024));
    let mut position = None;
    for _ in 0..300 {
        store.publish(&stream, &draft(data.clone())).await.unwrap();
    }
    let missed = in_time("what was dropped", async {
        loop {
            // What was dropped is named behind the messages that were taken.
            let messages = subscription.next(7).await.expect("the subscription goes on");
            assert!((1..=8).contains(&messages.len()));
            for message in messages {
                match message {
                    ChannelMessage::Event(_, event) => {
                        assert!(position.is_none_or(|position| position < event.id), "messages keep their order");
                        position = Some(event.id);
                    }
                    ChannelMessage::Missed(missed) => return missed,
                    other => panic!("nobody sent {other:?}"),
                }
            }
        }
    })
    .await;
    assert!(missed.messages > 0);
    assert_eq!(missed.streams, Some(vec![stream.clone()]));
    assert!(store.publish(&stream, &draft("1")).await.is_ok());
}
