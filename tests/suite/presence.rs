//! Who is connected, as producers and operators see it: devices, topics, nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::client::{Client, Transport};
use crate::support::node::Node;
use crate::support::world::{World, promises};
use crate::support::{Signal, eventually};

promises! {
    everywhere:
        a_device_is_shown_with_its_connections_on_all_nodes,
        a_topics_followers_are_counted_and_listed_page_by_page,
        every_node_is_listed_with_its_load;
    on_redis:
        what_a_dead_node_had_counts_no_more_within_two_lease_times,
        a_node_that_gives_no_answer_is_named_as_silent,
}

fn transport(world: &World) -> &'static str {
    match world.transport {
        Transport::Sse => "sse",
        Transport::WebSocket => "websocket",
    }
}

async fn a_device_is_shown_with_its_connections_on_all_nodes(world: World) {
    let [first, second] = world.nodes(&[]);
    let state = first.get_json("/v1/devices/42").await;
    assert_eq!(
        (&state["online"], &state["connections"], &state["region"]),
        (&json!(false), &json!([]), &json!("local"))
    );
    let tab = world.wanted(&["device:42"]).connect(&first).await;
    let _phone = world.wanted(&["topic:news", "device:42"]).connect(&second).await;
    let _other = world.wanted(&["device:41"]).connect(&second).await;
    for node in [&first, &second] {
        let state = node.get_json("/v1/devices/42").await;
        assert_eq!(state["online"], true);
        let connections = state["connections"].as_array().unwrap();
        let nodes: Vec<_> = connections.iter().map(|connection| connection["node"].clone()).collect();
        assert_eq!(nodes, [json!(first.id().await), json!(second.id().await)], "oldest first");
        assert_ne!(connections[0]["id"], connections[1]["id"]);
        for connection in connections {
            assert_eq!(connection["transport"], transport(&world));
            assert!(connection["since"].as_str().unwrap().ends_with('Z'), "{connection}");
        }
    }
    drop(tab);
    eventually("only the phone is left", async || {
        let state = first.get_json("/v1/devices/42").await;
        (state["connections"].as_array().unwrap().len() == 1 && state["online"] == true).then_some(())
    })
    .await;
}

/// All followers of `topic:news`, by pages of two.
async fn followers(node: &Node) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.get_json(&format!("/v1/topics/news/connections?limit=2{after}")).await;
        assert_eq!(page["silent"], json!([]));
        let connections = page["connections"].as_array().unwrap();
        all.extend(connections.iter().cloned());
        let Some(next) = page["next"].as_str() else { return all };
        assert_eq!(connections.len(), 2);
        after = format!("&after={next}");
    }
}

async fn a_topics_followers_are_counted_and_listed_page_by_page(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut clients = Vec::new();
    for (node, streams) in [
        (&first, &["topic:news"][..]),
        (&second, &["topic:news", "device:42"]),
        (&second, &["topic:other", "topic:news"]),
        (&first, &["device:41", "topic:news"]),
        (&second, &["topic:news"]),
    ] {
        clients.push(world.wanted(streams).connect(node).await);
    }
    let _other = world.wanted(&["topic:other"]).connect(&first).await;
    let nodes = if world.redis.is_some() { 2 } else { 1 };
    let expected = |count: usize| json!({"topic": "news", "connections": count, "nodes": nodes, "silent": []});
    for node in [&first, &second] {
        // A client learns its connection's id a moment before the node counts it.
        eventually("all are counted", async || (node.get_json("/v1/topics/news").await == expected(5)).then_some(()))
            .await;
        let all = followers(node).await;
        let ids: Vec<_> = all.iter().map(|follower| follower["id"].as_str().unwrap()).collect();
        let connected: BTreeSet<String> = clients.iter().map(Client::connection).collect();
        assert_eq!(ids, Vec::from_iter(&connected), "each has the id that others see");
        let mut devices: Vec<_> = all.iter().filter_map(|follower| follower["device"].as_str()).collect();
        devices.sort_unstable();
        assert_eq!(devices, ["41", "42"]);
        assert!(all.iter().all(|follower| follower["transport"] == transport(&world)), "{all:?}");
    }
    clients.truncate(2);
    eventually("two are left", async || (first.get_json("/v1/topics/news").await == expected(2)).then_some(())).await;
    assert_eq!(first.get_json("/v1/topics/nobody").await["connections"], 0);
    for query in ["limit=0", "limit=1001", "after=5-1", "limit=x", "page=2"] {
        let answer = first.get(&format!("/v1/topics/news/connections?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
}

async fn every_node_is_listed_with_its_load(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3 {
        clients.push(world.wanted(&["topic:news", "topic:other"]).connect(&second).await);
    }
    let known = first.get_json("/v1/nodes").await;
    assert_eq!(known["silent"], json!([]));
    let nodes = known["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), if world.redis.is_some() { 2 } else { 1 });
    let id = second.id().await;
    let listed = nodes.iter().find(|node| node["node"] == id.as_str()).unwrap();
    let expected = json!({
        "node": id, "region": "local", "address": second.address().to_string(),
        "version": env!("CARGO_PKG_VERSION"), "connections": 3, "streams": 2,
    });
    assert_eq!(*listed, expected);
}

const LEASE: (&str, &str) = ("WHIMBREL_LEASE_SECONDS", "3");

async fn what_a_dead_node_had_counts_no_more_within_two_lease_times(world: World) {
    let [doomed, survivor] = world.nodes(&[LEASE]);
    let _client = world.wanted(&["device:42", "topic:news"]).connect(&doomed).await;
    let id = survivor.id().await;
    eventually("it is known", async || {
        let topic = survivor.get_json("/v1/topics/news").await;
        (topic["connections"] == 1 && survivor.get_json("/v1/devices/42").await["online"] == true).then_some(())
    })
    .await;
    doomed.kill();
    eventually("nobody counts them", async || {
        let topic = survivor.get_json("/v1/topics/news").await;
        let device = survivor.get_json("/v1/devices/42").await;
        let known = survivor.get_json("/v1/nodes").await;
        let nodes: Vec<_> = known["nodes"].as_array().unwrap().iter().map(|node| node["node"].clone()).collect();
        let gone = topic["connections"] == 0 && topic["silent"] == json!([]);
        (gone && device["online"] == false && known["silent"] == json!([]) && nodes == [json!(id)]).then_some(())
    })
    .await;
}

async fn a_node_that_gives_no_answer_is_named_as_silent(world: World) {
    let [stopped, node] = world.nodes(&[("WHIMBREL_LEASE_SECONDS", "60")]);
    let id = stopped.id().await;
    stopped.signal(Signal::STOP);
    // It may answer once more before all of it stands still.
    let silent = async || (node.get_json("/v1/nodes").await["silent"] == json!([id])).then_some(());
    eventually("it stands still", silent).await;
    for path in ["/v1/nodes", "/v1/topics/news", "/v1/topics/news/connections"] {
        assert_eq!(node.get_json(path).await["silent"], json!([id]), "{path}");
    }
    stopped.signal(Signal::CONT);
    eventually("it is notified again", async || {
        (node.get_json("/v1/nodes").await["nodes"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
}
