//! Following streams: one SSE connection at a time, resumed where it broke, on the next server if need be.

use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::model::{EventId, EventType, StreamName};

use super::sse::{Decoder, Frame};
use super::{ClientError, Failure, Setup, address, below, cause, http, place};

/// A server gives a sign of life every 25 seconds. After three that did not come the connection is dead,
/// even if TCP has not noticed.
const SILENCE: Duration = Duration::from_secs(75 + 15);

/// How long a server may take to accept a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// No server may send a client away for longer: it could as well be a mistake.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// What to follow, and from where.
#[derive(Debug, Clone, Default)]
pub struct Subscription {
    /// The streams.
    pub streams: Vec<StreamName>,
    /// Only events of these types; all when empty.
    pub types: Vec<EventType>,
    /// Where to begin: `now` (when not given), `earliest`, `last:N`, `since:TIME`, or a cursor.
    pub after: Option<String>,
    /// A cursor that an earlier subscription left; beats `after`.
    pub cursor: Option<String>,
}

impl Subscription {
    /// Everything that is published to `streams` from now on.
    pub fn of(streams: Vec<StreamName>) -> Self {
        Subscription { streams, ..Subscription::default() }
    }
}

/// An event as the server wraps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// Whose event it is.
    pub stream: String,
    /// Its id; an event that is not stored has none.
    pub id: Option<EventId>,
    /// Its type.
    #[serde(rename = "type", default = "message")]
    pub kind: String,
    /// When it was published, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Its data: JSON, as published.
    pub data: Box<RawValue>,
}

fn message() -> String {
    EventType::MESSAGE.as_str().into()
}

/// Events that can't be delivered any more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GapNotice {
    /// Of which stream.
    pub stream: String,
    /// After this event…
    pub after: EventId,
    /// …until this one, if it is known already, events are missing.
    #[serde(default)]
    pub next: Option<EventId>,
    /// `trimmed`, `expired` or `lost`.
    pub reason: String,
}

/// What a [`Subscriber`] reports.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A server accepted the subscription.
    Connected {
        /// The server's address.
        place: String,
    },
    /// The next event.
    Event(Box<Envelope>),
    /// The cursor moved without an event.
    Position,
    /// Events are missing here.
    Gap(GapNotice),
    /// The server is about to end the connection.
    Close {
        /// As the server gives it, such as `drain`.
        reason: String,
    },
    /// The connection ended, or none came about.
    Disconnected {
        /// Why, in words.
        reason: String,
        /// After this the subscriber goes on by itself.
        wait: Duration,
    },
}

/// Follows streams across connections and servers.
#[derive(Debug)]
pub struct Subscriber {
    http: reqwest::Client,
    urls: Vec<Url>,
    /// Which of `urls` is used now.
    at: usize,
    after: Option<String>,
    cursor: Option<String>,
    connection: Option<Connection>,
    backoff: Backoff,
    /// What the server last asked to wait before a reconnect; it has spread its clients over some time.
    retry: Duration,
    /// What to wait before the next try.
    wait: Duration,
    silence: Duration,
}

#[derive(Debug)]
struct Connection {
    response: Response,
    decoder: Decoder,
}

impl Subscriber {
    /// A subscriber that begins at the first of `urls` and goes on to the next whenever one fails or ends.
    pub fn new<U: AsRef<str>>(urls: &[U], wanted: Subscription) -> Result<Self, ClientError> {
        let urls =
            urls.iter().map(|url| Ok(events_url(&address(url.as_ref())?, &wanted))).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() || wanted.streams.is_empty() {
            return Err(ClientError::Request("a subscription needs a server and a stream".into()));
        }
        if let Some(cursor) = &wanted.cursor {
            check_cursor(cursor)?;
        }
        Ok(Subscriber {
            http: http(&Setup::default())?,
            urls,
            at: 0,
            after: wanted.after,
            cursor: wanted.cursor,
            connection: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            retry: Duration::ZERO,
            wait: Duration::ZERO,
            silence: SILENCE,
        })
    }

    /// Connects with these headers and this trust.
    pub fn setup(mut self, setup: &Setup) -> Result<Self, ClientError> {
        self.http = http(setup)?;
        Ok(self)
    }

    /// The position after everything that [`Subscriber::next`] has returned: hand it to a later
    /// [`Subscription`] to go on from here.
    ///
    /// After [`Notice::Close`] it may carry a mark by which the server ends the next connection for good,
    /// so a cursor that is to be kept is taken after the other notices only.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// What happens next. Waits, reconnects and resumes as needed; `None` means that the server wants
    /// this client to stay away, an error that it refuses it for good.
    ///
    /// Not cancel safe while it waits to reconnect: the wait begins anew.
    pub async fn next(&mut self) -> Result<Option<Notice>, ClientError> {
        loop {
            let Some(connection) = &mut self.connection else {
                sleep(self.wait).await;
                match self.connect().await {
                    Ok(Some(connection)) => self.connection = Some(connection),
                    Ok(None) => return Ok(None),
                    Err(failure) if failure.passing => {
                        let asked = failure.wait.unwrap_or_default();
                        return Ok(Some(self.disconnected(failure.error.to_string(), asked)));
                    }
                    Err(failure) => return Err(failure.error),
                }
                return Ok(Some(Notice::Connected { place: self.place() }));
            };
            if let Some(frame) = connection.decoder.next() {
                match self.take(frame)? {
                    Some(notice) => return Ok(Some(notice)),
                    None => continue,
                }
            }
            let reason = match timeout(self.silence, connection.response.chunk()).await {
                Ok(Ok(Some(chunk))) => match connection.decoder.feed(&chunk) {
                    Ok(()) => {
                        // Before the frames: the wait that a close demands is newer.
                        self.retry = connection.decoder.take_retry().unwrap_or(self.retry);
                        continue;
                    }
                    Err(e) => {
                        return Err(ClientError::Answer { place: place(&self.urls[self.at]), reason: e.to_string() });
                    }
                },
                Ok(Ok(None)) => format!("{} ended the connection", place(&self.urls[self.at])),
                Ok(Err(e)) => format!("the connection to {} broke: {}", place(&self.urls[self.at]), cause(&e)),
                Err(_) => {
                    format!("no sign of life from {} for {} s", place(&self.urls[self.at]), self.silence.as_secs())
                }
            };
            return Ok(Some(self.disconnected(reason, Duration::ZERO)));
        }
    }

    /// One try to connect. `None`: the server wants no more of this client.
    async fn connect(&self) -> Result<Option<Connection>, Failure> {
        let mut url = self.urls[self.at].clone();
        let mut request = match (&self.cursor, &self.after) {
            (Some(cursor), _) => {
                let value = HeaderValue::from_str(cursor).map_err(|_| Failure::lasting(bad_cursor()))?;
                self.http.get(url.clone()).header("last-event-id", value)
            }
            (None, Some(after)) => {
                url.query_pairs_mut().append_pair("after", after);
                self.http.get(url.clone())
            }
            (None, None) => self.http.get(url.clone()),
        };
        request = request.header("accept", "text/event-stream").header("cache-control", "no-store");
        let response = match timeout(ANSWER_TIMEOUT, request.send()).await {
            Ok(response) => response.map_err(|e| Failure::transport(&url, &e))?,
            Err(_) => {
                let reason = "no answer in time".into();
                return Err(Failure::passing(ClientError::Unreachable { place: place(&url), reason }));
            }
        };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Ok(None),
            _ => return Err(Failure::refused(&url, response).await),
        }
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            let reason = format!("'{kind}' in place of an event stream");
            return Err(Failure::lasting(ClientError::Answer { place: place(&url), reason }));
        }
        Ok(Some(Connection { response, decoder: Decoder::default() }))
    }

    /// The connection is over: the next try goes to the next server.
    fn disconnected(&mut self, reason: String, asked: Duration) -> Notice {
        self.connection = None;
        self.at = (self.at + 1) % self.urls.len();
        self.wait = self.backoff.next_wait().max(self.retry).max(asked).min(LONGEST_RETRY);
        Notice::Disconnected { reason, wait: self.wait }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Notice>, ClientError> {
        let place = self.place();
        let wrong = |e: serde_json::Error| ClientError::Answer { place, reason: e.to_string() };
        let notice = match frame.event.as_str() {
            "whimbrel:position" => Some(Notice::Position),
            "whimbrel:gap" => Some(Notice::Gap(serde_json::from_str(&frame.data).map_err(wrong)?)),
            "whimbrel:close" => {
                #[derive(Deserialize)]
                struct Close {
                    reason: String,
                    retry: Option<u64>,
                }
                let close: Close = serde_json::from_str(&frame.data).map_err(wrong)?;
                self.retry = close.retry.map_or(self.retry, Duration::from_millis);
                Some(Notice::Close { reason: close.reason })
            }
            // Pings, and whatever later versions have to say of themselves.
            name if name.starts_with("whimbrel:") && name != EventType::ABANDONED => None,
            _ => Some(Notice::Event(Box::new(serde_json::from_str(&frame.data).map_err(wrong)?))),
        };
        if !matches!(notice, None | Some(Notice::Close { .. })) {
            // The server is well: the next failure is a new one.
            self.backoff.reset();
        }
        if let Some(id) = frame.id.filter(|id| !id.is_empty()) {
            self.cursor = Some(id);
        }
        Ok(notice)
    }

    fn place(&self) -> String {
        place(&self.urls[self.at])
    }
}

fn events_url(base: &Url, wanted: &Subscription) -> Url {
    let mut url = below(base, &["v1", "sse"]);
    {
        let mut query = url.query_pairs_mut();
        for stream in &wanted.streams {
            query.append_pair(stream.kind().as_str(), stream.name());
        }
        if !wanted.types.is_empty() {
            let types: Vec<&str> = wanted.types.iter().map(EventType::as_str).collect();
            query.append_pair("types", &types.join(","));
        }
        query.append_pair("envelope", "1");
    }
    url
}

fn check_cursor(cursor: &str) -> Result<(), ClientError> {
    let sound = !cursor.is_empty() && cursor.bytes().all(|byte| byte.is_ascii_graphic());
    if sound { Ok(()) } else { Err(bad_cursor()) }
}

fn bad_cursor() -> ClientError {
    ClientError::Request("this is not a cursor that a server gave out".into())
}

#[cfg(test)]
mod tests;
