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

use super::path::Path;
use super::sink::Sink;
use crate::metrics::{ByPath, Metrics, Seconds};
use crate::store::StoreClock;

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
pub struct Flush {
    sinks: Vec<Arc<dyn Sink>>,
    timed: Option<TimedWrite>,
}

/// A write whose time is measured: the first one of an event.
#[derive(Debug, Clone, Copy)]
pub struct TimedWrite {
    /// Its place among the sinks.
    at: usize,
    stored_ms: u64,
    path: Path,
}

impl Flush {
    /// Remembers `sink` for the flush.
    pub fn add(&mut self, sink: &Arc<dyn Sink>) {
        self.sinks.push(sink.clone());
    }

    /// How many sinks wait.
    pub(super) fn count(&self) -> usize {
        self.sinks.len()
    }

    /// An event that was stored at `stored_ms` added the sinks from `at` on, if any. The first such event of a batch is
    /// measured: the others share its writes.
    pub fn time_first(&mut self, at: usize, stored_ms: u64, path: Path) {
        if self.timed.is_none() && at < self.sinks.len() {
            self.timed = Some(TimedWrite { at, stored_ms, path });
        }
    }

    /// Flushes all and forgets them. `written` is called right after the write that is measured.
    pub fn run(&mut self, written: impl Fn(TimedWrite)) {
        let timed = self.timed.take();
        for (place, sink) in self.sinks.drain(..).enumerate() {
            sink.flush();
            timed.filter(|timed| timed.at == place).into_iter().for_each(&written);
        }
    }
}

/// How long events take from the store to a socket.
struct WriteTimes {
    clock: Arc<StoreClock>,
    /// By [`Path`].
    seconds: [Seconds; Path::ALL.len()],
}

impl WriteTimes {
    /// It was written just now.
    fn observe(&self, write: TimedWrite) {
        let waited_ms = self.clock.now_ms().saturating_sub(write.stored_ms);
        self.seconds[write.path as usize].observe(waited_ms as f64 / 1000.0);
    }
}

/// Flushes sinks in the order in which they come. It holds no sink twice, because a sink that waits for its
/// flush asks for no other ([`Offer::Taken`](super::Offer::Taken)).
pub struct Flusher {
    waiting: Mutex<Waiting>,
    times: WriteTimes,
}

#[derive(Default)]
struct Waiting {
    sinks: VecDeque<Arc<dyn Sink>>,
    /// One of them at most: while it waits, no other is measured.
    timed: Option<TimedWrite>,
    writers: usize,
}

impl Waiting {
    fn add(&mut self, flush: &mut Flush) {
        let before = self.sinks.len();
        let timed = flush.timed.take().map(|timed| TimedWrite { at: before + timed.at, ..timed });
        self.timed = self.timed.or(timed);
        self.sinks.extend(flush.sinks.drain(..));
    }

    /// Moves those into `turn` whose turn it is.
    fn take_turn(&mut self, turn: &mut Flush) {
        let count = self.sinks.len().min(TURN);
        turn.sinks.extend(self.sinks.drain(..count));
        turn.timed = self.timed.take_if(|timed| timed.at < count);
        if let Some(timed) = &mut self.timed {
            timed.at -= count;
        }
    }
}

impl Flusher {
    /// Nothing waits yet.
    pub fn new(clock: Arc<StoreClock>, metrics: &Metrics) -> Self {
        let by_path = |path: Path| metrics.first_write_seconds.get_or_create(&ByPath { path: path.as_str() }).clone();
        Flusher { waiting: Mutex::default(), times: WriteTimes { clock, seconds: Path::ALL.map(by_path) } }
    }

    /// Sees to it that all of `flush` are flushed, and empties it: done on return where they are few.
    pub fn take(self: &Arc<Self>, flush: &mut Flush) {
        if flush.sinks.len() <= FEW {
            return flush.run(|write| self.times.observe(write));
        }
        let mut waiting = self.waiting.lock();
        waiting.add(flush);
        let wanted = waiting.sinks.len().div_ceil(EACH).min(*MAX_WRITERS);
        for _ in waiting.writers..wanted {
            tokio::spawn(self.clone().write());
        }
        waiting.writers = waiting.writers.max(wanted);
    }

    async fn write(self: Arc<Self>) {
        let mut turn = Flush { sinks: Vec::with_capacity(TURN), timed: None };
        loop {
            {
                let mut waiting = self.waiting.lock();
                waiting.take_turn(&mut turn);
                if turn.sinks.is_empty() {
                    waiting.writers -= 1;
                    waiting.sinks.shrink_to_fit();
                    return;
                }
            }
            turn.run(|write| self.times.observe(write));
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
        flush.time_first(0, 1, Path::Link);
        flusher.take(&mut flush);
        assert!(flush.sinks.is_empty() && flush.timed.is_none());
    }

    fn flusher() -> Arc<Flusher> {
        Arc::new(Flusher::new(Arc::default(), &Metrics::new()))
    }

    fn writes(counters: &[Arc<Counter>]) -> u64 {
        counters.iter().map(|counter| counter.counts().writes).sum()
    }

    async fn until_all_is_written(counters: &[Arc<Counter>], flusher: &Arc<Flusher>) {
        let written = async {
            while flusher.waiting.lock().writers > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), written).await.expect("writers come to an end");
        assert!(counters.iter().all(|counter| { counter.counts().took == counter.counts().written }));
    }

    #[test]
    fn a_few_are_written_before_the_caller_goes_on() {
        let (counters, flusher) = (counters(FEW), flusher());
        event(&counters, &flusher);
        assert_eq!(writes(&counters), FEW as u64);
    }

    #[tokio::test]
    async fn many_are_written_in_turns_between_which_others_run() {
        let (counters, flusher) = (counters(10 * EACH), flusher());
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
        let (counters, flusher) = (counters(10 * EACH), flusher());
        event(&counters, &flusher);
        while writes(&counters) < counters.len() as u64 / 2 {
            tokio::task::yield_now().await;
        }
        let before = writes(&counters);
        event(&counters, &flusher);
        until_all_is_written(&counters, &flusher).await;
        assert_eq!(writes(&counters), counters.len() as u64 + before, "again only for those that had had their turn");
    }

    #[tokio::test]
    async fn the_first_write_of_an_event_is_measured_once_and_that_of_a_batch_is_its_first_events() {
        let metrics = Metrics::new();
        let flusher = Arc::new(Flusher::new(Arc::default(), &metrics));
        let measured = |path: &str| {
            let start = format!("whimbrel_first_write_seconds_count{{path=\"{path}\"}} ");
            let text = metrics.text();
            text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse::<u64>().unwrap()
        };
        let (few, many) = (counters(2), counters(10 * EACH));
        event(&few, &flusher);
        assert_eq!((measured("link"), measured("channel")), (1, 0));
        event(&many, &flusher);
        assert_eq!(measured("link"), 1, "nothing of it is written yet");
        event(&many, &flusher);
        until_all_is_written(&many, &flusher).await;
        assert_eq!(measured("link"), 2, "the second found all of them waiting");
        // It was for nobody, or for those that an earlier one has written anyway.
        let mut flush = Flush::default();
        flush.time_first(0, 1, Path::Channel);
        flush.add(&(few[0].clone() as Arc<dyn Sink>));
        flush.time_first(1, 1, Path::Channel);
        flusher.take(&mut flush);
        flush.add(&(few[0].clone() as Arc<dyn Sink>));
        flush.time_first(0, 1, Path::Channel);
        flush.add(&(few[1].clone() as Arc<dyn Sink>));
        flush.time_first(1, 1, Path::Link);
        flusher.take(&mut flush);
        assert_eq!((measured("link"), measured("channel")), (2, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_stays_unwritten_while_writers_end_and_begin() {
        let (counters, flusher) = (counters(2 * EACH), flusher());
        for _ in 0..200 {
            event(&counters, &flusher);
            tokio::task::yield_now().await;
        }
        until_all_is_written(&counters, &flusher).await;
    }
}
