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
use super::{ClientError, Failure, address, below, cause, http, place};

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
    /// Where to begin: `now` (when not given), `earliest`, `last:N`, or a cursor.
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

/// What a [`Subscriber`] has to tell.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A server accepted the subscription.
    Connected { place: String },
    /// The next event.
    Event(Box<Envelope>),
    /// The cursor moved without an event.
    Position,
    /// Events are missing here.
    Gap(GapNotice),
    /// The server is about to end the connection, and says why.
    Close { reason: String },
    /// The connection ended, or none came about. The subscriber goes on by itself after `wait`.
    Disconnected { place: String, reason: String, wait: Duration },
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
            http: http()?,
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
                    Ok(()) => continue,
                    Err(e) => return Err(ClientError::Answer { place: self.place(), reason: e.to_string() }),
                },
                Ok(Ok(None)) => "the server ended the connection".into(),
                Ok(Err(e)) => cause(&e),
                Err(_) => format!("no sign of life for {} s", self.silence.as_secs()),
            };
            self.retry = connection.decoder.retry().unwrap_or(self.retry);
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
        let place = self.place();
        self.connection = None;
        self.at = (self.at + 1) % self.urls.len();
        self.wait = self.backoff.next_wait().max(self.retry).max(asked).min(LONGEST_RETRY);
        Notice::Disconnected { place, reason, wait: self.wait }
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
            name if name.starts_with("whimbrel:") => None,
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
mod tests {
    use super::*;
    use crate::client::fake::{Server, answer, events, problem, read_request};

    fn subscriber(servers: &[&Server], wanted: Subscription) -> Subscriber {
        let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
        Subscriber::new(&urls, wanted).unwrap()
    }

    fn news() -> Subscription {
        Subscription::of(vec!["topic:news".parse().unwrap()])
    }

    fn event(id: &str, data: &str) -> String {
        format!(
            "id: {id}\ndata: {{\"stream\":\"topic:news\",\"id\":\"{id}\",\"type\":\"message\",\"time\":\"t\",\"data\":{data}}}\n\n"
        )
    }

    /// Goes on until the server wants no more, and tells each notice in a few words.
    async fn story(mut subscriber: Subscriber) -> Vec<String> {
        let mut story = Vec::new();
        loop {
            story.push(match subscriber.next().await {
                Ok(Some(Notice::Connected { .. })) => "connected".into(),
                Ok(Some(Notice::Event(event))) => format!("event {}", event.data),
                Ok(Some(Notice::Position)) => format!("at {}", subscriber.cursor().unwrap()),
                Ok(Some(Notice::Gap(gap))) => format!("gap {} {}", gap.reason, gap.after),
                Ok(Some(Notice::Close { reason })) => format!("close {reason}"),
                Ok(Some(Notice::Disconnected { .. })) => "disconnected".into(),
                Ok(None) => return story,
                Err(e) => {
                    story.push(e.to_string());
                    return story;
                }
            });
        }
    }

    const OVER: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn a_subscriber_resumes_at_the_next_server_after_the_last_whole_event() {
        let first = format!(
            "retry: 1\n\nevent: whimbrel:position\ndata: {{}}\nid: 5-0\n\n{}{}",
            event("5-1", "1"),
            event("5-2", "2").trim_end()
        );
        let one = Server::start(vec![events(&first), OVER.into()]).await;
        let two = Server::start(vec![events(&format!("{}{}", event("5-2", "2"), event("5-3", "3")))]).await;
        let wanted = Subscription { after: Some("earliest".into()), types: vec!["a/b".parse().unwrap()], ..news() };
        let story = story(subscriber(&[&one, &two], wanted)).await;
        assert_eq!(
            story,
            ["connected", "at 5-0", "event 1", "disconnected", "connected", "event 2", "event 3", "disconnected"]
        );
        assert!(one.requests()[0].starts_with("GET /v1/sse?topic=news&types=a%2Fb&envelope=1&after=earliest HTTP/1.1"));
        assert!(two.requests()[0].starts_with("GET /v1/sse?topic=news&types=a%2Fb&envelope=1 HTTP/1.1"));
        assert!(two.requests()[0].contains("last-event-id: 5-1\r\n"));
        assert!(one.requests()[1].contains("last-event-id: 5-3\r\n"));
    }

    #[tokio::test]
    async fn gaps_closes_and_unknown_frames_of_the_service_are_told_apart() {
        let frames = "event: whimbrel:gap\nid: 8-0\n\
             data: {\"stream\":\"topic:news\",\"after\":\"5-1\",\"next\":\"8-1\",\"reason\":\"trimmed\"}\n\n\
             event: whimbrel:later\ndata: ?\n\n\
             event: whimbrel:close\ndata: {\"reason\":\"drain\",\"retry\":1}\nid: 8-0.stop\n\n";
        let server = Server::start(vec![events(frames), OVER.into()]).await;
        let story = story(subscriber(&[&server], Subscription { cursor: Some("5-1".into()), ..news() })).await;
        assert_eq!(story, ["connected", "gap trimmed 5-1", "close drain", "disconnected"]);
        assert!(server.requests()[0].contains("last-event-id: 5-1\r\n"));
        assert!(server.requests()[1].contains("last-event-id: 8-0.stop\r\n"));
    }

    #[tokio::test]
    async fn a_server_in_distress_is_tried_again_and_a_refusal_is_final() {
        let server = Server::start(vec![
            problem("503 Service Unavailable", "draining"),
            answer("502 Bad Gateway", "text/html", "<p>"),
            problem("403 Forbidden", "not yours"),
        ])
        .await;
        let story = story(subscriber(&[&server], news())).await;
        assert_eq!(story[..2], ["disconnected", "disconnected"]);
        assert!(story[2].starts_with("not yours (answer 403 from http://127.0.0.1"), "{story:?}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_event_stream_is_an_error() {
        let server = Server::start(vec![answer("200 OK", "text/html", "<p>")]).await;
        let story = story(subscriber(&[&server], news())).await;
        assert!(story[0].contains("'text/html' in place of an event stream"), "{story:?}");
    }

    #[tokio::test]
    async fn a_connection_without_a_sign_of_life_counts_as_dead() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let silent = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_request(&mut socket).await;
            tokio::io::AsyncWriteExt::write_all(&mut socket, events(":\n").as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut subscriber = Subscriber::new(&[url], news()).unwrap();
        subscriber.silence = Duration::from_millis(50);
        assert!(matches!(subscriber.next().await, Ok(Some(Notice::Connected { .. }))));
        let Ok(Some(Notice::Disconnected { reason, .. })) = subscriber.next().await else {
            panic!("it should have given up");
        };
        assert!(reason.contains("no sign of life"), "{reason}");
        silent.abort();
    }

    #[test]
    fn a_cursor_that_can_not_be_one_is_refused_at_once() {
        for cursor in ["", "a b", "5-1\r\nx: y", "ä"] {
            let wanted = Subscription { cursor: Some(cursor.into()), ..news() };
            assert!(matches!(Subscriber::new(&["http://h"], wanted), Err(ClientError::Request(_))), "{cursor:?}");
        }
    }
}
