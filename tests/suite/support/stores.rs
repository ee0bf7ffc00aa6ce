//! One test, against each store.

use std::time::Duration;

use tempfile::TempDir;
use whimbrel::store::RetentionRules;
use whimbrel::store::memory::{Fsync, MemoryStore};

/// An embedded store that is kept in a directory, which goes with the second part.
pub fn on_disk(rules: RetentionRules, position_time: Duration, max_bytes: usize) -> (MemoryStore, TempDir) {
    let directory = TempDir::new().unwrap();
    let (store, _) = MemoryStore::open(rules, position_time, max_bytes, directory.path(), Fsync::Always).unwrap();
    (store, directory)
}

/// Makes of each test, an `async fn(&impl Store)`, one against the embedded store, with and without a data directory,
/// and one against Redis, each with the default retention.
macro_rules! for_each_store {
    ($($name:ident;)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                let time = std::time::Duration::from_secs(3600);
                let store = whimbrel::store::memory::MemoryStore::new(Default::default(), time, 1 << 24);
                super::$name(&store).await;
            })*
        }
        mod on_disk {
            $(#[tokio::test]
            async fn $name() {
                let time = std::time::Duration::from_secs(3600);
                let (store, _directory) = $crate::support::stores::on_disk(Default::default(), time, 1 << 24);
                super::$name(&store).await;
            })*
        }
        mod redis {
            $(#[tokio::test]
            async fn $name() {
                let server = $crate::support::redis::RedisServer::start();
                super::$name(&$crate::conformance::connect(&server, Default::default()).await).await;
            })*
        }
    };
}
pub(crate) use for_each_store;
