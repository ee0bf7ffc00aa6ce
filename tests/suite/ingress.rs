//! What producers add to the ingress stream: each entry becomes an event once, in its stream's order, whichever
//! node dies meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use whimbrel::model::{Draft, EventId, EventType, Start};
use whimbrel::store::{EventLog as _, Ingress as _, Placed, Placement, RetentionRules};

use crate::conformance::{connect, stream};
use crate::support::client::{Client, Transport, Wanted};
use crate::support::node::Node;
use crate::support::producers::{python, redis_cli};
use crate::support::proxy::{Cut, Direction, Flow, Proxy};
use crate::support::redis::{RedisServer, config};
use crate::support::world::{World, promises};
use crate::support::{Signal, command, eventually};

promises! {
    everywhere: ;
    on_redis:
        an_entry_becomes_an_event_of_its_stream,
        entries_become_events_once_and_in_order_when_the_draining_node_is_killed,
        a_draining_node_that_was_stopped_and_wakes_adds_nothing,
}

const INGRESS: &str = "whimbrel:ingress";
const REJECTED: &str = "whimbrel:ingress:rejected";
const STREAMS: [&str; 3] = ["topic:news", "device:42", "device:a@b.c"];
const SHORT_LEASE: &[(&str, &str)] = &[("WHIMBREL_LEASE_SECONDS", "1"), KEEP_ALL];
const KEEP_ALL: (&str, &str) = ("WHIMBREL_RETENTION", "*=100000/3600");

/// Adds an entry as somebody at a terminal does.
async fn add(redis: &RedisServer, fields: &[&str]) -> String {
    let command = [&["XADD", INGRESS, "*"], fields].concat();
    redis_cli(redis, &command).await.as_str().unwrap().to_owned()
}

/// Waits until nothing is left in the ingress stream.
async fn drained(raw: &MultiplexedConnection) {
    let raw = || raw.clone();
    eventually("an empty ingress stream", async || (raw().xlen::<_, u64>(INGRESS).await.unwrap() == 0).then_some(()))
        .await;
}

/// All data of a stream, in order.
async fn data_of(raw: &MultiplexedConnection, stream: &str) -> Vec<String> {
    let entries: redis::streams::StreamRangeReply =
        raw.clone().xrange_all(format!("whimbrel:{{{stream}}}:events")).await.unwrap();
    entries.ids.iter().map(|entry| entry.get("d").unwrap()).collect()
}

/// The node that drains.
async fn drainer(nodes: &[Arc<Node>]) -> Arc<Node> {
    eventually("a node that drains", async || {
        for node in nodes {
            if node.metric("ingress_draining").await == 1.0 {
                return Some(node.clone());
            }
        }
        None
    })
    .await
}

/// Numbers below `count` that go to the stream at `place`.
fn numbers(count: usize, place: usize) -> Vec<String> {
    (0..count).filter(|number| number % STREAMS.len() == place).map(|number| number.to_string()).collect()
}

/// The data that a client of [`STREAMS`] gets, by stream.
async fn received(client: &mut Client, count: usize) -> BTreeMap<String, Vec<String>> {
    let mut received: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..count {
        let event = client.event().await;
        received.entry(event.stream).or_default().push(event.data);
    }
    received
}

fn expected(count: usize) -> BTreeMap<String, Vec<String>> {
    STREAMS.iter().enumerate().map(|(place, stream)| ((*stream).to_owned(), numbers(count, place))).collect()
}

async fn an_entry_becomes_an_event_of_its_stream(world: World) {
    let redis = world.redis.as_ref().unwrap();
    let node = world.node(&[]);
    let mut client = world.wanted(&["topic:news", "device:42"]).connect(&node).await;
    add(redis, &["device", "42", "data", "{\"a\": 1}"]).await;
    let event = client.event().await;
    assert_eq!((&*event.stream, &*event.kind, &*event.data), ("device:42", "message", "{\"a\": 1}"));
    add(redis, &["topic", "news", "data", "2", "type", "order.paid", "key", "k1", "ttl", "60", "collapse", "c"]).await;
    let event = client.event().await;
    assert_eq!((&*event.stream, &*event.kind, &*event.data), ("topic:news", "order.paid", "2"));
    let raw = redis.raw().await;
    drained(&raw).await;
    // The key is one of the stream, whatever the way in.
    let answer = node.call("POST", "/v1/topics/news/events?type=x", &[("Idempotency-Key", "k1")], "3").await;
    assert_eq!(answer.status, 422);
    assert_eq!(node.metric("ingress_published_total").await, 2.0);
    node.metric_is("ingress_lag_entries", 0.0).await;
}

async fn entries_become_events_once_and_in_order_when_the_draining_node_is_killed(world: World) {
    const COUNT: usize = 6000;
    let redis = world.redis.as_ref().unwrap();
    let mut nodes = world.nodes::<3>(SHORT_LEASE).to_vec();
    let last = nodes.pop().unwrap();
    let mut client = world.wanted(&STREAMS).connect(&last).await;
    let port = redis.port().to_string();
    let arguments = [&[port.as_str(), "0", "6000"], &STREAMS[..]].concat();
    let producer = python("tests/tools/ingress.py", &arguments);
    let raw = redis.raw().await;
    // Twice the one at work is killed in the middle of it.
    nodes.push(last.clone());
    for share in [COUNT / 6, COUNT / 2] {
        let killed = drainer(&nodes).await;
        if Arc::ptr_eq(&killed, &last) {
            break;
        }
        let reached = async || (data_of(&raw, STREAMS[0]).await.len() >= share / STREAMS.len()).then_some(());
        eventually("some progress", reached).await;
        killed.kill();
        nodes.retain(|node| !Arc::ptr_eq(node, &killed));
    }
    producer.end().await;
    assert_eq!(received(&mut client, COUNT).await, expected(COUNT));
    drained(&raw).await;
    for (place, stream) in STREAMS.iter().enumerate() {
        assert_eq!(data_of(&raw, stream).await, numbers(COUNT, place));
    }
    assert_eq!(raw.clone().xlen::<_, u64>(REJECTED).await.unwrap(), 0);
}

async fn a_draining_node_that_was_stopped_and_wakes_adds_nothing(world: World) {
    const COUNT: usize = 3000;
    let redis = world.redis.as_ref().unwrap();
    let [one, other] = world.nodes(SHORT_LEASE);
    let nodes = [one, other];
    let stopped = drainer(&nodes).await;
    let awake = nodes.iter().find(|node| !Arc::ptr_eq(node, &stopped)).unwrap().clone();
    let mut client = world.wanted(&STREAMS).connect(&awake).await;
    let port = redis.port().to_string();
    let arguments = [&[port.as_str(), "0", "3000"], &STREAMS[..]].concat();
    let producer = python("tests/tools/ingress.py", &arguments);
    let raw = redis.raw().await;
    eventually("some progress", async || (!data_of(&raw, STREAMS[0]).await.is_empty()).then_some(())).await;
    stopped.signal(Signal::STOP);
    let since = Instant::now();
    awake.metric_is("ingress_draining", 1.0).await;
    assert!(since.elapsed() < Duration::from_secs(2), "within two lease times, but: {:?}", since.elapsed());
    producer.end().await;
    assert_eq!(received(&mut client, COUNT).await, expected(COUNT));
    stopped.signal(Signal::CONT);
    stopped.metric_is("ingress_draining", 0.0).await;
    // Whoever woke has placed what it had; had anything been taken from it, it would be here by now.
    add(redis, &["topic", "news", "data", "\"the end\""]).await;
    assert_eq!(client.event().await.data, "\"the end\"");
    drained(&raw).await;
    for (place, stream) in STREAMS.iter().enumerate().skip(1) {
        assert_eq!(data_of(&raw, stream).await, numbers(COUNT, place));
    }
}

/// The rejected entries as dictionaries, as clients make them.
async fn rejected(raw: &MultiplexedConnection) -> Vec<BTreeMap<String, String>> {
    let entries: redis::streams::StreamRangeReply = raw.clone().xrange_all(REJECTED).await.unwrap();
    let text = |value: &redis::Value| redis::from_redis_value_ref::<Vec<u8>>(value).unwrap();
    let fields = |entry: &redis::streams::StreamId| {
        let text = |value| String::from_utf8_lossy(&text(value)).into_owned();
        entry.map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    entries.ids.iter().map(fields).collect()
}

#[tokio::test]
async fn a_malformed_entry_is_kept_with_the_reason_and_holds_up_nobody() {
    let redis = RedisServer::start();
    let large = format!("\"{}\"", "x".repeat(66_000));
    let huge = "x".repeat(300_000);
    let long = "x".repeat(201);
    let cases: &[(&[&str], &str)] = &[
        (&["data", "1"], "'device' and 'topic'"),
        (&["device", "1", "topic", "2", "data", "1"], "'device' and 'topic'"),
        (&["device", "", "data", "1"], "the name is empty"),
        (&["device", "a b", "data", "1"], "the character ' '"),
        (&["topic", &long, "data", "1"], "201"),
        (&["topic", "whimbrel:other", "data", "1"], "begins with 'whimbrel:'"),
        (&["topic", "news"], "'data' is missing"),
        (&["topic", "news", "data", "{\"a\":"], "not JSON"),
        (&["topic", "news", "data", ""], "not JSON"),
        (&["topic", "news", "data", "NaN"], "not JSON"),
        (&["topic", "news", "data", "1", "data", "2"], "'data' is given more than once"),
        (&["topic", "news", "data", "1", "type", "open"], "'open' can't be an event type"),
        (&["topic", "news", "data", "1", "type", ""], "can't be an event type"),
        (&["topic", "news", "data", "1", "ttl", "0"], "'0' can't be a ttl"),
        (&["topic", "news", "data", "1", "ttl", "soon"], "'soon' can't be a ttl"),
        (&["topic", "news", "data", "1", "collapse", ""], "collapse key"),
        (&["topic", "news", "data", "1", "key", "a b"], "idempotency key"),
        (&["topic", "news", "data", "1", "durable", "disk"], "the field 'durable' is not known"),
        (&["topic", "news", "data", &large], "66002 bytes; allowed are 65536"),
        (&["topic", "news", "data", &huge], "300013 bytes"),
    ];
    let (mut raw, mut ids) = (redis.raw().await, Vec::new());
    for (fields, _) in cases {
        // One of them is longer than a word of a command line may be.
        let id: String = redis::cmd("XADD").arg(&[INGRESS, "*"]).arg(fields).query_async(&mut raw).await.unwrap();
        ids.push(id);
    }
    let odd: String = redis::cmd("XADD")
        .arg(&[INGRESS, "*", "topic"])
        .arg(b"\xff\xfe")
        .arg(&["data", "1"])
        .query_async(&mut raw)
        .await
        .unwrap();
    add(&redis, &["topic", "news", "data", "\"sound\""]).await;
    let node = Node::on(&redis, &[]);
    drained(&raw).await;
    let rejected = rejected(&raw).await;
    assert_eq!(rejected.len(), cases.len() + 1);
    for ((entry, id), (_, reason)) in rejected.iter().zip(&ids).zip(cases) {
        assert_eq!(entry["entry"], *id);
        assert!(entry["reason"].contains(reason), "expected '{reason}': {}", entry["reason"]);
    }
    assert_eq!(rejected[6]["topic"], "news");
    assert_eq!(rejected[18]["data"].len(), 1024, "a large one is cut short");
    let last = rejected.last().unwrap();
    assert_eq!(last["entry"], odd);
    assert!(last["reason"].contains("'topic' is not UTF-8"), "{last:?}");
    assert_eq!(node.metric("ingress_rejected_total").await, rejected.len() as f64);
    assert_eq!(data_of(&raw, "topic:news").await, ["\"sound\""]);
    let keys: Vec<String> = raw.keys("whimbrel:{*}:events").await.unwrap();
    assert_eq!(keys, ["whimbrel:{topic:news}:events"]);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_event_rejects_the_entry_and_not_what_follows() {
    let redis = RedisServer::start();
    for (data, key) in [("1", "a"), ("2", "a"), ("1", "a"), ("3", "b")] {
        add(&redis, &["topic", "news", "data", data, "key", key]).await;
    }
    let _node = Node::on(&redis, &[]);
    let raw = redis.raw().await;
    drained(&raw).await;
    assert_eq!(data_of(&raw, "topic:news").await, ["1", "3"]);
    let rejected = rejected(&raw).await;
    assert_eq!(rejected.len(), 1);
    assert!(rejected[0]["reason"].contains("idempotency key was used"), "{rejected:?}");
    assert_eq!((&*rejected[0]["topic"], &*rejected[0]["data"], &*rejected[0]["key"]), ("news", "2", "a"));
}

#[tokio::test]
async fn an_entry_that_cannot_be_placed_holds_up_its_own_stream_alone() {
    let redis = RedisServer::start();
    let mut raw = redis.raw().await;
    let broken = "whimbrel:{topic:broken}:events";
    let _: () = raw.set(broken, "not a stream").await.unwrap();
    let count = 3000;
    for number in 0..count {
        let topic = if number % 2 == 0 { "broken" } else { "sound" };
        let _: String = raw.xadd(INGRESS, "*", &[("topic", topic), ("data", &number.to_string())]).await.unwrap();
    }
    let node = Node::on(&redis, &[KEEP_ALL]);
    let of = |rest: usize| (0..count).filter(move |number| number % 2 == rest).map(|number| number.to_string());
    let all = async || (data_of(&raw, "topic:sound").await.len() == count / 2).then_some(());
    eventually("all events of the other stream", all).await;
    assert_eq!(data_of(&raw, "topic:sound").await, of(1).collect::<Vec<_>>());
    node.metric_is("ingress_lag_entries", (count / 2) as f64).await;
    assert_eq!(node.metric("ingress_held").await, 1.0, "a stream that is held up keeps one entry in memory");
    eventually("the lag", async || (node.metric("ingress_lag_seconds").await > 0.0).then_some(())).await;
    let _: () = raw.clone().del(broken).await.unwrap();
    drained(&raw).await;
    assert_eq!(data_of(&raw, "topic:broken").await, of(0).collect::<Vec<_>>());
    node.metric_is("ingress_held", 0.0).await;
    node.metric_is("ingress_lag_seconds", 0.0).await;
}

#[tokio::test]
async fn what_a_full_store_cannot_take_waits_until_there_is_room() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let raw = redis.raw().await;
    eventually("a node that drains", async || (node.metric("ingress_draining").await == 1.0).then_some(())).await;
    let limit = async |bytes: &str| {
        let mut raw = raw.clone();
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", bytes]).exec_async(&mut raw).await.unwrap();
    };
    // Entries can be added, as a producer that was faster: they are there before the store is full.
    node.signal(Signal::STOP);
    for number in 0..100 {
        let _: String =
            raw.clone().xadd(INGRESS, "*", &[("topic", "news"), ("data", &number.to_string())]).await.unwrap();
    }
    limit("1").await;
    node.signal(Signal::CONT);
    eventually("entries that are held", async || (node.metric("ingress_held").await > 0.0).then_some(())).await;
    limit("0").await;
    drained(&raw).await;
    assert_eq!(data_of(&raw, "topic:news").await, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    raw.clone().xlen::<_, u64>(REJECTED).await.map(|count| assert_eq!(count, 0)).unwrap();
}

/// What was placed but not removed, as by a node that died in between, is not placed again.
#[tokio::test]
async fn an_outage_longer_than_any_key_lives_makes_nothing_come_twice() {
    let redis = RedisServer::start();
    let rules: RetentionRules = "*=1000/1".parse().unwrap();
    let store =
        whimbrel::store::redis::RedisStore::connect(&config(&redis.url()), "whimbrel", rules, Duration::from_secs(1))
            .await
            .unwrap();
    let mut raw = redis.raw().await;
    let id: String = raw.xadd(INGRESS, "*", &[("topic", "news"), ("data", "1")]).await.unwrap();
    let draft = Draft::new(EventType::MESSAGE, "1");
    let placement = Placement { id: id.parse().unwrap(), after: None, stream: stream("topic:news"), draft };
    let placed = store.place(std::slice::from_ref(&placement)).await;
    assert_eq!(placed, [Ok(Placed::Now)]);
    let log = "whimbrel:{topic:news}:events";
    let expired = || raw.clone();
    eventually("the end of the log", async || (!expired().exists::<_, bool>(log).await.unwrap()).then_some(())).await;
    assert_eq!(store.place(std::slice::from_ref(&placement)).await, [Ok(Placed::Before(placement.id))]);
    // Once it is removed, nothing is kept any longer than usual.
    store.settle(&[placement.id], &[placement.stream]).await.unwrap();
    assert_eq!(raw.xlen::<_, u64>(INGRESS).await.unwrap(), 0);
    let meta = "whimbrel:{topic:news}:meta";
    let ttl: i64 = raw.pttl(meta).await.unwrap();
    assert!((0..=1000 + 120_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn an_entry_is_not_placed_before_the_one_that_it_follows() {
    let redis = RedisServer::start();
    let store = connect(&redis, RetentionRules::default()).await;
    let news = stream("topic:news");
    let placement = |ms: u64, after: Option<u64>| Placement {
        id: EventId::new(ms, 0),
        after: after.map(|ms| EventId::new(ms, 0)),
        stream: news.clone(),
        draft: Draft::new(EventType::MESSAGE, ms.to_string()),
    };
    assert_eq!(store.place(&[placement(2, Some(1))]).await, [Ok(Placed::NotInTurn)]);
    let all = [placement(1, None), placement(2, Some(1)), placement(3, Some(2)), placement(2, None)];
    let before = Placed::Before(EventId::new(3, 0));
    assert_eq!(store.place(&all).await, [Ok(Placed::Now), Ok(Placed::Now), Ok(Placed::Now), Ok(before)]);
    let page = store.read(&news, Start::Earliest, 10).await.unwrap();
    let data: Vec<&[u8]> = page.events.iter().map(|event| &event.data[..]).collect();
    assert_eq!(data, [b"1", b"2", b"3"]);
}

#[tokio::test]
async fn entries_are_taken_also_when_ids_of_the_ingress_stream_went_back() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, SHORT_LEASE);
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await;
    add(&redis, &["topic", "news", "data", "1"]).await;
    assert_eq!(client.event().await.data, "1");
    let mut raw = redis.raw().await;
    drained(&raw).await;
    // As after a failover to a clock that is far behind: the stream has forgotten, the marks have not.
    for round in 0..2 {
        let _: () = raw.del(INGRESS).await.unwrap();
        for number in 1..=3 {
            let data = format!("{}", round * 3 + number + 1);
            let id = format!("{}-1", 1000 * (round + 1) + number);
            let fields = [("topic", "news"), ("data", &data)];
            let added: redis::RedisResult<String> = raw.xadd(INGRESS, &id, &fields).await;
            if let Err(error) = added {
                // The node was faster and has raised the ids already.
                assert!(error.to_string().contains("equal or smaller"), "{error}");
                add(&redis, &["topic", "news", "data", &data]).await;
            }
        }
        for number in 1..=3 {
            assert_eq!(client.event().await.data, format!("{}", round * 3 + number + 1));
        }
        drained(&raw).await;
    }
    // Another node, which remembers nothing, sees it by the marks.
    node.kill();
    let _: () = raw.del(INGRESS).await.unwrap();
    let _: String = raw.xadd(INGRESS, "5000-1", &[("topic", "news"), ("data", "8")]).await.unwrap();
    let _: String = raw.xadd(INGRESS, "5000-2", &[("topic", "news"), ("data", "9")]).await.unwrap();
    let _node = Node::on(&redis, SHORT_LEASE);
    drained(&raw).await;
    assert_eq!(data_of(&raw, "topic:news").await, (1..=9).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_flush_in_the_middle_does_not_stop_draining() {
    let redis = RedisServer::start();
    let nodes = [Arc::new(Node::on(&redis, SHORT_LEASE)), Arc::new(Node::on(&redis, SHORT_LEASE))];
    drainer(&nodes).await;
    let mut raw = redis.raw().await;
    for number in 0..10 {
        redis::cmd("FLUSHALL").exec_async(&mut raw).await.unwrap();
        let data = number.to_string();
        add(&redis, &["topic", "news", "data", &data]).await;
        // Both nodes may drain until the one whose turn was flushed finds out, and then it may come twice.
        eventually("the event", async || (data_of(&raw, "topic:news").await.last() == Some(&data)).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_make_nothing_come_twice_or_out_of_order() {
    const COUNT: usize = 4000;
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let url = format!("redis://{}/", proxy.address());
    let settings = [("WHIMBREL_REDIS_URL", url.as_str()), ("WHIMBREL_LEASE_SECONDS", "1"), KEEP_ALL];
    let _nodes = [Node::start(&settings), Node::start(&settings)];
    let port = redis.port().to_string();
    let producer = python("tests/tools/ingress.py", &[&[port.as_str(), "0", "4000"], &STREAMS[..]].concat());
    let raw = redis.raw().await;
    for round in 1..8 {
        let some = async || (data_of(&raw, STREAMS[0]).await.len() >= COUNT / 3 * round / 10).then_some(());
        eventually("some progress", some).await;
        // What was sent is done; its answer never arrives.
        proxy.set(Direction::ToClient, Flow::Stall);
        let unheard = async || {
            let waiting: u64 = raw.clone().xlen(INGRESS).await.unwrap();
            let all = data_of(&raw, STREAMS[0]).await.len() == numbers(COUNT, 0).len();
            (waiting > 0 || all).then_some(())
        };
        eventually("entries that are not removed", unheard).await;
        proxy.cut(if round % 2 == 0 { Cut::Fin } else { Cut::Reset });
        proxy.heal();
    }
    producer.end().await;
    drained(&raw).await;
    for (place, stream) in STREAMS.iter().enumerate() {
        assert_eq!(data_of(&raw, stream).await, numbers(COUNT, place));
    }
}

#[tokio::test]
async fn a_node_that_stops_hands_its_turn_over_at_once() {
    let redis = RedisServer::start();
    // With this lease nobody could wait for its end.
    let settings = [("WHIMBREL_LEASE_SECONDS", "60"), ("WHIMBREL_DRAIN_DELAY_SECONDS", "0")];
    let first = Node::on(&redis, &settings);
    let mut raw = redis.raw().await;
    add(&redis, &["topic", "news", "data", "1"]).await;
    drained(&raw).await;
    first.signal(Signal::TERM);
    first.ended().await;
    assert!(!raw.exists::<_, bool>("whimbrel:ingress:drainer").await.unwrap());
    let _second = Node::on(&redis, &settings);
    add(&redis, &["topic", "news", "data", "2"]).await;
    drained(&raw).await;
    assert_eq!(data_of(&raw, "topic:news").await, ["1", "2"]);
}

#[tokio::test]
async fn a_node_can_be_set_to_leave_the_ingress_stream_to_others() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_INGRESS", "false")]);
    add(&redis, &["topic", "news", "data", "1"]).await;
    node.publish("topic:other", "1").await;
    let mut raw = redis.raw().await;
    assert_eq!(raw.xlen::<_, u64>(INGRESS).await.unwrap(), 1);
    assert_eq!(redis_cli(&redis, &["FUNCTION", "LIST"]).await, json!([]));
    let _other = Node::on(&redis, &[]);
    drained(&raw).await;
    let embedded = command::run(&["serve", "--ingress"], &[], b"").await;
    assert_eq!(embedded.code, Some(2));
    assert!(embedded.stderr.contains("WHIMBREL_INGRESS") && embedded.stderr.contains("no ingress"), "{embedded:?}");
}

#[tokio::test]
async fn an_entry_ahead_of_the_clock_is_rejected_and_what_comes_after_it_is_taken() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    let raw = redis.raw().await;
    add(&redis, &["topic", "a", "data", "1"]).await;
    drained(&raw).await;
    let ahead = "18446744073709551615-18446744073709551615";
    redis_cli(&redis, &["XADD", INGRESS, ahead, "topic", "a", "data", "2"]).await;
    eventually("a rejected entry", async || {
        let rejected: redis::streams::StreamRangeReply = raw.clone().xrange_all(REJECTED).await.unwrap();
        let entry = rejected.ids.first()?.clone();
        let reason: String = entry.get("reason").unwrap();
        (entry.get::<String>("entry").unwrap() == ahead && reason.contains("ahead of the store's clock")).then_some(())
    })
    .await;
    let () = raw.clone().del(INGRESS).await.unwrap();
    for number in 3..6 {
        add(&redis, &["topic", "a", "data", &number.to_string()]).await;
    }
    drained(&raw).await;
    assert_eq!(data_of(&raw, "topic:a").await, ["1", "3", "4", "5"]);
    assert_eq!(node.metric("ingress_rejected_total").await, 1.0);
}

#[tokio::test]
async fn a_lift_that_a_node_left_unfinished_is_ended_by_the_next() {
    let redis = RedisServer::start();
    let raw = redis.raw().await;
    for number in 0..300 {
        add_at(&redis, number + 1, number).await;
    }
    // As it is after the first step: the stream gives ids above the mark, and nothing was added once more yet.
    let mark = "5000-1";
    redis_cli(&redis, &["SET", "whimbrel:{whimbrel:ingress}:lifting", mark]).await;
    redis_cli(&redis, &["XSETID", INGRESS, mark]).await;
    redis_cli(&redis, &["HSET", "whimbrel:{topic:a}:meta", "ingress", &format!("local={mark}")]).await;
    let _node = Node::on(&redis, &[("WHIMBREL_RETENTION", "*=100000/3600")]);
    drained(&raw).await;
    let wanted: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(data_of(&raw, "topic:a").await, wanted);
    assert!(!raw.clone().exists::<_, bool>("whimbrel:{whimbrel:ingress}:lifting").await.unwrap());
}

async fn add_at(redis: &RedisServer, ms: usize, number: usize) {
    let (id, number) = (format!("{ms}-1"), number.to_string());
    redis_cli(redis, &["XADD", INGRESS, &id, "topic", "a", "data", &number]).await;
}
