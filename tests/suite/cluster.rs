//! A Redis Cluster: streams are spread over its masters, and everything goes on as on one server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::cluster::Cluster;
use crate::support::node::{Node, events_path};
use crate::support::redis::{RedisServer, least_rights};
use crate::support::{command, eventually};

/// A node, and another.
fn two_nodes(cluster: &Cluster) -> [Node; 2] {
    let url = cluster.url();
    std::array::from_fn(|_| Node::start(&[("WHIMBREL_REDIS_URL", &url)]))
}

/// Streams of all masters.
async fn streams(cluster: &Cluster) -> Vec<String> {
    let mut streams = Vec::new();
    for n in 0..9 {
        streams.push(cluster.topic_of(n % cluster.masters, 100 * n).await);
    }
    streams
}

#[tokio::test]
async fn streams_of_all_masters_are_followed_and_resumed_on_another_node() {
    let cluster = Cluster::of_masters(3).await;
    let nodes = two_nodes(&cluster);
    let streams = streams(&cluster).await;
    let names: Vec<&str> = streams.iter().map(String::as_str).collect();
    let mut client = Wanted::new(Transport::Sse, &names).connect(&nodes[0]).await;
    let mut received = BTreeMap::<String, Vec<String>>::new();
    for round in 0..2 {
        for (n, stream) in streams.iter().enumerate() {
            // From the node that the client is at, and from the other one, whose events come over the channel.
            nodes[(round + n) % 2].publish(stream, &format!("{round}")).await;
        }
    }
    for _ in 0..2 * streams.len() {
        let event = client.event().await;
        received.entry(event.stream).or_default().push(event.data);
    }
    let cursor = client.cursor();
    drop(client);
    for stream in &streams {
        nodes[1].publish(stream, "2").await;
    }
    let mut client = Wanted::new(Transport::Sse, &names).from(&cursor).connect(&nodes[1]).await;
    for _ in 0..streams.len() {
        let event = client.event().await;
        received.entry(event.stream).or_default().push(event.data);
    }
    for stream in &streams {
        assert_eq!(received[stream], ["0", "1", "2"], "{stream}");
    }
    for server in &cluster.servers {
        assert!(server.try_ask::<usize>(&["DBSIZE"]).await.unwrap() >= streams.len(), "a master has nothing");
    }
}

#[tokio::test]
async fn a_batch_over_several_shards_is_answered_in_order() {
    let cluster = Cluster::of_masters(3).await;
    let url = cluster.url();
    let node = Node::start(&[("WHIMBREL_REDIS_URL", &url)]);
    let streams = streams(&cluster).await;
    // More of a stream than one pipeline takes.
    let entry = |n: usize| {
        let stream = &streams[n % streams.len()];
        json!({ "topic": stream.strip_prefix("topic:").unwrap(), "data": n })
    };
    let batch: Vec<Value> = (0..900).map(entry).collect();
    let answer = node.call("POST", "/v1/events", &[], Value::from(batch).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].as_array().unwrap().clone();
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["stream"], streams[n % streams.len()]);
    }
    for (place, stream) in streams.iter().enumerate() {
        let wanted: Vec<_> = (0..900).filter(|n| n % streams.len() == place).map(|n| n.to_string()).collect();
        assert_eq!(node.history(stream).await, wanted, "{stream}");
    }
}

#[tokio::test]
async fn producers_add_to_the_ingress_stream_and_call_functions_on_every_master() {
    let cluster = Cluster::of_masters(3).await;
    let url = cluster.url();
    let node = Node::start(&[("WHIMBREL_REDIS_URL", &url)]);
    for (place, server) in cluster.servers.iter().enumerate() {
        let stream = cluster.topic_of(place, 0).await;
        let key = |part: &str| format!("whimbrel:{{{stream}}}:{part}");
        let keys = ["events", "nodes", "meta", "collapse", "once:-"].map(key);
        let call = ["FCALL", "whimbrel_publish", "5", &keys[0], &keys[1], &keys[2], &keys[3], &keys[4], "\"called\""];
        eventually("the master has the functions", async || server.try_ask::<String>(&call).await).await;
        let topic = stream.strip_prefix("topic:").unwrap();
        let add = ["XADD", "whimbrel:ingress", "*", "topic", topic, "data", "\"added\""];
        cluster.of("whimbrel:ingress").await.try_ask::<String>(&add).await.unwrap();
        eventually("the entry is an event", async || {
            (node.history(&stream).await == ["\"called\"", "\"added\""]).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn presence_membership_and_operations_hold_over_all_masters() {
    let cluster = Cluster::of_masters(3).await;
    let nodes = two_nodes(&cluster);
    let devices: Vec<String> = (0..6).map(|n| format!("device:{n}")).collect();
    let mut clients = Vec::new();
    for (n, device) in devices.iter().enumerate() {
        clients.push(Wanted::new(Transport::WebSocket, &[device, "topic:news"]).connect(&nodes[n % 2]).await);
    }
    for n in 0..devices.len() {
        eventually("the device is online", async || {
            let device = nodes[n % 2].get_json(&format!("/v1/devices/{n}")).await;
            (device["online"] == true && device["connections"].as_array()?.len() == 1).then_some(())
        })
        .await;
    }
    let alive = nodes[0].get_json("/v1/nodes").await;
    assert_eq!(alive["nodes"].as_array().unwrap().len(), 2, "{alive}");
    let topic = nodes[1].get_json("/v1/topics/news").await;
    assert_eq!(topic["connections"], 6, "{topic}");
    for n in 0..devices.len() {
        let answer = nodes[0].call("DELETE", &format!("/v1/devices/{n}"), &[], "").await;
        assert_eq!(answer.status / 100, 2, "{}", answer.text());
    }
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_away_takes_no_other_with_it() {
    let mut cluster = Cluster::of_masters(3).await;
    let nodes = two_nodes(&cluster);
    let mut streams = Vec::new();
    for place in 0..3 {
        streams.push(cluster.topic_of(place, 0).await);
    }
    let mut client = Wanted::new(Transport::WebSocket, &[&streams[1], &streams[2]]).connect(&nodes[0]).await;
    cluster.servers[0].kill();
    for n in 0..20 {
        // The node that is followed gets all that the other one publishes, and at once.
        let stream = &streams[1 + n % 2];
        let answer = nodes[1].call("POST", &events_path(stream), &[], n.to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(client.event().await.data, n.to_string());
    }
    let answer = nodes[1].call("POST", &events_path(&streams[0]), &[], "1").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    tokio::task::block_in_place(|| cluster.servers[0].revive());
    eventually("its streams take events again", async || {
        let answer = nodes[1].call("POST", &events_path(&streams[0]), &[], "1").await;
        (answer.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_check_looks_at_each_master_and_a_url_of_another_kind_is_refused() {
    let cluster = Cluster::of_masters(2).await;
    let url = cluster.url();
    let checked = command::run(&["check", "--redis-url", &url], &[], b"").await;
    assert!(checked.stdout.contains("ok       a Cluster of 2 masters, which have all slots"), "{}", checked.stdout);
    for server in &cluster.servers {
        let of_server = format!("warning  {}: the master has no replica", server.address());
        assert!(checked.stdout.contains(&of_server), "{}", checked.stdout);
    }
    assert!(!checked.stdout.contains("full-coverage"), "{}", checked.stdout);
    let of_one = url.replace("redis+cluster", "redis");
    let checked = command::run(&["check", "--redis-url", &of_one], &[], b"").await;
    assert!(checked.stdout.contains("error    the server belongs to a Redis Cluster"), "{}", checked.stdout);
    let started = command::run(&["serve", "--redis-url", &of_one, "--listen", "127.0.0.1:0"], &[], b"").await;
    assert!(started.stderr.contains("belongs to a Redis Cluster"), "{}", started.stderr);
}

/// The sharded channels that nodes are subscribed to at a server, in order.
async fn sharded_channels(server: &RedisServer) -> Vec<String> {
    let mut channels: Vec<String> = server.try_ask(&["PUBSUB", "SHARDCHANNELS"]).await.unwrap_or_default();
    channels.sort();
    channels
}

/// How often a server ran a command, within scripts too.
async fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats: String = server.try_ask(&["INFO", "commandstats"]).await.unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls="))).unwrap_or("0,");
    line.split(',').next().unwrap().parse().unwrap()
}

/// Publishes until events of a stream take a sharded channel again, and are received.
async fn shards_again(node: &Node, server: &RedisServer, stream: &str, client: &mut Client) {
    eventually("events take the sharded channel", async || {
        let before = calls(server, "publish").await;
        for _ in 0..5 {
            node.publish(stream, "\"on\"").await;
            assert_eq!(client.event().await.data, "\"on\"");
        }
        // Beats are published too, but not that often.
        (calls(server, "publish").await < before + 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_take_a_channel_of_their_shard_whoever_publishes_them() {
    let cluster = Cluster::of_masters(3).await;
    let nodes = two_nodes(&cluster);
    for (place, server) in cluster.servers.iter().enumerate() {
        eventually("both nodes are subscribed", async || (sharded_channels(server).await.len() == 2).then_some(()))
            .await;
        let stream = cluster.topic_of(place, 0).await;
        let mut client = Wanted::new(Transport::WebSocket, &[&stream]).connect(&nodes[0]).await;
        let before = [calls(server, "spublish").await, calls(server, "publish").await];
        let key = |part: &str| format!("whimbrel:{{{stream}}}:{part}");
        let keys = ["events", "nodes", "meta", "collapse", "once:-"].map(key);
        let topic = stream.strip_prefix("topic:").unwrap();
        for n in 0..20 {
            nodes[1].publish(&stream, "\"posted\"").await;
            let call =
                ["FCALL", "whimbrel_publish", "5", &keys[0], &keys[1], &keys[2], &keys[3], &keys[4], "\"called\""];
            eventually("the master has the functions", async || server.try_ask::<String>(&call).await).await;
            let path = format!("{}?ephemeral=true", events_path(&stream));
            assert_eq!(nodes[1].call("POST", &path, &[], "\"passing\"").await.status, 202, "{n}");
            let add = ["XADD", "whimbrel:ingress", "*", "topic", topic, "data", "\"added\""];
            cluster.of("whimbrel:ingress").await.try_ask::<String>(&add).await.unwrap();
            let mut received = Vec::new();
            while received.len() < 4 {
                match client.next().await {
                    Said::Event(event) => received.push(event.data),
                    Said::Ephemeral { data, .. } => received.push(data),
                    _ => {}
                }
            }
            received.sort();
            assert_eq!(received, ["\"added\"", "\"called\"", "\"passing\"", "\"posted\""]);
        }
        let more = [calls(server, "spublish").await - before[0], calls(server, "publish").await - before[1]];
        // Beats of nodes are published, and nothing else.
        assert!(more[0] >= 80 && more[1] < 40, "{more:?}");
    }
}

#[tokio::test]
async fn without_the_right_for_sharded_channels_events_reach_every_node_all_the_same() {
    let cluster = Cluster::of_masters(2).await;
    for place in 0..2 {
        let user = if least_rights(true).is_empty() { "default" } else { "whimbrel-node" };
        cluster.say(place, &["ACL", "SETUSER", user, "-ssubscribe"]).await;
    }
    let url = cluster.url();
    let nodes: [Node; 2] = std::array::from_fn(|_| Node::start(&[("WHIMBREL_REDIS_URL", &url)]));
    for place in 0..2 {
        let stream = cluster.topic_of(place, 0).await;
        let mut client = Wanted::new(Transport::WebSocket, &[&stream]).connect(&nodes[0]).await;
        for n in 0..5 {
            nodes[1].publish(&stream, &n.to_string()).await;
            assert_eq!(client.event().await.data, n.to_string());
        }
        assert_eq!(calls(&cluster.servers[place], "spublish").await, 0);
    }
    assert!(nodes[0].log().contains("no sharded channel"), "{}", nodes[0].log());
    drop(nodes);
    // The servers look for rights that were missing, and this one was meant to be.
    for place in 0..2 {
        cluster.say(place, &["ACL", "LOG", "RESET"]).await;
    }
}

#[tokio::test]
async fn a_sharded_channel_that_breaks_is_renewed_and_the_streams_of_its_shard_alone_are_read_again() {
    let cluster = Cluster::of_masters(2).await;
    let url = cluster.url();
    // No sync comes by itself.
    let node = Node::start(&[("WHIMBREL_REDIS_URL", &url), ("WHIMBREL_SYNC_SECONDS", "3600")]);
    let mut streams = Vec::new();
    for place in 0..2 {
        streams.push(cluster.topic_of(place, 0).await);
    }
    let mut clients = Vec::new();
    for (place, stream) in streams.iter().enumerate() {
        let server = &cluster.servers[place];
        eventually("the node is subscribed", async || (sharded_channels(server).await.len() == 1).then_some(())).await;
        clients.push(Wanted::new(Transport::WebSocket, &[stream]).connect(&node).await);
        eventually("the master has the functions", async || {
            server.try_ask::<Vec<redis::Value>>(&["FUNCTION", "LIST"]).await.filter(|listed| !listed.is_empty())
        })
        .await;
        server.publish_unrouted(stream, 0..1).await;
    }
    let listed: String = cluster.servers[0].try_ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.unwrap();
    let sharded = listed.lines().find(|line| line.contains(" ssub=1 ")).unwrap();
    let id = sharded.split(' ').find_map(|word| word.strip_prefix("id=")).unwrap();
    cluster.servers[0].try_ask::<u64>(&["CLIENT", "KILL", "ID", id]).await.unwrap();
    assert_eq!(clients[0].event().await.data, "0", "it was read again");
    shards_again(&node, &cluster.servers[0], &streams[0], &mut clients[0]).await;
    assert_eq!(node.metric("channel_interruptions_total").await, 1.0);
    // A sync would have written down the route of the other stream anew.
    let routes = format!("whimbrel:{{{}}}:nodes", streams[1]);
    assert_eq!(cluster.servers[1].try_ask::<u64>(&["EXISTS", &routes]).await, Some(0), "the other stream was read");
}

#[tokio::test]
async fn a_sharded_channel_follows_the_slots_of_its_shard() {
    let cluster = Cluster::of_masters(2).await;
    let url = cluster.url();
    let node = Node::start(&[("WHIMBREL_REDIS_URL", &url), ("WHIMBREL_SYNC_SECONDS", "2")]);
    let server = &cluster.servers[0];
    let stream = cluster.topic_of(0, 0).await;
    let mut client = Wanted::new(Transport::WebSocket, &[&stream]).connect(&node).await;
    shards_again(&node, server, &stream, &mut client).await;
    for _ in 0..2 {
        let before = sharded_channels(server).await;
        let slot: u16 = server.try_ask(&["CLUSTER", "KEYSLOT", &before[0]]).await.unwrap();
        cluster.give_slot(slot, 1).await;
        eventually("the node is subscribed in another slot", async || {
            let now = sharded_channels(server).await;
            (now.len() == 1 && now != before).then_some(())
        })
        .await;
        shards_again(&node, server, &stream, &mut client).await;
    }
}
