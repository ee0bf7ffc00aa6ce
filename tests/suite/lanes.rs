//! The connections to Redis: what breaks one of them, and what that does to the others and to the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use whimbrel::store::redis::RedisStore;
use whimbrel::store::{EventLog as _, RetentionRules, StoreError};

use crate::conformance::{connect, draft, stream};
use crate::support::node::Node;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::redis::{RedisServer, config};
use crate::support::{eventually, in_time};

const POSITION_TIME: Duration = Duration::from_secs(600);

/// A store behind a proxy.
async fn behind_a_proxy(server: &RedisServer) -> (Arc<RedisStore>, Proxy) {
    let proxy = Proxy::to(server.address());
    let url = format!("redis://{}/", proxy.address());
    let store = RedisStore::connect(&config(&url), "whimbrel", RetentionRules::default(), POSITION_TIME).await;
    (Arc::new(store.unwrap()), proxy)
}

#[tokio::test]
async fn a_node_whose_lanes_can_not_be_opened_keeps_its_lease_and_reports_what_is_wrong() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_LEASE_SECONDS", "1")]);
    let id = node.id().await;
    let mut raw = redis.raw().await;
    // No connection is let in any more; those that are open stay.
    let _: () = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).query_async(&mut raw).await.unwrap();
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut raw).await.unwrap();
    // What nobody has published over yet.
    let lanes = clients.lines().filter(|client| client.contains(" cmd=script|load "));
    let lanes: Vec<_> = lanes.map(|client| client.split([' ', '=']).nth(1).unwrap()).collect();
    assert_eq!(lanes.len(), 4, "{clients}");
    for lane in lanes {
        let _: () = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(lane).query_async(&mut raw).await.unwrap();
    }
    let store = async || node.get("/health/ready").await.json()["store"].clone();
    eventually("the health body names the reason", async || {
        store().await["error"].as_str().is_some_and(|error| error.contains("reached, but refused")).then_some(())
    })
    .await;
    // Several leases long.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!((node.id().await, node.metric("leases_lost_total").await), (id.clone(), 0.0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.call("POST", "/v1/topics/news/events", &[], "1").await.status, 503);
    let _: () = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1000).query_async(&mut raw).await.unwrap();
    eventually("the store is back", async || (store().await["up"] == true).then_some(())).await;
    node.publish("topic:news", "1").await;
    assert_eq!(node.id().await, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_fail_as_soon_as_their_connection_is_broken() {
    let server = RedisServer::start();
    let (store, proxy) = behind_a_proxy(&server).await;
    proxy.set(Direction::Both, Flow::Stall);
    let publish = |wait: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(wait)).await;
            let outcome = store.publish(&stream("topic:news"), &draft("1")).await;
            assert!(matches!(outcome, Err(StoreError::Unknown(_))), "{outcome:?}");
            Instant::now()
        })
    };
    let (first, second) = (publish(0), publish(3));
    let (first, second) = (in_time("the first", first).await.unwrap(), in_time("the second", second).await.unwrap());
    assert!(second < first + Duration::from_secs(1), "{:?} later", second - first);
    proxy.heal();
    eventually("publishes again", async || store.publish(&stream("topic:news"), &draft("1")).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_connection_leaves_a_few_without_an_answer_and_stays() {
    let server = RedisServer::start();
    let (store, proxy) = behind_a_proxy(&server).await;
    let lanes = proxy.connections("LOAD");
    assert_eq!(lanes.len(), 4, "each lane loads the scripts first");
    // About ten seconds' worth of publishes.
    proxy.set(Direction::ToServer, Flow::Slow(40_000));
    let publish = |_| {
        let (store, data) = (store.clone(), format!("\"{}\"", "x".repeat(700)));
        tokio::spawn(async move { store.publish(&stream("topic:news"), &draft(data)).await })
    };
    let waiting: Vec<_> = (0..400).map(publish).collect();
    let mut outcomes = Vec::new();
    for one in waiting {
        outcomes.push(in_time("the answer", one).await.unwrap());
    }
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(refused > 0 && refused < outcomes.len(), "{refused} of {} were refused", outcomes.len());
    let open = proxy.connections("LOAD");
    assert!(lanes.iter().all(|lane| open.iter().any(|still| Arc::ptr_eq(still, lane))), "a lane was torn down");
    proxy.heal();
    store.publish(&stream("topic:news"), &draft("1")).await.unwrap();
}

#[tokio::test]
async fn a_master_without_the_replicas_that_it_must_have_refuses_and_stores_nothing() {
    let server = RedisServer::start_with(&["--min-replicas-to-write", "1"]);
    let store = connect(&server, RetentionRules::default()).await;
    let outcome = store.publish(&stream("topic:news"), &draft("1")).await;
    assert!(matches!(&outcome, Err(StoreError::Unavailable(why)) if why.contains("NOREPLICAS")), "{outcome:?}");
    let keys: usize = redis::cmd("DBSIZE").query_async(&mut server.raw().await).await.unwrap();
    assert_eq!(keys, 0);
}
