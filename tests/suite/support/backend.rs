//! A web server of an application: a real one, which keeps what it was asked, and answers as a test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Question {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When it came.
    pub at: Instant,
}

impl Question {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Its answer.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A status, headers and a body.
    Say(u16, Vec<(&'static str, String)>, String),
    /// None at all.
    Hang,
}

impl Reply {
    /// 200 with this JSON.
    pub fn json(body: impl ToString) -> Self {
        Reply::Say(200, Vec::new(), body.to_string())
    }

    /// A status alone.
    pub fn status(status: u16) -> Self {
        Reply::Say(status, Vec::new(), String::new())
    }
}

type Answering = Box<dyn Fn(&Question) -> Reply + Send>;

struct Shared {
    answering: Mutex<Answering>,
    asked: Mutex<Vec<Question>>,
}

/// A backend; it is gone when dropped.
pub struct Backend {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Backend {
    /// One on this machine, without TLS.
    pub async fn start(answering: impl Fn(&Question) -> Reply + Send + 'static) -> Self {
        Backend::run(None, answering).await
    }

    /// One that speaks TLS.
    pub async fn start_tls(tls: TlsAcceptor, answering: impl Fn(&Question) -> Reply + Send + 'static) -> Self {
        Backend::run(Some(tls), answering).await
    }

    async fn run(tls: Option<TlsAcceptor>, answering: impl Fn(&Question) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { answering: Mutex::new(Box::new(answering)), asked: Mutex::default() });
        let (serving, scheme) = (shared.clone(), if tls.is_some() { "https" } else { "http" });
        let accepting = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (shared, tls) = (serving.clone(), tls.clone());
                let service = service_fn(move |request| answer(shared.clone(), request));
                tokio::spawn(async move {
                    let http = http1::Builder::new();
                    let _ = match tls {
                        None => http.serve_connection(TokioIo::new(socket), service).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => http.serve_connection(TokioIo::new(socket), service).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Backend { address, scheme, shared, accepting: accepting.abort_handle() }
    }

    /// Where something of it is.
    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.address.port())
    }

    /// Answers so from now on.
    pub fn be(&self, answering: impl Fn(&Question) -> Reply + Send + 'static) {
        *self.shared.answering.lock() = Box::new(answering);
    }

    /// All that it was asked so far.
    pub fn asked(&self) -> Vec<Question> {
        self.shared.asked.lock().clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path_and_query().unwrap().to_string();
    let question = Question { method: head.method.to_string(), path, headers: head.headers, body, at: Instant::now() };
    let reply = (shared.answering.lock())(&question);
    shared.asked.lock().push(question);
    let Reply::Say(status, headers, body) = reply else { return std::future::pending().await };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    Ok(response)
}
