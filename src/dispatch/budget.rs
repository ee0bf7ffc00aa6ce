//! A bound on bytes that many holders share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::weight::Counter;

/// The bytes that all holders of one kind may keep together.
#[derive(Debug)]
pub struct Budget {
    used: Counter,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget { used: Counter::default(), limit })
    }

    /// Bytes held by all.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether more is held than allowed.
    pub fn is_over(&self) -> bool {
        self.used() > self.limit
    }

    /// Whether there is little room left.
    pub fn is_tight(&self) -> bool {
        self.used() > self.limit / 10 * 9
    }

    /// In which values count what they take, as long as they are held.
    pub(super) fn counter(&self) -> &Counter {
        &self.used
    }

    pub(super) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
