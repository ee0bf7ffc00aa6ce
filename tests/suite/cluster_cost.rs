//! What an event costs the servers of a Redis Cluster, by how many masters there are and nodes that follow its stream:
//! `scripts/test cluster_cost -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::{Client, Transport, Wanted};
use crate::support::cluster::Cluster;
use crate::support::node::Node;

const EVENTS: usize = 20_000;
/// Published in one request. The next follows once all clients have these, so that nothing is read from the store.
const BATCH: usize = 500;
/// As many for each number of masters.
const TOPICS: usize = 12;
/// For how long it is measured what servers do without any event.
const IDLE: Duration = Duration::from_secs(3);

/// Microseconds of processor time that all servers have used.
async fn used(cluster: &Cluster) -> f64 {
    join_all(cluster.servers.iter().map(async |server| server.cpu_us().await)).await.into_iter().sum()
}

/// Publishes so many events over all topics, each of which all clients get.
async fn publish(node: &Node, clients: &mut [Client], topics: &[String], events: usize) {
    for first in (0..events).step_by(BATCH) {
        let entry = |n: usize| {
            let topic = topics[n % topics.len()].strip_prefix("topic:").unwrap();
            json!({ "topic": topic, "data": format!("{n:0>100}") })
        };
        let batch: Vec<Value> = (first..first + BATCH).map(entry).collect();
        let answer = node.call("POST", "/v1/events", &[], Value::from(batch).to_string()).await;
        assert_eq!((answer.status, answer.text().matches("\"id\"").count()), (200, BATCH), "{}", answer.text());
        join_all(clients.iter_mut().map(|client| client.data(BATCH))).await;
    }
}

/// Microseconds of processor time of all servers for one event.
async fn cost(masters: usize, nodes: usize) -> f64 {
    let cluster = Cluster::of_masters(masters).await;
    let url = cluster.url();
    let settings = [("WHIMBREL_REDIS_URL", url.as_str()), ("WHIMBREL_RETENTION", "*=10000/3600")];
    let nodes: Vec<Node> = (0..nodes).map(|_| Node::start(&settings)).collect();
    let mut topics = Vec::new();
    for n in 0..TOPICS {
        topics.push(cluster.topic_of(n % masters, 100 * n).await);
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Wanted::new(Transport::Sse, &names).connect(node).await);
    }
    publish(&nodes[0], &mut clients, &topics, 4 * BATCH).await;
    let before = used(&cluster).await;
    tokio::time::sleep(IDLE).await;
    let idle = (used(&cluster).await - before) / IDLE.as_secs_f64();
    let (before, begun) = (used(&cluster).await, Instant::now());
    publish(&nodes[0], &mut clients, &topics, EVENTS).await;
    (used(&cluster).await - before - idle * begun.elapsed().as_secs_f64()) / EVENTS as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for docs/performance.md"]
async fn processor_time_of_all_servers_for_an_event() {
    println!("| nodes | masters | CPU of all servers, an event | of what one master takes |\n|---|---|---|---|");
    for nodes in [2, 8] {
        let mut alone = None;
        for masters in [1, 3, 6] {
            let cost = cost(masters, nodes).await;
            let alone = *alone.get_or_insert(cost);
            println!("| {nodes} | {masters} | {cost:.1} µs | {:.2} |", cost / alone);
        }
    }
}
