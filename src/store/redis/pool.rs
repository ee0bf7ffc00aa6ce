//! A pool of connections, each for one user at a time: for what may wait, such as leases, pages and
//! administration. A slow page there holds up nobody.

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, PoolError, RecycleError, RecycleResult, TimeoutType};
use redis::Value;

use super::call::Call;
use super::errors::{ConnectError, not_reached};
use super::server::{CONNECT_TIMEOUT, Connection, RESPONSE_TIMEOUT, Server};
use crate::metrics::{InGauge, RoleMetrics};
use crate::store::StoreError;

/// Connections for one user at a time.
pub(super) struct Pool(managed::Pool<Manager>);

/// Opens connections where the master is at the time, which deadpool-redis's own manager can't.
struct Manager {
    server: Server,
    metrics: RoleMetrics,
    /// Checks connections before they are used again. It never connects.
    checks: deadpool_redis::Manager,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection, StoreError> {
        Ok(self.server.open(|_| {}).await?.counted_in(&self.metrics))
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<StoreError> {
        if connection.is_broken() {
            return Err(RecycleError::message("the connection broke"));
        }
        let check = self.checks.recycle(&mut connection.io(), metrics).await;
        check.map_err(|error| RecycleError::message(error.to_string()))
    }
}

impl Pool {
    pub(super) fn new(server: &Server, role: &'static str, size: usize) -> Result<Self, ConnectError> {
        let wrong = |error: &dyn std::fmt::Display| ConnectError::Address(error.to_string());
        let checks = deadpool_redis::Manager::new(("unused", 1)).map_err(|error| wrong(&error))?;
        managed::Pool::builder(Manager { server: server.clone(), metrics: server.metrics(role), checks })
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(RESPONSE_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map(Pool)
            .map_err(|error| wrong(&error))
    }

    pub(super) async fn run(&self, call: &Call) -> Result<Value, StoreError> {
        self.session().await?.run(call).await
    }

    /// A connection for several pipelines, one after another.
    pub(super) async fn session(&self) -> Result<Session, StoreError> {
        let _waiting = InGauge::new(&self.0.manager().metrics.waiting, 1);
        let connection = self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => {
                StoreError::Unavailable("busy: all connections of a pool are in use".to_owned())
            }
            error => not_reached(error),
        })?;
        Ok(Session(Some(connection)))
    }
}

/// A connection out of a pool, and back into it when dropped unless it broke: then it is `None`.
pub(super) struct Session(Option<managed::Object<Manager>>);

impl Session {
    pub(super) async fn run(&mut self, call: &Call) -> Result<Value, StoreError> {
        let answer = self.connection()?.run(call).await;
        if matches!(answer, Err(StoreError::Unknown(_))) {
            self.leave();
        }
        answer
    }

    /// Runs calls in one pipeline; one answer each, in order.
    pub(super) async fn run_all(&mut self, calls: Vec<Call>) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let answers = self.connection()?.run_all(calls).await;
        if answers.is_err() {
            self.leave();
        }
        answers
    }

    fn connection(&self) -> Result<&Connection, StoreError> {
        let broken = || StoreError::Unavailable("the connection broke before this was sent".to_owned());
        self.0.as_deref().ok_or_else(broken)
    }

    /// Not for the next user: an answer that is late would hold it up.
    fn leave(&mut self) {
        self.0.take().map(managed::Object::take);
    }
}
