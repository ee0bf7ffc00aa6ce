//! Where streams have their home, and how nodes find it.

use redis::AsyncCommands as _;

use crate::regions::{Regions, knows, publish, seen};
use crate::support::client::{Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::node::Node;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_touch_gives_a_stream_its_home_and_every_node_learns_it() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    us.publish("device:1", "1").await;
    let _listening = Wanted::new(Transport::Sse, &["topic:news"]).connect(&eu).await;
    assert_eq!(regions.home("device:1").await.as_deref(), Some("1 us"));
    assert_eq!(regions.home("topic:news").await.as_deref(), Some("1 eu"));
    for node in [&eu, &us] {
        knows(node, 2).await;
    }
    // A node that starts later has all of it before it is ready.
    let late = regions.node("eu", &[]);
    assert_eq!(late.get_json("/v1/regions").await["directory"]["streams"], 2);
    assert_eq!(late.metric("directory_streams").await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_an_operator_gives_holds_before_the_first_event_and_is_shown() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let place = async |stream: &str, region: &str| {
        let body = format!(r#"{{"region":"{region}"}}"#);
        eu.call("PUT", &format!("/v1/{stream}/region"), &[], body).await
    };
    for (path, stream) in [("devices/7", "device:7"), ("topics/news", "topic:news")] {
        assert_eq!(place(path, "us").await.json(), serde_json::json!({"stream": stream, "region": "us"}));
        assert_eq!(place(path, "us").await.status, 200, "that changes nothing");
        assert_eq!(place(path, "asia").await.status, 422);
        let id = eu.publish(stream, "1").await;
        assert!(regions.keys(0, stream).await.is_empty());
        let mut listening = Wanted::new(Transport::Sse, &[stream]).after("earliest").connect(&us).await;
        assert_eq!(listening.event().await.id, id);
    }
    assert_eq!(eu.get_json("/v1/devices/7").await["region"], "us");
    assert_eq!(us.get_json("/v1/devices/nobody-touched").await["region"], "us");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lifecycle_topic_stays_where_it_is() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let place = async |region: &str| {
        let body = format!(r#"{{"region":"{region}"}}"#);
        us.call("PUT", "/v1/topics/whimbrel:lifecycle/region", &[], &body).await
    };
    assert_eq!(place("eu").await.status, 200, "it is given its home");
    let _listening = Wanted::new(Transport::Sse, &["device:1"]).connect(&us).await;
    eventually("it is notified", async || {
        let history = eu.get_json("/v1/topics/whimbrel:lifecycle/events").await;
        (history["events"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let (slug, detail) = place("us").await.problem(400);
    assert_eq!(slug, "unsupported");
    assert!(detail.contains("stays in the region eu"), "{detail}");
    assert_eq!(place("eu").await.status, 200, "there it is");
    assert_eq!(regions.home("topic:whimbrel:lifecycle").await.as_deref(), Some("1 eu"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_first_touches_at_once_one_decides() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    for n in 0..30 {
        let stream = format!("device:{n}");
        let touched = tokio::join!(eu.publish(&stream, "1"), us.publish(&stream, "2"));
        assert_ne!(touched.0, touched.1);
        let history = eu.get_json(&format!("/v1/devices/{n}/events")).await;
        assert_eq!(history["events"].as_array().unwrap().len(), 2, "{history}");
        let [at_eu, at_us] = [regions.keys(0, &stream).await, regions.keys(1, &stream).await];
        assert!(at_eu.is_empty() != at_us.is_empty(), "{at_eu:?} {at_us:?}");
    }
}

/// A listener at a node of another region than the stream's home, and what it receives.
async fn listens_elsewhere(transport: Transport) {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    for stream in ["device:1", "topic:news"] {
        let first = eu.publish(stream, "0").await;
        let mut near = Wanted::new(transport, &[stream]).connect(&eu).await;
        let mut far = Wanted::new(transport, &[stream]).after("earliest").connect(&us).await;
        assert_eq!(far.event().await.id, first);
        let mut published = vec![us.publish(stream, "1").await];
        published.extend(eu.publish_all(stream, 2..40).await);
        published.extend(us.publish_all(stream, 40..80).await);
        for id in &published {
            assert_eq!((&near.event().await.id, &far.event().await.id), (id, id));
        }
        // Resumed at the other node.
        let cursor = far.cursor();
        drop(far);
        let more = us.publish(stream, "80").await;
        let mut far = Wanted::new(transport, &[stream]).from(&cursor).connect(&eu).await;
        assert_eq!(far.event().await.id, more);
        assert!(regions.keys(1, stream).await.is_empty(), "the other region stores nothing of it");
    }
    assert_eq!(seen(&us, "eu").await["follows"], true);
    assert_eq!(seen(&eu, "us").await["follows"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_listens_at_a_node_of_another_region_over_sse() {
    listens_elsewhere(Transport::Sse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_listens_at_a_node_of_another_region_over_websocket() {
    listens_elsewhere(Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_followers_at_a_node_elsewhere_cost_one_message_an_event() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    eu.publish("topic:news", "0").await;
    let mut followers = Vec::new();
    for _ in 0..5 {
        followers.push(Wanted::new(Transport::Sse, &["topic:news"]).connect(&us).await);
    }
    let answer = publish(&eu, "topic:news", "1").await.json();
    assert_eq!(answer["nodes"], 1, "{answer}");
    for follower in &mut followers {
        assert_eq!(follower.event().await.data, "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_decides_where_a_stream_begins() {
    let regions = Regions::start();
    let rules = ("WHIMBREL_REGION_RULES", "device:us-*=us topic:*=eu");
    let [eu, us] = regions.nodes(&[rules]);
    eu.publish("device:us-1", "1").await;
    us.publish("topic:a", "1").await;
    us.publish("device:2", "1").await;
    for (stream, home) in [("device:us-1", "1 us"), ("topic:a", "1 eu"), ("device:2", "1 us")] {
        assert_eq!(regions.home(stream).await.as_deref(), Some(home), "{stream}");
    }
    assert!(regions.keys(0, "device:us-1").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_many_streams_keep_each_streams_order_over_all_regions() {
    let regions = Regions::start();
    let rules = ("WHIMBREL_REGION_RULES", "topic:us*=us topic:eu*=eu");
    let [eu, _us] = regions.nodes(&[rules]);
    for round in 0..3 {
        let entries: Vec<String> = (0..60)
            .map(|n| format!(r#"{{"topic":"{}{}","data":{}}}"#, ["eu", "us"][n % 2], n % 6, round * 60 + n))
            .collect();
        let answer = eu.call("POST", "/v1/events", &[], format!("[{}]", entries.join(","))).await.json();
        assert!(answer["results"].as_array().unwrap().iter().all(|result| result["id"].is_string()), "{answer}");
    }
    for n in 0..6 {
        let path = format!("/v1/topics/{}{n}/events?limit=100", ["eu", "us"][n % 2]);
        let history = eu.get_json(&path).await;
        let data: Vec<u64> =
            history["events"].as_array().unwrap().iter().map(|event| event["data"].as_u64().unwrap()).collect();
        let wanted: Vec<u64> = (0..180).filter(|event| event % 6 == n as u64).collect();
        assert_eq!(data, wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_for_longer_than_changes_are_kept_reads_the_directory_again() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    regions.directory_link.refuse(true);
    regions.directory_link.cut(crate::support::proxy::Cut::Reset);
    let mut directory = regions.directory.raw().await;
    // As another node would have written, and then so many more that this change is no longer kept.
    let assign = include_str!("../../../lua/directory_assign.lua");
    let stream: whimbrel::model::StreamName = "device:9".parse().unwrap();
    let bucket = format!("whimbrel:directory:{}", stream.fingerprint() % 1024);
    let keys = [bucket.as_str(), "whimbrel:directory"];
    let mut eval = redis::cmd("EVAL");
    eval.arg(assign).arg(2).arg(&keys).arg("device:9").arg("1 us").arg(1000);
    eval.exec_async(&mut directory).await.unwrap();
    redis::cmd("XTRIM").arg("whimbrel:directory").arg("MAXLEN").arg(0).exec_async(&mut directory).await.unwrap();
    regions.directory_link.heal();
    for node in [&eu, &us] {
        knows(node, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_directories_that_are_mixed_up_are_refused() {
    let regions = Regions::start();
    let eu = regions.node("eu", &[]);
    eu.publish("device:1", "1").await;
    let (urls, directory) = regions.urls();
    // The node of another company's directory, so to say: the default, each region's own.
    let other = RegionNode { regions: &urls, directory: &regions.servers[1].url() };
    let log = other.refusal().await;
    assert!(log.contains("the region belongs to another directory"), "{log}");
    let swapped = urls.replace("eu=", "x=").replace("us=", "eu=").replace("x=", "us=");
    let us = regions.node("us", &[]);
    Wanted::new(Transport::Sse, &["device:7"]).connect(&us).await;
    let log = RegionNode { regions: &swapped, directory: &directory }.refusal().await;
    assert!(log.contains("is region 'us', not 'eu'"), "{log}");
}

struct RegionNode<'a> {
    regions: &'a str,
    directory: &'a str,
}

impl RegionNode<'_> {
    /// Why a node with these settings does not start.
    async fn refusal(&self) -> String {
        let mut process = crate::support::node::program()
            .env("WHIMBREL_LISTEN", "127.0.0.1:0")
            .env("WHIMBREL_REGION", "eu")
            .env("WHIMBREL_REGIONS", self.regions)
            .env("WHIMBREL_DIRECTORY_URL", self.directory)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(process.stderr.take().unwrap()));
        let line = tokio::task::block_in_place(|| {
            lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("can't be opened"))).unwrap().unwrap()
        });
        process.kill().unwrap();
        process.wait().unwrap();
        line
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_cleaned_up_after_in_every_region_where_it_had_routes() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    eu.publish("device:1", "1").await;
    let _far = Wanted::new(Transport::Sse, &["device:1"]).connect(&us).await;
    assert_eq!(publish(&eu, "device:1", "2").await.json()["nodes"], 1);
    us.kill();
    let cleaned = |node: Node| async move {
        eventually("the dead node's route is gone", async || {
            (publish(&node, "device:1", "3").await.json()["nodes"] == 0).then_some(())
        })
        .await;
        node
    };
    let eu = cleaned(eu).await;
    eu.metric_is("nodes_cleaned_total", 1.0).await;
}

/// As for two streams with one fingerprint, of which a replica can be right about one only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_wrong_is_corrected_by_the_refusal_and_nothing_goes_to_the_wrong_region() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let stream = "device:1";
    let first = eu.publish(stream, "0").await;
    knows(&us, 1).await;
    let mut entry = redis::cmd("XADD");
    entry.arg("whimbrel:directory").arg("*").arg("s").arg(stream).arg("h").arg("5 us");
    entry.exec_async(&mut regions.directory.raw().await).await.unwrap();
    // It shows that this was read when what comes after it is known, and a node knows at once what it gave a home.
    us.publish("device:2", "0").await;
    eu.publish("device:3", "0").await;
    for node in [&eu, &us] {
        knows(node, 3).await;
    }
    let mut listening = Wanted::new(Transport::Sse, &[stream]).after("earliest").connect(&us).await;
    assert_eq!(listening.event().await.id, first);
    let second = eu.publish(stream, "1").await;
    assert_eq!(listening.event().await.id, second);
    let history = us.get_json("/v1/devices/1/events").await;
    assert_eq!(history["events"].as_array().unwrap().len(), 2, "{history}");
    assert!(regions.keys(1, stream).await.is_empty());
    for node in [&eu, &us] {
        assert!(node.metric("region_corrections_total").await >= 1.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_of_a_device_are_counted_and_ended_over_all_regions() {
    let regions = Regions::start();
    let limit = [("WHIMBREL_CONNECTIONS_PER_DEVICE", "2"), ("WHIMBREL_DEVICE_OVERFLOW", "oldest")];
    let [eu, us] = regions.nodes(&limit);
    eu.publish("device:1", "0").await;
    let mut at_home = Wanted::new(Transport::Sse, &["device:1"]).connect(&eu).await;
    let mut abroad = Wanted::new(Transport::Sse, &["device:1"]).connect(&us).await;
    let mut third = Wanted::new(Transport::Sse, &["device:1"]).connect(&us).await;
    let closed = |reason: &str| Said::Close { reason: reason.into(), code: None };
    assert_eq!(at_home.next().await, closed("replaced"));
    let kicked = us.call("DELETE", "/v1/devices/1/connections", &[], "").await;
    assert_eq!(kicked.json()["closed"], 2);
    for client in [&mut abroad, &mut third] {
        assert_eq!(client.next().await, closed("kicked"));
    }
    assert!(regions.keys(1, "device:1").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_outlived_their_connections_keep_nobody_out_of_another_regions_node() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[("WHIMBREL_CONNECTIONS_PER_DEVICE", "2")]);
    eu.publish("device:1", "0").await;
    let mut abroad = Wanted::new(Transport::Sse, &["device:1"]).connect(&us).await;
    let key = "whimbrel:{device:1}:connections";
    let mut raw = regions.servers[0].raw().await;
    let places: Vec<(String, String)> = raw.hgetall(key).await.unwrap();
    for _ in 0..2 {
        let () = raw.hset(key, uuid::Uuid::new_v4().to_string(), &places[0].1).await.unwrap();
    }
    // They are the other node's to look after, which learns of it on its channel in the device's home.
    let mut at_home = Wanted::new(Transport::Sse, &["device:1"]).connect(&eu).await;
    let id = us.publish("device:1", "1").await;
    for client in [&mut abroad, &mut at_home] {
        assert_eq!(client.event().await.id, id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topics_followers_are_counted_over_the_nodes_of_all_regions() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[("WHIMBREL_REGION_RULES", "topic:*=us")]);
    let mut clients = Vec::new();
    for node in [&eu, &eu, &us] {
        clients.push(Wanted::new(Transport::Sse, &["topic:news"]).connect(node).await);
    }
    for node in [&eu, &us] {
        eventually("all are counted", async || {
            let topic = node.get_json("/v1/topics/news").await;
            (topic["connections"] == 3 && topic["silent"] == serde_json::json!([])).then_some(())
        })
        .await;
    }
}
