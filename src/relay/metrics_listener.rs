//! Where Prometheus reads a relay's figures.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics::{RelayMetrics, TEXT_TYPE};

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 16;

/// How long one may last: it carries one request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Answers `GET /metrics`, and nothing else.
pub struct MetricsListener(TcpListener);

impl MetricsListener {
    /// Listens there.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(MetricsListener(TcpListener::bind(address).await?))
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn answer(self, metrics: Arc<RelayMetrics>) -> Infallible {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("nobody closes it");
            let Ok((socket, _)) = self.0.accept().await else {
                // Without descriptors, for instance: others are given time to end.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let metrics = Arc::clone(&metrics);
            tokio::spawn(async move {
                let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics))));
                let mut http = http1::Builder::new();
                let served =
                    http.header_read_timeout(None).keep_alive(false).serve_connection(TokioIo::new(socket), service);
                let _ = timeout(REQUEST_TIME, served).await;
                drop(slot);
            });
        }
    }
}

fn answer(request: &Request<Incoming>, metrics: &RelayMetrics) -> Response<String> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, TEXT_TYPE, metrics.text()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "allowed is GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "the figures are at /metrics\n".to_owned()),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}
