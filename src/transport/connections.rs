//! All connections of a node: how many there may be, and letting them go.

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
pub(super) const BUCKETS: usize = 64;

/// Clients whose connections are closed within less than this get longer delays before they reconnect.
const SPREAD: Duration = Duration::from_secs(1);

pub(super) type Bucket = Mutex<HashMap<u64, Arc<Connection>>>;

/// All connections of a node.
pub struct Connections {
    pub(super) buckets: [Bucket; BUCKETS],
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

    pub(super) fn bucket(&self, number: u64) -> &Bucket {
        &self.buckets[number as usize % BUCKETS]
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

/// When a client had better come back: soon, but not all together.
pub fn retry_ms() -> u64 {
    rand::rng().random_range(500..2500)
}
