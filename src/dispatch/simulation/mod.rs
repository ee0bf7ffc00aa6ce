//! The promises, held against every interleaving that proptest can think of.
//!
//! [`world`] runs the real state machines and the real embedded log through lost, repeated, late and
//! reordered messages, failovers, flushes, trimming, slow and leaving clients; [`history`] knows what
//! really happened and judges each delivery. A failing sequence of actions is shrunk to a short one, which
//! belongs into [`regressions`].

mod history;
mod world;

use proptest::prelude::*;

use world::{Action, Fate, From, LOG_TIME, POSITION_TIME, Settings, World};

/// Cases of an ordinary test run; `PROPTEST_CASES` overrides it for a hunt.
const CASES: u32 = 2_000;

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

/// `disaster` scales how often the store loses something.
fn action(disaster: u32) -> impl Strategy<Value = Action> {
    let (node, client, which) = (0..world::NODES, 0..world::CLIENTS, 0..4usize);
    prop_oneof![
        12 => (1..4u64).prop_map(|step| Action::Publish { step }),
        4 => (1..4u64).prop_map(|ms| Action::Tick { ms }),
        disaster => prop_oneof![Just(LOG_TIME), Just(LOG_TIME), Just(POSITION_TIME)].prop_map(|ms| Action::Tick { ms }),
        2 * disaster => Just(Action::Replicate),
        2 * disaster => (0..6u64).prop_map(|behind| Action::Failover { behind }),
        disaster => Just(Action::Flush),
        16 => (node.clone(), which.clone(), prop::bool::weighted(0.1))
            .prop_map(|(node, which, again)| Action::Deliver { node, which, again }),
        3 => (node.clone(), which.clone()).prop_map(|(node, which)| Action::Drop { node, which }),
        20 => (node.clone(), which, fate()).prop_map(|(node, which, fate)| Action::Work { node, which, fate }),
        3 => node.clone().prop_map(|node| Action::Sync { node }),
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

fn settings() -> impl Strategy<Value = Settings> {
    (prop_oneof![3..8u64, Just(1_000)], prop_oneof![1..4usize, Just(1_000)], 1..6usize, prop_oneof![0..3_000usize])
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
        actions in prop::collection::vec(action(0), 1..100),
    ) {
        run(Settings { keep: 1_000, ..settings }, &actions);
    }

    #[test]
    fn promises_are_kept_through_failovers_flushes_and_trimming(
        settings in settings(),
        actions in prop::collection::vec(action(1), 1..100),
    ) {
        run(settings, &actions);
    }
}

#[test]
fn scratch() {
    use Action::*;
    use Fate::*;
    use From::*;
    run(
        Settings { keep: 3, page: 1, outbox: 1, ring: 0 },
        &[
            Connect { client: 0, node: 2, from: Cursor },
            Work { node: 2, which: 0, fate: Done },
            Publish { step: 2 },
            Flush,
            Connect { client: 0, node: 0, from: Cursor },
            Work { node: 0, which: 0, fate: Done },
            Publish { step: 1 },
        ],
    );
}
