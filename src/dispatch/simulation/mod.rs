//! The promises, held against every interleaving that proptest can think of.
//!
//! [`world`] runs the real values of this folder and the real embedded log through lost, repeated, late and
//! reordered messages, failovers, flushes, trimming, slow and leaving clients. The drivers are the real ones too:
//! [`nodes`] does what the dispatchers' repair scheduler decides, [`connections`] what temporary dispatchers decide.
//! [`history`] records what really happened and judges each delivery. A failing sequence of actions is shrunk to a short
//! one: the step in it that went wrong becomes a test of the value that took it.

mod actions;
mod connection;
mod connections;
mod history;
mod node;
mod nodes;
mod world;

use proptest::prelude::*;

use actions::{Action, Fate, From, Settings};
use world::{LOG_TIME, POSITION_TIME, World};

/// Cases of an ordinary test run; `PROPTEST_CASES` overrides it for a hunt.
const CASES: u32 = 400;

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![8 => Just(Fate::Done), 1 => Just(Fate::Refused), 1 => Just(Fate::Unanswered)]
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        8 => Just(From::Cursor),
        2 => (1..4usize).prop_map(From::Old),
        2 => Just(From::Now),
        1 => Just(From::Earliest),
    ]
}

/// What happens on any day.
fn everyday() -> impl Strategy<Value = Action> {
    let (node, client, which) = (0..world::NODES, 0..world::CLIENTS, 0..4usize);
    prop_oneof![
        12 => (1..4u64, prop::option::weighted(0.3, 1..8u64), prop::option::weighted(0.3, 0..2u8))
            .prop_map(|(step, ttl, key)| Action::Publish { step, ttl, key }),
        4 => (1..4u64).prop_map(|ms| Action::Tick { ms }),
        16 => (node.clone(), which.clone(), prop::bool::weighted(0.1))
            .prop_map(|(node, which, again)| Action::Deliver { node, which, again }),
        3 => (node.clone(), which.clone()).prop_map(|(node, which)| Action::Drop { node, which }),
        20 => (node.clone(), which, fate()).prop_map(|(node, which, fate)| Action::Work { node, which, fate }),
        3 => node.clone().prop_map(|node| Action::Mark { node }),
        1 => node.clone().prop_map(|node| Action::ForgetRing { node }),
        1 => node.clone().prop_map(|node| Action::Detach { node }),
        1 => node.clone().prop_map(|node| Action::Kill { node }),
        6 => (client.clone(), node, from())
            .prop_map(|(client, node, from)| Action::Connect { client, node, from }),
        2 => client.clone().prop_map(|client| Action::Disconnect { client }),
        20 => (client.clone(), fate(), any::<bool>())
            .prop_map(|(client, fate, shared)| Action::Feed { client, fate, shared }),
        12 => (client, 1..4usize).prop_map(|(client, count)| Action::Take { client, count }),
    ]
}

/// What takes something from the store.
fn disaster() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => Just(Action::Replicate),
        2 => prop_oneof![Just(0), 0..6u64].prop_map(|behind| Action::Failover { behind }),
        1 => prop_oneof![3 => Just(LOG_TIME), 1 => Just(POSITION_TIME)].prop_map(|ms| Action::Tick { ms }),
        1 => Just(Action::Flush),
        1 => Just(Action::Erase),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (prop_oneof![3..8u64, Just(1_000)], prop_oneof![1..4usize, Just(1_000)], 1..6usize, 0..3_000usize)
        .prop_map(|(keep, page, outbox, ring)| Settings { keep, page, outbox, ring })
}

fn run(settings: Settings, actions: &[Action]) {
    let mut world = World::new(settings);
    for action in actions {
        world.act(action);
    }
    world.heal();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200_000, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn promises_are_kept_when_the_store_loses_nothing(
        settings in settings(),
        actions in prop::collection::vec(everyday(), 1..100),
    ) {
        run(Settings { keep: 1_000, ..settings }, &actions);
    }

    #[test]
    fn promises_are_kept_through_failovers_flushes_erasure_and_trimming(
        settings in settings(),
        actions in prop::collection::vec(prop_oneof![16 => everyday(), 1 => disaster()], 1..100),
    ) {
        run(settings, &actions);
    }
}
