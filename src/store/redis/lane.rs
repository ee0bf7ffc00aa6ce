//! One lane: a multiplexed connection that many operations share.
//!
//! Each lane has a supervisor: when the connection breaks or gives no answer it is dropped and another is opened, with
//! backoff and jitter; meanwhile the lane's operations wait for a moment, then fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::call::Call;
use super::direct::{Clock, SendOrder};
use super::errors::not_connected;
use super::scripts;
use super::server::{Connection, Server};
use super::shards::Alarm;
use crate::backoff::Backoff;
use crate::model::StreamName;
use crate::store::StoreError;

/// Lanes of one server.
pub(super) const LANES: usize = 4;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// For how long after a break operations wait for the next connection: a server that restarts or fails over
/// within this time is not noticed but for the delay.
const RECONNECT_WAIT: Duration = Duration::from_millis(500);

/// A connection that lasted this long was a good one: the next break begins with a short wait again.
const GOOD_AGE: Duration = Duration::from_secs(5);

/// How long the first connections may take.
const OPEN_TIME: Duration = Duration::from_secs(5);

/// The lanes of one server. Dropping them ends their supervisors.
pub(super) struct ShardLanes {
    lanes: Vec<Arc<Lane>>,
    supervisors: Vec<AbortHandle>,
}

impl ShardLanes {
    /// Begins to connect them.
    pub(super) fn start(server: &Server, clock: &Arc<Clock>, alarm: &Alarm) -> Self {
        let lanes: Vec<_> = (0..LANES).map(|_| Arc::new(Lane::new(clock))).collect();
        let supervise =
            |lane: &Arc<Lane>| tokio::spawn(supervise(lane.clone(), server.clone(), alarm.clone())).abort_handle();
        let supervisors = lanes.iter().map(supervise).collect();
        ShardLanes { lanes, supervisors }
    }

    /// Waits until all of them are connected for the first time.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        for lane in &self.lanes {
            lane.open_within(OPEN_TIME).await?;
        }
        Ok(())
    }

    /// Fails while any of them is not connected: its streams can't be worked with.
    pub(super) async fn all_open(&self) -> Result<(), StoreError> {
        for lane in &self.lanes {
            lane.open().await?;
        }
        Ok(())
    }

    /// Whether all are connected.
    pub(super) fn are_open(&self) -> bool {
        self.lanes.iter().all(|lane| lane.current().is_some())
    }

    /// The lane that a stream always takes.
    pub(super) fn of(&self, stream: &StreamName) -> &Arc<Lane> {
        &self.lanes[place_of(stream)]
    }
}

impl Drop for ShardLanes {
    fn drop(&mut self) {
        self.supervisors.iter().for_each(AbortHandle::abort);
    }
}

/// Its place among those of a server.
pub(super) fn place_of(stream: &StreamName) -> usize {
    (stream.fingerprint() % LANES as u64) as usize
}

/// One shared connection, or the wait for the next.
pub(super) struct Lane {
    current: ArcSwapOption<Open>,
    /// Why there is none, for people.
    reason: Mutex<String>,
    /// Since when there is none.
    broke: Mutex<Option<Instant>>,
    connected: Notify,
    clock: Arc<Clock>,
}

/// A lane's connection.
pub(super) struct Open {
    connection: Connection,
    /// In which order publishes began on it that leave nodes out.
    pub(super) order: Arc<SendOrder>,
    /// The clock of its server.
    pub(super) clock: Arc<Clock>,
}

impl Lane {
    fn new(clock: &Arc<Clock>) -> Self {
        Lane {
            current: ArcSwapOption::empty(),
            reason: Mutex::default(),
            broke: Mutex::default(),
            connected: Notify::new(),
            clock: clock.clone(),
        }
    }

    /// The lane's connection, or the next one if that comes about soon.
    pub(super) async fn open(&self) -> Result<Arc<Open>, StoreError> {
        self.open_within(RECONNECT_WAIT).await
    }

    async fn open_within(&self, most: Duration) -> Result<Arc<Open>, StoreError> {
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
        let _ = tokio::time::timeout(most.saturating_sub(down), connected).await;
        self.current().ok_or_else(|| StoreError::Unavailable(self.reason.lock().clone()))
    }

    fn current(&self) -> Option<Arc<Open>> {
        self.current.load_full().filter(|open| !open.connection.is_broken())
    }

    async fn connect(&self, server: &Server) -> Result<(), StoreError> {
        let connection = server.open(|_| {}).await?.counted_in(&server.metrics("lane"));
        // Loaded before anything else is sent: were a pipeline to find scripts missing, what is sent
        // again would come after its successors.
        let mut load = redis::pipe();
        for script in scripts::all() {
            load.add_command(script.load());
        }
        load.query_async::<()>(&mut connection.io()).await.map_err(not_connected)?;
        self.current.store(Some(Arc::new(Open { connection, order: Arc::default(), clock: self.clock.clone() })));
        *self.broke.lock() = None;
        self.connected.notify_waiters();
        Ok(())
    }
}

impl Open {
    /// Runs one call.
    pub(super) async fn run(&self, call: &Call) -> Result<Value, StoreError> {
        self.connection.run(call).await
    }

    /// Runs calls in one pipeline; one answer each, in order.
    pub(super) async fn run_all(&self, calls: Vec<Call>) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.connection.run_all(calls).await
    }
}

/// Keeps a lane connected for as long as the store lives.
async fn supervise(lane: Arc<Lane>, server: Server, alarm: Alarm) {
    // With jitter, so that the nodes of a region do not all come back in one instant.
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    let mut switches = server.switches();
    let mut broke = false;
    loop {
        if let Some(open) = lane.current.load_full() {
            open.connection.broken().await;
            lane.current.store(None);
            *lane.broke.lock() = Some(Instant::now());
            "the connection broke".clone_into(&mut lane.reason.lock());
            tracing::warn!(store = %server, "a connection to the store broke");
            alarm.troubled();
            broke = true;
            if open.connection.age() >= GOOD_AGE {
                backoff.reset();
            }
            server.pause(backoff.next_wait(), &mut switches).await;
        }
        match lane.connect(&server).await {
            Ok(()) => {
                if std::mem::take(&mut broke) {
                    tracing::info!(store = %server, "connected to the store again");
                    alarm.lost();
                }
            }
            Err(error) => {
                tracing::debug!(store = %server, %error, "the store can't be reached");
                lane.broke.lock().get_or_insert_with(Instant::now);
                alarm.troubled();
                *lane.reason.lock() = match error {
                    StoreError::Unavailable(reason) => reason,
                    error => error.to_string(),
                };
                server.pause(backoff.next_wait(), &mut switches).await;
            }
        }
    }
}
