//! Lanes: the connections that must be fast and keep order.
//!
//! A *lane* is one multiplexed connection that many operations share. A stream always takes the same
//! lane, so that its operations take effect in the order in which they were called. Each lane has a
//! supervisor: when the connection breaks or gives no answer it is dropped and another is opened, with
//! backoff and jitter; meanwhile the lane's operations wait for a moment, then fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::direct::SendOrder;
use super::errors::not_connected;
use super::scripts::{self, Call};
use super::server::{Connection, Server};
use crate::backoff::Backoff;
use crate::model::StreamName;
use crate::store::StoreError;

const LANES: usize = 4;

/// Operations of one batch that are sent at once. The response timeout counts from then on, for all of
/// them, so that of a batch of thousands sent whole the last ones would go without an answer.
const PIPELINE: usize = 256;

/// Bytes of one batch after which no further operation is sent with them: what is under way is copied more
/// than once on its way out.
const PIPELINE_BYTES: usize = 1024 * 1024;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// For how long after a break operations wait for the next connection: a server that restarts or fails over
/// within this time is not noticed but for the delay.
const RECONNECT_WAIT: Duration = Duration::from_millis(500);

/// A connection that lasted this long was a good one: the next break begins with a short wait again.
const GOOD_AGE: Duration = Duration::from_secs(5);

/// All lanes. Dropping them ends their supervisors.
pub(super) struct Lanes {
    lanes: Vec<Arc<Lane>>,
    supervisors: Vec<AbortHandle>,
}

impl Lanes {
    pub(super) async fn open(server: &Server) -> Result<Self, StoreError> {
        let mut lanes = Lanes { lanes: Vec::new(), supervisors: Vec::new() };
        for _ in 0..LANES {
            let lane = Arc::new(Lane::default());
            lane.connect(server).await?;
            lanes.supervisors.push(tokio::spawn(supervise(lane.clone(), server.clone())).abort_handle());
            lanes.lanes.push(lane);
        }
        Ok(lanes)
    }

    fn index_of(&self, stream: &StreamName) -> usize {
        (stream.fingerprint() % self.lanes.len() as u64) as usize
    }

    /// Fails while any lane is not connected: its streams can't be worked with.
    pub(super) async fn all_open(&self) -> Result<(), StoreError> {
        for lane in &self.lanes {
            lane.open().await?;
        }
        Ok(())
    }

    pub(super) fn of(&self, stream: &StreamName) -> &Lane {
        &self.lanes[self.index_of(stream)]
    }

    /// Runs a call for each item on its stream's lane: a stream's calls stay in order, and lanes don't wait
    /// for each other. The answers are in the order of the items.
    pub(super) async fn run_by_stream<'a, T>(
        &self,
        items: &'a [T],
        stream: impl Fn(&'a T) -> &'a StreamName,
        call: impl Fn(&'a T) -> Call,
    ) -> Vec<Result<Value, StoreError>> {
        self.settle_by_stream(items, stream, |_, item| call(item), |_, answer| answer).await
    }

    /// The same, with each answer settled as soon as its pipeline is answered.
    pub(super) async fn settle_by_stream<'a, T, R>(
        &self,
        items: &'a [T],
        stream: impl Fn(&'a T) -> &'a StreamName,
        call: impl Fn(&Open, &'a T) -> Call,
        settle: impl Fn(&'a T, Result<Value, StoreError>) -> R,
    ) -> Vec<R> {
        let mut places = vec![Vec::new(); self.lanes.len()];
        for (place, item) in items.iter().enumerate() {
            places[self.index_of(stream(item))].push(place);
        }
        let pipelines = places.iter().enumerate().filter(|(_, places)| !places.is_empty()).map(|(lane, places)| {
            let (call, settle) = (&call, &settle);
            async move {
                let open = match self.lanes[lane].open().await {
                    Ok(open) => open,
                    Err(error) => {
                        return places.iter().map(|at| (*at, settle(&items[*at], Err(error.clone())))).collect();
                    }
                };
                let mut settled = Vec::with_capacity(places.len());
                let mut waiting = places.iter();
                let calls = places.iter().map(|place| call(&open, &items[*place]));
                let answered = |answer| settled.extend(waiting.next().map(|at| (*at, settle(&items[*at], answer))));
                open.run_each(calls, answered).await;
                settled
            }
        });
        let mut outcomes: Vec<_> = items.iter().map(|_| None).collect();
        for (place, outcome) in join_all(pipelines).await.into_iter().flatten() {
            outcomes[place] = Some(outcome);
        }
        let missing = |item| settle(item, Err(StoreError::Protocol("too few answers".to_owned())));
        outcomes.into_iter().zip(items).map(|(outcome, item)| outcome.unwrap_or_else(|| missing(item))).collect()
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.supervisors.iter().for_each(AbortHandle::abort);
    }
}

/// One shared connection, or the wait for the next.
#[derive(Default)]
pub(super) struct Lane {
    current: ArcSwapOption<Open>,
    /// Why there is none, for people.
    reason: Mutex<String>,
    /// Since when there is none.
    broke: Mutex<Option<Instant>>,
    connected: Notify,
}

/// A lane's connection.
pub(super) struct Open {
    connection: Connection,
    /// In which order publishes began on it that leave nodes out.
    pub(super) order: Arc<SendOrder>,
}

impl Lane {
    /// Runs one call.
    pub(super) async fn run(&self, call: Call) -> Result<Value, StoreError> {
        self.open().await?.run(call).await
    }

    /// Runs calls in pipelines, one after another; one answer each, in order. Calls are made as they are
    /// sent, so that a large batch is not held a second time.
    pub(super) async fn run_all(&self, calls: impl ExactSizeIterator<Item = Call>) -> Vec<Result<Value, StoreError>> {
        let mut answers = Vec::with_capacity(calls.len());
        match self.open().await {
            Ok(open) => open.run_each(calls, |answer| answers.push(answer)).await,
            Err(error) => answers.resize(calls.len(), Err(error)),
        }
        answers
    }

    /// The lane's connection, or the next one if that comes about soon.
    pub(super) async fn open(&self) -> Result<Arc<Open>, StoreError> {
        if let Some(open) = self.current() {
            return Ok(open);
        }
        let connected = self.connected.notified();
        tokio::pin!(connected);
        connected.as_mut().enable();
        if let Some(open) = self.current() {
            return Ok(open);
        }
        let down = self.broke.lock().map_or(Duration::ZERO, |broke| broke.elapsed());
        let _ = tokio::time::timeout(RECONNECT_WAIT.saturating_sub(down), connected).await;
        self.current().ok_or_else(|| StoreError::Unavailable(self.reason.lock().clone()))
    }

    fn current(&self) -> Option<Arc<Open>> {
        self.current.load_full().filter(|open| !open.connection.is_broken())
    }

    async fn connect(&self, server: &Server) -> Result<(), StoreError> {
        let connection = server.open(|_| {}).await?;
        // Loaded before anything else is sent: were a pipeline to find scripts missing, what is sent
        // again would come after its successors.
        let mut load = redis::pipe();
        for script in scripts::all() {
            load.add_command(script.load());
        }
        load.query_async::<()>(&mut connection.io()).await.map_err(not_connected)?;
        self.current.store(Some(Arc::new(Open { connection, order: Arc::default() })));
        *self.broke.lock() = None;
        self.connected.notify_waiters();
        Ok(())
    }
}

impl Open {
    /// Runs one call.
    pub(super) async fn run(&self, call: Call) -> Result<Value, StoreError> {
        self.connection.run(call).await
    }

    /// Runs calls in pipelines, one after another, with each answer handed on as soon as its pipeline is answered.
    pub(super) async fn run_each(
        &self,
        mut calls: impl ExactSizeIterator<Item = Call>,
        mut answered: impl FnMut(Result<Value, StoreError>),
    ) {
        while calls.len() > 0 {
            let part = pipeline(&mut calls);
            let sent = part.len();
            match self.connection.run_all(part).await {
                Ok(answers) => answers.into_iter().for_each(&mut answered),
                Err(error) => {
                    (0..sent).for_each(|_| answered(Err(error.clone())));
                    // The rest must not overtake what is unknown.
                    let unsent = StoreError::Unavailable("the batch was given up before this was sent".to_owned());
                    return (0..calls.len()).for_each(|_| answered(Err(unsent.clone())));
                }
            }
        }
    }
}

/// As many calls as are sent at once: a number of them, or less when they are large.
fn pipeline(calls: &mut impl Iterator<Item = Call>) -> Vec<Call> {
    let mut bytes = 0;
    let mut part = Vec::new();
    while part.len() < PIPELINE
        && bytes < PIPELINE_BYTES
        && let Some(call) = calls.next()
    {
        bytes += call.bytes();
        part.push(call);
    }
    part
}

/// Keeps a lane connected for as long as the store lives.
async fn supervise(lane: Arc<Lane>, server: Server) {
    // With jitter, so that the nodes of a region do not all come back in one instant.
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    let mut switches = server.switches();
    loop {
        if let Some(open) = lane.current.load_full() {
            open.connection.broken().await;
            lane.current.store(None);
            *lane.broke.lock() = Some(Instant::now());
            "the connection broke".clone_into(&mut lane.reason.lock());
            tracing::warn!(store = %server, "a connection to the store broke");
            if open.connection.age() >= GOOD_AGE {
                backoff.reset();
            }
        }
        server.pause(backoff.next_wait(), &mut switches).await;
        match lane.connect(&server).await {
            Ok(()) => tracing::info!(store = %server, "connected to the store"),
            Err(error) => {
                tracing::debug!(store = %server, %error, "the store can't be reached");
                *lane.reason.lock() = match error {
                    StoreError::Unavailable(reason) => reason,
                    error => error.to_string(),
                };
            }
        }
    }
}
