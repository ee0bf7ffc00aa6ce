//! Every event reaches every subscriber of the stream, on any node, once and in order.

use tokio::task::JoinSet;

use crate::fcall::loaded;
use crate::support::client::{Client, Transport};
use crate::support::world::{World, promises};

const SUBSCRIBERS: usize = 200;
const BATCHES: usize = 10;
const BATCH: usize = 20;

promises! {
    everywhere:
        all_subscribers_get_all_events_once_in_order,
        a_device_gets_its_inbox_on_every_connection;
    on_redis:
        a_publish_returns_the_number_of_nodes_it_was_sent_to,
}

async fn all_subscribers_get_all_events_once_in_order(world: World) {
    let nodes: [_; 3] = world.nodes(&[]);
    let mut connecting = JoinSet::new();
    for n in 0..SUBSCRIBERS {
        let (wanted, node) = (world.wanted(&["topic:news"]), nodes[n % nodes.len()].clone());
        connecting.spawn(async move { wanted.connect(&node).await });
    }
    let mut listening: JoinSet<(Client, Vec<String>)> = JoinSet::new();
    for mut client in connecting.join_all().await {
        listening.spawn(async move {
            let data = client.data(BATCHES * BATCH).await;
            (client, data)
        });
    }
    // In turn over all nodes: a batch is sent when the one before was acknowledged.
    for batch in 0..BATCHES {
        nodes[batch % nodes.len()].publish_all("topic:news", batch * BATCH..(batch + 1) * BATCH).await;
    }
    let expected: Vec<String> = (0..BATCHES * BATCH).map(|n| n.to_string()).collect();
    let done = listening.join_all().await;
    assert_eq!(done.len(), SUBSCRIBERS);
    for (_, data) in &done {
        assert_eq!(*data, expected);
    }
    // Nothing came twice that is still to be read.
    nodes[0].publish("topic:news", "\"end\"").await;
    for (mut client, _) in done {
        assert_eq!(client.data(1).await, ["\"end\""]);
    }
}

async fn a_device_gets_its_inbox_on_every_connection(world: World) {
    let [first, second] = world.nodes(&[]);
    let mut clients = [
        world.wanted(&["device:42"]).connect(&first).await,
        world.wanted(&["device:42"]).connect(&first).await,
        world.wanted(&["device:42", "topic:news"]).connect(&second).await,
    ];
    let mut other = world.wanted(&["device:43"]).connect(&first).await;
    let id = second.publish("device:42", "1").await;
    for client in &mut clients {
        let event = client.event().await;
        assert_eq!((event.stream.as_str(), event.id.as_str(), event.data.as_str()), ("device:42", id.as_str(), "1"));
    }
    first.publish("device:43", "2").await;
    assert_eq!(other.data(1).await, ["2"], "an inbox is its device's alone");
}

async fn a_publish_returns_the_number_of_nodes_it_was_sent_to(world: World) {
    let [first, second] = world.nodes(&[]);
    let publish = async || first.call("POST", "/v1/topics/news/events", &[], "1").await.json()["nodes"].clone();
    assert_eq!(publish().await, 0);
    let _one = world.wanted(&["topic:news"]).connect(&first).await;
    assert_eq!(publish().await, 1);
    let _two =
        [world.wanted(&["topic:news"]).connect(&second).await, world.wanted(&["topic:news"]).connect(&second).await];
    assert_eq!(publish().await, 2);
}

#[tokio::test]
async fn events_that_the_channel_lost_are_read_from_the_store() {
    let world = World::on_redis(Transport::Sse);
    let node = world.node(&[("WHIMBREL_SYNC_SECONDS", "1")]);
    let mut client = world.wanted(&["topic:news"]).connect(&node).await;
    let redis = world.redis.as_ref().unwrap();
    loaded(&redis.raw().await, "whimbrel_publish").await;
    redis.publish_unrouted("topic:news", 0..5).await;
    assert_eq!(client.data(5).await, ["0", "1", "2", "3", "4"]);
}
