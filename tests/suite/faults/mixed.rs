//! Everything at once, at random, for as long as one likes.
//!
//! `WHIMBREL_FAULT_SECONDS` sets how long, `WHIMBREL_FAULT_SEED` which faults: the same seed gives the
//! same faults in the same order, though not the same interleaving with what else goes on. With an odd seed,
//! or `WHIMBREL_FAULT_LINKS=1`, the nodes have links, and faults of links come in. With `WHIMBREL_FAULT_REGIONS=2` there
//! is another region, in which devices are at home; stores fail in the one of the topics.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;
use whimbrel::history::record::Loss;

use super::lab::{Lab, Plan};
use super::replica::Replica;
use crate::support::Signal;
use crate::support::proxy::{Cut, Direction, Flow};
use crate::support::redis::RedisServer;

/// How long the mixed test takes by default.
const SECONDS: u64 = 20;

/// A killed store comes back with all that it acknowledged.
const STORE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillSubscriptions,
    StallSubscription,
    Pause,
    CutLink,
    StallLink,
    LoseAnswers,
    SlowLink,
    LateLink,
    RefuseLink,
    KillStore,
    Failover,
    Flush,
    KillNode,
    SleepNode,
    DrainNode,
    CutClients,
    StallClients,
    SlowClients,
    DeafClients,
    ForgetScripts,
    CutWire,
    StallWire,
    LateWire,
    RefuseWire,
}

use Fault::*;

/// What the store loses spoils much, so it is rarer.
const FAULTS: &[(Fault, u32)] = &[
    (KillSubscriptions, 3),
    (StallSubscription, 3),
    (Pause, 2),
    (CutLink, 3),
    (StallLink, 3),
    (LoseAnswers, 3),
    (SlowLink, 2),
    (LateLink, 2),
    (RefuseLink, 2),
    (KillStore, 3),
    (Failover, 2),
    (Flush, 1),
    (KillNode, 3),
    (SleepNode, 3),
    (DrainNode, 2),
    (CutClients, 3),
    (StallClients, 2),
    (SlowClients, 2),
    (DeafClients, 2),
    (ForgetScripts, 1),
];

/// What happens between linked nodes besides.
const WIRE_FAULTS: &[(Fault, u32)] = &[(CutWire, 5), (StallWire, 5), (LateWire, 3), (RefuseWire, 3)];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn pick(random: &mut StdRng, linked: bool) -> Fault {
    let faults = || FAULTS.iter().chain(WIRE_FAULTS.iter().filter(|_| linked));
    let all: u32 = faults().map(|(_, weight)| weight).sum();
    let mut at = random.random_range(0..all);
    for (fault, weight) in faults() {
        if at < *weight {
            return *fault;
        }
        at -= weight;
    }
    unreachable!("the weights add up")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_faults_in_any_order_break_no_promise() {
    let seed = variable("WHIMBREL_FAULT_SEED").unwrap_or_else(rand::random);
    let time = Duration::from_secs(variable("WHIMBREL_FAULT_SECONDS").unwrap_or(SECONDS));
    let regions = variable("WHIMBREL_FAULT_REGIONS").unwrap_or(1);
    // Links are for one region.
    let linked = regions == 1 && variable("WHIMBREL_FAULT_LINKS").map_or(seed % 2 == 1, |links| links == 1);
    println!(
        "mixed: WHIMBREL_FAULT_SEED={seed} WHIMBREL_FAULT_SECONDS={} WHIMBREL_FAULT_LINKS={} \
         WHIMBREL_FAULT_REGIONS={regions}",
        time.as_secs(),
        u8::from(linked),
    );
    let mut random = StdRng::seed_from_u64(seed);
    let plan = Plan {
        nodes: 3,
        redis: STORE.to_vec(),
        streams: vec!["topic:news", "topic:sport", "device:42"],
        linked,
        two_regions: regions == 2,
        ..Plan::default()
    };
    let mut lab = Lab::busy("mixed", plan).await;
    let mut injected: BTreeMap<Fault, usize> = BTreeMap::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let fault = pick(&mut random, linked);
        *injected.entry(fault).or_default() += 1;
        inject(&mut lab, fault, &mut random).await;
        let rest = Duration::from_millis(random.random_range(0..1500));
        tokio::time::sleep(rest).await;
        // Now and then faults pile up; mostly the next one finds a healthy region.
        if random.random_bool(0.7) {
            heal(&lab);
            lab.flowing().await;
        }
    }
    heal(&lab);
    lab.flowing().await;
    let (summary, findings) = lab.verdict().await;
    let faults: usize = injected.values().sum();
    println!("mixed: seed {seed}, {} s, {faults} faults injected: {injected:?}", begun.elapsed().as_secs());
    println!("mixed: {summary}; slowest answer {:?}; violations: 0", findings.slowest);
}

fn heal(lab: &Lab) {
    lab.links.iter().chain(&lab.fronts).chain(&lab.wires).for_each(crate::support::proxy::Proxy::heal);
    for front in &lab.fronts {
        // What was stalled one by one.
        front.connections("").iter().for_each(|connection| connection.set(Direction::Both, Flow::Pass));
    }
    lab.listeners.iter().for_each(|client| client.whims.deaf.store(false, Ordering::Relaxed));
}

async fn inject(lab: &mut Lab, fault: Fault, random: &mut StdRng) {
    let node = random.random_range(0..lab.nodes.len());
    let how = if random.random_bool(0.5) { Cut::Reset } else { Cut::Fin };
    let long = Duration::from_millis(random.random_range(100..4000));
    match fault {
        KillSubscriptions => {
            let _: usize = lab.ask_store(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        StallSubscription => lab.links[node]
            .connections("SUBSCRIBE")
            .iter()
            .for_each(|connection| connection.set(Direction::ToClient, Flow::Stall)),
        Pause => {
            let _: String = lab.ask_store(&["CLIENT", "PAUSE", &long.as_millis().to_string(), "ALL"]).await;
        }
        CutLink => lab.links[node].cut(how),
        StallLink => lab.links[node].set(Direction::Both, Flow::Stall),
        LoseAnswers => lab.links[node].set(Direction::ToClient, Flow::Stall),
        SlowLink => lab.links[node].set(Direction::Both, Flow::Slow(30_000)),
        LateLink => lab.links[node].set(Direction::Both, Flow::Late(Duration::from_millis(80))),
        RefuseLink => {
            lab.links[node].refuse(true);
            lab.links[node].cut(how);
        }
        KillStore => {
            lab.redis.kill();
            tokio::time::sleep(long / 2).await;
            tokio::task::block_in_place(|| lab.redis.revive());
        }
        Failover => {
            let server = tokio::task::block_in_place(|| RedisServer::start_with(STORE));
            let replica = Replica::of(lab, server).await;
            replica.fall_behind().await;
            tokio::time::sleep(long / 4).await;
            lab.losing(Loss::Tail, async |lab| {
                replica.take_over(lab).await;
                lab.redis.kill();
                lab.redis = replica.server;
            })
            .await;
        }
        Flush => {
            let _: String = lab.losing(Loss::Flush, async |lab| lab.ask_store(&["FLUSHALL"]).await).await;
        }
        KillNode => {
            lab.kill(node);
            // A node can't start without its store.
            lab.links[node].heal();
            lab.restart(node).await;
        }
        SleepNode => {
            lab.nodes[node].signal(Signal::STOP);
            tokio::time::sleep(long).await;
            lab.nodes[node].signal(Signal::CONT);
        }
        DrainNode => {
            lab.links[node].heal();
            lab.drain(node).await;
        }
        CutClients => lab.fronts[node].cut(how),
        StallClients => lab.fronts[node].set(Direction::Both, Flow::Stall),
        SlowClients => lab.fronts[node].set(Direction::ToClient, Flow::Slow(5_000)),
        DeafClients => {
            for client in lab.listeners.iter().filter(|_| random.random_bool(0.3)) {
                client.whims.deaf.store(true, Ordering::Relaxed);
            }
        }
        CutWire => lab.wires[node].cut(how),
        StallWire => lab.wires[node].set(Direction::Both, Flow::Stall),
        LateWire => lab.wires[node].set(Direction::Both, Flow::Late(Duration::from_millis(150))),
        RefuseWire => {
            lab.wires[node].refuse(true);
            lab.wires[node].cut(how);
        }
        ForgetScripts => {
            let _: String = lab.ask_store(&["SCRIPT", "FLUSH"]).await;
        }
    }
}
