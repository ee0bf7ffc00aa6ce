//! Answering while the store was never reached, or does not take the node yet: an orchestrator that gets no
//! answer from a new node would kill it, and the next, for as long as the store is away.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::drain::StopSignals;
use crate::api::{self, Gate};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::NodeId;
use crate::transport::{Endpoints, HEAD_BYTES, Socket};

/// Does what a start waits for, and answers requests meanwhile. `None` after a signal to stop before it was done.
pub async fn meanwhile<T>(
    work: impl Future<Output = T>,
    endpoints: &Endpoints,
    health: &Arc<Health>,
    node: &NodeId,
    metrics: &Arc<Metrics>,
    gate: &Arc<Gate>,
    signals: &mut StopSignals,
) -> Option<T> {
    let mut connections = JoinSet::new();
    let done = tokio::select! {
        // What was done is done, though a signal came in the same moment.
        biased;
        done = work => Some(done),
        never = answer(endpoints, health, node, metrics, gate, &mut connections) => match never {},
        _ = signals.next() => {
            tracing::info!("stopped before the store had taken the node");
            None
        }
    };
    // Requests that were accepted are still answered, or time out.
    connections.detach_all();
    done
}

/// Answers requests, one a connection, until it is dropped.
async fn answer(
    endpoints: &Endpoints,
    health: &Arc<Health>,
    node: &NodeId,
    metrics: &Arc<Metrics>,
    gate: &Arc<Gate>,
    connections: &mut JoinSet<()>,
) -> Infallible {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_buf_size(HEAD_BYTES).keep_alive(false);
    loop {
        let (raw, arrival, slot) = endpoints.accept().await;
        let answering = api::starting(health.clone(), node.clone(), metrics.clone(), gate.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(arrival);
            answering.call(request)
        });
        let tls = endpoints.tls().filter(|_| arrival.secure).cloned();
        let http = http.clone();
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let served = async {
                let socket = match tls {
                    Some(tls) => tls.accept_http1(raw).await,
                    None => Ok(Socket::Plain(raw)),
                };
                if let Ok(socket) = socket {
                    let _ = http.serve_connection(TokioIo::new(slot.track(socket)), service).await;
                }
            };
            tokio::select! {
                () = served => {}
                () = slot.over() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::access::Access;
    use crate::transport::{Door, Endpoint, HttpLimits};

    /// What a start has: where it listens, and what it answers with.
    fn start() -> (Endpoints, Arc<Health>, NodeId, Arc<Metrics>, Arc<Gate>) {
        let http = HttpLimits { connections: 8, reserved: 1, head_time: Duration::from_secs(10) };
        let endpoints = Endpoints::bind([(Door::Public, &"127.0.0.1:0".parse().unwrap())], None, http).unwrap();
        let metrics = Metrics::new();
        let gate = Arc::new(Gate {
            origins: Default::default(),
            access: Access::new(Default::default()).unwrap(),
            has_admin_door: false,
            throttle: Default::default(),
            metrics: metrics.clone(),
        });
        (endpoints, Arc::new(Health::new("a store".into())), NodeId::random(), metrics, gate)
    }

    #[tokio::test]
    async fn a_start_that_is_done_goes_on_though_a_signal_came_in_the_same_moment() {
        let (endpoints, health, node, metrics, gate) = start();
        let mut signals = StopSignals::listen();
        // Which of several that are ready comes first would be left to chance otherwise.
        for _ in 0..64 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
            signals.next().await;
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
            let done = meanwhile(async { "joined" }, &endpoints, &health, &node, &metrics, &gate, &mut signals).await;
            assert_eq!(done, Some("joined"));
            signals.next().await;
        }
    }

    async fn is_answered(mut client: TcpStream) -> bool {
        let mut answer = String::new();
        let asked = client.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        asked.is_ok() && client.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200 ")
    }

    #[tokio::test]
    async fn whoever_came_before_the_store_took_the_node_is_answered_after_it_too() {
        let (endpoints, health, node, metrics, gate) = start();
        let Some(Endpoint::Address(address)) = endpoints.places(Door::Public).next().cloned() else {
            panic!("no address")
        };
        let (taken, work) = oneshot::channel();
        let mut signals = StopSignals::listen();
        let clients = async {
            let early = TcpStream::connect(address).await.unwrap();
            // They are let in one after another, so by then the first one was too.
            assert!(is_answered(TcpStream::connect(address).await.unwrap()).await);
            taken.send(()).unwrap();
            early
        };
        let (done, early) =
            tokio::join!(meanwhile(work, &endpoints, &health, &node, &metrics, &gate, &mut signals), clients);
        assert_eq!(done, Some(Ok(())));
        assert!(is_answered(early).await);
    }
}
