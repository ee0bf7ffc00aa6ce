//! The HTTP client behind `whimbrel publish` and `whimbrel subscribe`; a Rust program can use it too.
//!
//! - [`Publisher`] hands events in, one or a batch, and repeats what may have failed in passing;
//! - [`Lease`] is held by a publisher that wants to be missed;
//! - [`Subscriber`] follows streams over SSE and resumes by itself, on another node if need be.
//!
//! ```no_run
//! # async fn example() -> Result<(), whimbrel::client::ClientError> {
//! use whimbrel::client::{Notice, Options, Publisher, Subscriber, Subscription};
//!
//! let news = "topic:news".parse().expect("a stream");
//! let data = serde_json::value::to_raw_value("hello").expect("text is JSON");
//! let id = Publisher::new("http://127.0.0.1:8080")?.publish(&news, &data, &Options::default(), None).await?;
//!
//! let mut wanted = Subscription::of(vec![news]);
//! wanted.after = Some("earliest".into());
//! let mut subscriber = Subscriber::new(&["http://127.0.0.1:8080"], wanted)?;
//! while let Some(notice) = subscriber.next().await? {
//!     if let Notice::Event(event) = notice {
//!         println!("{} {}", event.stream, event.data);
//!     }
//! }
//! # Ok(()) }
//! ```

mod lease;
mod parts;
mod publish;
mod sse;
mod subscribe;
mod tls;

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

pub use lease::Lease;
pub use parts::ExportedPart;
pub use publish::{BATCH_BYTES, BATCH_EVENTS, BatchError, Entry, Options, Publisher};
pub use subscribe::{Envelope, GapNotice, Notice, Subscriber, Subscription};
pub use tls::{Authorities, mistrust};

/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most of an answer that is read, apart from event streams: a batch of 500 ids takes a tenth of it.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Why the client did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ClientError {
    /// The address of the server is none.
    #[error("'{0}' is not an address such as http://127.0.0.1:8080")]
    Address(String),
    /// What was asked can't be put into a request.
    #[error("{0}")]
    Request(String),
    /// The server could not be reached, or the connection broke.
    #[error("{place} can't be reached: {reason}")]
    Unreachable { place: String, reason: String },
    /// The server refused it.
    #[error("{detail} (answer {status} from {place})")]
    Refused { place: String, status: u16, detail: String },
    /// The server refused this event of a batch.
    #[error("{detail} ({slug})")]
    Entry { slug: String, detail: String },
    /// The server answered what this version does not understand.
    #[error("{place} gave an answer that makes no sense: {reason}")]
    Answer { place: String, reason: String },
    /// It failed in passing, and went on failing for longer than the caller wanted to wait.
    #[error("given up after {seconds} s: {last}")]
    GivenUp { seconds: u64, last: Box<ClientError> },
}

/// A failed request, or a failed entry of a batch, and whether another try makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub error: ClientError,
    /// Whether it may pass: the same request can succeed later.
    pub passing: bool,
    /// What the server asked to wait.
    pub wait: Option<Duration>,
}

impl Failure {
    fn lasting(error: ClientError) -> Self {
        Failure { error, passing: false, wait: None }
    }

    fn passing(error: ClientError) -> Self {
        Failure { error, passing: true, wait: None }
    }

    /// The request did not get through, or its answer did not.
    fn transport(url: &Url, error: &reqwest::Error) -> Self {
        Failure {
            error: ClientError::Unreachable { place: place(url), reason: cause(error) },
            // A request that can't even be built, redirects in a circle, or meets a server that is not trusted, fails
            // the same way again.
            passing: !(error.is_builder() || error.is_redirect() || mistrust(error).is_some()),
            wait: None,
        }
    }

    /// The server answered with something else than success.
    async fn refused(url: &Url, response: Response) -> Self {
        #[derive(Deserialize)]
        struct Problem {
            detail: Option<String>,
            title: Option<String>,
        }
        let status = response.status();
        let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = body(url, response).await.unwrap_or_default();
        let detail = serde_json::from_slice::<Problem>(&body)
            .ok()
            .and_then(|problem| problem.detail.or(problem.title))
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("refused").to_owned());
        Failure {
            error: ClientError::Refused { place: place(url), status: status.as_u16(), detail },
            passing: matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::REQUEST_TIMEOUT
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            wait: wait.map(Duration::from_secs),
        }
    }
}

/// The whole body of an answer, up to [`MAX_ANSWER_BYTES`].
async fn body(url: &Url, response: Response) -> Result<Vec<u8>, Failure> {
    read_at_most(response, MAX_ANSWER_BYTES).await.map_err(|error| match error {
        BodyError::Broken(error) => Failure::transport(url, &error),
        large @ BodyError::Large(_) => {
            Failure::lasting(ClientError::Answer { place: place(url), reason: large.to_string() })
        }
    })
}

/// Why the body of an answer was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It has more bytes than these.
    #[error("it is longer than {0} bytes")]
    Large(usize),
    /// The connection broke.
    #[error("{}", cause(.0))]
    Broken(reqwest::Error),
}

/// The whole body of an answer of at most so many bytes.
pub(crate) async fn read_at_most(mut response: Response, most: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > most {
            return Err(BodyError::Large(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What every request of a client brings, and which certificates the client trusts.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// A token or key in `Authorization`, and whatever else a server in front wants.
    pub headers: HeaderMap,
    /// Whose certificates are accepted over TLS.
    pub authorities: Authorities,
}

fn http(setup: &Setup) -> Result<reqwest::Client, ClientError> {
    let builder = builder().default_headers(setup.headers.clone());
    let builder = match &setup.authorities {
        Authorities::Machine => builder,
        only => builder.tls_backend_preconfigured(only.config()?),
    };
    builder.build().map_err(|e| ClientError::Request(format!("the HTTP client can't be set up: {}", cause(&e))))
}

/// What all HTTP clients of this program have in common.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    reqwest::Client::builder()
        .user_agent(concat!("whimbrel/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
}

/// Reads the address of a server. A path in it is kept: the service may live below one.
fn address(text: &str) -> Result<Url, ClientError> {
    let wrong = || ClientError::Address(text.to_owned());
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    // As the same server is called where it is followed over WebSocket.
    let scheme = match url.scheme() {
        "http" | "ws" => "http",
        "https" | "wss" => "https",
        _ => return Err(wrong()),
    };
    if url.set_scheme(scheme).is_err() || !url.has_host() {
        return Err(wrong());
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// The address of a resource below `base`; each segment is percent-encoded.
fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Where a request went, for messages: without user, password and parameters.
fn place(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The innermost reason, which is the one that people can act on ("Connection refused").
pub(crate) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    if let Some(reason) = mistrust(error) {
        return reason;
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match error.source() {
        Some(_) => innermost.to_string(),
        None => "the request failed".into(),
    }
}

#[cfg(test)]
mod fake;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_path_and_shows_no_password() {
        let base = address("https://me:s3cret@example.com/push/?x=1").unwrap();
        let url = below(&base, &["v1", "topics", "a/b c", "events"]);
        assert_eq!(url.path(), "/push/v1/topics/a%2Fb%20c/events");
        assert_eq!(url.query(), None);
        assert_eq!(place(&url), "https://example.com");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "localhost:8080", "ftp://x", "127.0.0.1:80", "http://"] {
            assert_eq!(address(text), Err(ClientError::Address(text.into())));
        }
    }
}
