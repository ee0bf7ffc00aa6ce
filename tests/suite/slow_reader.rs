//! One slow or dead client costs only itself.

use crate::support::client::{Said, Transport, numbers};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        a_slow_reader_delays_nobody_and_catches_up,
        a_slow_reader_that_trimming_overtakes_gets_each_gap;
    on_redis:
        a_client_that_takes_nothing_is_ended,
}

const BATCHES: usize = 6;
const BATCH: usize = 25;

/// An event of 60 KB: a few hundred are more than all socket buffers between two processes hold.
fn large(n: usize) -> String {
    format!("\"{n} {}\"", "x".repeat(60_000))
}

async fn publish_batch(node: &Node, batch: usize) -> Vec<String> {
    node.publish_all("topic:news", (batch * BATCH..(batch + 1) * BATCH).map(large)).await
}

async fn a_slow_reader_delays_nobody_and_catches_up(world: World) {
    let [node, publisher] = world.nodes(&[("WHIMBREL_OUTBOX_BYTES", "4096")]);
    let mut slow = world.wanted(&["topic:news"]).narrow().connect(&node).await;
    let mut fast = world.wanted(&["topic:news"]).connect(&node).await;
    for batch in 0..BATCHES {
        publish_batch(&publisher, batch).await;
        // Everything, before the slow one has read anything.
        for n in batch * BATCH..(batch + 1) * BATCH {
            assert!(fast.event().await.data == large(n), "event {n}");
        }
    }
    assert!(node.metric("outbox_overflows_total").await > 0.0);
    eventually("the slow one is alone behind", async || {
        (node.metric("temporary_dispatchers").await == 1.0).then_some(())
    })
    .await;
    for n in 0..BATCHES * BATCH {
        assert!(slow.event().await.data == large(n), "event {n}");
    }
    node.metric_is("temporary_dispatchers", 0.0).await;
    publisher.publish("topic:news", "\"end\"").await;
    assert_eq!((slow.data(1).await, fast.data(1).await), (vec!["\"end\"".into()], vec!["\"end\"".into()]));
}

async fn a_slow_reader_that_trimming_overtakes_gets_each_gap(world: World) {
    let settings =
        [("WHIMBREL_OUTBOX_BYTES", "4096"), ("WHIMBREL_RING_BYTES", "0"), ("WHIMBREL_RETENTION", "*=20/3600")];
    let [node, publisher] = world.nodes(&settings);
    let mut slow = world.wanted(&["topic:news"]).narrow().connect(&node).await;
    let mut published = Vec::new();
    for batch in 0..BATCHES {
        published.extend(publish_batch(&publisher, batch).await);
    }
    let mut at = 0;
    let mut gaps = 0;
    while at < published.len() {
        match slow.next().await {
            Said::Event(event) => {
                assert_eq!(event.id, published[at], "a hole without a notice, after {gaps} gaps");
                at += 1;
            }
            Said::Gap(gap) => {
                assert!(at > 0, "it got the first event live");
                assert_eq!((gap.after.as_str(), gap.reason.as_str()), (published[at - 1].as_str(), "trimmed"));
                assert!(numbers(&gap.next) > numbers(&published[at]), "nothing is missing at {gap:?}");
                at = published.iter().position(|id| *id == gap.next).expect("the next event's id");
                gaps += 1;
            }
            Said::Position => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(gaps > 0, "20 events are kept of {}", published.len());
}

async fn a_client_that_takes_nothing_is_ended(world: World) {
    let node = world.node(&[("WHIMBREL_PING_SECONDS", "1"), ("WHIMBREL_OUTBOX_BYTES", "4096")]);
    let transport = if world.transport == Transport::Sse { "sse" } else { "websocket" };
    let _stuck = world.wanted(&["topic:news"]).narrow().connect(&node).await;
    for batch in 0..BATCHES {
        publish_batch(&node, batch).await;
    }
    node.metric_is(&format!("connections{{transport=\"{transport}\"}}"), 0.0).await;
    node.metric_is("temporary_dispatchers", 0.0).await;
}
