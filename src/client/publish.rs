//! Publishing: one event, or batches in order.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backoff::Backoff;
use crate::model::{Durability, EventType, StreamKind, StreamName, Ttl};

use super::{ClientError, Failure, Setup, address, below, body, http, place};

/// Most events that callers should put into one batch.
pub const BATCH_EVENTS: usize = 500;

/// A batch should end before it has more bytes than this, unless its only entry does.
pub const BATCH_BYTES: usize = 256 * 1024;

/// How long one request may take. A batch needs a few milliseconds.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Codes of batch entries that may pass: the store was away, full or too slow, or this client too fast.
/// Every other code means that the entry will never be taken.
const PASSING: &[&str] = &["unavailable", "outcome-unknown", "store-full"];

/// The options of an event.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its type; `message` when there is none.
    pub kind: Option<EventType>,
    /// For how long it is delivered.
    pub ttl: Option<Ttl>,
    /// Its collapse key: a client that catches up gets only the newest event of each.
    pub collapse: Option<String>,
    /// What is to be reached before the server answers. Events of a batch can't ask for it.
    pub durable: Option<Durability>,
}

/// One event of a batch.
#[derive(Debug, Clone)]
pub struct Entry(String);

impl Entry {
    /// An event for `stream`. The key makes a repeat safe, so it must be this event's alone: a UUID and a
    /// number, say.
    pub fn new(stream: &StreamName, data: &RawValue, options: &Options, key: &str) -> Self {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            device: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            topic: Option<&'a str>,
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            kind: Option<&'a EventType>,
            #[serde(skip_serializing_if = "Option::is_none")]
            ttl: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            collapse: Option<&'a str>,
            key: &'a str,
            data: &'a RawValue,
        }
        let (device, topic) = match stream.kind() {
            StreamKind::Device => (Some(stream.name()), None),
            StreamKind::Topic => (None, Some(stream.name())),
        };
        let Options { kind, ttl, collapse, durable: _ } = options;
        let (kind, ttl, collapse) = (kind.as_ref(), ttl.map(|ttl| ttl.time().as_secs()), collapse.as_deref());
        let line = serde_json::to_string(&Line { device, topic, kind, ttl, collapse, key, data });
        let mut line = line.expect("strings and raw JSON always serialize");
        // Entries are separated by line feeds. In JSON one can only be white space.
        if line.contains('\n') {
            line = line.replace('\n', " ");
        }
        line.push('\n');
        Entry(line)
    }

    /// What it takes of a batch.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// A batch that ended early. Everything before `entries` is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct BatchError {
    /// Which entries it is about: one, or all that the refused request held.
    pub entries: Range<usize>,
    /// What is wrong with them.
    pub error: ClientError,
}

/// Publishes events to one server.
#[derive(Debug, Clone)]
pub struct Publisher {
    pub(super) http: reqwest::Client,
    pub(super) base: Url,
    patience: Duration,
    on_retry: Option<OnRetry>,
}

/// Called with the error of a request that is tried again, and for how long.
type Notified = dyn Fn(&ClientError, Duration) + Send + Sync;

/// Is notified when a request failed and is tried again.
#[derive(Clone)]
struct OnRetry(Arc<Notified>);

impl fmt::Debug for OnRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRetry")
    }
}

impl Publisher {
    /// A publisher to the server at `url`.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Ok(Publisher {
            http: http(&Setup::default())?,
            base: address(url)?,
            patience: Duration::from_secs(60),
            on_retry: None,
        })
    }

    /// Connects with these headers and this trust.
    pub fn setup(mut self, setup: &Setup) -> Result<Self, ClientError> {
        self.http = http(setup)?;
        Ok(self)
    }

    /// For how long what may pass (the server is away, overloaded or draining) is tried again before it
    /// becomes an error; a minute by default. Counted anew with each success.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Has `notified` called when a request fails in passing, once until it succeeds, with the error and for how long
    /// it is tried again.
    #[must_use]
    pub fn on_retry(mut self, notified: impl Fn(&ClientError, Duration) + Send + Sync + 'static) -> Self {
        self.on_retry = Some(OnRetry(Arc::new(notified)));
        self
    }

    pub(super) fn tries(&self) -> Tries {
        let (since, backoff) = (Instant::now(), Backoff::new(FIRST_WAIT, LONGEST_WAIT));
        Tries { patience: self.patience, since, backoff, on_retry: self.on_retry.clone() }
    }

    /// Publishes one event and answers its id. Without a `key` it gets a random one, so that it is
    /// stored once, however often the request has to be repeated.
    pub async fn publish(
        &self,
        stream: &StreamName,
        data: &RawValue,
        options: &Options,
        key: Option<&str>,
    ) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        struct Stored {
            id: String,
        }
        let url = self.events_url(stream, options);
        let key = key.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let mut tries = self.tries();
        loop {
            let request = self.http.post(url.clone()).header("content-type", "application/json");
            let request = request.header("idempotency-key", &key).body(data.get().to_owned());
            match self.send(request).await {
                Ok(answer) => return self.read::<Stored>(&answer).map(|answer| answer.id),
                Err(failure) => tries.wait(failure).await?,
            }
        }
    }

    /// Sends an event to clients that are connected now, and stores nothing. Returns the number of nodes that it
    /// was sent to. It is not repeated, as it could arrive twice then.
    pub async fn publish_ephemeral(
        &self,
        stream: &StreamName,
        data: &RawValue,
        kind: Option<EventType>,
    ) -> Result<u32, ClientError> {
        #[derive(Deserialize)]
        struct Sent {
            nodes: u32,
        }
        let mut url = self.events_url(stream, &Options { kind, ..Options::default() });
        url.query_pairs_mut().append_pair("ephemeral", "true");
        let request = self.http.post(url).header("content-type", "application/json").body(data.get().to_owned());
        let answer = self.send(request).await.map_err(|failure| failure.error)?;
        self.read::<Sent>(&answer).map(|answer| answer.nodes)
    }

    fn events_url(&self, stream: &StreamName, options: &Options) -> Url {
        let mut url = below(&self.base, &["v1", stream.kind().plural(), stream.name(), "events"]);
        if let Some(kind) = &options.kind {
            url.query_pairs_mut().append_pair("type", kind.as_str());
        }
        if let Some(ttl) = options.ttl {
            url.query_pairs_mut().append_pair("ttl", &ttl.time().as_secs().to_string());
        }
        if let Some(collapse) = &options.collapse {
            url.query_pairs_mut().append_pair("collapse", collapse);
        }
        if let Some(durable) = options.durable {
            url.query_pairs_mut().append_pair("durable", &durable.to_string());
        }
        url
    }

    /// Publishes a batch and answers the ids, in order. What fails in passing is repeated from the first
    /// entry that failed on; the keys see to it that nothing is stored twice.
    pub async fn publish_batch(&self, entries: &[Entry]) -> Result<Vec<String>, BatchError> {
        let mut ids: Vec<String> = Vec::with_capacity(entries.len());
        let mut most = entries.len();
        let mut tries = self.tries();
        while ids.len() < entries.len() {
            let first = ids.len();
            let end = entries.len().min(first + most);
            let stop = |entries: Range<usize>| move |error| BatchError { entries, error };
            match self.send_batch(&entries[first..end]).await {
                // The server takes less at once than we thought; an entry that is too long by itself is
                // found this way too.
                Err(failure) if failure.is_too_large() && end - first > 1 => most = (end - first) / 2,
                Err(failure) => tries.wait(failure).await.map_err(stop(first..end))?,
                Ok(answers) => {
                    let failed = answers.iter().position(Result::is_err);
                    ids.extend(answers.iter().take(failed.unwrap_or(usize::MAX)).flatten().cloned());
                    if ids.len() > first {
                        tries = self.tries();
                    }
                    if let Some(Err(failure)) = failed.map(|at| answers[at].clone()) {
                        let at = ids.len();
                        tries.wait(failure).await.map_err(stop(at..at + 1))?;
                    }
                }
            }
        }
        Ok(ids)
    }

    /// Publishes a batch with one request that is not repeated. The outcome of each entry is its id or its failure.
    pub async fn send_batch(&self, entries: &[Entry]) -> Result<Vec<Result<String, Failure>>, Failure> {
        #[derive(Deserialize)]
        struct Results {
            results: Vec<Outcome>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Outcome {
            Failed {
                error: String,
                #[serde(default)]
                detail: String,
            },
            Stored {
                id: String,
            },
        }
        let body: String = entries.iter().map(|entry| entry.0.as_str()).collect();
        let request = self.http.post(below(&self.base, &["v1", "events"]));
        let request = request.header("content-type", "application/x-ndjson").body(body);
        let answer: Results = self.read(&self.send(request).await?).map_err(Failure::lasting)?;
        if answer.results.len() != entries.len() {
            let reason = format!("{} results for {} events", answer.results.len(), entries.len());
            return Err(Failure::lasting(ClientError::Answer { place: place(&self.base), reason }));
        }
        let outcomes = answer.results.into_iter().map(|outcome| match outcome {
            Outcome::Stored { id } => Ok(id),
            Outcome::Failed { error, detail } => {
                let passing = PASSING.contains(&error.as_str());
                Err(Failure { error: ClientError::Entry { slug: error, detail }, passing, wait: None })
            }
        });
        Ok(outcomes.collect())
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let response = request.timeout(REQUEST_TIMEOUT).send().await;
        let response = response.map_err(|e| Failure::transport(&self.base, &e))?;
        if !response.status().is_success() {
            return Err(Failure::refused(&self.base, response).await);
        }
        body(&self.base, response).await
    }

    pub(super) fn read<T: serde::de::DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer)
            .map_err(|e| ClientError::Answer { place: place(&self.base), reason: e.to_string() })
    }
}

impl Failure {
    /// Whether the request held more than the server takes at once.
    pub fn is_too_large(&self) -> bool {
        matches!(self.error, ClientError::Refused { status, .. } if status == StatusCode::PAYLOAD_TOO_LARGE.as_u16())
    }
}

/// The tries of one request.
pub(super) struct Tries {
    patience: Duration,
    since: Instant,
    backoff: Backoff,
    /// Until it was called.
    on_retry: Option<OnRetry>,
}

impl Tries {
    /// Waits for the next try, or returns the failure if there is none.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<(), ClientError> {
        if !failure.passing {
            return Err(failure.error);
        }
        let wait = self.backoff.next_wait().max(failure.wait.unwrap_or_default());
        if self.since.elapsed() + wait > self.patience {
            return Err(ClientError::GivenUp {
                seconds: self.since.elapsed().as_secs(),
                last: Box::new(failure.error),
            });
        }
        if let Some(OnRetry(notified)) = self.on_retry.take() {
            notified(&failure.error, self.patience);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Server, answer, problem};

    fn entries(data: &[&str]) -> Vec<Entry> {
        let stream = "topic:news".parse().unwrap();
        let entry = |(n, text): (usize, &&str)| {
            Entry::new(
                &stream,
                &RawValue::from_string((*text).to_owned()).unwrap(),
                &Options::default(),
                &format!("k-{n}"),
            )
        };
        data.iter().enumerate().map(entry).collect()
    }

    fn results(results: &str) -> String {
        answer("200 OK", "application/json", &format!("{{\"results\":[{results}]}}"))
    }

    #[tokio::test]
    async fn a_batch_is_repeated_with_the_same_keys_when_the_server_was_away() {
        let server = Server::start(vec![
            problem("503 Service Unavailable", "the store is away"),
            results(r#"{"id":"1-1"},{"id":"1-2"}"#),
        ])
        .await;
        let publisher = Publisher::new(&server.url()).unwrap();
        let ids = publisher.publish_batch(&entries(&["1", r#"{"a":[1, 2]}"#])).await.unwrap();
        assert_eq!(ids, ["1-1", "1-2"]);
        let requests = server.requests();
        assert!(requests[0].starts_with("POST /v1/events HTTP/1.1\r\n"));
        assert!(requests[0].contains("content-type: application/x-ndjson"));
        assert!(requests[0].ends_with(
            "{\"topic\":\"news\",\"key\":\"k-0\",\"data\":1}\n{\"topic\":\"news\",\"key\":\"k-1\",\"data\":{\"a\":[1, 2]}}\n"
        ));
        assert_eq!(requests[0], requests[1]);
    }

    #[tokio::test]
    async fn a_batch_goes_on_at_the_first_entry_that_failed_in_passing() {
        let server = Server::start(vec![
            results(r#"{"id":"1-1"},{"error":"unavailable","detail":"away"},{"id":"1-3"}"#),
            results(r#"{"id":"1-4"},{"id":"1-3"}"#),
        ])
        .await;
        let publisher = Publisher::new(&server.url()).unwrap();
        assert_eq!(publisher.publish_batch(&entries(&["1", "2", "3"])).await.unwrap(), ["1-1", "1-4", "1-3"]);
        let second = &server.requests()[1];
        assert!(!second.contains("k-0") && second.contains("k-1") && second.contains("k-2"));
    }

    #[tokio::test]
    async fn whatever_the_store_may_get_over_is_tried_again() {
        use crate::{hub::PublishError, store::StoreError};
        let errors = [StoreError::Unavailable("".into()), StoreError::Unknown("".into()), StoreError::Full("".into())];
        for error in errors {
            let slug = PublishError::Store(error).slug();
            let failed = results(&format!(r#"{{"error":"{slug}","detail":"not now"}}"#));
            let server = Server::start(vec![failed, results(r#"{"id":"1-1"}"#)]).await;
            let publisher = Publisher::new(&server.url()).unwrap();
            assert_eq!(publisher.publish_batch(&entries(&["1"])).await.unwrap(), ["1-1"], "{slug}");
        }
    }

    #[tokio::test]
    async fn an_entry_that_can_never_pass_ends_the_batch_by_name() {
        let server = Server::start(vec![results(r#"{"id":"1-1"},{"error":"bad-request","detail":"no good"}"#)]).await;
        let error = Publisher::new(&server.url()).unwrap().publish_batch(&entries(&["1", "2"])).await.unwrap_err();
        assert_eq!((error.entries.clone(), error.to_string()), (1..2, "no good (bad-request)".into()));
    }

    #[tokio::test]
    async fn a_batch_that_is_too_large_is_halved_until_the_one_to_blame_stands_alone() {
        let large = || problem("413 Payload Too Large", "too long");
        let server = Server::start(vec![large(), large(), results(r#"{"id":"1-1"}"#), large()]).await;
        let error =
            Publisher::new(&server.url()).unwrap().publish_batch(&entries(&["1", "2", "3", "4"])).await.unwrap_err();
        assert_eq!(error.entries, 1..2);
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[tokio::test]
    async fn retries_have_an_end_and_honour_the_servers_wait() {
        let refusal = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n";
        let server = Server::start(vec![refusal.into()]).await;
        let error = Publisher::new(&server.url()).unwrap().publish_batch(&entries(&["1"])).await.unwrap_err();
        assert!(matches!(error.error, ClientError::GivenUp { .. }), "an hour is more than the patience: {error}");

        let nobody = Publisher::new("http://127.0.0.1:1").unwrap().patience(Duration::ZERO);
        let error = nobody.publish_batch(&entries(&["1"])).await.unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1 can't be reached: Connection refused"), "{error}");
    }

    #[tokio::test]
    async fn one_event_goes_to_its_own_address_with_a_key() {
        let server = Server::start(vec![answer("201 Created", "application/json", r#"{"id":"7-1"}"#)]).await;
        let data = RawValue::from_string("{\"a\" :1}".into()).unwrap();
        let options = Options {
            kind: Some("a/b".parse().unwrap()),
            ttl: Some("60".parse().unwrap()),
            collapse: Some("a=b".into()),
            durable: None,
        };
        let publisher = Publisher::new(&server.url()).unwrap();
        let id = publisher.publish(&"device:a|b".parse().unwrap(), &data, &options, Some("once")).await.unwrap();
        assert_eq!(id, "7-1");
        let request = &server.requests()[0];
        assert!(
            request.starts_with("POST /v1/devices/a|b/events?type=a%2Fb&ttl=60&collapse=a%3Db HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("idempotency-key: once\r\n") && request.ends_with("{\"a\" :1}"), "{request}");
    }
}
