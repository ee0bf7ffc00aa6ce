//! One connection: runs calls, and notices when it breaks.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CONNECT_TIMEOUT, Master};
use crate::metrics::{InGauge, RoleMetrics};
use crate::store::StoreError;
use crate::store::redis::call::Call;
use crate::store::redis::errors::{is_demoted, refused, unanswered};
use crate::store::redis::scripts;

/// How long an answer is waited for. A connection that was silent for as long, with something outstanding, is
/// broken; one that is merely busy is not.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Operations of a connection that are outstanding at most; more wait for their turn, in order.
const OUTSTANDING: u32 = 2048;

/// How long an operation waits for its turn. It was not sent by then, so that is known.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a master. Clones share it.
#[derive(Clone)]
pub(in crate::store::redis) struct Connection {
    io: MultiplexedConnection,
    life: Arc<Life>,
    metrics: Arc<RoleMetrics>,
}

struct Life {
    master: Arc<Master>,
    broken: CancellationToken,
    since: Instant,
    turns: Semaphore,
    traffic: Mutex<Traffic>,
}

/// What is outstanding, and when something came last.
#[derive(Debug)]
struct Traffic {
    outstanding: usize,
    /// The last answer, or when something became outstanding after a time in which nothing was.
    alive: Instant,
}

/// An operation that was sent.
struct Sent<'a> {
    connection: &'a Connection,
    at: Instant,
    _outstanding: InGauge<'a>,
}

pub(super) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(OUTSTANDING as usize)
}

impl Connection {
    pub(super) fn new(io: MultiplexedConnection, master: Arc<Master>, broken: CancellationToken) -> Self {
        let traffic = Mutex::new(Traffic { outstanding: 0, alive: Instant::now() });
        let turns = Semaphore::new(OUTSTANDING as usize);
        let life = Arc::new(Life { master, broken, since: Instant::now(), turns, traffic });
        Connection { io, life, metrics: Arc::default() }
    }

    /// Counts its round trips with those of others of its role.
    pub(in crate::store::redis) fn counted_in(self, metrics: &RoleMetrics) -> Self {
        Connection { metrics: Arc::new(metrics.clone()), ..self }
    }

    /// The redis crate's connection, for what is no [`Call`].
    pub(in crate::store::redis) fn io(&self) -> MultiplexedConnection {
        self.io.clone()
    }

    pub(in crate::store::redis) fn is_broken(&self) -> bool {
        self.life.broken.is_cancelled()
    }

    /// Resolves when it is broken.
    pub(in crate::store::redis) async fn broken(&self) {
        self.life.broken.cancelled().await;
    }

    pub(in crate::store::redis) fn age(&self) -> Duration {
        self.life.since.elapsed()
    }

    /// Runs one call.
    pub(in crate::store::redis) async fn run(&self, call: &Call) -> Result<Value, StoreError> {
        let mut io = self.io.clone();
        // Pinned here, as a future that is moved on takes its room once more in each that it is moved into.
        let answer = pin!(perform_one(&mut io, call));
        self.accept(self.answered(1, answer).await?)
    }

    /// Runs calls in one pipeline; one answer each, in order.
    pub(in crate::store::redis) async fn run_all(
        &self,
        calls: Vec<Call>,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let mut io = self.io.clone();
        let (operations, answers) = (calls.len(), pin!(perform(&mut io, calls)));
        let answers = self.answered(operations, answers).await?;
        Ok(answers.into_iter().map(|answer| self.accept(answer)).collect())
    }

    /// An answer, or the server's no. A server that is no master any more is left.
    fn accept(&self, answer: Value) -> Result<Value, StoreError> {
        let Value::ServerError(error) = answer else { return Ok(answer) };
        if is_demoted(&error) {
            self.life.master.leave("it is read-only: another server is the master now");
        }
        Err(refused(&error))
    }

    /// Sends when it is its turn, and waits for the answer, or for the end of the connection.
    async fn answered<T>(
        &self,
        operations: usize,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StoreError> {
        let _turn = self.turn(operations).await?;
        let sent = Sent::new(self, operations);
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(answer) => {
                    sent.answered();
                    Ok(answer)
                }
                Err(error) => {
                    if !error.is_timeout() || sent.is_silence() {
                        self.life.broken.cancel();
                    }
                    Err(unanswered(&error))
                }
            },
            () = self.broken() => Err(StoreError::Unknown("the connection broke".to_owned())),
        }
    }

    async fn turn(&self, operations: usize) -> Result<SemaphorePermit<'_>, StoreError> {
        let permits = u32::try_from(operations).unwrap_or(OUTSTANDING).min(OUTSTANDING);
        let _waiting = InGauge::new(&self.metrics.waiting, operations);
        let turn = self.life.turns.acquire_many(permits);
        let busy = || StoreError::Unavailable(format!("busy: {OUTSTANDING} operations wait for their answers"));
        tokio::select! {
            biased;
            turn = timeout(TURN_TIMEOUT, turn) => turn.map_err(|_| busy())?.map_err(|_| busy()),
            () = self.broken() => Err(StoreError::Unavailable("the connection broke before this was sent".to_owned())),
        }
    }
}

impl<'a> Sent<'a> {
    fn new(connection: &'a Connection, operations: usize) -> Self {
        let at = Instant::now();
        let mut traffic = connection.life.traffic.lock();
        if traffic.outstanding == 0 {
            traffic.alive = at;
        }
        traffic.outstanding += 1;
        Sent { connection, at, _outstanding: InGauge::new(&connection.metrics.outstanding, operations) }
    }

    fn answered(&self) {
        let now = Instant::now();
        self.connection.life.traffic.lock().alive = now;
        self.connection.metrics.round_trip.observe((now - self.at).as_secs_f64());
    }

    /// Nothing came for as long as an answer is waited for.
    fn is_silence(&self) -> bool {
        self.connection.life.traffic.lock().alive.elapsed() >= RESPONSE_TIMEOUT
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.connection.life.traffic.lock().outstanding -= 1;
    }
}

async fn perform_one(connection: &mut MultiplexedConnection, call: &Call) -> RedisResult<Value> {
    let answer = match call.asking {
        false => connection.send_packed_command(&call.command).await?,
        true => {
            let mut pipeline = redis::Pipeline::with_capacity(2);
            pipeline.cmd("ASKING").add_command(call.command.clone());
            connection.send_packed_commands(&pipeline, 1, 1).await?.pop().unwrap_or_default()
        }
    };
    if !is_unknown_script(&answer) {
        return Ok(answer);
    }
    Ok(Box::pin(perform_loading(connection, vec![call.clone()])).await?.pop().unwrap_or_default())
}

/// Runs calls in one pipeline; one answer each, errors of the server among them.
async fn perform(connection: &mut MultiplexedConnection, calls: Vec<Call>) -> RedisResult<Vec<Value>> {
    let mut pipeline = redis::Pipeline::with_capacity(calls.len());
    let mut scripts = Vec::with_capacity(calls.len());
    for Call { command, script, .. } in calls {
        pipeline.add_command(command);
        scripts.push(script);
    }
    let mut answers = connection.send_packed_commands(&pipeline, 0, scripts.len()).await?;
    let unknown: Vec<usize> = (0..answers.len()).filter(|at| is_unknown_script(&answers[*at])).collect();
    if unknown.is_empty() {
        return Ok(answers);
    }
    let sent = pipeline.cmd_iter().zip(scripts).enumerate();
    let again = sent.filter(|(at, _)| unknown.contains(at)).map(|(_, (command, script))| Call {
        command: command.clone(),
        script,
        asking: false,
    });
    let answered_now = Box::pin(perform_loading(connection, again.collect())).await?;
    for (at, answer) in unknown.iter().zip(answered_now) {
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
