//! What only the Redis store has to stand: a server that forgets scripts, drops connections, goes away.

use std::time::Duration;

use redis::AsyncCommands;
use whimbrel::model::{Draft, EventId, NodeId, Route, Start, StreamName};
use whimbrel::store::redis::{ConnectError, Inspection, RedisStore, survey};
use whimbrel::store::{
    Channels, Checkpoint, DueSync, EventLog, JobKind, Liveness, NodeInfo, RetentionRules, Store, StoreError,
};

use crate::conformance::{connect, draft, ids, route, stream, sync_each};
use crate::support::redis::{RedisServer, config};
use crate::support::{eventually, in_time};

#[tokio::test]
async fn a_server_that_lost_the_scripts_gets_them_again() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let (stream, node) = (stream("topic:news"), NodeId::random());
    let mut raw = server.raw().await;
    let mut found = Vec::new();
    for _ in 0..3 {
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut raw).await.unwrap();
        let batch = vec![(stream.clone(), draft("1")); 5];
        found.extend(store.publish_all(&batch).await.into_iter().map(|answer| answer.unwrap().id));
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut raw).await.unwrap();
        store.sync(&stream, &route(&node, 1), None).await.unwrap();
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut raw).await.unwrap();
        store.read(&stream, Start::Earliest, 1).await.unwrap();
    }
    assert_eq!(ids(&store.read(&stream, Start::Earliest, 100).await.unwrap()), found);
}

#[tokio::test]
async fn connections_that_are_cut_come_back() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let mut raw = server.raw().await;
    for n in 0..20 {
        let stream = stream(&format!("device:{n}"));
        store.publish(&stream, &draft("1")).await.unwrap();
        store.read(&stream, Start::Earliest, 1).await.unwrap();
        if n % 5 == 0 {
            let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
            redis::cmd("CLIENT").arg(&kill).exec_async(&mut raw).await.unwrap();
        }
        for n in 0..8 {
            let stream = self::stream(&format!("topic:{n}"));
            eventually("a publish after the cut", || async { store.publish(&stream, &draft("1")).await.ok() }).await;
        }
    }
}

#[tokio::test]
async fn a_subscription_that_loses_its_connection_ends() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let mut subscription = store.subscribe(&NodeId::random()).await.unwrap();
    let kill = ["KILL", "TYPE", "pubsub"];
    redis::cmd("CLIENT").arg(&kill).exec_async(&mut server.raw().await).await.unwrap();
    assert_eq!(in_time("the end of the subscription", subscription.next(10)).await, None);
}

#[tokio::test]
async fn without_a_server_everything_fails_soon_and_goes_on_when_it_is_back() {
    let mut server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let (stream, node) = (stream("device:1"), NodeId::random());
    let mut subscription = store.subscribe(&node).await.unwrap();
    let before = store.publish(&stream, &draft("1")).await.unwrap().id;
    server.kill();
    assert_eq!(in_time("the end of the subscription", subscription.next(10)).await, None);
    // What was on its way when the server died has an unknown outcome; afterwards nothing is even sent.
    eventually("the loss is noticed", || async {
        matches!(store.publish(&stream, &draft("1")).await, Err(StoreError::Unavailable(_))).then_some(())
    })
    .await;
    let unavailable = |outcome: Result<(), StoreError>| assert!(matches!(outcome, Err(StoreError::Unavailable(_))));
    let refused = tokio::time::timeout(Duration::from_secs(10), async {
        unavailable(store.publish(&stream, &draft("1")).await.map(drop));
        unavailable(store.publish_all(&[(stream.clone(), draft("1"))]).await.remove(0).map(drop));
        unavailable(store.sync(&stream, &route(&node, 1), None).await.map(drop));
        unavailable(store.sync(&stream, &route(&node, 1), Some(before)).await.map(drop));
        unavailable(store.recover(&stream, before, before, &[]).await.map(drop));
        unavailable(store.detach(&stream, &node, None).await);
        unavailable(store.read(&stream, Start::Earliest, 1).await.map(drop));
        unavailable(store.subscribe(&node).await.map(drop));
        unavailable(store.beat(&node).await);
        unavailable(store.nodes().await.map(drop));
    });
    refused.await.expect("nothing waits for long for a server that is away");
    server.revive();
    let id = eventually("the store is back", || async { store.publish(&stream, &draft("1")).await.ok() }).await.id;
    let page = store.read(&stream, Start::Earliest, 10).await.unwrap();
    assert_eq!(ids(&page), [id]);
    assert!(page.epoch > before);
}

#[tokio::test]
async fn a_server_that_is_silent_leaves_the_outcome_unknown() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let stream = stream("device:1");
    store.publish(&stream, &draft("1")).await.unwrap();
    let pause = ["PAUSE", "7000", "ALL"];
    redis::cmd("CLIENT").arg(&pause).exec_async(&mut server.raw().await).await.unwrap();
    let outcome = in_time("the outcome", store.publish(&stream, &draft("2"))).await;
    assert!(matches!(outcome, Err(StoreError::Unknown(_))), "{outcome:?}");
    eventually("the store is back", || async { store.publish(&stream, &draft("3")).await.ok() }).await;
}

#[tokio::test]
async fn a_full_server_refuses_publishes_and_keeps_connections() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let (stream, node) = (stream("device:1"), NodeId::random());
    store.register(&node, &NodeInfo::default(), Duration::from_secs(60)).await.unwrap();
    let attached = store.sync(&stream, &route(&node, 1), None).await.unwrap();
    let mut raw = server.raw().await;
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec_async(&mut raw).await.unwrap();
    assert!(matches!(store.publish(&stream, &draft("1")).await, Err(StoreError::Full(_))));
    let page = store.sync(&stream, &route(&node, 1), Some(attached.last)).await.unwrap();
    assert_eq!(page.last, attached.last);
    store.renew(&node, Duration::from_secs(60)).await.unwrap();
    store.detach(&stream, &node, Some(1)).await.unwrap();
}

#[tokio::test]
async fn a_replica_is_unavailable() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let stream = stream("device:1");
    store.publish(&stream, &draft("1")).await.unwrap();
    let mut raw = server.raw().await;
    redis::cmd("REPLICAOF").arg(&["127.0.0.1", "1"]).exec_async(&mut raw).await.unwrap();
    let outcome = store.publish(&stream, &draft("2")).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec_async(&mut raw).await.unwrap();
    eventually("it is a master again", || async { store.publish(&stream, &draft("3")).await.ok() }).await;
    let page = store.read(&stream, Start::Earliest, 10).await.unwrap();
    assert_eq!(page.events.iter().map(|event| &event.data[..]).collect::<Vec<_>>(), [b"1", b"3"]);
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_with_that_reason() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let outcome =
        RedisStore::connect(&config(&server.url()), "whimbrel", RetentionRules::default(), Duration::ZERO).await;
    assert_eq!(outcome.err(), Some(ConnectError::Eviction("allkeys-lru".to_owned())));
}

async fn inspect(url: &str) -> Inspection {
    let (_, inspection) = survey(&config(url)).await.unwrap().servers.pop().unwrap();
    inspection.unwrap()
}

#[tokio::test]
async fn an_inspection_shows_how_the_server_is_set_up_and_a_blocked_config_is_fine() {
    let server = RedisServer::start();
    let found = inspect(&server.url()).await;
    assert!(found.version.as_ref().unwrap().starts_with(char::is_numeric));
    assert_eq!((found.append_only, found.snapshots.as_deref()), (Some(false), Some("")));
    assert_eq!((found.eviction.as_deref(), found.stream_node_bytes), (Some("noeviction"), Some(512)));
    let mut raw = server.raw().await;
    let user = ["SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config"];
    redis::cmd("ACL").arg(&user).exec_async(&mut raw).await.unwrap();
    let url = format!("redis://app:secret@{}/", server.address());
    let rules = RetentionRules::default();
    RedisStore::connect(&config(&url), "whimbrel", rules, Duration::ZERO).await.map(drop).unwrap();
    let found = inspect(&url).await;
    assert_eq!((found.snapshots, found.stream_node_bytes), (None, None));
    assert_eq!(found.eviction.as_deref(), Some("noeviction"));
}

#[tokio::test]
async fn every_key_of_a_stream_ends_by_itself() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let (idle, busy, node) = (stream("device:idle"), stream("device:busy"), NodeId::random());
    store.sync(&idle, &route(&node, 1), None).await.unwrap();
    store.publish(&busy, &whimbrel::model::Draft { key: Some("k".to_owned()), ..draft("1") }).await.unwrap();
    let mut raw = server.raw().await;
    let keys: Vec<String> = raw.keys("whimbrel:{device:*").await.unwrap();
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in keys {
        let left: i64 = raw.ttl(&key).await.unwrap();
        assert!(left > 0, "{key}");
    }
}

#[tokio::test]
async fn a_nodes_streams_are_noted_from_attach_to_detach() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let (stream, node) = (stream("device:1"), NodeId::random());
    let mut raw = server.raw().await;
    let key = format!("whimbrel:{{node:{node}}}:streams");
    let mut noted = async || raw.smembers::<_, Vec<String>>(&key).await.unwrap();
    store.register(&node, &NodeInfo::default(), Duration::from_secs(60)).await.unwrap();
    store.sync(&stream, &route(&node, 2), None).await.unwrap();
    assert_eq!(noted().await, ["device:1"]);
    store.detach(&stream, &node, Some(1)).await.unwrap();
    assert_eq!(noted().await, ["device:1"]);
    store.detach(&stream, &node, Some(2)).await.unwrap();
    assert!(noted().await.is_empty());
}

#[tokio::test]
async fn an_entry_that_the_program_did_not_write_is_delivered_as_well_as_can_be() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let stream = stream("device:1");
    let first = store.publish(&stream, &draft("1")).await.unwrap().id;
    let mut raw = server.raw().await;
    let foreign = EventId::new(first.ms, first.seq + 1);
    let entry = ["x", "y", "t", "no such type", "d", "2"];
    redis::cmd("XADD")
        .arg("whimbrel:{device:1}:events")
        .arg(foreign.to_string())
        .arg(&entry)
        .exec_async(&mut raw)
        .await
        .unwrap();
    let page = store.read(&stream, Start::After(first), 10).await.unwrap();
    assert_eq!((ids(&page), page.events[0].prev), (vec![foreign], EventId::ZERO));
    assert_eq!(&page.events[0].data[..], b"2");
}

#[tokio::test]
async fn a_short_route_does_not_shorten_anothers() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let (stream, long, short) = (stream("device:1"), NodeId::random(), NodeId::random());
    store.sync(&stream, &route(&long, 1), None).await.unwrap();
    let brief = Route { ttl: Duration::from_millis(50), ..route(&short, 1) };
    store.sync(&stream, &brief, None).await.unwrap();
    let left: i64 = server.raw().await.ttl("whimbrel:{device:1}:nodes").await.unwrap();
    assert!(left > 60);
}

#[tokio::test]
async fn a_turn_is_one_nodes_until_it_lapses_or_is_given_back() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let (leaders, stream, one, other) = (store.leaders(), StreamName::lifecycle(), NodeId::random(), NodeId::random());
    let id = store.publish(&stream, &draft("1")).await.unwrap().id;
    let (hour, moment) = (Duration::from_secs(3600), Duration::from_millis(1));
    for job in [JobKind::Ingress, JobKind::Webhook] {
        assert!(leaders.acquire(job, &one, hour).await.unwrap() && !leaders.acquire(job, &other, hour).await.unwrap());
        leaders.resign(job, &other).await.unwrap();
        assert!(!leaders.acquire(job, &other, hour).await.unwrap(), "one can't give back another's leadership");
        leaders.resign(job, &one).await.unwrap();
        assert!(
            leaders.acquire(job, &other, hour).await.unwrap() && leaders.acquire(job, &other, moment).await.unwrap()
        );
        eventually("the leadership lapses", async || leaders.acquire(job, &one, hour).await.unwrap().then_some(()))
            .await;
    }
    // Whoever lost the leadership can't say any more how far it got.
    assert_eq!(leaders.advance(&stream, &other, None, Checkpoint::at(id)).await, Ok(false));
    assert_eq!(leaders.advance(&stream, &one, None, Checkpoint::at(id)).await, Ok(true));
}

#[tokio::test]
async fn a_log_lives_its_time_from_its_newest_event_on_also_when_it_begins_anew_or_its_time_is_prolonged() {
    let server = RedisServer::start();
    let rules = |seconds: u32| format!("*=1000/{seconds}").parse::<RetentionRules>().unwrap();
    let (short, long) = (connect(&server, rules(3_600)).await, connect(&server, rules(86_400)).await);
    let stream = stream("device:1");
    let lives = async |seconds: i64| {
        let key = |name: &str| format!("whimbrel:{{device:1}}:{name}");
        let mut raw = server.raw().await;
        let events: i64 = raw.pttl(key("events")).await.unwrap();
        let collapse: i64 = raw.pttl(key("collapse")).await.unwrap();
        let meta: i64 = raw.pttl(key("meta")).await.unwrap();
        // Each publish above was at most a minute ago.
        assert!(events > (seconds - 60) * 1000 && events <= (seconds + 60) * 1000, "{events} of {seconds}");
        assert!(collapse == -2 || collapse >= events - 1000, "{collapse} of {events}");
        assert!(meta > events, "{meta} of {events}");
    };
    let grouped = Draft { collapse: Some("a".into()), ..draft("1") };
    for store in [&short, &long] {
        let seconds = if std::ptr::eq(store, &short) { 3_600 } else { 86_400 };
        for event in [draft("1"), draft("2"), grouped.clone(), draft("3")] {
            store.publish(&stream, &event).await.unwrap();
            lives(seconds).await;
        }
    }
    long.erase(&stream).await.unwrap();
    for event in [draft("1"), grouped, draft("2")] {
        long.publish(&stream, &event).await.unwrap();
        lives(86_400).await;
    }
}

/// Streams that a node follows, as they are when their next sync is due.
async fn followed(store: &RedisStore, count: usize) -> Vec<DueSync> {
    let node = NodeId::random();
    let mut due = Vec::new();
    for n in 0..count {
        let stream = stream(&format!("device:{n}"));
        let attached = store.sync(&stream, &route(&node, 1), None).await.unwrap();
        due.push((stream, Route { noted: true, ..route(&node, 1) }, Some(attached.last)));
    }
    due
}

#[tokio::test]
async fn streams_synced_together_share_their_round_trips() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let due = followed(&store, 64).await;
    let mut raw = server.raw().await;
    let mut figure = async |section: &str, name: &str| -> u64 {
        let info: String = redis::cmd("INFO").arg(section).query_async(&mut raw).await.unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split([',', '\r']).next().unwrap().parse().unwrap()
    };
    let before =
        (figure("commandstats", "cmdstat_evalsha:calls=").await, figure("stats", "total_reads_processed:").await);
    let answers = sync_each(&store, &due).await;
    let after =
        (figure("stats", "total_reads_processed:").await, figure("commandstats", "cmdstat_evalsha:calls=").await);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(after.1 - before.0, 64);
    // One for each connection, and the question itself; some more if the system tears them apart.
    assert!(after.0 - before.1 <= 16, "{} reads", after.0 - before.1);
}

#[tokio::test]
async fn a_stream_that_the_server_refuses_to_sync_fails_alone() {
    let server = RedisServer::start();
    let store = connect(&server, RetentionRules::default()).await;
    let due = followed(&store, 20).await;
    let mut raw = server.raw().await;
    let _: () = raw.set("whimbrel:{device:7}:events", "no log").await.unwrap();
    let failed: Vec<_> = sync_each(&store, &due).await.iter().map(Result::is_err).collect();
    let expected: Vec<_> = (0..20).map(|n| n == 7).collect();
    assert_eq!(failed, expected);
}
