//! The connections to one Redis, and what happens when they break.
//!
//! A *lane* is one multiplexed connection that many operations share. A stream always takes the same
//! lane, so that its operations take effect in the order in which they were called. Each lane has a
//! supervisor: when the connection breaks or gives no answer it is dropped and another is opened, with
//! backoff and jitter; meanwhile the lane's operations wait for a moment, then fail.
//!
//! The *pool* is for what may wait: leases, pages, administration. A slow page there holds up nobody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use deadpool_redis::{Manager, Runtime};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError,
    RedisResult, ServerErrorKind, Value,
};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::errors::{ConnectError, is_demoted, refused, unanswered, unreachable};
use super::scripts::{self, Call};
use crate::backoff::Backoff;
use crate::model::StreamName;
use crate::store::StoreError;

const LANES: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Operations that may queue before a lane's socket; more wait in their callers, in order.
const LANE_QUEUE: usize = 1024;

/// Operations of one batch that are sent at once. The response timeout counts from then on, for all of
/// them, so a batch of thousands sent whole would break the connection of a store that is merely busy.
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

/// Where the Redis is. Displayed without user and password.
#[derive(Clone)]
pub(super) struct Address {
    info: ConnectionInfo,
    client: Client,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        let wrong = |error: RedisError| ConnectError::Address(error.to_string());
        let info = url.into_connection_info().map_err(wrong)?;
        // RESP3, as it alone reports a broken connection at once and brings messages without a task between.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(settings);
        let client = Client::open(info.clone()).map_err(wrong)?;
        Ok(Address { info, client })
    }

    /// Opens a connection; `on_push` gets the messages and, when it breaks, a disconnection.
    pub(super) async fn open(
        &self,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let config = timeouts().set_pipeline_buffer_size(LANE_QUEUE).set_push_sender(move |push: PushInfo| {
            on_push(push);
            Ok::<(), std::convert::Infallible>(())
        });
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.addr().fmt(f)
    }
}

fn timeouts() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
}

/// All lanes. Dropping them ends their supervisors.
pub(super) struct Lanes {
    lanes: Vec<Arc<Lane>>,
    supervisors: Vec<AbortHandle>,
}

impl Lanes {
    pub(super) async fn open(address: &Address) -> Result<Self, StoreError> {
        let mut lanes = Lanes { lanes: Vec::new(), supervisors: Vec::new() };
        for _ in 0..LANES {
            let lane = Arc::new(Lane::default());
            lane.connect(address).await.map_err(unreachable)?;
            lanes.supervisors.push(tokio::spawn(supervise(lane.clone(), address.clone())).abort_handle());
            lanes.lanes.push(lane);
        }
        Ok(lanes)
    }

    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn at(&self, index: usize) -> &Lane {
        &self.lanes[index]
    }

    pub(super) fn index_of(&self, stream: &StreamName) -> usize {
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
        self.at(self.index_of(stream))
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

pub(super) struct Open {
    connection: MultiplexedConnection,
    broken: Arc<Broken>,
    since: Instant,
}

#[derive(Default)]
struct Broken {
    is: AtomicBool,
    told: Notify,
}

impl Broken {
    fn set(&self) {
        self.is.store(true, Ordering::Release);
        self.told.notify_one();
    }

    fn is(&self) -> bool {
        self.is.load(Ordering::Acquire)
    }
}

impl Lane {
    /// Runs one call.
    pub(super) async fn run(&self, call: Call) -> Result<Value, StoreError> {
        let open = self.open().await?;
        match perform_one(&mut open.connection.clone(), call).await {
            Ok(answer) => open.judge(answer),
            Err(error) => Err(open.lost(&error)),
        }
    }

    /// Runs calls in pipelines, one after another; one answer each, in order. Calls are made as they are
    /// sent, so that a large batch is not held a second time.
    pub(super) async fn run_all(&self, calls: impl ExactSizeIterator<Item = Call>) -> Vec<Result<Value, StoreError>> {
        let mut answers = Vec::with_capacity(calls.len());
        self.run_each(calls, |answer| answers.push(answer)).await;
        answers
    }

    /// The same, with each answer handed on as soon as its pipeline is answered.
    pub(super) async fn run_each(
        &self,
        mut calls: impl ExactSizeIterator<Item = Call>,
        mut answered: impl FnMut(Result<Value, StoreError>),
    ) {
        let open = match self.open().await {
            Ok(open) => open,
            Err(error) => return (0..calls.len()).for_each(|_| answered(Err(error.clone()))),
        };
        while calls.len() > 0 {
            let part = pipeline(&mut calls);
            let sent = part.len();
            match perform(&mut open.connection.clone(), part).await {
                Ok(answers) => answers.into_iter().for_each(|answer| answered(open.judge(answer))),
                Err(error) => {
                    let lost = open.lost(&error);
                    (0..sent).for_each(|_| answered(Err(lost.clone())));
                    // The rest was not sent, and must not overtake what is unknown.
                    let unsent = StoreError::Unavailable("the connection broke before this was sent".to_owned());
                    return (0..calls.len()).for_each(|_| answered(Err(unsent.clone())));
                }
            }
        }
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
        self.current.load_full().filter(|open| !open.broken.is())
    }

    async fn connect(&self, address: &Address) -> RedisResult<()> {
        let broken = Arc::new(Broken::default());
        let watch = broken.clone();
        let mut connection = address
            .open(move |push| {
                if push.kind == PushKind::Disconnection {
                    watch.set();
                }
            })
            .await?;
        // Loaded before anything else is sent: were a pipeline to find scripts missing, what is sent
        // again would come after its successors.
        let mut load = redis::pipe();
        for script in scripts::all() {
            load.add_command(script.load());
        }
        load.query_async::<()>(&mut connection).await?;
        self.current.store(Some(Arc::new(Open { connection, broken, since: Instant::now() })));
        *self.broke.lock() = None;
        self.connected.notify_waiters();
        Ok(())
    }
}

impl Open {
    fn judge(&self, answer: Value) -> Result<Value, StoreError> {
        let Value::ServerError(error) = answer else { return Ok(answer) };
        if is_demoted(&error) {
            self.broken.set();
        }
        Err(refused(&error))
    }

    fn lost(&self, error: &RedisError) -> StoreError {
        self.broken.set();
        unanswered(error)
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
async fn supervise(lane: Arc<Lane>, address: Address) {
    // With jitter, so that the nodes of a region do not all come back in one instant.
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    loop {
        if let Some(open) = lane.current.load_full() {
            open.broken.told.notified().await;
            lane.current.store(None);
            *lane.broke.lock() = Some(Instant::now());
            "the connection broke".clone_into(&mut lane.reason.lock());
            tracing::warn!(store = %address, "a connection to the store broke");
            if open.since.elapsed() >= GOOD_AGE {
                backoff.reset();
            }
        }
        tokio::time::sleep(backoff.next_wait()).await;
        match lane.connect(&address).await {
            Ok(()) => tracing::info!(store = %address, "connected to the store"),
            Err(error) => {
                tracing::debug!(store = %address, %error, "the store can't be reached");
                *lane.reason.lock() = error.to_string();
            }
        }
    }
}

/// Connections for one user at a time.
pub(super) struct Pool(deadpool_redis::Pool);

impl Pool {
    pub(super) fn new(address: &Address, size: usize) -> Result<Self, ConnectError> {
        let wrong = |error: &dyn fmt::Display| ConnectError::Address(error.to_string());
        let manager = Manager::new_with_config(address.info.clone(), timeouts()).map_err(|error| wrong(&error))?;
        deadpool_redis::Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(RESPONSE_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map(Pool)
            .map_err(|error| wrong(&error))
    }

    pub(super) async fn run(&self, call: Call) -> Result<Value, StoreError> {
        let missing = || Err(StoreError::Protocol("no answer".to_owned()));
        self.run_all(vec![call]).await?.pop().unwrap_or_else(missing)
    }

    /// Runs calls in one pipeline, on a connection of their own; one answer each, in order.
    pub(super) async fn run_all(&self, calls: Vec<Call>) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.session().await?.run_all(calls).await
    }

    /// A connection for several pipelines, one after another.
    pub(super) async fn session(&self) -> Result<Session<'_>, StoreError> {
        let connection = self.0.get().await.map_err(unreachable)?;
        Ok(Session { pool: self, connection: Some(connection) })
    }
}

/// A connection out of a pool, and back into it when dropped unless it broke.
pub(super) struct Session<'a> {
    pool: &'a Pool,
    /// None once it broke.
    connection: Option<deadpool_redis::Connection>,
}

impl Session<'_> {
    /// Runs calls in one pipeline; one answer each, in order.
    pub(super) async fn run_all(&mut self, calls: Vec<Call>) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let broken = || StoreError::Unavailable("the connection broke before this was sent".to_owned());
        let connection = self.connection.as_mut().ok_or_else(broken)?;
        match perform(connection, calls).await {
            Ok(answers) => {
                if answers.iter().any(|answer| matches!(answer, Value::ServerError(error) if is_demoted(error))) {
                    // Another may be the master behind this address by now, but no connection that is
                    // open leads there.
                    self.give_up();
                    self.pool.0.retain(|_, _| false);
                }
                Ok(answers.into_iter().map(accepted).collect())
            }
            Err(error) => {
                // Not to be handed to the next: its answers may come late.
                self.give_up();
                Err(unanswered(&error))
            }
        }
    }

    fn give_up(&mut self) {
        self.connection.take().map(deadpool_redis::Connection::take);
    }
}

/// An answer, or the server's no.
fn accepted(answer: Value) -> Result<Value, StoreError> {
    match answer {
        Value::ServerError(error) => Err(refused(&error)),
        answer => Ok(answer),
    }
}

async fn perform_one(connection: &mut MultiplexedConnection, call: Call) -> RedisResult<Value> {
    let answer = connection.send_packed_command(&call.command).await?;
    if !is_unknown_script(&answer) {
        return Ok(answer);
    }
    Ok(perform_loading(connection, vec![call]).await?.pop().unwrap_or_default())
}

/// Runs calls in one pipeline; one answer each, errors of the server among them.
async fn perform(connection: &mut MultiplexedConnection, calls: Vec<Call>) -> RedisResult<Vec<Value>> {
    let mut pipeline = redis::Pipeline::with_capacity(calls.len());
    let mut scripts = Vec::with_capacity(calls.len());
    for Call { command, script } in calls {
        pipeline.add_command(command);
        scripts.push(script);
    }
    let mut answers = connection.send_packed_commands(&pipeline, 0, scripts.len()).await?;
    let unknown: Vec<usize> = (0..answers.len()).filter(|at| is_unknown_script(&answers[*at])).collect();
    if unknown.is_empty() {
        return Ok(answers);
    }
    let sent = pipeline.cmd_iter().zip(scripts).enumerate();
    let again = sent
        .filter(|(at, _)| unknown.contains(at))
        .map(|(_, (command, script))| Call { command: command.clone(), script });
    for (at, answer) in unknown.iter().zip(perform_loading(connection, again.collect()).await?) {
        answers[*at] = answer;
    }
    Ok(answers)
}

/// Runs calls that the server did not execute for want of their scripts, which it is given first.
async fn perform_loading(connection: &mut MultiplexedConnection, calls: Vec<Call>) -> RedisResult<Vec<Value>> {
    let mut pipeline = redis::Pipeline::with_capacity(calls.len() + 1);
    let mut loaded: Vec<&scripts::Script> = Vec::new();
    for script in calls.iter().filter_map(|call| call.script) {
        if !loaded.iter().any(|known| std::ptr::eq(*known, script)) {
            loaded.push(script);
            pipeline.add_command(script.load());
        }
    }
    let count = calls.len();
    for call in calls {
        pipeline.add_command(call.command);
    }
    connection.send_packed_commands(&pipeline, loaded.len(), count).await
}

fn is_unknown_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}
