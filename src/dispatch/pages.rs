//! Page reads that are shared: a reconnect storm must not become a read storm.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::metrics::Metrics;
use crate::model::{EventId, Page, Start, StreamName};
use crate::store::{PAGE_EVENTS, Store, StoreClock, StoreError};

/// How long a page serves others who ask for the same position. Clients of one outage come back within
/// about this time, and what a page lacks by then is at the live end.
const SHARED_FOR: Duration = Duration::from_millis(200);

/// Most pages kept at once. With the page limit of 256 KiB this bounds them to 32 MiB, and to far less
/// with events of ordinary size.
const MAX_SHARED: usize = 128;

type Key = (StreamName, EventId);
type Slot = Arc<OnceCell<Arc<Page>>>;

/// Reads pages for temporary dispatchers, one read for all who are at the same position of a stream.
pub struct Pages {
    store: Arc<dyn Store>,
    clock: Arc<StoreClock>,
    metrics: Arc<Metrics>,
    shared: Mutex<Shared>,
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
        Pages { store, clock, metrics, shared: Mutex::default() }
    }

    /// The page after `position`, at most a moment old; `fresh` when the last one brought nothing.
    pub async fn after(&self, stream: &StreamName, position: EventId, fresh: bool) -> Result<Arc<Page>, StoreError> {
        let slot = self.shared.lock().slot((stream.clone(), position), Instant::now(), fresh);
        slot.get_or_try_init(|| async {
            self.metrics.page_reads.inc();
            let page = self.store.read(stream, Start::After(position), PAGE_EVENTS).await?;
            self.clock.read(page.now_ms);
            Ok(Arc::new(page))
        })
        .await
        .cloned()
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
