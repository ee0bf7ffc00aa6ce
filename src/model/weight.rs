//! What values take in memory, and who counts it: a bound on bytes is to mean resident bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// What an allocation of so many bytes takes, with the allocator's own: the C library's rounds up to 16, and begins at 32.
pub const fn heap(bytes: usize) -> usize {
    let whole = (bytes + 8).next_multiple_of(16);
    if bytes == 0 {
        0
    } else if whole < 32 {
        32
    } else {
        whole
    }
}

/// What shared bytes take beside their handle: the allocation, and the count of who shares it.
pub const fn shared(bytes: usize) -> usize {
    heap(bytes) + 32
}

/// Bytes that several values are counted in.
pub type Counter = Arc<AtomicUsize>;

/// What a value is counted with, in the counter of whoever holds it. One holder counts it, the first.
#[derive(Default)]
pub struct Charge(Mutex<Option<(Counter, usize)>>);

impl Charge {
    /// Counts `bytes`, and what is added later, in a counter, unless another counts it.
    pub fn to(&self, counter: &Counter, bytes: usize) {
        let mut charged = self.0.lock();
        if charged.is_none() {
            counter.fetch_add(bytes, Ordering::Relaxed);
            *charged = Some((counter.clone(), bytes));
        }
    }

    /// The value has grown.
    pub fn add(&self, bytes: usize) {
        if let Some((counter, charged)) = &mut *self.0.lock() {
            counter.fetch_add(bytes, Ordering::Relaxed);
            *charged += bytes;
        }
    }

    /// Takes all that is counted out of a counter, if it is counted there.
    pub fn release(&self, counter: &Counter) {
        let released = self.0.lock().take_if(|(charged, _)| Arc::ptr_eq(charged, counter));
        if let Some((counter, bytes)) = released {
            counter.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// A copy is another value, which nobody counts yet.
impl Clone for Charge {
    fn clone(&self) -> Self {
        Charge::default()
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Charge")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_later_is_released_with_the_rest_by_the_one_who_counts_it() {
        let (charge, first, second) = (Charge::default(), Counter::default(), Counter::default());
        charge.add(5);
        charge.to(&first, 10);
        charge.to(&second, 10);
        charge.add(7);
        let counted = || (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
        assert_eq!(counted(), (17, 0));
        charge.release(&second);
        assert_eq!(counted(), (17, 0));
        charge.release(&first);
        charge.add(3);
        assert_eq!(counted(), (0, 0));
    }
}
