//! A request whose handling panics is answered.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use warp::reply::Response;

use super::Problem;

/// A service that answers 500 where `service` panics.
pub fn panics<S>(
    service: S,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Unpin
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + Sync + Unpin,
    S::Future: Send,
{
    service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        async move {
            let answered = AssertUnwindSafe(async { service.call(request).await }).catch_unwind().await;
            // The panic was logged and counted where it happened.
            Ok(answered.map_or_else(|_| Problem::internal().into_response(), |Ok(response)| response))
        }
    })
}

#[cfg(test)]
mod tests {
    use hyper::server::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_request_whose_handling_panics_is_answered_and_so_is_the_next() {
        let service = service_fn(async |request: Request<Incoming>| {
            assert_ne!(request.uri().path(), "/panic", "on purpose");
            Ok(Response::new("well".into()))
        });
        let (mut client, server) = tokio::io::duplex(4096);
        let served = http1::Builder::new().serve_connection(TokioIo::new(server), panics(service));
        let asked = async {
            for (path, answers) in [("/panic", "500 "), ("/", "200 "), ("/panic", "500 "), ("/", "200 ")] {
                client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"well") && !answer.ends_with(b"}") {
                    assert!(client.read_buf(&mut answer).await.unwrap() > 0);
                }
                let answer = String::from_utf8(answer).unwrap();
                assert!(answer.starts_with(&format!("HTTP/1.1 {answers}")), "{answer}");
                assert_eq!(answer.contains("urn:whimbrel:problem:internal"), path == "/panic", "{answer}");
            }
            drop(client);
        };
        let (served, ()) = tokio::join!(served, asked);
        served.unwrap();
    }
}
