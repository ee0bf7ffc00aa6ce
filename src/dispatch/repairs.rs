//! The driver of a region's dispatchers: what they want goes to the [`Schedule`], and answers come back to them.
//!
//! It does no I/O: the caller of [`Repairs::next`] asks the store, and brings the answer to [`Repairs::answered`].
//! The dispatchers' locks are never taken inside the schedule's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dispatcher::{Dispatcher, FollowUp, Need};
use super::flush::Flush;
use super::merge::{Question, Urgency};
use super::schedule::{self, Lane, Schedule, Turn};
use crate::model::{Page, StreamName};
use crate::store::StoreError;

/// The repairs of one region's streams.
pub struct Repairs {
    schedule: Mutex<Schedule>,
    /// Something is to be done earlier than the last [`Next::Sleep`].
    wake: Notify,
    /// Grows when the store may have lost which streams this node has routes for.
    generation: AtomicU32,
}

/// A question that is on its way to the store.
pub struct Asking {
    pub dispatcher: Arc<Dispatcher>,
    pub question: Question,
    lane: Lane,
}

/// What to do next.
pub enum Next {
    /// Ask the store all of these.
    Ask(Vec<Asking>),
    /// Nothing before this time, unless [`Repairs::woken`] says so earlier.
    Sleep(Option<Instant>),
}

impl Repairs {
    /// Nothing to repair yet. Each stream is synced once in `interval`.
    pub fn new(region: u8, interval: Duration, seed: u64, now: Instant) -> Self {
        let schedule = Mutex::new(Schedule::new(region, interval, seed, now));
        Repairs { schedule, wake: Notify::new(), generation: AtomicU32::new(1) }
    }

    /// So many nodes share the store.
    pub fn set_nodes(&self, nodes: u32) {
        self.schedule.lock().set_nodes(nodes);
    }

    /// The time between two syncs of a stream.
    pub fn interval(&self) -> Duration {
        self.schedule.lock().interval()
    }

    /// For how long the sync that is due longest is overdue.
    pub fn lag(&self, now: Instant) -> Duration {
        self.schedule.lock().lag(now)
    }

    /// Which routes of this node the store has: what was noted before this grew has to be noted again.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A stream is to be attached.
    pub fn attach(&self, dispatcher: &Arc<Dispatcher>, now: Instant) {
        self.schedule.lock().attach(dispatcher.clone(), now);
        self.wake.notify_one();
    }

    /// A stream's home turned out to be here: from now on it is marked with the others.
    pub fn adopt(&self, dispatcher: &Arc<Dispatcher>, now: Instant) {
        self.schedule.lock().adopt(dispatcher, now);
    }

    /// Sees to what a dispatcher wants.
    pub fn see_to(&self, dispatcher: &Arc<Dispatcher>, need: Need, now: Instant) {
        if need.is_something() {
            self.schedule.lock().see_to(dispatcher, need, now);
            self.wake.notify_one();
        }
    }

    /// Something may have been missed on every stream, and routes may be lost. Nobody waits for it: what continues
    /// a chain is dispatched as before.
    pub fn mark_all(&self, now: Instant) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.schedule.lock().mark_all(now);
        self.wake.notify_one();
    }

    /// Something may have been missed on some of the streams. They are looked at some at a time, so that with very many
    /// nobody waits for it.
    pub async fn mark_where(&self, wanted: impl Fn(&StreamName) -> bool) {
        let mut walk = self.schedule.lock().walk();
        loop {
            let Some(dispatchers) = self.schedule.lock().walk_on(&mut walk) else { return };
            for dispatcher in dispatchers.iter().filter(|dispatcher| wanted(dispatcher.stream())) {
                self.see_to(dispatcher, dispatcher.want_sync(Urgency::Routine), Instant::now());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Resolves when there may be something to do.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What to ask now.
    pub fn next(&self, now: Instant) -> Next {
        loop {
            let next = self.schedule.lock().next(now);
            match next {
                schedule::Next::Sleep(until) => return Next::Sleep(until),
                schedule::Next::Tick(dispatchers) => {
                    for dispatcher in dispatchers {
                        let need = dispatcher.tick(now);
                        self.schedule.lock().see_to(&dispatcher, need, now);
                    }
                }
                schedule::Next::Ask(turns) => {
                    let asking: Vec<_> = turns.into_iter().filter_map(|turn| self.ask(turn)).collect();
                    if !asking.is_empty() {
                        return Next::Ask(asking);
                    }
                }
            }
        }
    }

    fn ask(&self, Turn { dispatcher, lane, in_rotation }: Turn) -> Option<Asking> {
        let question = if in_rotation { dispatcher.take_turn() } else { dispatcher.ask() };
        if question.is_none() {
            // It has been asked meanwhile, or is gone.
            self.schedule.lock().give_back(lane);
        }
        Some(Asking { question: question?, dispatcher, lane })
    }

    /// The store answered a question, or did not. What the dispatcher needs is seen to; the rest of the step is not.
    pub fn answered(
        &self,
        asking: &Asking,
        answer: Result<&Page, &StoreError>,
        now: Instant,
        flush: &mut Flush,
    ) -> FollowUp {
        let mut follow_up = asking.dispatcher.answered(answer, now, flush);
        let need = std::mem::take(&mut follow_up.need);
        let silent = matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Unknown(_)));
        let wake = {
            let mut schedule = self.schedule.lock();
            schedule.see_to(&asking.dispatcher, need, now);
            schedule.note_answer(!silent, now) | schedule.give_back(asking.lane)
        };
        if wake || need.is_something() {
            self.wake.notify_one();
        }
        follow_up
    }
}

#[cfg(test)]
#[path = "repairs_tests.rs"]
mod tests;
