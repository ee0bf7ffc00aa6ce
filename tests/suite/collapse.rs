//! Collapse keys: a client that catches up gets only the newest event of each.

use crate::support::client::{Said, Transport};
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        a_client_that_catches_up_gets_the_newest_of_each_key_and_a_live_one_all,
        a_slow_reader_is_spared_what_was_superseded_meanwhile;
    on_redis:
        keys_are_honoured_across_pages,
}

async fn a_client_that_catches_up_gets_the_newest_of_each_key_and_a_live_one_all(world: World) {
    let [node, other] = world.nodes(&[]);
    let mut live = world.wanted(&["device:1"]).connect(&node).await;
    let first = node.publish_with("device:1", "collapse=a", "1").await;
    node.publish_with("device:1", "collapse=b", "2").await;
    node.publish("device:1", "3").await;
    node.publish_with("device:1", "collapse=a", "4").await;
    node.publish_with("device:1", "collapse=a&type=count", "5").await;
    node.publish("device:1", "6").await;
    assert_eq!(live.data(6).await, ["1", "2", "3", "4", "5", "6"]);
    let mut clients = vec![live];
    // From the ring, and from pages; also from a position that was superseded.
    for node in [&node, &other] {
        for (after, expected) in
            [("earliest", &["2", "3", "5", "6"][..]), (&first, &["2", "3", "5", "6"]), ("last:3", &["5", "6"])]
        {
            let mut client = world.wanted(&["device:1"]).after(after).connect(node).await;
            assert_eq!(client.data(expected.len()).await, expected, "after={after}");
            clients.push(client);
        }
    }
    for data in ["7", "8"] {
        node.publish_with("device:1", "collapse=a", data).await;
    }
    for client in &mut clients {
        assert_eq!(client.data(2).await, ["7", "8"], "they are live now, and get all");
    }
    assert_eq!(node.history("device:1").await, ["1", "2", "3", "4", "5", "6", "7", "8"], "a history is the log");
}

async fn keys_are_honoured_across_pages(world: World) {
    let [publisher, node] = world.nodes(&[]);
    let entry = |n: usize| match n % 100 {
        0 => format!(r#"{{"topic":"a","data":{n}}}"#),
        _ => format!(r#"{{"topic":"a","data":{n},"collapse":"k{}"}}"#, n % 3),
    };
    let body = format!("[{}]", (0..600).map(entry).collect::<Vec<_>>().join(","));
    assert_eq!(publisher.call("POST", "/v1/events", &[], body).await.status, 200);
    let mut client = world.wanted(&["topic:a"]).after("earliest").connect(&node).await;
    let expected = ["0", "100", "200", "300", "400", "500", "597", "598", "599"];
    assert_eq!(client.data(expected.len()).await, expected);
    publisher.publish("topic:a", "600").await;
    assert_eq!(client.data(1).await, ["600"]);
}

async fn a_slow_reader_is_spared_what_was_superseded_meanwhile(world: World) {
    let node = world.node(&[("WHIMBREL_OUTBOX_BYTES", "4096"), ("WHIMBREL_RING_BYTES", "0")]);
    let mut slow = world.wanted(&["topic:a"]).narrow().connect(&node).await;
    let fill = "x".repeat(50_000);
    let ids = {
        let mut ids = Vec::new();
        for n in 0..200 {
            ids.push(node.publish_with("topic:a", "collapse=state", &format!("\"{n} {fill}\"")).await);
        }
        ids
    };
    assert!(node.metric("outbox_overflows_total").await > 0.0);
    let mut given = Vec::new();
    while given.last() != ids.last() {
        match slow.next().await {
            Said::Event(event) => given.push(event.id),
            Said::Position => {}
            other => panic!("after {} events {other:?}", given.len()),
        }
    }
    assert!(given.len() < ids.len(), "it was given all of them");
    let order: Vec<usize> = given.iter().map(|id| ids.iter().position(|known| known == id).unwrap()).collect();
    assert!(order.is_sorted());
    node.publish("topic:a", "1").await;
    assert_eq!(slow.data(1).await, ["1"]);
}

#[tokio::test]
async fn a_collapse_key_that_makes_no_sense_is_refused_and_nothing_is_stored() {
    let world = World::embedded(Transport::Sse);
    let node: &Node = &world.node(&[]);
    for key in ["", "a%20b", "%C3%A9", "a%0Ab", &"k".repeat(129)] {
        let answer = node.call("POST", &format!("/v1/topics/a/events?collapse={key}"), &[], "1").await;
        assert_eq!(answer.problem(400).0, "invalid-collapse", "{key}");
    }
    assert_eq!(node.history("topic:a").await, [""; 0]);
    node.publish_with("topic:a", &format!("collapse={}", "k".repeat(128)), "1").await;
}
