//! Movers that die, that meet, and that wake late.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use whimbrel::directory::{End, Migration, Step};
use whimbrel::store::RetentionRules;
use whimbrel::store::redis::{Plan, RedisDirectory, RedisStore};

use crate::regions::{Regions, knows, move_to, publish};
use crate::support::client::{Transport, Wanted};
use crate::support::http::Http;
use crate::support::node::{Node, events_path};
use crate::support::proxy::Cut;
use crate::support::redis::{RedisServer, config};
use crate::support::{PATIENCE, Signal, eventually};

/// All that a mover of the first move does, in this order, of a stream whose events are one page.
const STEPS: [Step; 8] =
    [Step::Begin, Step::Prepare, Step::Copy, Step::Seal, Step::CopyRest, Step::Open, Step::Record, Step::Clear];

/// What a process that moves streams has, without the process: it is killed by doing nothing more.
struct Yard {
    directory: RedisDirectory,
    stores: [RedisStore; 2],
}

impl Yard {
    async fn of(regions: &Regions) -> Self {
        Self::with_stores_at(regions, regions.servers.each_ref().map(RedisServer::url)).await
    }

    /// One that is cut off from the regions as the nodes are.
    async fn behind_the_proxies(regions: &Regions) -> Self {
        Self::with_stores_at(regions, regions.links.each_ref().map(|link| format!("redis://{}/", link.address()))).await
    }

    async fn with_stores_at(regions: &Regions, urls: [String; 2]) -> Self {
        let directory = RedisDirectory::connect(&config(&regions.directory.url()), "whimbrel").await.unwrap();
        let store = async |number: usize| {
            let (rules, lives) = (RetentionRules::default(), Duration::from_secs(3600));
            RedisStore::connect(&config(&urls[number]), "whimbrel", rules, lives).await.unwrap()
        };
        Yard { directory, stores: [store(0).await, store(1).await] }
    }

    /// A mover to us that has taken so many steps.
    async fn migration(&self, stream: &str, steps: usize) -> Migration<'_> {
        let plan = Plan { stream: stream.parse().unwrap(), from: "eu".into(), to: "us".into(), version: 2 };
        let [from, to] = self.stores.clone();
        let mut migration = Migration::new(&self.directory, plan, from, to);
        for step in &STEPS[..steps] {
            assert_eq!(migration.step(), *step);
            migration.take().await.unwrap();
        }
        migration
    }
}

/// Publishes at both nodes in turn until the directory and both stores say that the move to us is complete.
async fn touch(regions: &Regions, nodes: &[Node; 2], stream: &str) -> Vec<String> {
    let (begun, mut published) = (Instant::now(), Vec::new());
    loop {
        // A pause of a mover's time is no reason to refuse anything.
        published.push(nodes[published.len() % 2].publish(stream, "1").await);
        let (home, left) = (regions.home(stream).await, regions.keys(0, stream).await);
        if home.as_deref() == Some("2 us") && left == [format!("whimbrel:{{{stream}}}:meta")] {
            return published;
        }
        assert!(begun.elapsed() < PATIENCE, "the next touches complete the move: {home:?}, {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The ids of a stream's events, as a node returns them.
async fn ids(node: &Node, stream: &str) -> Vec<String> {
    let history = node.get_json(&format!("{}?limit=1000", events_path(stream))).await;
    let events = history["events"].as_array().unwrap().iter();
    events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mover_that_is_killed_at_any_step_is_followed_by_the_next_that_touches_the_stream() {
    let regions = Regions::start();
    let nodes = regions.nodes(&[("WHIMBREL_SYNC_SECONDS", "60")]);
    let yard = Yard::of(&regions).await;
    let walks = (1..=STEPS.len()).map(async |steps| {
        let stream = format!("device:{steps}");
        let mut expected = nodes[0].publish_all(&stream, 0..20).await;
        let mut listening = Wanted::new(Transport::Sse, &[&stream]).after("earliest").connect(&nodes[0]).await;
        drop(yard.migration(&stream, steps).await);
        expected.extend(touch(&regions, &nodes, &stream).await);
        for id in &expected {
            assert_eq!(&listening.event().await.id, id, "killed behind {:?}", STEPS[steps - 1]);
        }
        assert_eq!(ids(&nodes[1], &stream).await, expected, "killed behind {:?}", STEPS[steps - 1]);
    });
    join_all(walks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mover_that_wakes_after_another_finished_is_refused_at_any_step() {
    let regions = Regions::start();
    let nodes = regions.nodes(&[]);
    let yard = Yard::of(&regions).await;
    for steps in 1..STEPS.len() {
        let (stream, path) = (format!("device:{steps}"), format!("devices/{steps}"));
        let mut expected = nodes[0].publish_all(&stream, 0..20).await;
        let sleeper = yard.migration(&stream, steps).await;
        move_to(&nodes[1], &path, "us").await;
        expected.push(nodes[0].publish(&stream, "1").await);
        move_to(&nodes[0], &path, "eu").await;
        expected.push(nodes[1].publish(&stream, "2").await);
        let woken = sleeper.run().await.unwrap();
        assert!(woken == End::Superseded || steps == STEPS.len() - 1, "{woken:?} behind {:?}", STEPS[steps - 1]);
        expected.push(nodes[1].publish(&stream, "3").await);
        assert_eq!(regions.home(&stream).await.as_deref(), Some("3 eu"));
        assert_eq!(ids(&nodes[1], &stream).await, expected, "woken behind {:?}", STEPS[steps - 1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_movers_at_once_move_a_stream_once() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    let mut expected = eu.publish_all("topic:news", 0..700).await;
    let mut listening = Wanted::new(Transport::Sse, &["topic:news"]).connect(&eu).await;
    for (round, home) in ["us", "eu", "us", "eu", "us"].into_iter().enumerate() {
        let both = async |node: &Node| move_to(node, "topics/news", home).await;
        let (_, _, id) = tokio::join!(both(&eu), both(&us), eu.publish("topic:news", "1"));
        assert_eq!(regions.home("topic:news").await, Some(format!("{} {home}", round + 2)));
        assert_eq!(listening.event().await.id, id);
        expected.push(id);
    }
    // And two that want different things: one is first, the other follows.
    tokio::join!(move_to(&eu, "topics/news", "eu"), move_to(&us, "topics/news", "us"));
    assert_eq!(ids(&us, "topic:news").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_completes_the_moves_that_are_under_way_first() {
    let regions = Regions::start();
    let retention = ("WHIMBREL_RETENTION", "*=100000/86400");
    let at_once = [("WHIMBREL_DRAIN_DELAY_SECONDS", "0"), ("WHIMBREL_DRAIN_SECONDS", "0")];
    let [eu, us] = regions.nodes(&[retention, at_once[0], at_once[1]]);
    let mut expected = Vec::new();
    for part in 0..20 {
        expected.extend(eu.publish_all("topic:news", part * 300..(part + 1) * 300).await);
    }
    let mut asked = Http::connect(us.address()).await;
    asked.request("PUT", "/v1/topics/news/region", &[], br#"{"region":"us"}"#).await;
    let begun = async || (!regions.keys(1, "topic:news").await.is_empty()).then_some(());
    eventually("the move has begun", begun).await;
    // Whoever asked for it does not wait.
    drop(asked);
    us.signal(Signal::TERM);
    assert!(us.ended().await.success());
    assert_eq!(regions.home("topic:news").await.as_deref(), Some("2 us"), "{}", us.log());
    assert_eq!(regions.keys(0, "topic:news").await, ["whimbrel:{topic:news}:meta"], "nothing is left where it was");
    expected.push(eu.publish("topic:news", "1").await);
    let mut late = Wanted::new(Transport::Sse, &["topic:news"]).after("earliest").connect(&eu).await;
    for id in &expected {
        assert_eq!(&late.event().await.id, id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_moves_a_long_stream_is_followed_by_another() {
    let regions = Regions::start();
    let eu = regions.node("eu", &[("WHIMBREL_RETENTION", "*=100000/86400")]);
    for (round, delay) in [10, 40, 120].into_iter().enumerate() {
        let stream = format!("topic:{round}");
        let mut expected = Vec::new();
        for part in 0..20 {
            expected.extend(eu.publish_all(&stream, part * 300..(part + 1) * 300).await);
        }
        let mover = regions.node("us", &[("WHIMBREL_RETENTION", "*=100000/86400")]);
        let mut listening = Wanted::new(Transport::WebSocket, &[&stream]).connect(&eu).await;
        let path = format!("/v1/topics/{round}/region");
        let moving = mover.call("PUT", &path, &[], r#"{"region":"us"}"#);
        // However far it comes.
        let _ = tokio::time::timeout(Duration::from_millis(delay), moving).await;
        mover.kill();
        let id = eventually("the next publish goes through", async || {
            let answer = publish(&eu, &stream, "1").await;
            (answer.status == 201).then(|| answer.id())
        })
        .await;
        assert_eq!(listening.event().await.id, id);
        expected.push(id);
        move_to(&eu, &format!("topics/{round}"), "us").await;
        let id = eu.publish(&stream, "2").await;
        assert_eq!(listening.event().await.id, id);
        expected.push(id);
        let mut late = Wanted::new(Transport::Sse, &[&stream]).after("earliest").connect(&eu).await;
        for id in &expected {
            assert_eq!(&late.event().await.id, id);
        }
    }
}

/// A region is cut off from the nodes and from movers that have sealed the old home, or copied the rest too.
async fn is_cut_off_behind_the_seal(cut_off: usize) {
    const SEALED: [usize; 2] = [4, 5];
    let regions = Regions::start();
    let nodes = regions.nodes(&[]);
    let yard = Yard::behind_the_proxies(&regions).await;
    let [near, far] = ["topic:near", "topic:far"];
    nodes[0].publish(near, "0").await;
    nodes[1].publish(far, "0").await;
    let (mut migrations, mut streams) = (Vec::new(), Vec::new());
    for steps in SEALED {
        let stream = format!("device:{steps}");
        let expected = nodes[0].publish_all(&stream, 0..20).await;
        streams.push((stream, expected, Vec::new()));
    }
    for node in &nodes {
        // The topics as well; once somebody listens, the lifecycle topic has a home too.
        knows(node, 4).await;
    }
    for node in &nodes {
        for (stream, _, listening) in &mut streams {
            listening.push(Wanted::new(Transport::WebSocket, &[stream]).after("earliest").connect(node).await);
        }
    }
    for (steps, (stream, ..)) in SEALED.into_iter().zip(&streams) {
        migrations.push(yard.migration(stream, steps).await);
    }
    regions.links[cut_off].refuse(true);
    regions.links[cut_off].cut(Cut::Reset);
    for migration in migrations {
        assert!(migration.run().await.is_err());
    }
    let others = [near, far][1 - cut_off];
    for (stream, ..) in &streams {
        for node in &nodes {
            let refused = eventually("publishes are answered that nothing was stored", async || {
                let answer = publish(node, stream, "1000").await;
                assert_ne!(answer.status, 201, "between its homes a stream takes nothing");
                (answer.status == 503).then_some(answer)
            })
            .await;
            assert!(refused.headers.iter().any(|(name, _)| name == "retry-after"), "{refused:?}");
            // Everything else goes on.
            node.publish(others, "1").await;
        }
    }
    regions.links[cut_off].heal();
    for (stream, expected, listening) in &mut streams {
        for node in &nodes {
            let id = eventually("the next touches complete the move", async || {
                let answer = publish(node, stream, "1").await;
                (answer.status == 201).then(|| answer.id())
            })
            .await;
            expected.push(id);
        }
        for client in listening {
            for id in &*expected {
                assert_eq!(&client.event().await.id, id, "{stream}");
            }
        }
        assert_eq!(ids(&nodes[1], stream).await, *expected);
        expected.extend(touch(&regions, &nodes, stream).await);
        assert_eq!(ids(&nodes[0], stream).await, *expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_behind_the_seal_of_a_move_away_from_it_costs_a_wait_and_nothing_else() {
    is_cut_off_behind_the_seal(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_behind_the_seal_of_a_move_to_it_costs_a_wait_and_nothing_else() {
    is_cut_off_behind_the_seal(1).await;
}
