//! The store pauses, dies, is out of reach, forgets.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use whimbrel::history::record::Loss;
use whimbrel::store::redis::RedisStore;
use whimbrel::store::{EventLog, RetentionRules, StoreError};

use super::lab::{Lab, Plan};
use crate::conformance::{draft, stream};
use crate::support::proxy::{Cut, Direction, Flow, Proxy};
use crate::support::redis::{RedisServer, config};
use crate::support::{eventually, in_time};

/// A publish is answered within this time, whatever became of the store: its answer is waited for for 5
/// seconds, and a machine that is busy with other tests gets some more.
const BOUND: Duration = Duration::from_secs(8);

/// The store in the body of health.
async fn store_of(lab: &Lab, node: usize) -> Value {
    lab.nodes[node].get("/health/ready").await.json()["store"].clone()
}

async fn all_nodes_report_it_down(lab: &Lab) {
    for node in 0..lab.nodes.len() {
        let store = eventually("the health body names the loss", async || {
            let store = store_of(lab, node).await;
            (store["up"] == false).then_some(store)
        })
        .await;
        assert!(store["error"].as_str().is_some_and(|reason| !reason.is_empty()), "{store}");
        let refused = lab.nodes[node].call("POST", "/v1/topics/probe/events", &[], "1").await;
        assert!(matches!(refused.status, 503 | 504), "{}", refused.text());
    }
}

async fn all_nodes_report_it_up(lab: &Lab) {
    for node in 0..lab.nodes.len() {
        eventually("the body of health has the store as up", async || {
            (store_of(lab, node).await["up"] == true).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_store_holds_everything_up_and_loses_nothing() {
    let lab = Lab::busy("paused_store", Plan::default()).await;
    for milliseconds in ["500", "3000"] {
        let _: String = lab.ask_store(&["CLIENT", "PAUSE", milliseconds, "ALL"]).await;
        lab.flowing().await;
    }
    let (_, findings) = lab.verdict().await;
    assert!(findings.slowest < BOUND, "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_killed_and_comes_back_with_its_file_loses_nothing() {
    let plan = Plan { redis: vec!["--appendonly", "yes", "--appendfsync", "always"], ..Plan::default() };
    let mut lab = Lab::busy("killed_store", plan).await;
    for _ in 0..2 {
        lab.redis.kill();
        all_nodes_report_it_down(&lab).await;
        let failed = lab.findings().failed;
        eventually("publishes are refused", async || (lab.findings().failed > failed).then_some(())).await;
        tokio::task::block_in_place(|| lab.redis.revive());
        all_nodes_report_it_up(&lab).await;
        lab.flowing().await;
    }
    let (_, findings) = lab.verdict().await;
    assert!(findings.statuses.contains(&503), "{findings:?}");
    assert!(findings.slowest < BOUND, "{findings:?}");
}

/// The store is out of reach for a while, in a way that each node notices or has to find out.
async fn out_of_reach(name: &str, time: Duration, break_it: impl Fn(&Lab), statuses: &[u16]) {
    let lab = Lab::busy(name, Plan::default()).await;
    let placed = |lab: &Lab| -> usize {
        let sessions =
            |client: &super::listener::Listener| client.whims.sessions.load(std::sync::atomic::Ordering::Relaxed);
        lab.listeners.iter().filter(|client| client.behaviour.roams.is_none()).map(sessions).sum()
    };
    let before = placed(&lab);
    let begun = Instant::now();
    break_it(&lab);
    all_nodes_report_it_down(&lab).await;
    tokio::time::sleep(time.saturating_sub(begun.elapsed())).await;
    lab.links.iter().for_each(Proxy::heal);
    all_nodes_report_it_up(&lab).await;
    lab.flowing().await;
    // Sockets stay: a client with no reason of its own to leave is still in its first session.
    assert_eq!(placed(&lab), before);
    let (_, findings) = lab.verdict().await;
    for status in statuses {
        assert!(findings.statuses.contains(status), "{status} is missing in {findings:?}");
    }
    assert!(findings.slowest < BOUND, "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_unreachable_for_a_minute_sockets_stay_and_publishes_are_refused() {
    let break_it = |lab: &Lab| {
        for link in &lab.links {
            link.refuse(true);
            link.cut(Cut::Reset);
        }
    };
    out_of_reach("refused", Duration::from_secs(60), break_it, &[503]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_silent_publishes_are_answered_in_time() {
    let break_it = |lab: &Lab| lab.links.iter().for_each(|link| link.set(Direction::Both, Flow::Stall));
    out_of_reach("silent", Duration::from_secs(10), break_it, &[504, 503]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_are_unknown_and_what_was_stored_is_delivered_once() {
    // Everything reaches the store, nothing comes back.
    let break_it = |lab: &Lab| lab.links.iter().for_each(|link| link.set(Direction::ToClient, Flow::Stall));
    out_of_reach("lost_answers", Duration::from_secs(7), break_it, &[504]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_and_late_store_loses_nothing() {
    let lab = Lab::busy("slow_store", Plan::default()).await;
    lab.links[0].set(Direction::Both, Flow::Late(Duration::from_millis(150)));
    lab.links[1].set(Direction::Both, Flow::Slow(20_000));
    lab.flowing().await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_reported_to_every_client() {
    let mut lab = Lab::busy("flush", Plan::default()).await;
    let _: String = lab.losing(Loss::Flush, async |lab| lab.ask_store(&["FLUSHALL"]).await).await;
    lab.flowing().await;
    let nodes = lab.nodes.len();
    for node in 0..nodes {
        eventually("a node whose lease was flushed goes on under another id", async || {
            (lab.nodes[node].metric("leases_lost_total").await == 1.0).then_some(())
        })
        .await;
    }
    lab.flowing().await;
    let (summary, _) = lab.verdict().await;
    assert!(summary.gaps >= summary.clients, "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_for_a_silent_store_all_are_answered_in_time() {
    let server = RedisServer::start();
    let link = Proxy::to(server.address());
    let url = format!("redis://{}/", link.address());
    let rules = RetentionRules::default();
    let store =
        Arc::new(RedisStore::connect(&config(&url), "whimbrel", rules, Duration::from_secs(600)).await.unwrap());
    link.set(Direction::Both, Flow::Stall);
    let begun = Instant::now();
    // More than one connection's queue holds.
    let waiting: Vec<_> = (0..5000)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let outcome = store.publish(&stream("topic:news"), &draft(number.to_string())).await;
                assert!(matches!(outcome, Err(StoreError::Unknown(_) | StoreError::Unavailable(_))), "{outcome:?}");
            })
        })
        .collect();
    for answer in waiting {
        in_time("the answer", answer).await.unwrap();
    }
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    // And afterwards it goes on.
    link.heal();
    eventually("publishes again", async || store.publish(&stream("topic:news"), &draft("1")).await.ok()).await;
}
