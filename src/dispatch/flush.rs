//! Writing out what connections took, many at a time and each as seldom as can be.
//!
//! An event of a stream that thousands follow is put into all their outboxes within a moment, but each
//! needs a write of its own, and those take a hundred times as long. Were the writes done by the task that
//! dispatches, the next event would wait until the last of them, and then for a round of its own. So where
//! there are many, tasks write, a few at a time, while newer events are put into the outboxes behind them:
//! a connection whose turn comes later gets them in the same write. Each waits for at most one round,
//! however many events come, and rounds are shared by all cores.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use parking_lot::Mutex;

use super::sink::Sink;

/// So many are written by the caller itself: less work than waking somebody.
const FEW: usize = 64;

/// Sinks that one task writes before it lets others run: about a millisecond.
const TURN: usize = 64;

/// Another task helps when there are more than so many sinks for each.
const EACH: usize = 512;

/// Most tasks that write at once: one for each core.
static MAX_WRITERS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));

/// Sinks that took something and wait to be flushed: several deliveries share one write.
#[derive(Default)]
pub struct Flush(Vec<Arc<dyn Sink>>);

impl Flush {
    /// Remembers `sink` for the flush.
    pub fn add(&mut self, sink: &Arc<dyn Sink>) {
        self.0.push(sink.clone());
    }

    /// Flushes all and forgets them.
    pub fn run(&mut self) {
        for sink in self.0.drain(..) {
            sink.flush();
        }
    }
}

/// Flushes sinks in the order in which they come. It holds no sink twice, because a sink that waits for its
/// flush asks for no other ([`Offer::Taken`](super::Offer::Taken)).
#[derive(Default)]
pub struct Flusher(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    sinks: VecDeque<Arc<dyn Sink>>,
    writers: usize,
}

impl Flusher {
    /// Sees to it that all of `flush` are flushed, and empties it: done on return where they are few.
    pub fn take(self: &Arc<Self>, flush: &mut Flush) {
        if flush.0.len() <= FEW {
            return flush.run();
        }
        let mut waiting = self.0.lock();
        waiting.sinks.extend(flush.0.drain(..));
        let wanted = waiting.sinks.len().div_ceil(EACH).min(*MAX_WRITERS);
        for _ in waiting.writers..wanted {
            tokio::spawn(self.clone().write());
        }
        waiting.writers = waiting.writers.max(wanted);
    }

    async fn write(self: Arc<Self>) {
        let mut turn = Vec::with_capacity(TURN);
        loop {
            {
                let mut waiting = self.0.lock();
                let count = waiting.sinks.len().min(TURN);
                turn.extend(waiting.sinks.drain(..count));
                if turn.is_empty() {
                    waiting.writers -= 1;
                    waiting.sinks.shrink_to_fit();
                    return;
                }
            }
            turn.drain(..).for_each(|sink: Arc<dyn Sink>| sink.flush());
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::dispatch::{Delivery, Offer, Slot};
    use crate::model::StreamName;

    /// A connection of which nothing is of interest but how much it took and what was written of it.
    #[derive(Default)]
    struct Counter(Mutex<Counts>);

    #[derive(Default, Clone, Copy)]
    struct Counts {
        took: u64,
        written: u64,
        writes: u64,
    }

    impl Counter {
        /// One more frame is in the outbox; true when that asks for a flush.
        fn take(&self) -> bool {
            let mut counts = self.0.lock();
            counts.took += 1;
            counts.took == counts.written + 1
        }

        fn counts(&self) -> Counts {
            *self.0.lock()
        }
    }

    #[async_trait]
    impl Sink for Counter {
        fn number(&self) -> u64 {
            0
        }

        fn wants(&self, _: Slot) -> bool {
            true
        }

        fn offer(&self, _: Slot, _: &StreamName, _: &Delivery) -> Offer {
            Offer::Taken { flush: self.take() }
        }

        fn flush(&self) {
            let mut counts = self.0.lock();
            counts.written = counts.took;
            counts.writes += 1;
        }

        async fn room(&self) {}

        async fn left(&self, _: Slot) {}
    }

    fn counters(count: usize) -> Vec<Arc<Counter>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    /// An event for all of them.
    fn event(counters: &[Arc<Counter>], flusher: &Arc<Flusher>) {
        let mut flush = Flush::default();
        for counter in counters {
            if counter.take() {
                flush.add(&(counter.clone() as Arc<dyn Sink>));
            }
        }
        flusher.take(&mut flush);
        assert!(flush.0.is_empty());
    }

    fn writes(counters: &[Arc<Counter>]) -> u64 {
        counters.iter().map(|counter| counter.counts().writes).sum()
    }

    async fn until_all_is_written(counters: &[Arc<Counter>], flusher: &Arc<Flusher>) {
        let written = async {
            while flusher.0.lock().writers > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), written).await.expect("writers come to an end");
        assert!(counters.iter().all(|counter| { counter.counts().took == counter.counts().written }));
    }

    #[test]
    fn a_few_are_written_before_the_caller_goes_on() {
        let (counters, flusher) = (counters(FEW), Arc::default());
        event(&counters, &flusher);
        assert_eq!(writes(&counters), FEW as u64);
    }

    #[tokio::test]
    async fn many_are_written_in_turns_between_which_others_run() {
        let (counters, flusher) = (counters(10 * EACH), Arc::default());
        event(&counters, &flusher);
        assert_eq!(writes(&counters), 0, "the caller goes on at once");
        let mut before = 0;
        while writes(&counters) < counters.len() as u64 {
            tokio::task::yield_now().await;
            let now = writes(&counters);
            assert!(now - before <= (*MAX_WRITERS * TURN) as u64, "{before} then {now}");
            before = now;
        }
        until_all_is_written(&counters, &flusher).await;
        assert_eq!(writes(&counters), counters.len() as u64, "each once");
    }

    #[tokio::test]
    async fn an_event_that_comes_during_a_round_shares_the_writes_that_are_still_to_come() {
        let (counters, flusher) = (counters(10 * EACH), Arc::default());
        event(&counters, &flusher);
        while writes(&counters) < counters.len() as u64 / 2 {
            tokio::task::yield_now().await;
        }
        let before = writes(&counters);
        event(&counters, &flusher);
        until_all_is_written(&counters, &flusher).await;
        assert_eq!(writes(&counters), counters.len() as u64 + before, "again only for those that had had their turn");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_stays_unwritten_while_writers_end_and_begin() {
        let (counters, flusher) = (counters(2 * EACH), Arc::default());
        for _ in 0..200 {
            event(&counters, &flusher);
            tokio::task::yield_now().await;
        }
        until_all_is_written(&counters, &flusher).await;
    }
}
