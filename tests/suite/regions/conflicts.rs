//! A directory that failed over and forgot a home, which was given to another region since.

use std::collections::HashSet;

use whimbrel::model::StreamName;

use crate::regions::{Regions, knows, publish};
use crate::support::client::{Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::node::{Node, events_path};
use crate::support::redis::RedisServer;

const SETTINGS: &[(&str, &str)] = &[("WHIMBREL_RETENTION", "*=100000/3600")];

/// The directory loses what it was told last, which is the home of a stream, as when a replica takes over that lacks
/// it.
async fn forget(regions: &Regions, stream: &str) {
    let mut directory = regions.directory.raw().await;
    let bucket = stream.parse::<StreamName>().unwrap().fingerprint() % 1024;
    let mut lost = redis::pipe();
    lost.cmd("HDEL").arg(format!("whimbrel:directory:{bucket}")).arg(stream).ignore();
    let changes = "whimbrel:directory";
    let newest: Vec<(String, Vec<String>)> =
        redis::cmd("XREVRANGE").arg(changes).arg(&["+", "-", "COUNT", "1"]).query_async(&mut directory).await.unwrap();
    lost.cmd("XDEL").arg(changes).arg(&newest[0].0).ignore();
    let () = lost.query_async(&mut directory).await.unwrap();
}

async fn publish_each(node: &Node, stream: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in numbers {
        let data = number.to_string();
        if publish(node, stream, &data).await.status == 201 {
            acknowledged.push(data);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_homes_of_a_stream_stored_is_put_together_and_nothing_acknowledged_is_lost() {
    let regions = Regions::start();
    let stream = "topic:news";
    let eu = regions.node("eu", SETTINGS);
    eu.publish("topic:other", "0").await;
    let first = eu.publish(stream, "1").await;
    let key = [("Idempotency-Key", "order-1")];
    let path = events_path(stream);
    assert_eq!(eu.call("POST", &path, &key, "2").await.status, 201);
    let mut listening = Wanted::new(Transport::Sse, &[stream]).after(&first).connect(&eu).await;
    assert_eq!(listening.event().await.data, "2");

    forget(&regions, stream).await;
    let us = regions.node("us", SETTINGS);
    let at_us = us.publish(stream, "3").await;
    assert_eq!(regions.home(stream).await.as_deref(), Some("1 us"), "given away");
    let mut abroad = Wanted::new(Transport::WebSocket, &[stream]).after(&at_us).connect(&us).await;
    let (more, others) = tokio::join!(publish_each(&eu, stream, 100..160), publish_each(&us, stream, 200..260));

    eu.metric_is("region_conflicts_total", 1.0).await;
    assert!(eu.log().contains("had two homes"));
    eventually("the region that gave it up keeps nothing but where it went", async || {
        let mut keys = regions.keys(0, stream).await;
        // Those end by themselves, minutes later.
        keys.retain(|key| !key.contains(":once:"));
        (keys == ["whimbrel:{topic:news}:meta"]).then_some(())
    })
    .await;
    let last = eu.publish(stream, "4").await;
    let mut wanted = HashSet::from(["1", "2", "3", "4"].map(str::to_owned));
    wanted.extend(more.into_iter().chain(others));
    for node in [&eu, &us] {
        let stored = node.history(stream).await;
        let all: HashSet<String> = stored.iter().cloned().collect();
        assert!(all.is_superset(&wanted) && all.len() == stored.len(), "each once: {stored:?}");
        let repeated = node.call("POST", &path, &key, "2").await;
        assert_eq!(repeated.status, 200, "the key is remembered: {}", repeated.text());
    }

    // Who followed it where it was given up is told, and misses nothing.
    let (mut told, mut seen) = (false, HashSet::from(["1".to_owned(), "2".to_owned()]));
    loop {
        match listening.next().await {
            Said::Gap(gap) => told |= gap.reason == "lost",
            Said::Event(event) => {
                assert!(told || event.data != "3");
                seen.insert(event.data.clone());
                if event.id == last {
                    break;
                }
            }
            _ => {}
        }
    }
    assert!(told);
    assert!(seen.is_superset(&wanted), "{seen:?}");
    let mut given = HashSet::from(["3".to_owned()]);
    while given.len() < wanted.len() {
        given.insert(abroad.event().await.data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_home_waits_for_a_replica_of_the_directory_where_there_is_one() {
    let regions = Regions::start();
    let eu = regions.node("eu", &[]);
    eu.publish("topic:alone", "1").await;
    let waited = async || {
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut regions.directory.raw().await).await.unwrap();
        stats.contains("cmdstat_wait:")
    };
    assert!(!waited().await);
    let port = regions.directory.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    eventually("the replica follows", async || {
        let link: Option<String> = replica.try_ask(&["INFO", "replication"]).await;
        link?.contains("master_link_status:up").then_some(())
    })
    .await;
    eu.publish("topic:new", "1").await;
    assert!(waited().await);
    let bucket = "topic:new".parse::<StreamName>().unwrap().fingerprint() % 1024;
    let home: Option<String> = replica.try_ask(&["HGET", &format!("whimbrel:directory:{bucket}"), "topic:new"]).await;
    assert_eq!(home.as_deref(), Some("1 eu"));
    knows(&eu, 2).await;
}
