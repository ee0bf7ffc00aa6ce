//! One test, against each store.

/// Makes of each test, an `async fn(&impl Store)`, one against the embedded store and one against Redis, each with the
/// default retention.
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
