//! Nodes behind a real balancer restart one after another, under real EventSources.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::support::balancer::Balancer;
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::{Signal, eventually, in_time, installed};

/// What clients met with.
#[derive(Debug, Deserialize)]
struct Report {
    published: usize,
    closes: usize,
    /// Of one client.
    most_closes: usize,
    lost: usize,
    twice: usize,
    gaps: usize,
    pause_p50_ms: u64,
    pause_max_ms: u64,
}

impl Report {
    /// Whether everybody was let go once for each restart at most, and missed nothing.
    #[track_caller]
    fn is_sound(&self, clients: usize) {
        println!("{clients} clients: {self:?}");
        assert!(self.published > 0 && self.closes >= clients, "{self:?}");
        assert!(self.most_closes <= 2, "{self:?}");
        assert_eq!((self.lost, self.twice, self.gaps), (0, 0, 0), "{self:?}");
    }
}

/// Restarts two nodes in turn. `delay` and `drain` are the seconds of a node's stop.
async fn restart_in_turn(
    balance: impl AsyncFnOnce(&[SocketAddr]) -> Balancer,
    clients: usize,
    (delay, drain): (&str, &str),
) -> Report {
    installed("node_modules");
    let redis = RedisServer::start();
    let stop = [("WHIMBREL_DRAIN_DELAY_SECONDS", delay), ("WHIMBREL_DRAIN_SECONDS", drain)];
    let mut nodes = [Node::on(&redis, &stop), Node::on(&redis, &stop)];
    let balancer = balance(&nodes.each_ref().map(Node::address)).await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/rolling.mjs");
    let mut run = tokio::process::Command::new("node")
        .arg(program)
        .args([&balancer.url(), &clients.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(run.stdout.take().unwrap()).lines();
    assert_eq!(in_time("all clients are there", said.next_line()).await.unwrap().as_deref(), Some("open"));
    for node in &mut nodes {
        let address = node.address().to_string();
        node.signal(Signal::TERM);
        assert_eq!(node.ended().await.code(), Some(0));
        let again = [("WHIMBREL_LISTEN", address.as_str()), stop[0], stop[1]];
        *node = tokio::task::block_in_place(|| Node::on(&redis, &again));
        // The balancer has noticed: it sends publishes to the node that has the fewest connections.
        eventually("the node is used again", async || (node.metric("published_total").await > 0.0).then_some(())).await;
    }
    run.stdin.as_mut().unwrap().write_all(b"end\n").await.unwrap();
    let report = tokio::time::timeout(std::time::Duration::from_secs(60), said.next_line()).await;
    serde_json::from_str(&report.expect("a report").unwrap().expect("a report")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_nginx_are_let_go_once_by_each_node_that_restarts() {
    restart_in_turn(Balancer::nginx, 20, ("1", "2")).await.is_sound(20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_haproxy_are_let_go_once_by_each_node_that_restarts() {
    restart_in_turn(Balancer::haproxy, 20, ("5", "2")).await.is_sound(20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Caddy: scripts/check-deploy installs it and runs this"]
async fn clients_behind_caddy_are_let_go_once_by_each_node_that_restarts() {
    restart_in_turn(Balancer::caddy, 20, ("5", "2")).await.is_sound(20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: a minute on a quiet machine, see docs/reliability.md"]
async fn rolling_restarts() {
    let stop = ("5", "10");
    for report in
        [restart_in_turn(Balancer::nginx, 200, stop).await, restart_in_turn(Balancer::haproxy, 200, stop).await]
    {
        report.is_sound(200);
        assert!(report.pause_p50_ms <= 1_000 && report.pause_max_ms <= 4_000, "{report:?}");
    }
}
