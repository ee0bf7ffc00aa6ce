//! Another Redis takes over, and has less than the one before.

use whimbrel::history::record::Loss;

use super::lab::{Lab, Plan};
use super::replica::Replica;
use crate::support::client::{Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::proxy::Cut;
use crate::support::redis::RedisServer;

/// The old master takes no writes any more, and replicates from this port.
async fn demote(lab: &Lab, master: u16) {
    let mut raw = lab.redis.raw().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(master).exec_async(&mut raw).await.unwrap();
}

fn cut_all(lab: &Lab) {
    lab.links.iter().for_each(|link| link.cut(Cut::Reset));
}

/// A replica takes over that lacks some events which everyone saw.
async fn lose_a_tail(name: &str, server: RedisServer) {
    let mut lab = Lab::busy(name, Plan::default()).await;
    let replica = Replica::of(&lab, server).await;
    lab.flowing().await;
    replica.fall_behind().await;
    lab.published(20).await;
    lab.flowing().await;
    lab.losing(Loss::Tail, async |lab| {
        replica.take_over(lab).await;
        lab.redis.kill();
    })
    .await;
    lab.published(20).await;
    lab.flowing().await;
    lab.published(20).await;
    let (summary, _) = lab.verdict().await;
    assert!(summary.gaps >= summary.clients, "{summary}");
    drop(replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_the_last_events_is_reported_to_every_client() {
    lose_a_tail("lost_tail", RedisServer::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_the_last_events_and_whose_clock_is_behind_is_reported_to_every_client() {
    let Some(server) = RedisServer::start_with_clock("-30s") else {
        eprintln!("SKIPPED: libfaketime is missing, so no server's clock can be behind (Debian: apt install faketime)");
        return;
    };
    lose_a_tail("lost_tail_clock_behind", server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_nothing_takes_over_without_a_notice() {
    let mut lab = Lab::busy("clean_failover", Plan::default()).await;
    let replica = Replica::of(&lab, RedisServer::start()).await;
    lab.flowing().await;
    // As a failover on request does it: nothing is written while the replica catches up.
    let _: String = lab.ask_store(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    let offset = async |info: String, name: &str| -> u64 {
        info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    eventually("the replica has it all", async || {
        let master: String = lab.ask_store(&["INFO", "replication"]).await;
        let wanted = offset(master, "master_repl_offset:").await;
        (offset(replica.info().await, "slave_repl_offset:").await == wanted).then_some(())
    })
    .await;
    replica.take_over(&mut lab).await;
    cut_all(&lab);
    lab.flowing().await;
    let (summary, _) = lab.verdict().await;
    assert_eq!(summary.gaps, 0, "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_that_still_answers_is_left() {
    // The address leads to the new master, but every connection that is open still leads to the old one,
    // which lives on as a replica of it, and neither ends connections nor falls silent.
    let mut lab = Lab::busy("demoted_master", Plan::default()).await;
    let replica = Replica::of(&lab, RedisServer::start()).await;
    lab.flowing().await;
    lab.losing(Loss::Tail, async |lab| {
        replica.take_over(lab).await;
        demote(lab, lab.store.port()).await;
    })
    .await;
    lab.published(20).await;
    lab.flowing().await;
    let (_, findings) = lab.verdict().await;
    assert!(findings.statuses.contains(&503), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_that_nobody_replicates_to_is_left() {
    // The same, but the old master has lost its way to the new one: what is published there never comes
    // over the channels of this one, whose own beats still do.
    let mut lab = Lab::busy("stranded_master", Plan::default()).await;
    let replica = Replica::of(&lab, RedisServer::start()).await;
    lab.flowing().await;
    lab.losing(Loss::Tail, async |lab| {
        replica.take_over(lab).await;
        demote(lab, crate::support::free_port()).await;
    })
    .await;
    lab.published(20).await;
    for node in &lab.nodes {
        eventually("each node has its lease with the new master", async || {
            let id = node.id().await;
            let known: Option<f64> = lab.ask_store(&["ZSCORE", "whimbrel:nodes", &id]).await;
            let lives: bool = lab.ask_store(&["EXISTS", &format!("whimbrel:{{node:{id}}}:lease")]).await;
            (known.is_some() && lives).then_some(())
        })
        .await;
    }
    lab.published(20).await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_named_also_where_new_events_came_before_its_report() {
    let mut lab = Lab::new("late_report", Plan { streams: vec!["topic:news"], ..Plan::default() }).await;
    let follows = async |lab: &Lab, node: usize, after: &str| {
        Wanted::new(Transport::Sse, &["topic:news"]).after(after).connect(&lab.nodes[node]).await
    };
    let mut saw_all = Wanted::new(Transport::Sse, &["topic:news"]).connect(&lab.nodes[0]).await;
    let replica = Replica::of(&lab, RedisServer::start()).await;
    let ancestor = lab.nodes[0].publish("topic:news", "1").await;
    eventually("the replica has it", async || {
        let mut raw = replica.server.raw().await;
        let kept: usize = redis::cmd("XLEN").arg("whimbrel:{topic:news}:events").query_async(&mut raw).await.unwrap();
        (kept == 1).then_some(())
    })
    .await;
    replica.fall_behind().await;
    let lost = lab.nodes[0].publish("topic:news", "13").await;
    assert_eq!(saw_all.data(2).await, ["1", "13"]);

    // The node that showed the tail does not reach the new master, while another one publishes there.
    lab.links[0].refuse(true);
    cut_all(&lab);
    replica.take_over(&mut lab).await;
    let first = eventually("the other node publishes", async || {
        let answer = lab.nodes[1].call("POST", "/v1/topics/news/events", &[], "2").await;
        (answer.status == 201).then(|| answer.id())
    })
    .await;
    let mut passed = follows(&lab, 1, &ancestor).await;
    assert_eq!(passed.data(1).await, ["2"], "nobody there knows that anything is missing");
    lab.links[0].heal();

    let gap = saw_all.gap().await;
    assert_eq!((gap.after, gap.next, gap.reason.as_str()), (lost.clone(), first.clone(), "lost"));
    assert_eq!(saw_all.data(1).await, ["2"]);
    // From here on the loss is known, though not to those who share a page that the other node read just before.
    let mut came_later = follows(&lab, 0, &ancestor).await;
    let gap = came_later.gap().await;
    assert_eq!((gap.after, gap.next, gap.reason.as_str()), (ancestor.clone(), first.clone(), "lost"));
    let mut saw_the_tail = follows(&lab, 1, &lost).await;
    let gap = saw_the_tail.gap().await;
    assert_eq!((gap.after, gap.next, gap.reason.as_str()), (lost, first.clone(), "lost"));
    lab.nodes[1].publish("topic:news", "3").await;
    let gap = passed.gap().await;
    assert_eq!((gap.after, gap.next, gap.reason.as_str()), (ancestor, first, "lost"));
    assert_eq!(passed.data(1).await, ["3"]);
    assert_eq!(saw_all.data(1).await, ["3"]);
    for answer in [&mut came_later, &mut saw_the_tail] {
        assert_eq!(answer.data(2).await, ["2", "3"], "told once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_store_that_lost_its_tail_unnoticed_gets_a_gap_and_does_not_read_for_ever() {
    // Nothing breaks, and nothing new is published: only the reader itself can find out.
    let plan = Plan { nodes: 1, settings: vec![("WHIMBREL_RING_BYTES", "0")], ..Plan::default() };
    let lab = Lab::new("unnoticed", plan).await;
    let node = &lab.nodes[0];
    let follower = Wanted::new(Transport::Sse, &["topic:news"]).connect(node).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(node.publish("topic:news", &n.to_string()).await);
    }
    let (key, meta) = ("whimbrel:{topic:news}:events", "whimbrel:{topic:news}:meta");
    let _: usize = lab.ask_store(&["XDEL", key, &ids[2]]).await;
    let _: usize = lab.ask_store(&["HSET", meta, "last", &ids[1]]).await;
    let reads = node.metric("page_reads_total").await;
    let mut reader = Wanted::new(Transport::Sse, &["topic:news"]).after(&ids[1]).connect(node).await;
    // A client that saw the tail gets the gap once a node has found out.
    let mut follower = follower;
    assert_eq!(follower.data(3).await, ["0", "1", "2"]);
    let gap = follower.gap().await;
    assert_eq!((&gap.after, gap.reason.as_str()), (&ids[2], "lost"));
    node.publish("topic:news", "3").await;
    let answer = reader.next().await;
    assert!(matches!(&answer, Said::Gap(gap) if gap.after == ids[1] && gap.reason == "lost"), "{answer:?}");
    let more = node.metric("page_reads_total").await - reads;
    assert!(more < 20.0, "{more} reads");
}
