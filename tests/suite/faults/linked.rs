//! Nodes that send each other events over links, and what can happen to those.

use std::time::Duration;

use super::lab::{Lab, Plan};
use crate::support::proxy::{Cut, Direction, Flow};
use crate::support::{Signal, eventually};

/// A busy region in which events go over links.
async fn linked(name: &str, plan: Plan) -> Lab {
    let lab = Lab::busy(name, Plan { linked: true, ..plan }).await;
    lab.all_linked().await;
    lab
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_in_the_midst_of_events_loses_none() {
    let lab = linked("cut_wire", Plan::default()).await;
    for how in [Cut::Reset, Cut::Fin, Cut::Reset, Cut::Fin] {
        lab.wires.iter().for_each(|wire| wire.cut(how));
        lab.flowing().await;
        lab.all_linked().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_breaks_with_the_last_event_on_its_way_brings_it_late() {
    // Nothing is published afterwards, so only what follows the break can bring it.
    let mut lab = linked("cut_at_the_end", Plan::default()).await;
    lab.wires.iter().for_each(|wire| wire.set(Direction::Both, Flow::Stall));
    lab.published(2).await;
    lab.stop_producers().await;
    lab.wires.iter().for_each(|wire| wire.cut(Cut::Reset));
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_links_delay_events_and_lose_none() {
    let lab = linked("half_open_wire", Plan::default()).await;
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let before = lab.sum("link_fallbacks_total").await;
        lab.wires.iter().for_each(|wire| wire.set(direction, Flow::Stall));
        lab.flowing().await;
        eventually("events take the channel", async || (lab.sum("link_fallbacks_total").await > before).then_some(()))
            .await;
        // What was held comes late, and twice.
        lab.wires.iter().for_each(|wire| wire.heal());
        lab.flowing().await;
        lab.all_linked().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_stopped_holds_up_nobody_else() {
    let lab = linked("stopped_peer", Plan { nodes: 3, ..Plan::default() }).await;
    for node in [2, 1] {
        lab.nodes[node].signal(Signal::STOP);
        lab.published(50).await;
        lab.nodes[node].signal(Signal::CONT);
        lab.flowing().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_nodes_with_links_lose_nothing() {
    let mut lab = linked("killed_peer", Plan { nodes: 3, ..Plan::default() }).await;
    lab.kill_in_turn(&[0, 1, 0]).await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_ends_its_links_and_loses_nothing() {
    let mut lab = linked("drained_peer", Plan::default()).await;
    for node in [0, 1] {
        lab.drain(node).await;
        lab.flowing().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_at_the_address_of_one_that_lives_costs_nothing() {
    let lab = linked("swapped_peers", Plan { nodes: 3, ..Plan::default() }).await;
    // Each node's address leads to the next node.
    for number in 0..3 {
        lab.wires[number].lead_to(lab.nodes[(number + 1) % 3].link_address());
        lab.wires[number].cut(Cut::Reset);
    }
    eventually("the wrong nodes are noticed", async || {
        (lab.sum("link_failures_total{reason=\"other-node\"}").await > 2.0).then_some(())
    })
    .await;
    lab.flowing().await;
    for number in 0..3 {
        lab.wires[number].lead_to(lab.nodes[number].link_address());
    }
    lab.all_linked().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_secret_in_the_midst_cost_nothing() {
    let mut lab = linked("other_secret", Plan::default()).await;
    lab.drain_into(1, &[("WHIMBREL_LINK_SECRET", "the-secret-of-another-lab")]).await;
    eventually("the wrong secret is noticed", async || {
        (lab.sum("link_failures_total{reason=\"secret\"}").await > 0.0).then_some(())
    })
    .await;
    lab.flowing().await;
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_store_that_are_lost_leave_no_linked_node_behind() {
    let lab = linked("lost_answers", Plan::default()).await;
    for _ in 0..3 {
        lab.links[0].set(Direction::ToClient, Flow::Stall);
        lab.published(10).await;
        lab.links[0].cut(Cut::Reset);
        lab.links[0].heal();
        lab.flowing().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_slow_to_take_events_leaves_no_linked_node_behind() {
    let lab = linked("slow_store", Plan::default()).await;
    for _ in 0..3 {
        // What was sent before the connection broke gets to the store after it.
        lab.links[0].set(Direction::ToServer, Flow::Late(Duration::from_millis(600)));
        lab.published(10).await;
        lab.links[0].set(Direction::ToServer, Flow::Pass);
        lab.flowing().await;
    }
    lab.verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_and_comes_back_finds_linked_nodes_in_step() {
    let plan = Plan { redis: vec!["--appendonly", "yes", "--appendfsync", "always"], ..Plan::default() };
    let mut lab = linked("store_away", plan).await;
    lab.redis.kill();
    lab.wires.iter().for_each(|wire| wire.cut(Cut::Fin));
    tokio::task::block_in_place(|| lab.redis.revive());
    lab.flowing().await;
    lab.verdict().await;
}
