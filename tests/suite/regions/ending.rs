//! Entries of the directory end with their topics, and a topic that is used again has one home.

use std::collections::HashSet;
use std::time::Duration;

use whimbrel::model::StreamName;
use whimbrel::store::RetentionRules;
use whimbrel::store::redis::{Assignment, RedisDirectory, RedisStore};

use crate::regions::{Regions, knows, publish};
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::redis::config;

/// Leaders that go through the directory every few seconds.
const SHORT: &[(&str, &str)] = &[("WHIMBREL_LEASE_SECONDS", "1")];

/// Leaders that rest for the whole test.
const LONG: &[(&str, &str)] = &[("WHIMBREL_LEASE_SECONDS", "60")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_topics_end_with_their_positions_in_the_directory_and_in_every_replica() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(SHORT);
    let gone: Vec<String> = (0..20).map(|n| format!("topic:llm:{n}")).collect();
    for (topic, node) in gone.iter().zip([&eu, &us].into_iter().cycle()) {
        node.publish(topic, "1").await;
    }
    assert_eq!(eu.call("DELETE", "/v1/topics/llm:0", &[], "").await.status, 204);
    eu.publish("device:1", "1").await;
    for (topic, region) in gone.iter().zip([0, 1].into_iter().cycle()) {
        expire(&regions, region, topic).await;
    }
    expire(&regions, 0, "device:1").await;
    let mut followed = Wanted::new(Transport::Sse, &["topic:followed"]).connect(&us).await;
    eventually("the entries end", async || {
        for topic in &gone {
            if regions.home(topic).await.is_some() {
                return None;
            }
        }
        Some(())
    })
    .await;
    // Devices keep theirs, and so do topics that somebody follows.
    for node in [&eu, &us] {
        knows(node, 2).await;
        assert_eq!(node.metric("directory_streams").await, 2.0);
    }
    assert_eq!(eu.metric("directory_ended_total").await + us.metric("directory_ended_total").await, 20.0);
    assert_eq!(regions.home("device:1").await.as_deref(), Some("1 eu"));
    let id = eu.publish("topic:followed", "1").await;
    assert_eq!(followed.event().await.id, id);
    // One that is used again begins anew, where it is used.
    assert_eq!(publish(&us, "topic:llm:0", "2").await.status, 201);
    assert!(regions.home("topic:llm:0").await.is_some_and(|home| home.ends_with(" us")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_the_end_of_entries_drops_them_when_it_reads_the_directory_again() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(SHORT);
    us.publish("topic:gone", "1").await;
    us.publish("device:1", "1").await;
    knows(&eu, 2).await;
    let straight = regions.directory.url();
    let other = regions.node("us", &[SHORT, &[("WHIMBREL_DIRECTORY_URL", &straight)]].concat());
    regions.directory_link.refuse(true);
    regions.directory_link.cut(crate::support::proxy::Cut::Reset);
    drop(us);
    expire(&regions, 1, "topic:gone").await;
    eventually("the entry ends", async || regions.home("topic:gone").await.is_none().then_some(())).await;
    other.publish("device:2", "1").await;
    let mut directory = regions.directory.raw().await;
    let () =
        redis::cmd("XTRIM").arg("whimbrel:directory").arg(&["MAXLEN", "1"]).query_async(&mut directory).await.unwrap();
    assert_eq!(eu.metric("directory_streams").await, 2.0);
    regions.directory_link.heal();
    eventually("the change came", async || {
        let log = eu.log();
        log.contains("changes of the directory are gone").then_some(())
    })
    .await;
    knows(&eu, 2).await;
    let device = eu.get_json("/v1/devices/2").await;
    assert_eq!(device["region"], "us");
    eventually("all is read", async || (eu.metric("directory_streams").await == 2.0).then_some(())).await;
}

/// What ends entries has, without the process.
struct Sweep {
    directory: RedisDirectory,
    store: RedisStore,
}

impl Sweep {
    /// That of eu.
    async fn of(regions: &Regions) -> Self {
        let directory = RedisDirectory::connect(&config(&regions.directory.url()), "whimbrel").await.unwrap();
        let (rules, lives) = (RetentionRules::default(), Duration::from_secs(3600));
        let store = RedisStore::connect(&config(&regions.servers[0].url()), "whimbrel", rules, lives).await.unwrap();
        Sweep { directory, store }
    }

    async fn end_home(&self, topic: &StreamName, version: u32) -> bool {
        self.store.end_homes(&[(topic, version)]).await.unwrap()[0]
    }

    async fn end_entry(&self, topic: &StreamName, version: u32) -> bool {
        self.directory.end(&[(topic, &Assignment { region: "eu".into(), version })]).await.unwrap()[0]
    }
}

/// The position and the log expire.
async fn expire(regions: &Regions, region: usize, stream: &str) {
    let keys: Vec<String> = regions.keys(region, stream).await;
    let () = redis::cmd("DEL").arg(keys).query_async(&mut regions.servers[region].raw().await).await.unwrap();
}

/// All of these are in the topic's one home, which every node uses.
async fn has_one_home_with(regions: &Regions, nodes: [&Node; 2], topic: &str, wanted: &[&str]) {
    let wanted: HashSet<&str> = wanted.iter().copied().collect();
    for node in nodes {
        let stored = node.history(topic).await;
        assert_eq!(stored.iter().map(String::as_str).collect::<HashSet<_>>(), wanted, "{topic}");
    }
    let events = format!("whimbrel:{{{topic}}}:events");
    let home = regions.home(topic).await.expect("it has a home");
    let there = usize::from(home.ends_with(" us"));
    assert!(regions.keys(there, topic).await.contains(&events), "{topic} {home}");
    assert!(!regions.keys(1 - there, topic).await.contains(&events), "{topic} {home}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_used_again_while_its_entry_ends_keeps_its_home() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(LONG);
    let sweep = Sweep::of(&regions).await;
    let topic: StreamName = "topic:back".parse().unwrap();
    eu.publish(topic.as_str(), "0").await;
    knows(&us, 1).await;
    assert!(!sweep.end_home(&topic, 1).await, "it is in use");
    expire(&regions, 0, topic.as_str()).await;
    assert!(sweep.end_home(&topic, 1).await);
    us.publish(topic.as_str(), "1").await;
    assert_eq!(regions.home(topic.as_str()).await.as_deref(), Some("2 eu"), "as of a newer version");
    assert!(!sweep.end_entry(&topic, 1).await, "the one that was ended is no more");
    eu.publish(topic.as_str(), "2").await;
    has_one_home_with(&regions, [&eu, &us], topic.as_str(), &["1", "2"]).await;

    // Also when it is ended again.
    expire(&regions, 0, topic.as_str()).await;
    assert!(sweep.end_home(&topic, 2).await && sweep.end_entry(&topic, 2).await);
    eu.publish(topic.as_str(), "3").await;
    us.publish(topic.as_str(), "4").await;
    has_one_home_with(&regions, [&eu, &us], topic.as_str(), &["3", "4"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_two_regions_use_at_once_while_their_entries_end_have_one_home_and_lose_nothing() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(LONG);
    let sweep = Sweep::of(&regions).await;
    let topics: Vec<StreamName> = (0..40).map(|n| format!("topic:{n}").parse().unwrap()).collect();
    for topic in &topics {
        eu.publish(topic.as_str(), "0").await;
    }
    knows(&us, 40).await;
    for (number, topic) in topics.iter().enumerate() {
        expire(&regions, 0, topic.as_str()).await;
        let ending = async {
            let ended = sweep.end_home(topic, 1).await;
            tokio::time::sleep(Duration::from_micros(number as u64 * 50)).await;
            ended && sweep.end_entry(topic, 1).await
        };
        let used = async |node: &Node, data: &str| node.publish(topic.as_str(), data).await;
        tokio::join!(ending, used(&eu, "1"), used(&us, "2"));
        used(&us, "3").await;
        used(&eu, "4").await;
        has_one_home_with(&regions, [&eu, &us], topic.as_str(), &["1", "2", "3", "4"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_home_was_ended_can_be_moved() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(LONG);
    let sweep = Sweep::of(&regions).await;
    let topic: StreamName = "topic:moved".parse().unwrap();
    eu.publish(topic.as_str(), "0").await;
    knows(&us, 1).await;
    expire(&regions, 0, topic.as_str()).await;
    assert!(sweep.end_home(&topic, 1).await);
    crate::regions::move_to(&us, "topics/moved", "us").await;
    assert!(!sweep.end_entry(&topic, 1).await);
    eu.publish(topic.as_str(), "1").await;
    us.publish(topic.as_str(), "2").await;
    has_one_home_with(&regions, [&eu, &us], topic.as_str(), &["1", "2"]).await;
}
