//! Page reads that are shared: a reconnect storm must not become a read storm.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use crate::directory;
use crate::metrics::Metrics;
use crate::model::{EventId, Page, Start, StreamName};
use crate::store::{PAGE_EVENTS, Store, StoreClock, StoreError};

/// How long a page serves other requests for the same position. Clients of one outage come back within
/// about this time, and what a page lacks by then is at the live end.
const SHARED_FOR: Duration = Duration::from_millis(200);

/// Most pages kept at once. With the page limit of 256 KiB this bounds them to 32 MiB, and to far less
/// with events of ordinary size.
const MAX_SHARED: usize = 128;

/// Pages that are read at once from one region. However many clients come back at places of their own, they wait in
/// order, and what is read for them does not pile up. A region that does not answer keeps its own clients waiting.
const MAX_READS: usize = 8;

type Key = (StreamName, EventId);
type Read = Result<Arc<Page>, StoreError>;
type Slot = Arc<OnceCell<Read>>;

/// Reads pages for temporary dispatchers, one read for all clients at the same position of a stream.
pub struct Pages {
    store: Arc<dyn Store>,
    clock: Arc<StoreClock>,
    metrics: Arc<Metrics>,
    shared: Mutex<Shared>,
    /// One for each region, by its number.
    reads: Vec<Semaphore>,
}

#[derive(Default)]
struct Shared {
    pages: HashMap<Key, (Instant, Slot)>,
    /// Keys by age, oldest first.
    order: VecDeque<(Instant, Key)>,
}

impl Pages {
    /// Pages out of `store`; each sets `clock` right.
    pub fn new(store: Arc<dyn Store>, clock: Arc<StoreClock>, metrics: Arc<Metrics>) -> Self {
        let reads = (0..directory::count_of(&*store)).map(|_| Semaphore::new(MAX_READS)).collect();
        Pages { store, clock, metrics, shared: Mutex::default(), reads }
    }

    /// The page after `position`, at most a moment old; `fresh` when the last one brought nothing. A failure
    /// is shared too: were each to try for itself, they would wait for the store one after another.
    pub async fn after(&self, stream: &StreamName, position: EventId, fresh: bool) -> Read {
        self.shared((stream.clone(), position), fresh, self.store.read(stream, Start::After(position), PAGE_EVENTS))
            .await
    }

    async fn shared(&self, key: Key, fresh: bool, read: impl Future<Output = Result<Page, StoreError>>) -> Read {
        let slot = self.shared.lock().slot(key.clone(), Instant::now(), fresh);
        let page = slot.get_or_init(async || {
            let reads = &self.reads[directory::region_of(&*self.store, &key.0)];
            let _permit = reads.acquire().await.expect("the semaphore is never closed");
            self.metrics.page_reads.inc();
            let page = read.await?;
            self.clock.read(page.now_ms);
            Ok(Arc::new(page))
        });
        let page = page.await;
        if page.is_err() {
            self.shared.lock().forget_failed(&key, &slot);
        }
        page.clone()
    }

    /// Forgets pages that are too old to be shared.
    pub fn forget_old(&self) {
        self.shared.lock().forget(Instant::now(), MAX_SHARED);
    }
}

impl Shared {
    fn slot(&mut self, key: Key, now: Instant, fresh: bool) -> Slot {
        if let Some((since, slot)) = self.pages.get(&key)
            && !fresh
            && now.duration_since(*since) < SHARED_FOR
        {
            return slot.clone();
        }
        let slot = Slot::default();
        self.pages.insert(key.clone(), (now, slot.clone()));
        self.order.push_back((now, key));
        self.forget(now, MAX_SHARED);
        slot
    }

    /// The next request has it tried again.
    fn forget_failed(&mut self, key: &Key, slot: &Slot) {
        if self.pages.get(key).is_some_and(|(_, known)| Arc::ptr_eq(known, slot)) {
            self.pages.remove(key);
        }
    }

    fn forget(&mut self, now: Instant, keep: usize) {
        while let Some((since, key)) = self.order.front() {
            if now.duration_since(*since) < SHARED_FOR && self.order.len() <= keep {
                break;
            }
            // A newer read of the same key has its own place in the order.
            if self.pages.get(key).is_some_and(|(page_since, _)| page_since == since) {
                self.pages.remove(key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    fn key(n: u64) -> Key {
        ("topic:a".parse().unwrap(), EventId::new(n, 0))
    }

    #[test]
    fn one_read_serves_all_at_the_same_position_for_a_moment() {
        let mut shared = Shared::default();
        let start = Instant::now();
        let first = shared.slot(key(1), start, false);
        assert!(Arc::ptr_eq(&first, &shared.slot(key(1), start + SHARED_FOR / 2, false)));
        assert!(!Arc::ptr_eq(&first, &shared.slot(key(2), start, false)));
        assert!(!Arc::ptr_eq(&first, &shared.slot(key(1), start + SHARED_FOR, false)));
    }

    fn pages() -> Pages {
        let rules = crate::store::RetentionRules::default();
        Pages::new(
            Arc::new(crate::store::memory::MemoryStore::new(rules, SHARED_FOR, 1 << 20)),
            Arc::default(),
            Metrics::new(),
        )
    }

    #[tokio::test]
    async fn all_who_wait_for_a_page_share_its_failure_and_whoever_asks_afterwards_has_it_read_again() {
        let pages = pages();
        let away = async || Err(StoreError::Unavailable("away".into()));
        let slow = pages.shared(key(1), false, async {
            tokio::task::yield_now().await;
            away().await
        });
        let waiting = join_all((0..100).map(|_| pages.shared(key(1), false, away())));
        let (first, others) = tokio::join!(slow, waiting);
        assert!(first.is_err() && others.iter().all(Result::is_err));
        assert_eq!(pages.metrics.page_reads.get(), 1);
        assert!(pages.shared(key(1), false, away()).await.is_err());
        assert_eq!(pages.metrics.page_reads.get(), 2);
    }

    #[tokio::test]
    async fn few_pages_are_read_at_once_however_many_are_wanted() {
        let pages = pages();
        let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let reads = (0..100).map(|n| {
            pages.shared(key(n), false, async {
                most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                under_way.fetch_sub(1, Ordering::Relaxed);
                Err(StoreError::Unavailable("away".into()))
            })
        });
        join_all(reads).await;
        assert_eq!((most.into_inner(), pages.metrics.page_reads.get()), (MAX_READS, 100));
    }

    #[test]
    fn a_fresh_page_replaces_the_shared_one() {
        let mut shared = Shared::default();
        let start = Instant::now();
        let first = shared.slot(key(1), start, false);
        assert!(!Arc::ptr_eq(&first, &shared.slot(key(1), start, true)));
    }

    #[test]
    fn pages_are_bounded_and_forgotten() {
        let mut shared = Shared::default();
        let start = Instant::now();
        for n in 0..1000 {
            shared.slot(key(n), start, n % 2 == 0);
        }
        assert_eq!((shared.pages.len(), shared.order.len()), (MAX_SHARED, MAX_SHARED));
        shared.forget(start + SHARED_FOR, MAX_SHARED);
        assert_eq!((shared.pages.len(), shared.order.len()), (0, 0));
    }
}
