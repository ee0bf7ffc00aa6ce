//! What all listeners of a process count together.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::clock;

/// Locks that listeners share, so that threads seldom wait for each other.
const SHARDS: usize = 8;

/// Latencies, or times to catch up, in microseconds, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are sound")
}

/// Counts of events as they come in.
pub struct Stats {
    shards: Vec<Mutex<Counts>>,
    ended: AtomicU64,
}

struct Counts {
    received: u64,
    reads: u64,
    bytes: u64,
    last_at: u64,
    latency: Histogram<u64>,
}

/// What a stats held, in a form that goes from process to process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Events.
    pub received: u64,
    /// Reads from sockets that brought events.
    pub reads: u64,
    /// Bytes that they brought.
    pub bytes: u64,
    /// Connections that ended without being asked to, since the run began.
    pub ended: u64,
    /// When the last event came, by the run's clock.
    pub last_at: u64,
    /// Microseconds from due to received, and how many events took so long.
    pub latency: Vec<(u64, u64)>,
}

impl Stats {
    pub fn new() -> Self {
        let counts = || Counts { received: 0, reads: 0, bytes: 0, last_at: 0, latency: histogram() };
        Stats { shards: (0..SHARDS).map(|_| Mutex::new(counts())).collect(), ended: AtomicU64::new(0) }
    }

    /// One read of listener `number` brought events that were due at these times.
    pub fn took(&self, number: usize, due_times: &[u64], bytes: usize) {
        let now = clock::now();
        let mut counts = self.shards[number % SHARDS].lock();
        counts.received += due_times.len() as u64;
        counts.reads += 1;
        counts.bytes += bytes as u64;
        counts.last_at = now;
        for due in due_times {
            counts.latency.saturating_record(now.saturating_sub(*due).max(1));
        }
    }

    /// A connection ended that nobody had asked to.
    pub fn lost(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Events so far.
    pub fn received(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().received).sum()
    }

    /// Counts from nought again, but for lost connections.
    pub fn reset(&self) {
        for shard in &self.shards {
            let mut counts = shard.lock();
            (counts.received, counts.reads, counts.bytes) = (0, 0, 0);
            counts.latency.reset();
        }
    }

    pub fn figures(&self) -> Figures {
        let mut figures = Figures { ended: self.ended.load(Ordering::Relaxed), ..Figures::default() };
        let mut latency = histogram();
        for shard in &self.shards {
            let counts = shard.lock();
            figures.received += counts.received;
            figures.reads += counts.reads;
            figures.bytes += counts.bytes;
            figures.last_at = figures.last_at.max(counts.last_at);
            latency.add(&counts.latency).expect("both have the same bounds");
        }
        figures.latency = flat(&latency);
        figures
    }
}

/// A histogram as pairs of value and count.
pub fn flat(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// The histogram that such pairs came from, or several together.
pub fn joined<'a>(pairs: impl IntoIterator<Item = &'a (u64, u64)>) -> Histogram<u64> {
    let mut histogram = histogram();
    for (value, count) in pairs {
        histogram.saturating_record_n(*value, *count);
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_several_processes_add_up() {
        let stats = Stats::new();
        for number in 0..100 {
            stats.took(number, &[clock::now() - 5_000, clock::now() - 50_000], 300);
        }
        let figures = stats.figures();
        assert_eq!((figures.received, figures.reads, figures.bytes), (200, 100, 30_000));
        let both = joined(figures.latency.iter().chain(&figures.latency));
        assert_eq!(both.len(), 400);
        assert!((5_000..40_000).contains(&both.value_at_quantile(0.25)), "{}", both.value_at_quantile(0.25));
        assert!(both.max() >= 49_900);
        stats.reset();
        assert_eq!((stats.received(), stats.figures().latency.len()), (0, 0));
    }
}
