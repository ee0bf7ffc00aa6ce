//! Direct dispatch: events between nodes over links, and over channels wherever a link can't.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::json;
use whimbrel::model::{Draft, Event, EventType, NodeId, StreamName};
use whimbrel::store::{DirectPath, DirectRoutes, EventLog as _, SendHistory as _};

use crate::support::client::{Client, Transport, Wanted};
use crate::support::node::Node;
use crate::support::proxy::{Cut, Direction, Flow, Proxy};
use crate::support::redis::RedisServer;
use crate::support::{PATIENCE, eventually};

const SECRET: &str = "a-secret-that-all-nodes-have";

/// Nodes that no sync helps: what comes, comes by link or channel.
const SETTINGS: &[(&str, &str)] =
    &[("WHIMBREL_SYNC_SECONDS", "600"), ("WHIMBREL_LINK_LISTEN", "127.0.0.1:0"), ("WHIMBREL_LINK_SECRET", SECRET)];

fn linked(redis: &RedisServer, settings: &[(&str, &str)]) -> Node {
    Node::on(redis, &[SETTINGS, settings].concat())
}

/// A node whose links come through a proxy.
fn wired(redis: &RedisServer) -> (Node, Proxy) {
    let wire = Proxy::to(redis.address());
    let node = linked(redis, &[("WHIMBREL_LINK_ADVERTISE", &wire.address().to_string())]);
    wire.lead_to(node.link_address());
    (node, wire)
}

async fn listen(node: &Node, stream: &str) -> Client {
    Wanted::new(Transport::Sse, &[stream]).connect(node).await
}

/// Publishes on one node and expects each event at the client, until what is waited for has come true.
async fn publish_until(what: &str, from: &Node, stream: &str, client: &mut Client, done: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        from.publish(stream, "\"again\"").await;
        assert_eq!(client.data(1).await, ["\"again\""]);
        if done().await {
            return;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
    }
}

/// Publishes until one more event has reached another node over a link.
async fn until_linked(from: &Node, stream: &str, client: &mut Client) {
    let hits = from.metric("link_hits_total").await;
    let more = async || from.metric("link_hits_total").await > hits;
    publish_until("an event goes over a link", from, stream, client, more).await;
}

/// Runs until nothing took the channel meanwhile, because a busy machine was late with an acknowledgement.
/// Gives the number of events that went over links then.
async fn undisturbed(from: &Node, stream: &str, client: &mut Client, run: impl AsyncFn(&mut Client)) -> f64 {
    let deadline = Instant::now() + PATIENCE;
    let by_channel = async || from.metric("link_fallbacks_total").await + from.metric("link_misses_total").await;
    loop {
        until_linked(from, stream, client).await;
        let (before, hits) = (by_channel().await, from.metric("link_hits_total").await);
        run(client).await;
        if by_channel().await == before {
            return from.metric("link_hits_total").await - hits;
        }
        assert!(Instant::now() < deadline, "events take the channel though there is a link");
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_over_the_link_and_not_over_the_channel() {
    let redis = RedisServer::start();
    let (from, to) = (linked(&redis, &[]), linked(&redis, &[]));
    let mut client = listen(&to, "topic:news").await;
    let hits = undisturbed(&from, "topic:news", &mut client, async |client| {
        for n in 0..50 {
            let answer = from.call("POST", "/v1/topics/news/events?type=price", &[], n.to_string()).await;
            assert_eq!(answer.json()["nodes"], 1, "nodes reached by link count too");
            let event = client.event().await;
            assert_eq!((event.data, event.kind.as_str(), event.id), (n.to_string(), "price", answer.id()));
        }
    });
    assert_eq!(hits.await, 50.0);
    assert!(to.metric("link_received_total").await >= 50.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_and_durable_publishes_take_links_too() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (from, to) = (linked(&redis, &[]), linked(&redis, &[]));
    let mut client = listen(&to, "topic:news").await;
    let hits = undisturbed(&from, "topic:news", &mut client, async |client| {
        from.publish_all("topic:news", 0..200).await;
        assert_eq!(client.data(200).await, numbers(0..200));
        let answer = from.call("POST", "/v1/topics/news/events?durable=disk", &[], "200").await;
        assert_eq!((answer.status, client.data(1).await), (201, numbers(200..201)));
    });
    assert_eq!(hits.await, 201.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_publish_goes_nowhere_again() {
    let redis = RedisServer::start();
    let (from, to) = (linked(&redis, &[]), linked(&redis, &[]));
    let mut client = listen(&to, "topic:news").await;
    until_linked(&from, "topic:news", &mut client).await;
    let key = [("idempotency-key", "once")];
    for duplicate in [false, true] {
        let answer = from.call("POST", "/v1/topics/news/events", &key, "1").await;
        assert_eq!(answer.json()["duplicate"], json!(duplicate));
    }
    from.publish("topic:news", "2").await;
    assert_eq!(client.data(2).await, numbers(1..3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hands_its_own_clients_what_is_published_on_it_with_links_and_without() {
    let redis = RedisServer::start();
    for (node, topic) in [(linked(&redis, &[]), "topic:news"), (Node::on(&redis, &[]), "topic:weather")] {
        let mut client = listen(&node, topic).await;
        // Until it has learnt the store's clock, a node takes the channel.
        let own = async || node.metric("link_own_events_total").await;
        publish_until("an event takes no channel", &node, topic, &mut client, async || own().await == 1.0).await;
        node.publish_all(topic, 1..50).await;
        assert_eq!(client.data(49).await, numbers(1..50));
        assert_eq!(own().await, 50.0);
        assert_eq!(node.metric("link_misses_total").await, 0.0, "the way to itself is neither hit nor miss");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_link_does_not_confirm_in_time_goes_over_the_channel() {
    let redis = RedisServer::start();
    let (from, (to, wire)) = (linked(&redis, &[]), wired(&redis));
    let mut client = listen(&to, "topic:news").await;
    until_linked(&from, "topic:news", &mut client).await;
    wire.set(Direction::Both, Flow::Stall);
    from.publish_all("topic:news", 0..20).await;
    assert_eq!(client.data(20).await, numbers(0..20));
    assert!(from.metric("link_fallbacks_total").await > 0.0);
    // When it is well again, so are links; nothing that was held back comes twice.
    wire.heal();
    until_linked(&from, "topic:news", &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_is_opened_again() {
    let redis = RedisServer::start();
    let (from, (to, wire)) = (linked(&redis, &[]), wired(&redis));
    let mut client = listen(&to, "topic:news").await;
    for how in [Cut::Reset, Cut::Fin] {
        until_linked(&from, "topic:news", &mut client).await;
        let opened = from.metric("link_opened_total").await;
        wire.cut(how);
        let again = async || from.metric("link_opened_total").await > opened;
        publish_until("another link", &from, "topic:news", &mut client, again).await;
        until_linked(&from, "topic:news", &mut client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_secrets_don_t_link_and_still_deliver() {
    let redis = RedisServer::start();
    let from = linked(&redis, &[]);
    let to = linked(&redis, &[("WHIMBREL_LINK_SECRET", "another-secret-of-others")]);
    let mut client = listen(&to, "topic:news").await;
    let refused = async || from.metric("link_failures_total{reason=\"secret\"}").await > 0.0;
    publish_until("the attempt is refused", &from, "topic:news", &mut client, refused).await;
    assert_eq!((from.metric("link_opened_total").await, to.metric("link_accepted").await), (0.0, 0.0));
    for log in [from.log(), to.log()] {
        assert!(!log.contains(SECRET) && !log.contains("another-secret"), "a secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_links_of_a_node_are_listed_with_their_state() {
    let redis = RedisServer::start();
    let (from, to) = (linked(&redis, &[]), linked(&redis, &[]));
    let stranger = linked(&redis, &[("WHIMBREL_LINK_SECRET", "another-secret-of-others")]);
    let (mut client, _other) = (listen(&to, "topic:news").await, listen(&stranger, "topic:news").await);
    let listed = async |state: &str| {
        let answer = from.get("/v1/links").await.json();
        assert_eq!(answer["enabled"], json!(true));
        let links = answer["links"].as_array().unwrap().clone();
        links.into_iter().find(|link| link["state"] == json!(state))
    };
    publish_until("a link that was used", &from, "topic:news", &mut client, async || {
        listed("open").await.is_some_and(|link| link["used"].is_string())
    })
    .await;
    let open = listed("open").await.unwrap();
    assert!(open["since"].as_str() <= open["used"].as_str(), "{open}");
    publish_until("a failure with its reason", &from, "topic:news", &mut client, async || {
        listed("resting").await.is_some_and(|link| link["reason"] == json!("secret"))
    })
    .await;
    let alone = Node::on(&redis, &[]);
    assert_eq!(alone.get("/v1/links").await.json(), json!({"enabled": false, "links": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_at_the_address_gets_no_events_of_the_one_that_was_there() {
    let redis = RedisServer::start();
    let (from, (to, wire), other) = (linked(&redis, &[]), wired(&redis), linked(&redis, &[]));
    let mut client = listen(&to, "topic:news").await;
    wire.lead_to(other.link_address());
    let noticed = async || from.metric("link_failures_total{reason=\"other-node\"}").await > 0.0;
    publish_until("the wrong node is noticed", &from, "topic:news", &mut client, noticed).await;
    assert_eq!(other.metric("link_received_total").await, 0.0);
    // The address is right again.
    wire.lead_to(to.link_address());
    until_linked(&from, "topic:news", &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_shown_out() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let redis = RedisServer::start();
    let node = linked(&redis, &[]);
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x02{}", b"\xff\xff\xff\xff", b"\0\0\0\x04nope"] {
        let mut socket = tokio::net::TcpStream::connect(node.link_address()).await.unwrap();
        socket.write_all(nonsense).await.unwrap();
        let mut rest = Vec::new();
        // An end or a reset, and not a byte.
        let _ = crate::support::in_time("the end", socket.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"", "{nonsense:?}");
    }
    // One that sends nothing at all.
    let mut socket = tokio::net::TcpStream::connect(node.link_address()).await.unwrap();
    let _ = crate::support::in_time("the end", socket.read(&mut [0; 1])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_nodes_publish_at_once_is_seen_everywhere_in_the_order_in_which_it_was_stored() {
    const EVENTS: usize = 150;
    let redis = RedisServer::start();
    let [first, second, third] = [(); 3].map(|()| linked(&redis, &[]));
    let mut listener = listen(&third, "topic:news").await;
    for from in [&first, &second] {
        until_linked(from, "topic:news", &mut listener).await;
    }
    // One of them at a node that publishes: it has its own events before those of the other.
    let mut listeners = [listener, listen(&first, "topic:news").await];
    let publish = async |from: &Node, name: &str| {
        for n in 0..EVENTS {
            from.publish("topic:news", &format!("\"{name} {n}\"")).await;
        }
    };
    tokio::join!(publish(&first, "first"), publish(&second, "second"));
    let stored = third.history("topic:news").await;
    for listener in &mut listeners {
        assert_eq!(listener.data(2 * EVENTS).await, stored[stored.len() - 2 * EVENTS..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_links_beside_nodes_with_links_gets_everything_over_its_channel() {
    let redis = RedisServer::start();
    let (from, plain) = (linked(&redis, &[]), Node::on(&redis, &[("WHIMBREL_SYNC_SECONDS", "600")]));
    let mut client = listen(&plain, "topic:news").await;
    let mut other = listen(&from, "topic:news").await;
    let failed = async || from.metric("link_failures_total{reason=\"no-address\"}").await > 0.0;
    publish_until("the attempt fails", &from, "topic:news", &mut client, failed).await;
    publish_until("both ways", &plain, "topic:news", &mut client, async || true).await;
    from.publish("topic:news", "\"last\"").await;
    while other.data(1).await != ["\"last\""] {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_links_than_allowed_and_the_less_useful_gives_way() {
    let redis = RedisServer::start();
    let from = linked(&redis, &[("WHIMBREL_MAX_LINKS", "1")]);
    let (first, second) = (linked(&redis, &[]), linked(&redis, &[]));
    let mut one = listen(&first, "topic:one").await;
    let mut two = listen(&second, "topic:two").await;
    until_linked(&from, "topic:one", &mut one).await;
    let preferred = async || {
        assert!(from.metric("link_open").await <= 1.0);
        second.metric("link_received_total").await > 0.0
    };
    publish_until("the other is more useful", &from, "topic:two", &mut two, preferred).await;
    assert!(from.metric("link_evicted_total").await >= 1.0);
    from.publish_all("topic:one", 0..20).await;
    assert_eq!(one.data(20).await, numbers(0..20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_links_are_closed_and_opened_again_when_needed() {
    let redis = RedisServer::start();
    let (from, to) = (linked(&redis, &[("WHIMBREL_LINK_IDLE_SECONDS", "1")]), linked(&redis, &[]));
    let mut client = listen(&to, "topic:news").await;
    until_linked(&from, "topic:news", &mut client).await;
    let syncs = to.metric("syncs_total").await;
    to.metric_is("link_accepted", 0.0).await;
    assert_eq!(from.metric("link_open").await, 0.0);
    if from.metric("link_failures_total{reason=\"late\"}").await == 0.0 {
        assert_eq!(to.metric("syncs_total").await, syncs, "a link that ends in good order needs no sync");
    }
    let opened = from.metric("link_opened_total").await;
    let again = async || from.metric("link_opened_total").await > opened;
    publish_until("a link again", &from, "topic:news", &mut client, again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_whose_answer_is_lost_reaches_linked_nodes_all_the_same() {
    let redis = RedisServer::start();
    let way = Proxy::to(redis.address());
    let url = format!("redis://{}/", way.address());
    let (from, to) = (linked(&redis, &[("WHIMBREL_REDIS_URL", &url)]), linked(&redis, &[]));
    let mut client = listen(&to, "topic:news").await;
    until_linked(&from, "topic:news", &mut client).await;
    // The store gets the event, and no node is notified.
    way.set(Direction::ToClient, Flow::Stall);
    let lost = tokio::spawn(async move {
        let answer = from.call("POST", "/v1/topics/news/events", &[], "1").await;
        (from, answer)
    });
    eventually("the store has it", async || {
        let mut raw = redis.raw().await;
        let newest: Vec<(String, Vec<String>)> = redis::cmd("XREVRANGE")
            .arg("whimbrel:{topic:news}:events")
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut raw)
            .await
            .unwrap();
        newest[0].1.contains(&"1".to_owned()).then_some(())
    })
    .await;
    way.cut(Cut::Reset);
    assert_eq!(client.data(1).await, ["1"]);
    way.heal();
    let (_from, answer) = lost.await.unwrap();
    assert_eq!(answer.problem(504).0, "outcome-unknown");
}

/// Publishes over a WebSocket as device 7, to which it is connected on `node`.
async fn send(device: &mut Client) {
    let answer = device.ask(json!({"op": "publish", "stream": "topic:news", "data": 1, "ref": 1})).await;
    assert_eq!(answer["op"], "ok", "{answer}");
}

async fn send_history(redis: &RedisServer) -> Vec<String> {
    let mut raw = redis.raw().await;
    redis::cmd("HKEYS").arg("whimbrel:{device:7}:send_history").query_async(&mut raw).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_comes_back_finds_links_to_where_its_events_go() {
    let redis = RedisServer::start();
    let (before, to) = (linked(&redis, &[]), linked(&redis, &[]));
    let _listener = listen(&to, "topic:news").await;
    let seven = Wanted::new(Transport::WebSocket, &["device:7"]);
    let mut device = seven.connect(&before).await;
    for _ in 0..5 {
        send(&mut device).await;
    }
    drop(device);
    let to_id = to.id().await;
    eventually("it is written down where its events go", async || {
        (send_history(&redis).await == [to_id.clone()]).then_some(())
    })
    .await;
    // On a node that never sent anything.
    let after = linked(&redis, &[]);
    let mut device = seven.connect(&after).await;
    after.metric_is("link_opened_ahead_total", 1.0).await;
    assert_eq!(after.metric("published_total").await, 0.0);
    send(&mut device).await;
    // A machine that is very busy may have broken the link by now.
    if after.metric("link_failures_total{reason=\"late\"}").await == 0.0 {
        after.metric_is("link_opened_ahead_used_total", 1.0).await;
        assert_eq!(after.metric("link_misses_total").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_opened_for_a_device_that_sends_nothing_close_and_are_counted() {
    let redis = RedisServer::start();
    let to = linked(&redis, &[]);
    let _listener = listen(&to, "topic:news").await;
    let seven = Wanted::new(Transport::WebSocket, &["device:7"]);
    let before = linked(&redis, &[]);
    let mut device = seven.connect(&before).await;
    for _ in 0..5 {
        send(&mut device).await;
    }
    drop(device);
    eventually("it is written down where its events go", async || {
        (!send_history(&redis).await.is_empty()).then_some(())
    })
    .await;
    let after = linked(&redis, &[("WHIMBREL_LINK_IDLE_SECONDS", "1")]);
    let _device = seven.connect(&after).await;
    after.metric_is("link_opened_unused_total", 1.0).await;
    after.metric_is("link_open", 0.0).await;
    assert_eq!(after.metric("link_opened_ahead_used_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_a_device_is_bounded_and_goes_when_it_is_erased() {
    let redis = RedisServer::start();
    let store = crate::conformance::connect(&redis, "*=100/3600".parse().unwrap()).await;
    let device = "device:7".parse().unwrap();
    let node = |number: usize| NodeId::from(format!("n{number}"));
    let sent: Vec<_> = (0..40).map(|number| (node(number), (40 - number) as f64)).collect();
    let known = store.send_history(&device, &sent).await.unwrap();
    assert_eq!(known.len(), 16);
    assert_eq!(known[0], (node(0), 40.0));
    let known = store.send_history(&device, &[(node(1), 100.0)]).await.unwrap();
    assert_eq!(known[0].0, node(1), "what is added adds up");
    assert!(known[0].1 > 138.0 && known[0].1 <= 139.0, "{known:?}");
    assert_eq!(store.send_history(&device, &[]).await.unwrap()[0].0, node(1), "asking changes nothing");
    store.erase(&device).await.unwrap();
    assert_eq!(store.send_history(&device, &[]).await.unwrap(), []);
}

/// Reaches nobody, and keeps how many publishes had begun when the first was answered.
#[derive(Default)]
struct Recorder {
    begun: AtomicUsize,
    begun_at_first_answer: OnceLock<usize>,
}

struct Reached(Arc<Recorder>);

struct FakePath(Arc<Recorder>);

impl DirectPath for FakePath {
    fn reach(&self, _bytes: usize) -> Option<Arc<dyn DirectRoutes>> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        Some(Arc::new(Reached(self.0.clone())))
    }
}

impl DirectRoutes for Reached {
    fn nodes(&self) -> &str {
        ""
    }

    fn carry(&self, _: &StreamName, _: Arc<Event>, _: Option<&StreamName>, _: &[NodeId], _: &[NodeId]) {
        let _ = self.0.begun_at_first_answer.set(self.0.begun.load(Ordering::SeqCst));
    }

    fn request_sync(&self, _: &StreamName) {}
}

#[tokio::test]
async fn events_of_a_large_batch_go_out_as_they_are_stored_and_not_at_its_end() {
    const BATCH: usize = 1000;
    let redis = RedisServer::start();
    let recorder = Arc::new(Recorder::default());
    let store = crate::conformance::connect(&redis, "*=100/3600".parse().unwrap()).await;
    let store = store.with_direct_path(Arc::new(FakePath(recorder.clone())));
    let entry = |n: usize| ("topic:news".parse().unwrap(), Draft::new(EventType::MESSAGE, n.to_string()));
    let batch: Vec<_> = (0..BATCH).map(entry).collect();
    assert!(store.publish_all(&batch).await.iter().all(Result::is_ok));
    let begun = recorder.begun_at_first_answer.get().copied().unwrap();
    assert!(begun < BATCH, "all {BATCH} were sent before the first went out");
}
