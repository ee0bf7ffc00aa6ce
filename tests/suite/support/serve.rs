//! What the HTTP servers of tests have in common.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Answers every request of every connection so, until it is aborted.
pub fn serve<A>(listener: TcpListener, answer: impl Fn(Request<Incoming>) -> A + Clone + Send + 'static) -> AbortHandle
where
    A: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let accepting = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer.clone())));
        }
    });
    accepting.abort_handle()
}
