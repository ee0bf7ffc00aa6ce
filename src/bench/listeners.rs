//! The listeners of one process, and what they do together.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Target;
use super::listener::Listener;
use super::stats::{Figures, Stats, flat, histogram};
use super::wire::Incoming;

/// Connections that are being opened at once.
const OPENING: usize = 128;

/// How long a client of a storm may take until it is back and has caught up.
const STORM_TIME: Duration = Duration::from_secs(60);

/// How long a client of a storm waits after a failed attempt, as clients do.
const RETRY: Duration = Duration::from_millis(100);

/// How long a connection that went away in churn stays away. Longer than a server remembers it for.
const AWAY: Duration = Duration::from_secs(8);

/// An order to the listeners of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Open the connections of these listeners.
    Open(Range<usize>),
    /// Report how many events have come.
    Count,
    /// Report everything that was counted.
    Figures,
    /// Count from nought.
    Reset,
    /// Cut all connections at once.
    Cut,
    /// Open all again at once, each where it was, until each has received so many events.
    Resume(u64),
    /// For this time, in seconds, close and open so many connections a second.
    Churn(u64, f64),
}

/// The answer to an [`Order`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// Events so far.
    Count(u64),
    /// Everything that was counted.
    Figures(Figures),
    /// Microseconds until clients were back and had caught up, and how many took so long; and attempts
    /// that failed before.
    Resumed { times: Vec<(u64, u64)>, retries: u64 },
    /// Connections opened in churn, and attempts that failed.
    Churned { opened: u64, failed: u64 },
    /// It could not be done, and this is why.
    Failed(String),
}

/// The listeners of one process.
pub struct Listeners {
    target: Arc<Target>,
    stats: Arc<Stats>,
    slots: VecDeque<Slot>,
    listening: JoinSet<()>,
}

/// One listener, connected or not.
struct Slot {
    number: usize,
    last_id: Arc<Mutex<String>>,
    task: Option<AbortHandle>,
}

impl Listeners {
    pub fn new(target: Target) -> Self {
        Listeners {
            target: Arc::new(target),
            stats: Arc::new(Stats::new()),
            slots: VecDeque::new(),
            listening: JoinSet::new(),
        }
    }

    /// Carries out an order; `done` grows meanwhile.
    pub async fn carry_out(&mut self, order: Order, done: &AtomicU64) -> Reply {
        let outcome = match order {
            Order::Open(numbers) => self.open(numbers, done).await,
            Order::Count => Ok(Reply::Count(self.stats.received())),
            Order::Figures => Ok(Reply::Figures(self.stats.figures())),
            Order::Reset => {
                self.stats.reset();
                Ok(Reply::Done)
            }
            Order::Cut => {
                self.cut().await;
                Ok(Reply::Done)
            }
            Order::Resume(events) => self.resume(events, done).await,
            Order::Churn(seconds, rate) => Ok(self.churn(Duration::from_secs(seconds), rate, done).await),
        };
        outcome.unwrap_or_else(Reply::Failed)
    }

    async fn open(&mut self, numbers: Range<usize>, done: &AtomicU64) -> Result<Reply, String> {
        let target = self.target.clone();
        let mut opening = stream::iter(numbers)
            .map(|number| {
                let target = target.clone();
                async move { (number, Listener::connect(&target, number, None).await) }
            })
            .buffer_unordered(OPENING);
        while let Some((number, listener)) = opening.next().await {
            let listener = listener.map_err(|error| refused(number, &error))?;
            self.claim_slot(number, listener);
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Reply::Done)
    }

    /// From here on the listener counts by itself.
    fn claim_slot(&mut self, number: usize, mut listener: Listener) {
        let last_id = Arc::new(Mutex::new(listener.last_id().to_owned()));
        let (stats, seen) = (self.stats.clone(), last_id.clone());
        let task = self.listening.spawn(async move {
            let mut incoming = Incoming::default();
            loop {
                let bytes = match listener.receive(&mut incoming).await {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        tracing::debug!(%error, "a listener ended");
                        return stats.lost();
                    }
                };
                if !incoming.due_times.is_empty() {
                    stats.took(number, &incoming.due_times, bytes);
                    incoming.due_times.clear();
                    listener.last_id().clone_into(&mut seen.lock());
                }
            }
        });
        // Those that ended of themselves are of no further interest.
        while self.listening.try_join_next().is_some() {}
        self.slots.push_back(Slot { number, last_id, task: Some(task) });
    }

    async fn cut(&mut self) {
        self.listening.shutdown().await;
        for slot in &mut self.slots {
            slot.task = None;
        }
    }

    async fn resume(&mut self, events: u64, done: &AtomicU64) -> Result<Reply, String> {
        self.cut().await;
        let slots = std::mem::take(&mut self.slots);
        if slots.iter().any(|slot| slot.last_id.lock().is_empty()) {
            return Err("not every listener has an id to come back at: publish first".into());
        }
        let begin = Instant::now();
        let (count, retries) = (slots.len().max(1), AtomicU64::new(0));
        let target = &*self.target.clone();
        let mut resuming = stream::iter(slots)
            .map(|slot| come_back(target, slot.number, slot.last_id, events, begin + STORM_TIME, &retries))
            .buffer_unordered(count);
        let mut times = histogram();
        while let Some(outcome) = resuming.next().await {
            let (number, listener) = outcome?;
            times.saturating_record(begin.elapsed().as_micros() as u64);
            done.fetch_add(1, Ordering::Relaxed);
            self.claim_slot(number, listener);
        }
        Ok(Reply::Resumed { times: flat(&times), retries: retries.load(Ordering::Relaxed) })
    }

    async fn churn(&mut self, time: Duration, rate: f64, done: &AtomicU64) -> Reply {
        let (mut opened, mut failed) = (0, 0);
        let mut away: VecDeque<(Instant, Slot)> = VecDeque::new();
        let begin = Instant::now();
        for step in 1.. {
            let due = begin + Duration::from_secs_f64(f64::from(step) / rate);
            if due >= begin + time {
                break;
            }
            tokio::time::sleep_until(due).await;
            if let Some(mut slot) = self.slots.pop_front() {
                if let Some(task) = slot.task.take() {
                    task.abort();
                }
                away.push_back((Instant::now() + AWAY, slot));
            }
            while away.front().is_some_and(|(until, _)| *until <= Instant::now()) {
                let Some((_, slot)) = away.pop_front() else { break };
                let last_id = slot.last_id.lock().clone();
                let after = Some(last_id.as_str()).filter(|id| !id.is_empty());
                match Listener::connect(&self.target, slot.number, after).await {
                    Ok(listener) => {
                        opened += 1;
                        self.claim_slot(slot.number, listener);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a listener did not come back");
                        failed += 1;
                        self.slots.push_back(slot);
                    }
                }
            }
            done.store(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        Reply::Churned { opened, failed }
    }
}

/// Tries until it is connected and has received so many events.
async fn come_back(
    target: &Target,
    number: usize,
    last_id: Arc<Mutex<String>>,
    events: u64,
    deadline: Instant,
    retries: &AtomicU64,
) -> Result<(usize, Listener), String> {
    let mut received = 0;
    let trying = async {
        loop {
            let after = last_id.lock().clone();
            let attempt = async {
                let mut listener = Listener::ask(target, number, Some(&after)).await?;
                let mut incoming = Incoming::default();
                while received < events {
                    listener.receive(&mut incoming).await?;
                    received += incoming.due_times.len() as u64;
                    if !incoming.due_times.is_empty() {
                        listener.last_id().clone_into(&mut last_id.lock());
                        incoming.due_times.clear();
                    }
                }
                Ok::<_, io::Error>(listener)
            };
            match attempt.await {
                Ok(listener) => return listener,
                Err(error) => {
                    tracing::debug!(%error, "a listener did not come back yet");
                    retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    };
    let listener = tokio::time::timeout_at(deadline, trying).await;
    listener.map(|listener| (number, listener)).map_err(|_| {
        format!("listener {number} resumed, but got only {received} of the {events} events that it had missed")
    })
}

/// Why a listener was not accepted, in words that say what to do.
fn refused(number: usize, error: &io::Error) -> String {
    const NO_DESCRIPTOR: i32 = 24;
    const NO_ADDRESS: i32 = 99;
    let reason = match (error.raw_os_error(), error.kind()) {
        (Some(NO_DESCRIPTOR), _) => "this process has no descriptors left; use --processes".into(),
        (Some(NO_ADDRESS), _) => {
            "this machine has no local ports left towards that server; spread over several with --url".into()
        }
        (_, io::ErrorKind::TimedOut) => "the server did not accept it in time".into(),
        (_, io::ErrorKind::UnexpectedEof) => "the server closed the connection".into(),
        _ => error.to_string(),
    };
    format!("listener {number} was not accepted: {reason}")
}
