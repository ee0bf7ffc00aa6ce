//! Rounds: every stream is synced once in a while, whether or not anything happened to it.
//!
//! Nearly all streams of a node are silent, and a sync of a silent one is hardly more than its round trip. So
//! those that are due are synced in groups: one task, one call of the store. Each is answered for itself all the
//! same, and what follows from its answer, a retry too, is its own.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{Dispatcher, Registry, ask_again, patience};
use crate::dispatch::live::Ask;

/// Streams that are synced together. More would hardly make each cheaper, and publishes would wait longer behind
/// them: a sync takes Redis some 30 µs.
const GROUP: usize = 64;

/// Syncs a second that all nodes together may cost the store: about 5% of what one Redis core does.
const SYNC_BUDGET: f64 = 5_000.0;

impl Registry {
    /// Syncs every stream once in a while, in groups that are evenly spread; runs until it is dropped.
    pub async fn sync_for_ever(self: Arc<Self>) {
        loop {
            let round = Instant::now();
            let dispatchers: Vec<_> = self.dispatchers.lock().values().map(Arc::downgrade).collect();
            let interval = self.sync_interval(dispatchers.len());
            let groups = dispatchers.chunks(GROUP);
            let pause = interval.div_f64(groups.len().max(1) as f64);
            for (number, group) in (0..).zip(groups) {
                tokio::time::sleep_until((round + pause * number).into()).await;
                // Before the streams ask: one that waits for an answer dispatches nothing.
                let permits = self.operations.clone().acquire_many_owned(group.len() as u32).await;
                let permits = permits.expect("the semaphore is never closed");
                let group = group.iter().filter_map(Weak::upgrade).collect();
                tokio::spawn(self.clone().sync_group(group, permits));
            }
            // Nodes that started together do not stay together.
            let until = round + interval.mul_f64(rand::rng().random_range(0.9..1.1));
            tokio::time::sleep_until((until.max(round + Duration::from_millis(100))).into()).await;
        }
    }

    /// Syncs some streams in one call of the store, apart from those that wait for an answer already: these
    /// are synced again right after it.
    async fn sync_group(self: Arc<Self>, group: Vec<Arc<Dispatcher>>, _permits: OwnedSemaphorePermit) {
        let (mut asking, mut due) = (Vec::new(), Vec::new());
        for dispatcher in group {
            match dispatcher.sync() {
                Some(Ask::Sync { head }) => {
                    due.push((dispatcher.stream().clone(), self.route(&dispatcher), head));
                    asking.push(dispatcher);
                }
                other => self.start(&dispatcher, other),
            }
        }
        self.metrics.syncs.inc_by(due.len() as u64);
        let answered = |place: usize, answer| {
            let dispatcher = &asking[place];
            let next = self.answered(dispatcher, &answer);
            if answer.is_ok() {
                self.start(dispatcher, next);
            } else {
                tokio::spawn(self.clone().run_again(dispatcher.clone(), next));
            }
        };
        self.store.sync_each(&due, &answered).await;
    }

    /// Does what a dispatcher asks for after a failure.
    async fn run_again(self: Arc<Self>, dispatcher: Arc<Dispatcher>, next: Option<Ask>) {
        tokio::time::sleep(patience().next_wait()).await;
        if let Some(ask) = ask_again(&dispatcher, next) {
            self.run(dispatcher, ask).await;
        }
    }

    /// The time between two syncs of a stream: as set, unless so many streams would cost the store more
    /// than its budget.
    pub(super) fn sync_interval(&self, streams: usize) -> Duration {
        let nodes = self.nodes.load(Ordering::Relaxed) as f64;
        let affordable = Duration::from_secs_f64(streams as f64 * nodes / SYNC_BUDGET);
        self.settings.sync.max(affordable)
    }
}
