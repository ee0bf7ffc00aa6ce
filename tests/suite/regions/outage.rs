//! A region, or the directory, out of reach.

use crate::fcall::loaded;
use crate::regions::{Regions, knows, publish, seen};
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::{Node, events_path};
use crate::support::proxy::Cut;
use crate::support::redis::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_costs_its_own_streams_and_nothing_is_lost() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let (near, far) = ("topic:near", "topic:far");
    eu.publish(near, "0").await;
    us.publish(far, "0").await;
    knows(&eu, 2).await;
    let mut follows_near = Wanted::new(Transport::Sse, &[near]).connect(&eu).await;
    let mut follows_far = Wanted::new(Transport::WebSocket, &[far]).connect(&eu).await;
    let before = us.publish(far, "1").await;
    assert_eq!(follows_far.event().await.id, before);
    // The node in us goes straight to its Redis; only eu is cut off from there.
    let straight = regions.servers[1].url();
    let insider = regions.node("us", &[("WHIMBREL_REDIS_URL", &straight)]);
    regions.links[1].refuse(true);
    regions.links[1].cut(Cut::Reset);
    let refused = eventually("publishes to the region are refused", async || {
        let answer = publish(&eu, far, "1000").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(
        refused.text().contains("region 'us'") && refused.headers.iter().any(|(name, _)| name == "retry-after"),
        "{refused:?}"
    );
    for n in 0..20 {
        let id = eu.publish(near, &n.to_string()).await;
        assert_eq!(follows_near.event().await.id, id);
    }
    let missed = insider.publish_all(far, 2..50).await;
    assert_eq!(eu.get("/health/ready").await.status, 200);
    assert_eq!(eu.get_json("/health/ready").await["store"]["up"], true, "the node's own store is");
    eventually("the list shows it", async || (seen(&eu, "us").await["up"] == false).then_some(())).await;
    regions.links[1].heal();
    // Both of the outage's streams go on where they were, in the connection that was open all along.
    for id in &missed {
        assert_eq!(&follows_far.event().await.id, id);
    }
    eventually("the list shows that it is back", async || (seen(&eu, "us").await["up"] == true).then_some(())).await;
    let id = eventually("publishes again", async || {
        let answer = publish(&eu, far, "50").await;
        (answer.status == 201).then(|| answer.id())
    })
    .await;
    assert_eq!(follows_far.event().await.id, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_directory_known_streams_go_on_and_what_changed_is_caught_up_with() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    eu.publish("topic:a", "0").await;
    us.publish("topic:b", "0").await;
    knows(&eu, 2).await;
    regions.directory_link.refuse(true);
    regions.directory_link.cut(Cut::Reset);
    for stream in ["topic:a", "topic:b"] {
        eu.publish(stream, "1").await;
    }
    let refused = publish(&eu, "topic:new", "1").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("directory"), "{}", refused.text());
    // A node that reaches it by another way assigns meanwhile.
    let straight = regions.directory.url();
    let other = regions.node("us", &[("WHIMBREL_DIRECTORY_URL", &straight)]);
    let id = other.publish("topic:c", "1").await;
    assert!(eu.metric("directory_lag_seconds").await > 0.0);
    regions.directory_link.heal();
    knows(&eu, 3).await;
    let mut follower = Wanted::new(Transport::Sse, &["topic:c"]).after("earliest").connect(&eu).await;
    assert_eq!(follower.event().await.id, id);
    eventually("new streams again", async || (publish(&eu, "topic:new", "1").await.status == 201).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_while_another_region_is_away() {
    let regions = Regions::start();
    regions.links[1].refuse(true);
    let eu = regions.node("eu", &[("WHIMBREL_REGION_RULES", "topic:far*=us")]);
    eu.publish("topic:near", "1").await;
    assert_eq!(seen(&eu, "us").await["up"], serde_json::Value::Null, "nobody needed it so far");
    let refused = publish(&eu, "topic:far", "1").await;
    assert_eq!(refused.status, 503);
    assert_eq!(seen(&eu, "us").await["up"], false);
    regions.links[1].heal();
    eventually("the region is opened", async || (publish(&eu, "topic:far", "1").await.status == 201).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_of_regions_that_are_minutes_apart_make_nobody_miss_an_event_with_a_time_to_live() {
    let Some(behind) = RedisServer::start_with_clock("-300s") else {
        eprintln!("SKIPPED: libfaketime is missing, so no server's clock can be behind (Debian: apt install faketime)");
        return;
    };
    let regions = Regions::with_servers([RedisServer::start(), behind]);
    let [eu, us] = regions.nodes(&[]);
    let (near, far) = ("topic:near", "topic:far");
    eu.publish(near, "0").await;
    let first = us.publish(far, "0").await;
    knows(&eu, 2).await;
    let mut both = Wanted::new(Transport::Sse, &[near, far]).connect(&eu).await;
    let short = async |node: &Node, stream: &str| {
        let path = format!("{}?ttl=60", events_path(stream));
        node.call("POST", &path, &[], "1").await.id()
    };
    for _ in 0..5 {
        for stream in [near, far] {
            let id = short(&us, stream).await;
            assert_eq!(both.event().await.id, id);
        }
    }
    // Who catches up is given them as well, and one stream's ids go on although another's are ahead.
    let mut late = Wanted::new(Transport::Sse, &[far]).after(&first).connect(&eu).await;
    for _ in 0..5 {
        assert_eq!(late.event().await.data, "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_channels_of_two_regions_lost_is_read_from_each() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[("WHIMBREL_SYNC_SECONDS", "1")]);
    let streams = ["topic:near", "topic:far"];
    eu.publish(streams[0], "0").await;
    us.publish(streams[1], "0").await;
    knows(&eu, 2).await;
    let mut clients = Vec::new();
    for stream in streams {
        clients.push(Wanted::new(Transport::Sse, &[stream]).connect(&eu).await);
    }
    for (server, stream) in regions.servers.iter().zip(streams) {
        loaded(&server.raw().await, "whimbrel_publish").await;
        server.publish_unrouted(stream, 1..5).await;
    }
    for client in &mut clients {
        assert_eq!(client.data(4).await, ["1", "2", "3", "4"]);
    }
}
