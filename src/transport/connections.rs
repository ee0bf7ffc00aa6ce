//! All connections of a node: how many there may be, their pings, and letting them go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::expiry::Expiries;
use super::{CloseReason, Connection};
use crate::access::Grant;
use crate::access::throttle::AddressPermit;
use crate::dispatch::{Registry, Sink as _};
use crate::presence::{ConnectionIndex, Follower, Followers, RenewError, Renewed, Wanted};

/// Connections are spread over so many buckets, and one bucket is pinged at a time, so that pings are a
/// steady trickle and one timer serves them all.
const BUCKETS: usize = 64;

/// Pings, which are writes, between which others have their turn.
const PINGS_AT_ONCE: usize = 32;

/// Clients whose connections are closed within less than this get longer delays before they reconnect.
const SPREAD: Duration = Duration::from_secs(1);

type Bucket = Mutex<HashMap<u64, Arc<Connection>>>;

/// All connections of a node.
pub struct Connections {
    buckets: [Bucket; BUCKETS],
    next_number: AtomicU64,
    admitted: Arc<AtomicUsize>,
    limit: usize,
    /// When grants end.
    pub(super) expiries: Expiries,
}

/// A connection's place among those that the node may have.
pub struct Permit {
    admitted: Arc<AtomicUsize>,
    /// Its place among those of its address, where these are limited.
    _address: Option<AddressPermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// Room for `limit` connections.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Connections {
            buckets: std::array::from_fn(|_| Mutex::default()),
            next_number: AtomicU64::new(0),
            admitted: Arc::default(),
            limit,
            expiries: Expiries::default(),
        })
    }

    /// A place for one more, if there is one.
    pub fn admit(&self, address: Option<AddressPermit>) -> Option<Permit> {
        self.admitted
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < self.limit).then_some(count + 1))
            .ok()
            .map(|_| Permit { admitted: self.admitted.clone(), _address: address })
    }

    /// Connections that are open or being set up.
    pub fn count(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn insert(&self, connection: Arc<Connection>) {
        self.bucket(connection.number()).lock().insert(connection.number(), connection);
    }

    pub(super) fn remove(&self, number: u64) {
        let mut bucket = self.bucket(number).lock();
        bucket.remove(&number);
        if bucket.is_empty() {
            bucket.shrink_to_fit();
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Connection>> {
        self.bucket(number).lock().get(&number).cloned()
    }

    /// All that are there, a bucket at a time.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Connection>> {
        self.buckets.iter().flat_map(|bucket| bucket.lock().values().cloned().collect::<Vec<_>>())
    }

    fn bucket(&self, number: u64) -> &Bucket {
        &self.buckets[number as usize % BUCKETS]
    }

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

    /// Closes all connections, spread over `time`, each with a delay of its own before it reconnects: a short one where
    /// they are spread already.
    pub async fn drain(&self, time: Duration) {
        let retry = || if time < SPREAD { retry_ms() } else { rand::rng().random_range(100..1000) };
        let all: Vec<_> = self.all().collect();
        let start = Instant::now();
        let count = all.len().max(1) as f64;
        for (done, connection) in all.into_iter().enumerate() {
            let due = start + time.mul_f64(done as f64 / count);
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            connection.close(CloseReason::Drain, retry());
        }
    }

    /// Waits until no connection is left.
    pub async fn wait_until_empty(&self) {
        while self.count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl ConnectionIndex for Connections {
    fn renew(&self, connection: Uuid, grant: Arc<Grant>, registry: &Registry) -> Renewed {
        let connection = self.known_as(connection).ok_or(RenewError::Missing)?;
        self.renew_connection(&connection, grant, registry)
    }

    fn count(&self) -> usize {
        Connections::count(self)
    }

    fn followers(&self, wanted: &Wanted) -> Followers {
        let (mut count, mut some) = (0, BTreeMap::new());
        for bucket in &self.buckets {
            let connections: Vec<_> = bucket.lock().values().cloned().collect();
            for connection in connections.iter().filter(|connection| connection.follows(&wanted.topic)) {
                count += 1;
                let id = connection.id();
                if wanted.after.is_none_or(|after| id > after) {
                    some.insert(id, connection.clone());
                }
                if some.len() > wanted.limit {
                    some.pop_last();
                }
            }
        }
        let follower = |(id, connection): (Uuid, Arc<Connection>)| Follower {
            id,
            transport: connection.protocol().as_str().to_owned(),
            device: connection.device().map(|device| device.name().to_owned()),
        };
        Followers { count, some: some.into_iter().map(follower).collect() }
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

/// When a client had better come back: soon, but not all together.
pub fn retry_ms() -> u64 {
    rand::rng().random_range(500..2500)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::net::UnixStream;

    use super::*;
    use crate::access::Grant;
    use crate::dispatch::{Registry, RegistrySettings};
    use crate::metrics::Metrics;
    use crate::model::{Encoding, NodeId};
    use crate::store::RetentionRules;
    use crate::store::memory::MemoryStore;
    use crate::transport::socket::Raw;
    use crate::transport::{Framing, Protocol, Rights, Socket};

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
