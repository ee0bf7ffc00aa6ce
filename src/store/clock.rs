//! The store's clock, as far as this node knows it.
//!
//! What expires does so on the store's clock. Each page brings what that clock shows; between two pages this
//! node counts on from there with its own, which needs to be right in its pace alone.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use super::{millis, now_ms};

/// For how long a reading stands against lower ones, in milliseconds. An answer that took long to come
/// shows less than the clock does by then, so the highest is the best; but another store may have taken over
/// whose clock is behind.
const HOLDS: u64 = 10_000;

/// The store's clock.
#[derive(Debug)]
pub struct StoreClock {
    start: Instant,
    /// What the store's clock showed at `start`.
    zero_ms: AtomicI64,
    /// When that was found out, in milliseconds since `start`.
    read: AtomicU64,
}

impl Default for StoreClock {
    /// Before anything was read, the node's own clock has to do.
    fn default() -> Self {
        StoreClock { start: Instant::now(), zero_ms: AtomicI64::new(signed(now_ms())), read: AtomicU64::new(0) }
    }
}

impl StoreClock {
    /// What it shows about now, in milliseconds since 1970. Behind the true time, if anything: an event
    /// that is not expired yet is never taken for one that is.
    pub fn now_ms(&self) -> u64 {
        self.at(millis(self.start.elapsed()))
    }

    /// The store has just answered that its clock shows `now_ms`.
    pub fn read(&self, now_ms: u64) {
        self.read_at(now_ms, millis(self.start.elapsed()));
    }

    fn at(&self, elapsed: u64) -> u64 {
        self.zero_ms.load(Ordering::Relaxed).saturating_add(signed(elapsed)).try_into().unwrap_or(0)
    }

    fn read_at(&self, now_ms: u64, elapsed: u64) {
        let zero_ms = signed(now_ms).saturating_sub(signed(elapsed));
        let read = self.read.load(Ordering::Relaxed);
        // Two readings at the same time may overwrite each other; either is as good.
        if read == 0 || zero_ms >= self.zero_ms.load(Ordering::Relaxed) || elapsed.saturating_sub(read) > HOLDS {
            self.zero_ms.store(zero_ms, Ordering::Relaxed);
            self.read.store(elapsed.max(1), Ordering::Relaxed);
        }
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_answer_tells_the_time() {
        let clock = StoreClock::default();
        clock.read_at(1_000_000, 100);
        assert_eq!(clock.at(150), 1_000_050);
        clock.read_at(1_000_060, 200);
        assert_eq!(clock.at(200), 1_000_100, "this answer was on its way for 40 ms longer");
        clock.read_at(1_000_130, 210);
        assert_eq!(clock.at(210), 1_000_130);
    }

    #[test]
    fn a_store_whose_clock_is_behind_is_believed_after_a_while() {
        let clock = StoreClock::default();
        clock.read_at(1_000_000, 100);
        clock.read_at(900_000, 200);
        assert_eq!(clock.at(200), 1_000_100);
        clock.read_at(910_000, 200 + HOLDS);
        assert_eq!(clock.at(200 + HOLDS), 910_000);
    }

    #[test]
    fn a_clock_that_is_far_off_from_this_nodes_is_followed_from_the_first_reading_on() {
        let clock = StoreClock::default();
        clock.read_at(5_000, 10);
        assert_eq!(clock.at(12), 5_002);
    }
}
