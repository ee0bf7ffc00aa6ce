//! What a data directory costs, measured in one run:
//! `cargo test --release --test suite -- --ignored --nocapture data_dir::measured`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use whimbrel::store::memory::{Fsync, MemoryStore};
use whimbrel::store::{EventLog, RetentionRules};

use super::Data;
use crate::conformance::{connect, draft, stream};
use crate::support::redis::RedisServer;

const HISTORY: usize = 1 << 30;
const EVENT: usize = 1000;
const STREAMS: usize = 1000;
/// Events that are published at a time.
const BATCH: usize = 1000;

const HOUR: Duration = Duration::from_secs(3600);
const PUBLISHERS: usize = 64;
const TIME: Duration = Duration::from_secs(5);

fn keep_all() -> RetentionRules {
    "*=10000000/86400".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes 1 GB: cargo test --release --test suite -- --ignored --nocapture data_dir::measured"]
async fn a_start_with_1_gb_of_history() {
    let data = Data::new();
    let open = || MemoryStore::open(keep_all(), HOUR, usize::MAX, data.0.path(), Fsync::EverySecond).unwrap();
    let (store, _) = open();
    let text = format!("\"{}\"", "x".repeat(EVENT - 2));
    for batch in 0..HISTORY / EVENT / BATCH {
        let names = (0..BATCH).map(|n| stream(&format!("topic:{}", (batch * BATCH + n) % STREAMS)));
        let events: Vec<_> = names.map(|name| (name, draft(text.clone()))).collect();
        assert!(store.publish_all(&events).await.iter().all(Result::is_ok));
    }
    drop(store);
    let (_store, restored) = open();
    println!("the store, opened in the process: {restored:?}");
    drop(_store);
    let began = Instant::now();
    let node = data.node(&[("WHIMBREL_RETENTION", "*=10000000/86400"), ("WHIMBREL_EMBEDDED_BYTES", "8000000000")]);
    println!("a node, until it listens: {:?}", began.elapsed());
    assert!(!node.history("topic:7").await.is_empty());
}

/// Publishes a second, with so many at a time, each waiting for its answer.
async fn publishes_a_second<S: EventLog + 'static>(store: Arc<S>) -> usize {
    let mut publishing = JoinSet::new();
    let end = Instant::now() + TIME;
    for number in 0..PUBLISHERS {
        let store = store.clone();
        publishing.spawn(async move {
            let name = stream(&format!("topic:{number}"));
            let draft = draft(format!("\"{}\"", "x".repeat(EVENT - 2)));
            let mut count = 0;
            while Instant::now() < end {
                store.publish(&name, &draft).await.unwrap();
                count += 1;
            }
            count
        });
    }
    publishing.join_all().await.iter().sum::<usize>() / TIME.as_secs() as usize
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a while: cargo test --release --test suite -- --ignored --nocapture data_dir::measured"]
async fn publishes_a_second_by_store() {
    let memory = MemoryStore::new(RetentionRules::default(), HOUR, 1 << 30);
    println!("in memory alone: {} a second", publishes_a_second(Arc::new(memory)).await);
    for fsync in [Fsync::EverySecond, Fsync::Always] {
        let data = Data::new();
        let (store, _) = MemoryStore::open(RetentionRules::default(), HOUR, 1 << 30, data.0.path(), fsync).unwrap();
        println!("data directory, fsync {fsync}: {} a second", publishes_a_second(Arc::new(store)).await);
        let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", &fsync.to_string()]);
        let store = connect(&redis, RetentionRules::default()).await;
        println!("Redis, appendfsync {fsync}: {} a second", publishes_a_second(Arc::new(store)).await);
    }
}
