//! A node may die or be stopped at any instant; its clients miss nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::support::client::{Cursor, Said, Transport, Wanted};
use crate::support::node::{Node, program};
use crate::support::world::{World, promises};
use crate::support::{Signal, eventually, in_time, send};

promises! {
    everywhere:
        a_drain_notifies_clients_and_the_node_exits_in_time,
        a_draining_node_turns_new_listeners_away;
    on_redis:
        clients_of_a_killed_node_resume_elsewhere,
        a_drained_node_leaves_no_routes,
        a_store_that_lost_everything_has_the_streams_of_a_node_noted_again,
        a_node_that_was_stopped_for_longer_than_its_lease_misses_nothing,
}

async fn clients_of_a_killed_node_resume_elsewhere(world: World) {
    let [doomed, survivor] = world.nodes(&[]);
    let mut clients = Vec::new();
    // Those of the dead node count among the device's connections until its routes lapse.
    for _ in 0..8 {
        clients.push(world.wanted(&["topic:news", "device:42"]).connect(&doomed).await);
    }
    let mut published = survivor.publish_all("topic:news", 0..5).await;
    for client in &mut clients {
        assert_eq!(client.data(5).await, ["0", "1", "2", "3", "4"]);
    }
    doomed.kill();
    published.extend(survivor.publish_all("topic:news", 5..20).await);
    let mut back = Vec::new();
    for client in &mut clients {
        // What was on its way at that instant may have come through.
        let end = loop {
            match client.next().await {
                Said::Event(_) | Said::Position => {}
                other => break other,
            }
        };
        assert_eq!(end, Said::Broken);
        let seen = match client.cursor() {
            Cursor::Ids(ids) => published.iter().position(|id| *id == ids["topic:news"]),
            Cursor::Opaque(_) => Some(4),
        };
        let mut resumed = world.wanted(&["topic:news", "device:42"]).from(&client.cursor()).connect(&survivor).await;
        for id in &published[seen.unwrap() + 1..] {
            assert_eq!(resumed.event().await.id, *id);
        }
        back.push(resumed);
    }
    survivor.publish("device:42", "\"direct\"").await;
    for client in &mut back {
        assert_eq!(client.data(1).await, ["\"direct\""]);
    }
}

const DRAIN: &[(&str, &str)] = &[("WHIMBREL_DRAIN_DELAY_SECONDS", "0"), ("WHIMBREL_DRAIN_SECONDS", "1")];

fn drain_close(world: &World) -> Said {
    let code = (world.transport == Transport::WebSocket).then_some(1012);
    Said::Close { reason: "drain".into(), code }
}

async fn a_drain_notifies_clients_and_the_node_exits_in_time(world: World) {
    let node = world.node(DRAIN);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(world.wanted(&["topic:news"]).connect(&node).await);
    }
    node.publish("topic:news", "1").await;
    let since = Instant::now();
    node.signal(Signal::TERM);
    let mut done = tokio::task::JoinSet::new();
    for mut client in clients {
        let expected = drain_close(&world);
        done.spawn(async move {
            assert_eq!(client.data(1).await, ["1"], "what was published before is delivered before");
            assert_eq!(client.next().await, expected);
        });
    }
    done.join_all().await;
    let status = node.ended().await;
    assert_eq!((status.code(), status.signal()), (Some(0), None), "{status:?}");
    // The drain's second, and what its last bytes and its leaving may take.
    assert!(since.elapsed() < Duration::from_secs(1 + 3 + 10), "{:?}", since.elapsed());
}

async fn a_draining_node_turns_new_listeners_away(world: World) {
    let node = world.node(&[("WHIMBREL_DRAIN_DELAY_SECONDS", "3"), ("WHIMBREL_DRAIN_SECONDS", "6")]);
    // Two: the second is let go half way, so until then the node is not gone.
    let mut first = world.wanted(&["topic:news"]).connect(&node).await;
    let mut second = world.wanted(&["topic:news"]).connect(&node).await;
    assert_eq!(node.get("/health/ready").await.status, 200);
    node.signal(Signal::TERM);
    eventually("it is unready", async || (node.get("/health/ready").await.status == 503).then_some(())).await;
    assert_eq!(node.get("/health/live").await.status, 200);
    // Unready, but clients that the balancer sent a moment ago are still served.
    let mut late = world.wanted(&["topic:news"]).connect(&node).await;
    node.publish("topic:news", "1").await;
    for client in [&mut first, &mut second, &mut late] {
        assert_eq!(client.data(1).await, ["1"]);
    }
    assert_eq!(first.next().await, drain_close(&world));
    // By then whoever comes has to be somebody else's: a balancer tries the next node when it is refused.
    let refused = async || TcpStream::connect(node.address()).await.is_err().then_some(());
    eventually("connections are refused", refused).await;
    assert_eq!(second.next().await, drain_close(&world));
    assert_eq!(late.next().await, drain_close(&world));
    assert_eq!(node.ended().await.code(), Some(0));
}

async fn a_drained_node_leaves_no_routes(world: World) {
    let [node, other] = world.nodes(DRAIN);
    let mut client = world.wanted(&["topic:news", "device:42"]).connect(&node).await;
    let sent_to = async || other.call("POST", "/v1/topics/news/events", &[], "1").await.json()["nodes"].clone();
    assert_eq!(sent_to().await, 1);
    client.data(1).await;
    let id = node.id().await;
    node.signal(Signal::TERM);
    assert_eq!(client.next().await, drain_close(&world));
    assert_eq!(node.ended().await.code(), Some(0));
    assert_eq!(sent_to().await, 0);
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let keys: Vec<String> = raw.keys(format!("*{id}*")).await.unwrap();
    assert!(keys.is_empty(), "{keys:?}");
    for stream in ["topic:news", "device:42"] {
        let routes: Vec<String> = raw.hkeys(format!("whimbrel:{{{stream}}}:nodes")).await.unwrap();
        assert!(routes.is_empty(), "{stream}: {routes:?}");
    }
    let nodes: Vec<String> = raw.zrange("whimbrel:nodes", 0, -1).await.unwrap();
    assert_eq!(nodes, [other.id().await]);
}

async fn a_node_that_was_stopped_for_longer_than_its_lease_misses_nothing(world: World) {
    let [node, other] = world.nodes(&[("WHIMBREL_LEASE_SECONDS", "1")]);
    let mut client = world.wanted(&["topic:news"]).connect(&node).await;
    let id = node.id().await;
    other.publish("topic:news", "0").await;
    assert_eq!(client.data(1).await, ["0"]);
    node.signal(Signal::STOP);
    let mut raw = world.redis.as_ref().unwrap().raw().await;
    let lease = format!("whimbrel:{{node:{id}}}:lease");
    let mut gone = async || (!raw.exists::<_, bool>(&lease).await.unwrap()).then_some(());
    let deadline = Instant::now() + Duration::from_secs(10);
    while gone().await.is_none() {
        assert!(Instant::now() < deadline, "the lease outlives its term");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.publish_all("topic:news", 1..50).await;
    node.signal(Signal::CONT);
    assert_eq!(client.data(49).await, (1..50).map(|n| n.to_string()).collect::<Vec<_>>());
    other.publish("topic:news", "50").await;
    assert_eq!(client.data(1).await, ["50"]);
    eventually("it goes on under a new id", async || (node.id().await != id).then_some(())).await;
}

async fn a_store_that_lost_everything_has_the_streams_of_a_node_noted_again(world: World) {
    let [node] = world.nodes(&[("WHIMBREL_LEASE_SECONDS", "2"), ("WHIMBREL_SYNC_SECONDS", "1")]);
    let _client = world.wanted(&["device:42"]).connect(&node).await;
    let raw = world.redis.as_ref().unwrap().raw().await;
    let noted = async || {
        let nodes: Vec<String> = raw.clone().zrange("whimbrel:nodes", 0, -1).await.unwrap();
        let [node] = &nodes[..] else { return None };
        let streams: Vec<String> = raw.clone().smembers(format!("whimbrel:{{node:{node}}}:streams")).await.unwrap();
        (streams == ["device:42"]).then(|| node.clone())
    };
    let first = eventually("the stream is noted", noted).await;
    redis::cmd("FLUSHALL").exec_async(&mut raw.clone()).await.unwrap();
    let second = eventually("the stream is noted again", noted).await;
    assert_ne!(first, second, "a node that lost its lease takes a new id");
}

#[tokio::test]
async fn a_node_without_clients_still_serves_what_its_balancer_sends() {
    let node = Node::start(&[("WHIMBREL_DRAIN_DELAY_SECONDS", "3600")]);
    node.signal(Signal::TERM);
    eventually("it is unready", async || (node.get("/health/ready").await.status == 503).then_some(())).await;
    node.publish("topic:news", "1").await;
    for transport in [Transport::Sse, Transport::WebSocket] {
        let mut late = Wanted::new(transport, &["topic:news"]).after("last:1").connect(&node).await;
        assert_eq!(late.data(1).await, ["1"]);
    }
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await.code(), Some(1), "at a second signal, it ends at once");
}

#[tokio::test]
async fn a_node_without_clients_ends_at_once_when_interrupted() {
    let node = Node::start(&[("WHIMBREL_DRAIN_DELAY_SECONDS", "3600"), ("WHIMBREL_DRAIN_SECONDS", "0")]);
    node.signal(Signal::INT);
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_lone_node_on_the_embedded_store_ends_at_once_when_interrupted_and_tells_its_clients() {
    let node = Node::start(&[("WHIMBREL_DRAIN_DELAY_SECONDS", "3600"), ("WHIMBREL_DRAIN_SECONDS", "3600")]);
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await;
    node.publish("topic:news", "1").await;
    assert_eq!(client.data(1).await, ["1"]);
    node.signal(Signal::INT);
    assert!(matches!(client.next().await, Said::Close { reason, .. } if reason == "drain"));
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_start_ends_at_whatever_line_of_its_log_it_is_stopped() {
    for line in [0, 1, 2].iter().cycle().take(150) {
        let mut start = tokio::process::Command::from(program());
        start.args(["serve", "--listen", "127.0.0.1:0"]).env("WHIMBREL_LOG", "info,whimbrel=debug");
        let mut start = start.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut log = BufReader::new(start.stderr.take().unwrap()).lines();
        for _ in 0..*line {
            log.next_line().await.unwrap();
        }
        let told_at = log.next_line().await.unwrap().unwrap();
        send(start.id().unwrap(), Signal::INT);
        let ended = in_time(&format!("the end of a start that was stopped at {told_at}"), start.wait()).await;
        assert_eq!(ended.unwrap().code(), Some(0), "stopped at {told_at}");
    }
}
