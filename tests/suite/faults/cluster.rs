//! A Redis Cluster loses a master, gets a new one on request, and has slots moved, under load.

use std::time::Duration;

use whimbrel::history::record::Loss;

use super::lab::{Lab, Plan};
use crate::support::cluster::Cluster;
use crate::support::{Signal, eventually};

/// A stream of each of three masters, with its slot.
const STREAMS: [(&str, u16); 3] = [("topic:b", 3102), ("device:42", 7375), ("topic:news", 13710)];

async fn busy(name: &str, cluster: &Cluster) -> Lab {
    let streams = STREAMS.map(|(stream, _)| stream).to_vec();
    let plan = Plan { store_url: Some(cluster.url()), streams, ..Plan::default() };
    let mut lab = Lab::new(name, plan).await;
    lab.store = cluster.servers[1].address();
    lab.listen().await;
    lab.produce(Duration::from_millis(10));
    lab.flowing().await;
    lab
}

/// Waits until the replica of a master has events of that one's stream: the checker could not know that what no replica
/// had at all was ever kept.
async fn replicated(cluster: &Cluster, master: usize) {
    let key = format!("whimbrel:{{{}}}:events", STREAMS[master].0);
    eventually("the replica has events", async || {
        let mut length = redis::pipe();
        length.cmd("READONLY").ignore().cmd("XLEN").arg(&key);
        let raw = &mut cluster.servers[cluster.masters + master].raw().await;
        let (length,): (usize,) = length.query_async(raw).await.unwrap();
        (length > 10).then_some(())
    })
    .await;
}

/// Waits until a replica has taken over.
async fn promoted(cluster: &Cluster, master: usize) {
    let place = cluster.masters + master;
    eventually("the replica has taken over", async || {
        (cluster.place_of(STREAMS[master].1).await == place).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_replaced_by_its_replica() {
    let mut cluster = Cluster::with_replicas().await;
    let mut lab = busy("cluster_killed", &cluster).await;
    replicated(&cluster, 0).await;
    lab.losing(Loss::Tail, async |lab| {
        cluster.servers[0].kill();
        promoted(&cluster, 0).await;
        lab.published(60).await;
    })
    .await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_master_is_replaced_and_comes_back_as_a_replica() {
    let cluster = Cluster::with_replicas().await;
    let mut lab = busy("cluster_stopped", &cluster).await;
    replicated(&cluster, 2).await;
    lab.losing(Loss::Tail, async |lab| {
        cluster.servers[2].signal(Signal::STOP);
        promoted(&cluster, 2).await;
        lab.published(60).await;
        cluster.servers[2].signal(Signal::CONT);
        cluster.is_whole().await;
    })
    .await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_on_request_lose_nothing() {
    let cluster = Cluster::with_replicas().await;
    let lab = busy("cluster_requested", &cluster).await;
    for master in 0..cluster.masters {
        replicated(&cluster, master).await;
        cluster.say(cluster.masters + master, &["CLUSTER", "FAILOVER"]).await;
        promoted(&cluster, master).await;
        lab.flowing().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_lose_nothing_and_publishes_wait_for_them() {
    let mut cluster = Cluster::of_masters(3).await;
    let lab = busy("cluster_slots", &cluster).await;
    // A master that nobody knows of yet, and one after another.
    cluster.add().await;
    cluster.is_whole().await;
    for to in [3, 0, 1] {
        for (_, slot) in STREAMS {
            if cluster.place_of(slot).await != to {
                cluster.move_slot(slot, to).await;
                lab.flowing().await;
            }
        }
    }
    let (_, findings) = lab.verdict().await;
    assert_eq!((findings.failed, findings.unknown), (0, 0), "{:?}", findings.statuses);
}
