//! Clients stop reading, vanish, and come back all at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::lab::{Lab, Plan};
use super::listener::Behaviour;
use super::producer::Work;
use crate::support::client::Transport;
use crate::support::eventually;
use crate::support::proxy::{Cut, Direction, Flow};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_reading_cost_only_themselves() {
    // On a busy machine a client that takes nothing would otherwise be closed before its outbox is full.
    let settings = vec![("WHIMBREL_PING_SECONDS", "10")];
    let mut lab = Lab::busy("stopped_reading", Plan { settings, ..Plan::default() }).await;
    let (deaf, others): (Vec<_>, Vec<_>) = lab.listeners.iter().partition(|client| client.behaviour.door == 0);
    deaf.iter().for_each(|client| client.whims.deaf.store(true, Ordering::Relaxed));
    let at = |client: &super::listener::Listener| client.whims.sessions.load(Ordering::Relaxed);
    let before: usize = others.iter().filter(|client| client.behaviour.roams.is_none()).map(|client| at(client)).sum();
    // Enough that sockets and outboxes fill up.
    for _ in 0..3 {
        let (streams, patience) = (lab.streams.clone(), Duration::from_secs(12));
        lab.produce_as(Work { streams, pace: Duration::ZERO, padding: 60_000, door: 1, patience });
    }
    eventually("outboxes are full", async || {
        (lab.nodes[0].metric("outbox_overflows_total").await >= 4.0).then_some(())
    })
    .await;
    lab.flowing().await;
    let others = lab.listeners.iter().filter(|client| client.behaviour.door != 0 && client.behaviour.roams.is_none());
    assert_eq!(others.map(at).sum::<usize>(), before, "nobody else was cut off");
    lab.stop_producers().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_without_a_word_are_let_go_and_miss_nothing_when_they_return() {
    let mut lab = Lab::busy("vanished", Plan::default()).await;
    let open = async |lab: &Lab, transport: &str| {
        lab.nodes[0].metric(&format!("connections{{transport=\"{transport}\"}}")).await
    };
    // Node 1 takes them; node 0 is not notified.
    lab.doors.set(0, "n1.0".into(), lab.fronts[1].address());
    for word in ["GET /v1/sse", "GET /v1/ws"] {
        for connection in lab.fronts[0].connections(word) {
            connection.set(Direction::Both, Flow::Stall);
        }
    }
    eventually("WebSockets without a pong are let go", async || (open(&lab, "websocket").await == 0.0).then_some(()))
        .await;
    // What is sent over SSE is taken by the proxy's own buffers, until they are full.
    let (streams, patience) = (lab.streams.clone(), Duration::from_secs(12));
    lab.produce_as(Work { streams, pace: Duration::ZERO, padding: 30_000, door: 1, patience });
    eventually("event streams that take nothing are let go", async || (open(&lab, "sse").await == 0.0).then_some(()))
        .await;
    lab.stop_producers().await;
    lab.produce(Duration::from_millis(10));
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_storm_loses_nothing_and_leaves_nothing_behind() {
    let mut lab = Lab::busy("storm", Plan::default()).await;
    for number in 0..100 {
        let transport = [Transport::Sse, Transport::WebSocket][number % 2];
        let behaviour = lab.behaviour(transport, number);
        lab.add(Behaviour { returns: Duration::from_millis(50), ..behaviour });
    }
    lab.all_placed().await;
    for how in [Cut::Reset, Cut::Fin, Cut::Reset, Cut::Fin] {
        lab.fronts.iter().for_each(|front| front.cut(how));
        lab.flowing().await;
    }
    lab.stop_producers().await;
    for node in &lab.nodes {
        node.metric_is("temporary_dispatchers", 0.0).await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_bad_lines_get_everything_late() {
    let lab = Lab::busy("bad_lines", Plan::default()).await;
    lab.fronts[0].set(Direction::Both, Flow::Late(Duration::from_millis(100)));
    lab.fronts[1].set(Direction::ToClient, Flow::Slow(3_000));
    lab.flowing().await;
    lab.published(50).await;
    lab.verdict().await;
}
