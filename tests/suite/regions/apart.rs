//! A region that gives no answer, not even an end of its connections, costs its own streams alone. What these tests do
//! to the others would wait for many of its time-outs, one after another, if they shared anything.

use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::streams::StreamRangeReply;

use crate::regions::{Regions, knows};
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::proxy::{Direction, Flow};

const SETTINGS: &[(&str, &str)] =
    &[("WHIMBREL_REGION_RULES", "*:far*=us *=eu"), ("WHIMBREL_RETENTION", "*=100000/3600")];

const INGRESS: &str = "whimbrel:ingress";

/// Topics of us that the node in eu knows and has used, each with the id of its one event.
async fn far_topics(node: &Node, count: usize) -> Vec<(String, String)> {
    let mut topics = Vec::new();
    for n in 0..count {
        let topic = format!("topic:far-{n}");
        let id = node.publish(&topic, "0").await;
        topics.push((topic, id));
    }
    topics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catching_up_and_coming_and_going_do_not_wait_for_a_region_that_gives_no_answer() {
    let regions = Regions::start();
    let eu = regions.node("eu", SETTINGS);
    let far = far_topics(&eu, 64).await;
    let published = eu.publish_all("topic:near", 0..400).await;
    for (topic, _) in &far {
        eu.publish(topic, "1").await;
    }
    let names: Vec<&str> = far.iter().map(|(topic, _)| topic.as_str()).collect();
    // The node follows them all, so that whoever comes reads on at once.
    let _followed = Wanted::new(Transport::Sse, &names).connect(&eu).await;
    let _near = Wanted::new(Transport::Sse, &["topic:near", "device:near"]).connect(&eu).await;
    regions.links[1].set(Direction::Both, Flow::Stall);
    let mut stuck = Vec::new();
    for (topic, seen) in &far {
        stuck.push(Wanted::new(Transport::Sse, &[topic]).after(seen).connect(&eu).await);
    }
    let mut catching_up = Wanted::new(Transport::Sse, &["topic:near"]).after("earliest").connect(&eu).await;
    for id in &published {
        assert_eq!(&catching_up.event().await.id, id);
    }
    // A device's places are claimed and given back.
    for _ in 0..3 {
        drop(Wanted::new(Transport::WebSocket, &["device:near"]).connect(&eu).await);
        eventually("its place is given back", async || {
            let device = eu.get_json("/v1/devices/near").await;
            (device["connections"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
    }
    regions.links[1].heal();
    for client in &mut stuck {
        assert_eq!(client.event().await.data, "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_the_ingress_stream_do_not_wait_for_a_region_that_gives_no_answer_and_none_is_lost() {
    let regions = Regions::start();
    let eu = regions.node("eu", SETTINGS);
    let far = far_topics(&eu, 80).await;
    eu.publish("topic:near", "0").await;
    knows(&eu, 81).await;
    regions.links[1].set(Direction::Both, Flow::Stall);
    let mut home = regions.servers[0].raw().await;
    for round in 1..=100 {
        let mut add = redis::pipe();
        for topic in far.iter().map(|(topic, _)| topic.as_str()).chain(["topic:near"]) {
            let name = topic.trim_start_matches("topic:");
            add.cmd("XADD").arg(INGRESS).arg("*").arg(&["topic", name, "data", &round.to_string()]).ignore();
        }
        let () = add.query_async(&mut home).await.unwrap();
    }
    let wanted: Vec<String> = (0..=100).map(|n| n.to_string()).collect();
    eventually("all of the region that answers are placed", async || {
        (data_of(&regions, 0, "topic:near").await == wanted).then_some(())
    })
    .await;
    assert!(home.xlen::<_, usize>(INGRESS).await.unwrap() >= 80 * 100, "the others are kept");
    regions.links[1].heal();
    eventually("an empty ingress stream", async || (home.xlen::<_, usize>(INGRESS).await.unwrap() == 0).then_some(()))
        .await;
    for (topic, _) in &far {
        assert_eq!(data_of(&regions, 1, topic).await, wanted, "{topic}");
    }
}

async fn data_of(regions: &Regions, region: usize, stream: &str) -> Vec<String> {
    let mut raw = regions.servers[region].raw().await;
    let entries: StreamRangeReply = raw.xrange_all(format!("whimbrel:{{{stream}}}:events")).await.unwrap();
    entries.ids.iter().map(|entry| entry.get("d").unwrap()).collect()
}

/// What clients and producers of the node's own region do: how long it takes to catch up, to connect as a device, and to
/// place entries of the ingress stream.
async fn near_work(regions: &Regions, eu: &Node, last: &str) -> [Duration; 3] {
    let begun = Instant::now();
    for _ in 0..10 {
        let mut reader = Wanted::new(Transport::Sse, &["topic:near"]).after("earliest").connect(eu).await;
        while reader.event().await.id != last {}
    }
    let caught_up = begun.elapsed();
    let begun = Instant::now();
    for number in 0..200 {
        let device = format!("device:near-{}", number % 20);
        drop(Wanted::new(Transport::WebSocket, &[&device]).connect(eu).await);
    }
    let connected = begun.elapsed();
    let mut home = regions.servers[0].raw().await;
    let events = "whimbrel:{topic:near-ingress}:events";
    let before: usize = home.xlen(events).await.unwrap();
    let begun = Instant::now();
    let mut add = redis::pipe();
    for _ in 0..5000 {
        add.cmd("XADD").arg(INGRESS).arg("*").arg(&["topic", "near-ingress", "data", "1"]).ignore();
    }
    let () = add.query_async(&mut home).await.unwrap();
    while home.xlen::<_, usize>(events).await.unwrap() < before + 5000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    [caught_up, connected, begun.elapsed()]
}

/// `cargo test --release --test suite -- --ignored --nocapture regions::apart::measured` prints what a region that swallows
/// everything costs the clients of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a minute, for docs/reliability.md"]
async fn measured() {
    const ROUNDS: usize = 7;
    let regions = Regions::start();
    let eu = regions.node("eu", SETTINGS);
    let far = far_topics(&eu, 64).await;
    let names: Vec<&str> = far.iter().map(|(topic, _)| topic.as_str()).collect();
    // The node follows them all, as one that doesn't follow a topic turns its listeners away while the region is.
    let _followed = Wanted::new(Transport::Sse, &names).connect(&eu).await;
    let near = eu.publish_all("topic:near", 0..2000).await;
    let last = near.last().unwrap();
    near_work(&regions, &eu, last).await;
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        took[0].push(near_work(&regions, &eu, last).await);
        regions.links[1].set(Direction::Both, Flow::Stall);
        let mut home = regions.servers[0].raw().await;
        let mut stuck = Vec::new();
        for (topic, seen) in &far {
            stuck.push(Wanted::new(Transport::Sse, &[topic]).after(seen).connect(&eu).await);
            let mut add = redis::cmd("XADD");
            add.arg(INGRESS).arg("*").arg(&["topic", topic.trim_start_matches("topic:"), "data", "1"]);
            add.exec_async(&mut home).await.unwrap();
        }
        took[1].push(near_work(&regions, &eu, last).await);
        regions.links[1].heal();
        drop(stuck);
        eventually("all entries are placed", async || {
            (home.xlen::<_, usize>(INGRESS).await.unwrap() == 0).then_some(())
        })
        .await;
    }
    for (place, what) in ["catching up", "connecting as a device", "ingress"].into_iter().enumerate() {
        let [undisturbed, disturbed] = took.each_ref().map(|rounds| {
            let mut all: Vec<_> = rounds.iter().map(|round| round[place]).collect();
            all.sort_unstable();
            all[ROUNDS / 2]
        });
        let ratio = disturbed.as_secs_f64() / undisturbed.as_secs_f64();
        println!(
            "{what}: {undisturbed:?} undisturbed, {disturbed:?} with the other region black-holed: {ratio:.2} times"
        );
    }
}
