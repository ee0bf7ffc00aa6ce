//! Dead nodes: exactly one survivor cleans up, and another goes on where it stopped half way.

use redis::AsyncCommands as _;

use crate::support::client::{Transport, Wanted};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::{Signal, eventually};

const LEASE: &[(&str, &str)] = &[("WHIMBREL_LEASE_SECONDS", "3")];

/// So many streams that a clean-up can be caught in the middle.
const LEFT: usize = 20_000;

async fn cleaned(nodes: &[&Node]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.metric("nodes_cleaned_total").await;
    }
    sum
}

async fn is_forgotten(redis: &RedisServer, dead: &str) -> bool {
    let mut raw = redis.raw().await;
    let listed: Option<f64> = raw.zscore("whimbrel:nodes", dead).await.unwrap();
    let streams: usize = raw.scard(format!("whimbrel:{{node:{dead}}}:streams")).await.unwrap();
    listed.is_none() && streams == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_survivor_cleans_up_after_a_dead_node_within_two_leases() {
    let redis = RedisServer::start();
    let [doomed, first, second] = [(); 3].map(|()| Node::on(&redis, LEASE));
    let dead = doomed.id().await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let stream = format!("device:{number}");
        clients.push(Wanted::new(Transport::Sse, &[&stream]).connect(&doomed).await);
    }
    let cleaned_by = |number: usize| {
        let first = &first;
        async move {
            let answer = first.call("POST", &format!("/v1/devices/{number}/events"), &[], "1").await;
            answer.json()["nodes"].as_u64().unwrap()
        }
    };
    assert_eq!(cleaned_by(0).await, 1);
    doomed.kill();
    eventually("the dead node is forgotten", async || is_forgotten(&redis, &dead).await.then_some(())).await;
    for number in 0..20 {
        assert_eq!(cleaned_by(number).await, 0, "nobody counts the dead node's connections");
    }
    eventually("a node reports it", async || (cleaned(&[&first, &second]).await > 0.0).then_some(())).await;
    assert_eq!(cleaned(&[&first, &second]).await, 1.0, "one did it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleanup_that_stops_half_way_is_finished_by_another_survivor() {
    let redis = RedisServer::start();
    let [doomed, first, second] = [(); 3].map(|()| Node::on(&redis, LEASE));
    let (dead, first_id) = (doomed.id().await, first.id().await);
    let left = format!("whimbrel:{{node:{dead}}}:streams");
    let mut raw = redis.raw().await;
    let mut streams = redis::pipe();
    for number in 0..LEFT {
        streams.sadd(&left, format!("device:{number}")).ignore();
        // A route far from its end: only a clean-up removes it.
        let route = "4000000000000 1";
        streams.hset(format!("whimbrel:{{device:{number}}}:nodes"), &dead, route).ignore();
    }
    let () = streams.query_async(&mut raw).await.unwrap();
    doomed.kill();

    let claim = format!("whimbrel:{{node:{dead}}}:cleaner");
    let holder = eventually("somebody is at it", async || {
        let mut raw = raw.clone();
        let rest: usize = raw.scard(&left).await.unwrap();
        let holder: Option<String> = raw.get(&claim).await.unwrap();
        holder.filter(|_| rest < LEFT)
    })
    .await;
    let (cleaner, other) = if holder == first_id { (&first, &second) } else { (&second, &first) };
    cleaner.signal(Signal::STOP);
    let rest: usize = raw.scard(&left).await.unwrap();
    assert!(rest > 0, "it was stopped half way");

    eventually("the other one finishes", async || is_forgotten(&redis, &dead).await.then_some(())).await;
    // Perhaps after the one that was stopped too: it is dead for as long.
    assert!(other.metric("nodes_cleaned_total").await >= 1.0);
    let mut routes = 0;
    for number in (0..LEFT).step_by(97) {
        routes += raw.hlen::<_, usize>(format!("whimbrel:{{device:{number}}}:nodes")).await.unwrap();
    }
    assert_eq!(routes, 0);

    // The one that wakes does no harm: what is followed meanwhile stays followed.
    let mut client = Wanted::new(Transport::Sse, &["device:7"]).connect(other).await;
    cleaner.signal(Signal::CONT);
    eventually("it is a member again", async || {
        let lost = cleaner.metric("leases_lost_total").await;
        (lost > 0.0).then_some(())
    })
    .await;
    other.publish("device:7", "\"still here\"").await;
    assert_eq!(client.data(1).await, ["\"still here\""]);
}
