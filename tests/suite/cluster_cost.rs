//! What an event costs the servers of a Redis Cluster, by how many masters there are and nodes that follow its stream:
//! `scripts/test cluster_cost -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::{Client, Transport, Wanted};
use crate::support::cluster::Cluster;
use crate::support::node::Node;

/// Of each master, so that all have the same to do, however many there are.
const EVENTS: usize = 3_000;
const TOPICS: usize = 4;
/// Events of each master that are published in one request. The next follows once all clients have these, so that nothing
/// is read from the store.
const BATCH: usize = 250;
/// For how long it is measured what servers do without any event.
const IDLE: Duration = Duration::from_secs(3);

/// Microseconds of processor time that all servers have used.
async fn used(cluster: &Cluster) -> f64 {
    join_all(cluster.servers.iter().map(async |server| server.cpu_us().await)).await.into_iter().sum()
}

/// Publishes so many events of each master, each of which all clients get.
async fn publish(node: &Node, clients: &mut [Client], topics: &[String], events: usize) {
    let masters = topics.len() / TOPICS;
    for first in (0..events * masters).step_by(BATCH * masters) {
        let entry = |n: usize| {
            let topic = topics[n % topics.len()].strip_prefix("topic:").unwrap();
            json!({ "topic": topic, "data": format!("{n:0>100}") })
        };
        let batch: Vec<Value> = (first..first + BATCH * masters).map(entry).collect();
        let answer = node.call("POST", "/v1/events", &[], Value::from(batch).to_string()).await;
        assert_eq!(
            (answer.status, answer.text().matches("\"id\"").count()),
            (200, BATCH * masters),
            "{}",
            answer.text()
        );
        join_all(clients.iter_mut().map(|client| client.data(BATCH * masters))).await;
    }
}

/// Microseconds of processor time of all servers for one event, by sharded channels or, without the right for these, by
/// the bus.
async fn cost(masters: usize, nodes: usize, sharded: bool) -> f64 {
    let cluster = Cluster::of_masters(masters).await;
    if !sharded {
        for place in 0..masters {
            cluster.say(place, &["ACL", "SETUSER", "default", "-ssubscribe"]).await;
        }
    }
    let url = cluster.url();
    let settings = [("WHIMBREL_REDIS_URL", url.as_str()), ("WHIMBREL_RETENTION", "*=10000/3600")];
    let nodes: Vec<Node> = (0..nodes).map(|_| Node::start(&settings)).collect();
    let mut topics = Vec::new();
    for n in 0..TOPICS * masters {
        topics.push(cluster.topic_of(n % masters, 100 * n).await);
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Wanted::new(Transport::Sse, &names).connect(node).await);
    }
    publish(&nodes[0], &mut clients, &topics, BATCH).await;
    let before = used(&cluster).await;
    tokio::time::sleep(IDLE).await;
    let idle = (used(&cluster).await - before) / IDLE.as_secs_f64();
    let (before, begun) = (used(&cluster).await, Instant::now());
    publish(&nodes[0], &mut clients, &topics, EVENTS).await;
    (used(&cluster).await - before - idle * begun.elapsed().as_secs_f64()) / (EVENTS * masters) as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for docs/redis.md"]
async fn processor_time_of_all_servers_for_an_event() {
    println!(
        "| nodes | masters | PUBLISH, CPU of all servers an event | times one master | SPUBLISH | times one master |"
    );
    println!("|---|---|---|---|---|---|");
    for nodes in [2, 8] {
        let mut alone = None;
        for masters in [1, 3, 6] {
            let costs = [cost(masters, nodes, false).await, cost(masters, nodes, true).await];
            let alone = *alone.get_or_insert(costs);
            let [bus, sharded] =
                [0, 1].map(|which| format!("{:.1} µs | {:.2}", costs[which], costs[which] / alone[which]));
            println!("| {nodes} | {masters} | {bus} | {sharded} |");
        }
    }
}
