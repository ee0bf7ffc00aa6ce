//! A region that gives no answer, not even an end of its connections, costs its own streams alone. What these tests do
//! to the others would wait for many of its time-outs, one after another, if they shared anything.

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
