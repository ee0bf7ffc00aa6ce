//! A receiver of webhooks: a real HTTP server that keeps what it got, and answers as the test wants.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use parking_lot::Mutex;
use ring::hmac;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::eventually;
use super::serve::serve;

/// What requests are signed with.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How it answers.
#[derive(Debug, Clone)]
pub enum Manner {
    /// It takes what comes.
    Take,
    /// With a status and perhaps a header, and it takes nothing.
    Refuse(u16, Option<(&'static str, String)>),
    /// Not at all.
    Hang,
}

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: String,
    pub taken: bool,
    pub content_type: String,
    pub body: Value,
}

impl Delivery {
    /// The ids of its events.
    pub fn events(&self) -> Vec<String> {
        let events = self.body["events"].as_array().unwrap();
        events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }
}

struct Shared {
    manner: Mutex<Manner>,
    requests: Mutex<Vec<Delivery>>,
}

/// A receiver; it is gone when dropped.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Receiver {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { manner: Mutex::new(manner), requests: Mutex::default() });
        let serving = shared.clone();
        let accepting = serve(listener, move |request| answer(serving.clone(), request));
        Receiver { address, shared, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers so from now on.
    pub fn be(&self, manner: Manner) {
        *self.shared.manner.lock() = manner;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Delivery> {
        self.shared.requests.lock().clone()
    }

    /// Waits until it got so many requests.
    pub async fn received(&self, count: usize) -> Vec<Delivery> {
        let what = format!("{count} requests");
        eventually(&what, async || Some(self.requests()).filter(|delivery| delivery.len() >= count)).await
    }

    /// What it took, each request once, however often it came.
    pub fn taken(&self) -> Vec<Delivery> {
        let mut taken: Vec<Delivery> = Vec::new();
        for delivery in self.requests().into_iter().filter(|delivery| delivery.taken) {
            match taken.iter().find(|before| before.id == delivery.id) {
                Some(before) => assert_eq!(before.body, delivery.body, "one id, and two bodies"),
                None => taken.push(delivery),
            }
        }
        taken
    }

    /// Waits until it took these events, in this order, and nothing else.
    pub async fn takes(&self, events: &[String]) {
        let enough = async || {
            let taken: Vec<String> = self.taken().iter().flat_map(Delivery::events).collect();
            (taken.len() >= events.len()).then_some(taken)
        };
        assert_eq!(eventually("enough events", enough).await, events);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        // It was cut off.
        return Ok(Response::default());
    };
    let body = body.to_bytes();
    let header = |name| head.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap();
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/hook"));
    let content_type = header("content-type").to_owned();
    assert!(content_type.starts_with("application/") && content_type.ends_with("json"), "{content_type}");
    let id = header("webhook-id").to_owned();
    verify(&id, header("webhook-timestamp"), header("webhook-signature"), &body);
    let manner = shared.manner.lock().clone();
    let taken = matches!(manner, Manner::Take);
    shared.requests.lock().push(Delivery { id, taken, content_type, body: serde_json::from_slice(&body).unwrap() });
    let mut response = Response::new(Full::from("thank you"));
    match manner {
        Manner::Take => {}
        Manner::Refuse(status, header) => {
            *response.status_mut() = status.try_into().unwrap();
            if let Some((name, value)) = header {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        Manner::Hang => std::future::pending().await,
    }
    Ok(response)
}

/// Checks a signature by the words of the specification.
pub fn verify(id: &str, timestamp: &str, signature: &str, body: &[u8]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(timestamp.parse::<u64>().unwrap().abs_diff(now) < 300, "signed at {timestamp}, and now is {now}");
    let secret = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let signature = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&key, &signed, &signature).expect("a good signature");
}
