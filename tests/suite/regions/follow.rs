//! A device that keeps connecting in another region is moved there.

use crate::regions::{Regions, knows, move_to};
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::Node;

const FOLLOW: (&str, &str) = ("WHIMBREL_REGION_FOLLOW", "3/1");

/// Places of connections that just ended are not what this is about.
const MANY: (&str, &str) = ("WHIMBREL_CONNECTIONS_PER_DEVICE", "1000");

/// A device's short connection.
async fn visit(node: &Node, device: &str) {
    drop(Wanted::new(Transport::WebSocket, &[device]).connect(node).await);
}

/// Connects there until that is the device's home.
async fn visit_until_followed(regions: &Regions, node: &Node, device: &str, home: &str) {
    eventually("the device is followed", async || {
        visit(node, device).await;
        (regions.home(device).await.as_deref() == Some(home)).then_some(())
    })
    .await;
}

/// A device that listens all the time while another connection of it comes and goes in the other region.
async fn is_followed(transport: Transport) {
    let regions = Regions::start();
    let nodes = regions.nodes(&[FOLLOW, MANY, ("WHIMBREL_SYNC_SECONDS", "60")]);
    let [eu, us] = &nodes;
    let device = "device:7";
    let mut expected = eu.publish_all(device, 0..600).await;
    knows(us, 1).await;
    let mut at_home = Wanted::new(transport, &[device]).after("earliest").connect(eu).await;
    let mut abroad = Wanted::new(transport, &[device]).after("earliest").connect(us).await;
    for id in &expected {
        assert_eq!((&at_home.event().await.id, &abroad.event().await.id), (id, id));
    }
    let mut rounds = 0;
    eventually("the device is followed", async || {
        visit(us, device).await;
        for node in &nodes {
            expected.push(node.publish(device, "1").await);
        }
        rounds += 1;
        (regions.home(device).await.as_deref() == Some("2 us")).then_some(())
    })
    .await;
    assert!(rounds >= 2, "with the connection that stays it takes three");
    for node in &nodes {
        expected.push(node.publish(device, "2").await);
    }
    for id in &expected[600..] {
        assert_eq!((&at_home.event().await.id, &abroad.event().await.id), (id, id));
    }
    let history = us.get_json("/v1/devices/7/events?limit=1000").await;
    assert_eq!(history["events"].as_array().unwrap().len(), expected.len());
    us.metric_is("region_follows_total", 1.0).await;
    assert_eq!(eu.metric("region_follows_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_keeps_connecting_elsewhere_is_moved_there_and_misses_nothing_over_sse() {
    is_followed(Transport::Sse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_keeps_connecting_elsewhere_is_moved_there_and_misses_nothing_over_websocket() {
    is_followed(Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_at_several_nodes_of_the_other_region_count_together() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[FOLLOW, MANY]);
    let other = regions.node("us", &[FOLLOW, MANY]);
    eu.publish("device:7", "0").await;
    let mut turn = 0;
    eventually("the device is followed", async || {
        visit([&us, &other][turn % 2], "device:7").await;
        turn += 1;
        (regions.home("device:7").await.as_deref() == Some("2 us")).then_some(())
    })
    .await;
    assert!(turn >= 3, "{turn}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_alternates_between_regions_stays_where_it_is() {
    let regions = Regions::start();
    let nodes = regions.nodes(&[FOLLOW, MANY]);
    for device in ["device:7", "device:8"] {
        nodes[0].publish(device, "0").await;
    }
    knows(&nodes[1], 2).await;
    let begun = std::time::Instant::now();
    // For as long as another device, which keeps connecting there, needs to be followed, and then some.
    let (mut rounds, mut followed) = (0, false);
    while rounds < 10 || !followed {
        for (node, row) in [(&nodes[1], "us 1"), (&nodes[1], "us 2"), (&nodes[0], "eu 1")] {
            visit(node, "device:7").await;
            counted(&regions, "device:7", row).await;
        }
        visit(&nodes[1], "device:8").await;
        followed = regions.home("device:8").await.as_deref() == Some("2 us");
        rounds += 1;
        assert!(followed || begun.elapsed() < crate::support::PATIENCE, "the other one is followed");
    }
    assert_eq!(regions.home("device:7").await.as_deref(), Some("1 eu"));
}

/// Waits until eu's Redis has counted so many connections in a row: a connection does not wait for that.
async fn counted(regions: &Regions, device: &str, row: &str) {
    eventually("the connection is counted", async || {
        let mut get = redis::cmd("HGET");
        get.arg(format!("whimbrel:{{{device}}}:meta")).arg("via");
        let via: Option<String> = get.query_async(&mut regions.servers[0].raw().await).await.unwrap();
        via.is_some_and(|via| via.starts_with(row)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_moved_at_most_once_in_the_time_that_is_set() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[("WHIMBREL_REGION_FOLLOW", "2/3600"), MANY]);
    eu.publish("device:7", "0").await;
    for _ in 0..10 {
        visit(&us, "device:7").await;
    }
    counted(&regions, "device:7", "us 2").await;
    assert_eq!(regions.home("device:7").await.as_deref(), Some("1 eu"));
    // As if the first of them had been an hour ago.
    let mut earlier = redis::cmd("HSET");
    earlier.arg("whimbrel:{device:7}:meta").arg("via").arg("us 2 1000");
    earlier.exec_async(&mut regions.servers[0].raw().await).await.unwrap();
    visit_until_followed(&regions, &us, "device:7", "2 us").await;
    for _ in 0..10 {
        visit(&eu, "device:7").await;
    }
    assert_eq!(regions.home("device:7").await.as_deref(), Some("2 us"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_placed_device_is_followed_from_there_and_one_that_a_rule_names_never() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[FOLLOW, MANY, ("WHIMBREL_REGION_RULES", "device:ruled=eu")]);
    for device in ["device:ruled", "device:placed"] {
        eu.publish(device, "0").await;
        knows(&us, if device == "device:ruled" { 1 } else { 2 }).await;
    }
    move_to(&eu, "devices/placed", "us").await;
    visit_until_followed(&regions, &eu, "device:placed", "3 eu").await;
    for _ in 0..10 {
        visit(&us, "device:ruled").await;
    }
    visit_until_followed(&regions, &us, "device:placed", "4 us").await;
    assert_eq!(regions.home("device:ruled").await.as_deref(), Some("1 eu"));
}
