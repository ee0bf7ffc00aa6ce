//! A web server of an application: a real one, which keeps what it was asked, and answers as a test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Question {
    pub path: String,
}

/// Its answer: a status, headers and a body.
#[derive(Debug, Clone)]
pub struct Reply(pub u16, pub Vec<(&'static str, String)>, pub String);

impl Reply {
    /// 200 with this JSON.
    pub fn json(body: impl ToString) -> Self {
        Reply(200, Vec::new(), body.to_string())
    }

    /// A status alone.
    pub fn status(status: u16) -> Self {
        Reply(status, Vec::new(), String::new())
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
    let question = Question { path: request.uri().path().to_owned() };
    let Reply(status, headers, body) = (shared.answering.lock())(&question);
    shared.asked.lock().push(question);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    Ok(response)
}
