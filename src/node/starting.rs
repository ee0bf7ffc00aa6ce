//! Answering while the store was never reached: an orchestrator that gets no answer from a new node would kill
//! it, and the next, for as long as the store is away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;

use crate::api;
use crate::health::Health;
use crate::store::NodeId;
use crate::transport::Endpoints;

/// Connections at a time; more are closed unanswered, as by a node that is not there.
const CONNECTIONS: usize = 1024;

/// A connection whose request did not come by then is closed.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// Answers whoever comes, one request a connection, until it is dropped.
pub async fn answer(endpoints: &Endpoints, health: &Arc<Health>, node: &NodeId) -> Infallible {
    let service = TowerToHyperService::new(warp::service(api::starting(health.clone(), node.clone())));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (socket, _) = endpoints.accept() => if connections.len() < CONNECTIONS {
                connections.spawn(http.serve_connection(TokioIo::new(socket), service.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
