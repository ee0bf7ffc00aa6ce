//! Nodes die, sleep, and are stopped.

use std::sync::atomic::Ordering;
use std::time::Duration;

use whimbrel::history::Record;

use super::lab::{Lab, Plan};
use crate::support::client::Transport;
use crate::support::{Signal, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_killed_node_miss_nothing() {
    let mut lab = Lab::busy("killed_node", Plan { nodes: 3, ..Plan::default() }).await;
    lab.kill_in_turn(&[0, 1, 0]).await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_counts_for_nobody_after_two_lease_times() {
    let mut lab = Lab::busy("killed_for_good", Plan::default()).await;
    let dead = lab.nodes[0].id().await;
    lab.kill(0);
    let left: i64 = lab.ask_store(&["PTTL", &format!("whimbrel:{{node:{dead}}}:lease")]).await;
    assert!(left <= 2_000, "its lease has {left} ms left");
    lab.flowing().await;
    eventually("its lease is gone", async || {
        let lives: bool = lab.ask_store(&["EXISTS", &format!("whimbrel:{{node:{dead}}}:lease")]).await;
        (!lives).then_some(())
    })
    .await;
    lab.restart(0).await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_longer_than_its_lease_comes_back_as_another_and_its_clients_miss_nothing() {
    let mut lab = Lab::busy("slept", Plan::default()).await;
    // These stay connected through it all; others leave after some seconds of silence.
    for transport in [Transport::Sse, Transport::WebSocket] {
        let behaviour = super::listener::Behaviour { patience: None, ..lab.behaviour(transport, 0) };
        lab.add(behaviour);
    }
    lab.all_placed().await;
    let before = lab.nodes[0].id().await;
    lab.nodes[0].signal(Signal::STOP);
    lab.published(20).await;
    eventually("its lease is gone", async || {
        let lives: bool = lab.ask_store(&["EXISTS", &format!("whimbrel:{{node:{before}}}:lease")]).await;
        (!lives).then_some(())
    })
    .await;
    lab.published(20).await;
    lab.nodes[0].signal(Signal::CONT);
    eventually("it has another id", async || (lab.nodes[0].id().await != before).then_some(())).await;
    lab.flowing().await;
    let patient = &lab.listeners[lab.listeners.len() - 2..];
    assert!(patient.iter().all(|client| client.whims.sessions.load(Ordering::Relaxed) == 1), "they were never cut off");
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_for_a_moment_goes_on_as_it_was() {
    // On a busy machine it may get nothing done for longer than it sleeps.
    let plan = Plan { settings: vec![("WHIMBREL_LEASE_SECONDS", "20")], ..Plan::default() };
    let lab = Lab::busy("dozed", plan).await;
    let before = lab.nodes[0].id().await;
    for _ in 0..5 {
        lab.nodes[0].signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(300)).await;
        lab.nodes[0].signal(Signal::CONT);
        lab.flowing().await;
    }
    assert_eq!(lab.nodes[0].id().await, before);
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_while_events_are_published_notifies_each_client_and_loses_nothing() {
    let mut lab = Lab::busy("drained", Plan::default()).await;
    for node in [0, 1] {
        lab.drain(node).await;
        lab.flowing().await;
    }
    let notified = lab.recorder.count(|record| matches!(record, Record::Close { reason, .. } if reason == "drain"));
    assert!(notified >= 6, "{notified} clients were notified");
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_clients_come_back_when_all_nodes_are_restarted_at_once() {
    let mut lab = Lab::new("all_restarted", Plan::default()).await;
    for number in 0..2000 {
        let transport = [Transport::Sse, Transport::WebSocket][number % 2];
        let mut behaviour = lab.behaviour(transport, number);
        behaviour.patience = Some(Duration::from_secs(30));
        behaviour.returns = Duration::from_secs(1);
        behaviour.streams.truncate(1);
        lab.add(behaviour);
    }
    lab.all_placed().await;
    lab.produce(Duration::from_millis(100));
    lab.published(5).await;
    for node in 0..lab.nodes.len() {
        lab.kill(node);
    }
    for node in 0..lab.nodes.len() {
        lab.restart(node).await;
    }
    eventually("all clients are back", async || {
        lab.listeners.iter().all(|client| client.whims.sessions.load(Ordering::Relaxed) > 1).then_some(())
    })
    .await;
    lab.published(5).await;
    let reads: f64 = lab.nodes[0].metric("page_reads_total").await + lab.nodes[1].metric("page_reads_total").await;
    assert!(reads < 500.0, "{reads} reads: a storm of clients must not become one of reads");
    lab.verdict().await;
}
