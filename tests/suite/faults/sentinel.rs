//! Sentinels replace the master, as often as it takes.

use std::time::{Duration, Instant};

use whimbrel::history::record::Loss;

use super::lab::{Lab, Plan};
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::redis::RedisServer;
use crate::support::sentinel::{Group, MASTER};
use crate::support::{Signal, eventually};

async fn busy(name: &str, group: &Group) -> Lab {
    let plan = Plan { store_url: Some(group.url()), ..Plan::default() };
    let mut lab = Lab::new(name, plan).await;
    lab.store = group.servers[0].address();
    lab.listen().await;
    lab.produce(Duration::from_millis(10));
    lab.flowing().await;
    // The checker could not know that what no replica had at all was ever kept.
    for server in &group.servers[1..] {
        eventually("the replica has events of each stream", async || {
            let mut lengths = redis::pipe();
            lengths.cmd("XLEN").arg("whimbrel:{topic:news}:events").cmd("XLEN").arg("whimbrel:{device:42}:events");
            let lengths: (usize, usize) = lengths.query_async(&mut server.raw().await).await.unwrap();
            (lengths.0 > 10 && lengths.1 > 10).then_some(())
        })
        .await;
    }
    lab
}

/// What becomes of the old master.
#[derive(PartialEq)]
enum Old {
    Silent,
    /// It takes events as long as a node goes on publishing there.
    Lives,
}

/// Has the master fail, and waits until publishes are taken by the next one. What the replicas did not have by then
/// is lost.
async fn fail_over(
    lab: &mut Lab,
    group: &mut Group,
    (old, becomes): (usize, Old),
    fail: impl AsyncFnOnce(&mut Group),
) -> usize {
    lab.losing(Loss::Tail, async |lab| {
        let begun = Instant::now();
        fail(group).await;
        let master = group.master_after(old).await;
        let named = begun.elapsed();
        lab.store = group.servers[master].address();
        // Those that the old one still answered are among the first.
        lab.published(20).await;
        if becomes == Old::Lives {
            is_left(&group.servers[old]).await;
        }
        println!("sentinel: another master after {named:?}, publishes after {:?}", begun.elapsed());
        master
    })
    .await
}

/// No node has a connection to it any more.
async fn is_left(server: &RedisServer) {
    eventually("nodes have left the old master", async || {
        let clients: String = server.try_ask(&["CLIENT", "LIST"]).await?;
        // Nobody else speaks RESP3: not the test, nor Sentinels and replicas.
        (!clients.contains(" resp=3")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_replaced_and_so_is_the_one_after_it() {
    let mut group = Group::start(&[]).await;
    let mut lab = busy("sentinel_killed", &group).await;
    let next = fail_over(&mut lab, &mut group, (0, Old::Silent), async |group| group.servers[0].kill()).await;
    lab.flowing().await;
    tokio::task::block_in_place(|| group.servers[0].revive());
    // Sentinels do the same some ten seconds later.
    let port = group.servers[next].port();
    let mut raw = group.servers[0].raw().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec_async(&mut raw).await.unwrap();
    group.all_replicate().await;
    fail_over(&mut lab, &mut group, (next, Old::Silent), async |group| group.servers[next].kill()).await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_stopped_is_left_and_comes_back_as_a_replica() {
    let mut group = Group::start(&[]).await;
    let mut lab = busy("sentinel_stopped", &group).await;
    fail_over(&mut lab, &mut group, (0, Old::Silent), async |group| group.servers[0].signal(Signal::STOP)).await;
    lab.flowing().await;
    group.servers[0].signal(Signal::CONT);
    is_left(&group.servers[0]).await;
    group.all_replicate().await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_on_request_are_followed_while_sentinels_restart_one_by_one() {
    let mut group = Group::start(&[]).await;
    let mut lab = busy("sentinel_requested", &group).await;
    let mut master = 0;
    for sentinel in 0..group.sentinels.len() {
        group.sentinels[sentinel].kill();
        lab.published(20).await;
        tokio::task::block_in_place(|| group.sentinels[sentinel].revive());
        lab.published(20).await;
    }
    for _ in 0..2 {
        group.all_replicate().await;
        master = fail_over(&mut lab, &mut group, (master, Old::Lives), async |group| {
            eventually("a failover begins", async || {
                let asked = group.sentinels[0].try_ask(&["SENTINEL", "FAILOVER", MASTER]).await;
                asked.ok().map(|_: String| ())
            })
            .await;
        })
        .await;
        lab.flowing().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_only_sentinels_can_not_reach_is_left() {
    // It takes writes, and answers nodes, but another one was made the master.
    let master = RedisServer::start();
    let way = Proxy::to(master.address());
    let mut group = Group::watching(master, way.address().port(), &[]).await;
    let mut lab = busy("sentinel_isolated", &group).await;
    let isolate = async |_: &mut Group| {
        for connection in way.connections("sentinel-").iter().chain(&way.connections("__sentinel__:hello")) {
            connection.set(Direction::Both, Flow::Stall);
        }
        way.refuse(true);
    };
    fail_over(&mut lab, &mut group, (0, Old::Lives), isolate).await;
    lab.flowing().await;
    lab.verdict().await;
}
