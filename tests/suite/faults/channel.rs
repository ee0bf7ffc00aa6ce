//! The way of live events from the store to a node, interrupted.

use std::time::Duration;

use super::lab::{Lab, Plan};
use super::producer::Work;
use crate::support::eventually;
use crate::support::proxy::{Cut, Direction, Flow};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_subscriptions_lose_nothing() {
    let lab = Lab::busy("killed_subscriptions", Plan::default()).await;
    for _ in 0..3 {
        let killed: usize = lab.ask_store(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(killed, 2);
        lab.flowing().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_killed_with_the_last_event_on_its_way_brings_it_late() {
    // Nothing is published after the interruption, so only the sync that follows it can bring the rest.
    let mut lab = Lab::busy("killed_at_the_end", Plan::default()).await;
    for link in &lab.links {
        for subscription in link.connections("SUBSCRIBE") {
            subscription.set(Direction::ToClient, Flow::Stall);
        }
    }
    lab.published(20).await;
    lab.stop_producers().await;
    for link in &lab.links {
        link.connections("SUBSCRIBE").iter().for_each(|subscription| subscription.cut(Cut::Reset));
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_subscription_is_found_by_its_missing_beats() {
    let mut lab = Lab::busy("half_open_subscription", Plan::default()).await;
    let subscriptions = lab.links[0].connections("SUBSCRIBE");
    assert_eq!(subscriptions.len(), 1);
    subscriptions[0].set(Direction::Both, Flow::Stall);
    lab.published(50).await;
    lab.stop_producers().await;
    eventually("another subscription", async || {
        (lab.nodes[0].metric("channel_interruptions_total").await > 0.0).then_some(())
    })
    .await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_over_its_output_buffer_limit_loses_nothing() {
    // Every large event is over the limit, so that each cuts off every node that it is sent to.
    let plan = Plan { redis: vec!["--client-output-buffer-limit", "pubsub 16384 0 0"], ..Plan::default() };
    let mut lab = Lab::busy("output_buffer_limit", plan).await;
    // On both nodes, as each hands its own clients what is published on it.
    for door in 0..lab.nodes.len() {
        let (streams, patience) = (lab.streams.clone(), Duration::from_secs(12));
        lab.produce_as(Work { streams, pace: Duration::from_millis(200), padding: 20_000, door, patience });
    }
    for node in &lab.nodes {
        eventually("Redis cuts the subscriber off, again and again", async || {
            (node.metric("channel_interruptions_total").await >= 3.0).then_some(())
        })
        .await;
    }
    lab.flowing().await;
    lab.verdict().await;
}
