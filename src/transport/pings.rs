//! The pings of all connections of a node: a sign of life for each, once an interval.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connections::{BUCKETS, Bucket, Connections};

/// Pings, which are writes, between which others have their turn.
const PINGS_AT_ONCE: usize = 32;

impl Connections {
    /// Pings every connection once an interval; runs until it is dropped.
    pub async fn ping_for_ever(self: Arc<Self>, interval: Duration) {
        let step = interval / BUCKETS as u32;
        let mut ticks = tokio::time::interval_at(Instant::now() + step, step);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Backwards, as numbers count up: a connection of the first moment is pinged about an interval later.
            for bucket in self.buckets.iter().rev() {
                ticks.tick().await;
                ping(bucket).await;
            }
        }
    }
}

/// Pings all connections of a bucket, a few at a time.
async fn ping(bucket: &Bucket) {
    let connections: Vec<_> = bucket.lock().values().cloned().collect();
    for some in connections.chunks(PINGS_AT_ONCE) {
        some.iter().for_each(|connection| connection.ping());
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::net::UnixStream;
    use uuid::Uuid;

    use super::*;
    use crate::access::Grant;
    use crate::dispatch::{Registry, RegistrySettings};
    use crate::metrics::Metrics;
    use crate::model::{Encoding, NodeId};
    use crate::store::RetentionRules;
    use crate::store::memory::MemoryStore;
    use crate::transport::socket::Raw;
    use crate::transport::{Connection, Framing, Protocol, Rights, Socket};

    /// More than are pinged without a pause.
    const MANY: usize = 10 * PINGS_AT_ONCE;

    #[tokio::test]
    async fn others_have_their_turn_while_many_connections_are_pinged() {
        let store = Arc::new(MemoryStore::new(RetentionRules::default(), Duration::from_secs(60), 1 << 20));
        let time = Duration::from_secs(60);
        let settings = RegistrySettings { sync: time, lease: time, ring_bytes: 1 << 20 };
        let registry = Registry::new(store, NodeId::random(), settings, Metrics::new());
        let connections = Connections::new(MANY);
        let mut clients = Vec::new();
        for number in 0..MANY as u64 {
            let (socket, client) = UnixStream::pair().unwrap();
            let protocol =
                Protocol::Sse { encoding: Encoding::Sse, trace: false, heartbeat: false, framing: Framing::Chunked };
            let (id, socket) = (Uuid::new_v4(), Socket::Plain(Raw::Unix(socket)));
            // All in one bucket.
            let number = number * BUCKETS as u64;
            let (rights, streams) = (Rights::new(Grant::open()), Vec::new());
            let connection =
                Connection::new(number, id, protocol, rights, None, None, None, socket, 1000, streams, &registry);
            connections.insert(Arc::new(connection));
            clients.push(client);
        }
        let (done, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let other = {
            let (done, turns) = (done.clone(), turns.clone());
            async move {
                while !done.load(Ordering::Relaxed) {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        };
        let pings = async {
            ping(connections.bucket(0)).await;
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(pings, tokio::spawn(other)).1.unwrap();
        assert!(turns.load(Ordering::Relaxed) >= MANY / PINGS_AT_ONCE, "{turns:?}");
        for client in clients {
            client.readable().await.unwrap();
            let mut ping = [0; 16];
            assert_eq!(client.try_read(&mut ping).unwrap(), 7);
        }
    }
}
