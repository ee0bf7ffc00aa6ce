//! Listeners as api.md describes them: one small interface over raw SSE and WebSocket.
//!
//! They share no code with the program's own client, and they are strict: whatever the contract does not
//! allow on the wire ends the test, and so does an event that comes twice or out of order.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::in_time;
use super::sse::{Block, Blocks};
use super::websocket::{Frames, Message};

pub use super::wanted::Wanted;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Sse,
    WebSocket,
}

/// An event as a client gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub stream: String,
    pub id: String,
    pub kind: String,
    /// Over SSE, what the `data:` lines hold.
    pub data: String,
    /// Its `traceparent`.
    pub trace: Option<String>,
}

/// A gap notice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    pub stream: String,
    pub after: String,
    pub next: String,
    pub reason: String,
}

/// What a client receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Event(Event),
    /// An event that is not stored: it has no id.
    Ephemeral {
        stream: String,
        kind: String,
        data: String,
        trace: Option<String>,
    },
    Gap(Gap),
    /// A device joined a topic or left it (`joined`, `left`), or notices may have been missed (`members`).
    Member {
        kind: String,
        notice: Value,
    },
    /// The cursor moved without an event.
    Position,
    /// The token ends in a minute or less.
    Expiring,
    /// The SSE comment or heartbeat, or a WebSocket ping (which is answered by default).
    Ping,
    /// The answer to a WebSocket operation: `ok`, `error`, `pong`, or a pong frame as `{"frame": payload}`.
    Answer(Value),
    /// The server announced that it ends the connection, and did. With the WebSocket close code.
    Close {
        reason: String,
        code: Option<u16>,
    },
    /// The connection ended without a word.
    Broken,
}

/// Where a client is, to go on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// What SSE gave as the last id.
    Opaque(String),
    /// The last id of each stream.
    Ids(BTreeMap<String, String>),
}

impl Cursor {
    /// The only id it holds.
    pub fn id(&self) -> &str {
        match self {
            Cursor::Opaque(id) => id,
            Cursor::Ids(ids) => {
                assert_eq!(ids.len(), 1, "{ids:?}");
                ids.values().next().unwrap()
            }
        }
    }
}

/// What a client is connected by.
pub(super) enum Wire {
    Sse(Blocks),
    WebSocket(Frames),
}

/// A connected client.
pub struct Client {
    wire: Wire,
    /// The stream, where events don't name theirs.
    only: Option<String>,
    cursor: Option<Cursor>,
    /// The newest id of each stream: nothing may come twice or out of order.
    newest: BTreeMap<String, (u64, u64)>,
    /// The first message of a WebSocket, or the data of the first position over SSE.
    pub ready: Value,
    /// Signs of life so far.
    pub pings: usize,
    /// When it may come back, by the notice that closed it.
    pub retry_ms: Option<u64>,
    answers_pings: bool,
}

impl Client {
    /// `only` names the stream where events don't.
    pub(super) fn new(wire: Wire, only: Option<String>) -> Self {
        let newest = BTreeMap::new();
        Client { wire, only, cursor: None, newest, ready: Value::Null, pings: 0, retry_ms: None, answers_pings: true }
    }

    /// The id that others know the connection by.
    pub fn connection(&self) -> String {
        self.ready["connection"].as_str().expect("the first frame names the connection").to_owned()
    }

    /// Where it is.
    pub fn cursor(&self) -> Cursor {
        self.cursor.clone().expect("the first frame has a position")
    }

    /// Does not answer pings from here on.
    pub fn ignore_pings(&mut self) {
        self.answers_pings = false;
    }

    /// Its next message. Panics after a while when there is none.
    pub async fn next(&mut self) -> Said {
        loop {
            match in_time("a message", self.read()).await {
                Said::Ping => {}
                said => return said,
            }
        }
    }

    /// The same, but pings count.
    pub async fn next_or_ping(&mut self) -> Said {
        in_time("a message", self.read()).await
    }

    /// The next event; nothing else may come before it but positions.
    #[track_caller]
    pub fn event(&mut self) -> impl Future<Output = Event> {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                match self.next().await {
                    Said::Event(event) => return event,
                    Said::Position => {}
                    other => panic!("not an event but {other:?} (at {caller})"),
                }
            }
        }
    }

    /// The data of the next events.
    #[track_caller]
    pub fn data(&mut self, count: usize) -> impl Future<Output = Vec<String>> {
        let caller = std::panic::Location::caller();
        async move {
            let mut data = Vec::with_capacity(count);
            while data.len() < count {
                match self.next().await {
                    Said::Event(event) => data.push(event.data),
                    Said::Position => {}
                    other => panic!("after {} of {count} events {other:?} (at {caller})", data.len()),
                }
            }
            data
        }
    }

    /// The gap notice that has to come next.
    pub async fn gap(&mut self) -> Gap {
        match self.next().await {
            Said::Gap(gap) => gap,
            other => panic!("not a gap but {other:?}"),
        }
    }

    /// The answer to an operation that has to come next.
    pub async fn answer(&mut self) -> Value {
        match self.next().await {
            Said::Answer(answer) => answer,
            other => panic!("not an answer but {other:?}"),
        }
    }

    /// Sends an operation.
    pub async fn say(&mut self, operation: &Value) {
        self.frames().send(0x1, true, operation.to_string().as_bytes()).await;
    }

    /// Sends an operation and expects its answer next.
    pub async fn ask(&mut self, operation: Value) -> Value {
        self.say(&operation).await;
        self.answer().await
    }

    /// The frames below, of a WebSocket.
    pub fn frames(&mut self) -> &mut Frames {
        match &mut self.wire {
            Wire::WebSocket(frames) => frames,
            Wire::Sse(_) => panic!("SSE has no way to say something"),
        }
    }

    /// The first frame: `None` when it is a welcome.
    pub(super) async fn greeting(&mut self) -> Option<Said> {
        match in_time("the greeting", self.read()).await {
            Said::Position if matches!(self.wire, Wire::Sse(_)) => {
                let Wire::Sse(blocks) = &self.wire else { unreachable!() };
                assert!(blocks.retry.is_some(), "the first block has a retry");
                None
            }
            Said::Answer(ready) if ready["op"] == "ready" => {
                let positions = ready["positions"].as_object().unwrap();
                let ids = positions.iter().map(|(stream, id)| (stream.clone(), id.as_str().unwrap().to_owned()));
                self.cursor = Some(Cursor::Ids(ids.collect()));
                self.ready = ready;
                None
            }
            other => Some(other),
        }
    }

    async fn read(&mut self) -> Said {
        let said = match &mut self.wire {
            Wire::Sse(blocks) => match blocks.next().await {
                None => {
                    assert!(!blocks.ended, "the server sends the reason before it ends the stream");
                    Said::Broken
                }
                Some(block) => {
                    if let Some(id) = &block.id {
                        self.cursor = Some(Cursor::Opaque(id.clone()));
                    }
                    match block.event.as_str() {
                        "" if block.data.is_none() => Said::Ping,
                        "whimbrel:ping" => {
                            assert_eq!(block.data.as_deref(), Some("{}"));
                            Said::Ping
                        }
                        "whimbrel:position" => {
                            let position: Value = serde_json::from_str(&block.data.unwrap()).unwrap();
                            assert!(block.id.is_some(), "a position is nothing without an id");
                            if self.ready.is_null() {
                                self.ready = position;
                            } else {
                                assert_eq!(position, serde_json::json!({}), "the first position is complete");
                            }
                            Said::Position
                        }
                        kind @ ("whimbrel:joined" | "whimbrel:left" | "whimbrel:members") => {
                            assert!(block.id.is_none(), "it has no place in the stream");
                            let kind = kind.trim_start_matches("whimbrel:").to_owned();
                            Said::Member { kind, notice: serde_json::from_str(&block.data.unwrap()).unwrap() }
                        }
                        "whimbrel:expiring" => {
                            assert_eq!(block.data.as_deref(), Some("{}"));
                            Said::Expiring
                        }
                        "whimbrel:gap" => Said::Gap(serde_json::from_str(&block.data.unwrap()).unwrap()),
                        "whimbrel:close" => {
                            let close: Value = serde_json::from_str(&block.data.unwrap()).unwrap();
                            self.retry_ms = Some(close["retry"].as_u64().unwrap());
                            assert!(blocks.next().await.is_none() && blocks.ended, "the stream ends after the notice");
                            Said::Close { reason: close["reason"].as_str().unwrap().to_owned(), code: None }
                        }
                        kind if block.id.is_none() => sse_ephemeral(self.only.as_deref(), kind, &block),
                        kind => Said::Event(sse_event(self.only.as_deref(), kind, &block)),
                    }
                }
            },
            Wire::WebSocket(frames) => match frames.next(self.answers_pings).await {
                Message::Text(text) => match websocket_said(&text) {
                    Said::Close { reason, .. } => match frames.next(self.answers_pings).await {
                        Message::Close(code, said) => {
                            assert_eq!(reason, said, "the notice and the close frame agree");
                            self.retry_ms = serde_json::from_str::<Value>(&text).unwrap()["retry"].as_u64();
                            Said::Close { reason, code: Some(code) }
                        }
                        other => panic!("a close notice is followed by a close frame, not by {other:?}"),
                    },
                    said => said,
                },
                Message::Ping => Said::Ping,
                Message::Pong(payload) => {
                    Said::Answer(serde_json::json!({"frame": String::from_utf8(payload).unwrap()}))
                }
                Message::Close(code, reason) => panic!("a close frame without a notice: {code} {reason}"),
                Message::End => Said::Broken,
            },
        };
        self.note(&said);
        match said {
            Said::Answer(position) if position["op"] == "position" => Said::Position,
            Said::Answer(notice) if notice["op"] == "expiring" => Said::Expiring,
            said => said,
        }
    }

    /// Keeps the cursor, and checks the order.
    fn note(&mut self, said: &Said) {
        match said {
            Said::Event(event) => {
                let id = numbers(&event.id);
                let before = self.newest.insert(event.stream.clone(), id);
                assert!(before.is_none_or(|before| before < id), "twice or out of order: {event:?} after {before:?}");
                if let Some(Cursor::Ids(ids)) = &mut self.cursor {
                    ids.insert(event.stream.clone(), event.id.clone());
                }
            }
            Said::Answer(answer) if answer["op"] == "position" || answer["position"].is_string() => {
                let stream = answer["stream"].as_str().unwrap().to_owned();
                let id = answer["position"].as_str().or(answer["id"].as_str()).unwrap().to_owned();
                let Some(Cursor::Ids(ids)) = &mut self.cursor else { panic!("a position before ready") };
                ids.insert(stream, id);
            }
            // What took the place of the lost events may have lower ids.
            Said::Gap(gap) if gap.reason == "lost" => _ = self.newest.remove(&gap.stream),
            Said::Ping => self.pings += 1,
            _ => {}
        }
    }
}

/// The two numbers of an event id.
pub fn numbers(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or_else(|| panic!("{id:?} is not an event id"));
    (ms.parse().unwrap(), seq.parse().unwrap())
}

fn sse_event(only: Option<&str>, kind: &str, block: &Block) -> Event {
    let cursor = block.id.clone().expect("an event carries the cursor");
    let (kind, data) = (if kind.is_empty() { "message" } else { kind }, block.data.clone().unwrap());
    if let Some(stream) = only {
        return Event {
            stream: stream.to_owned(),
            id: cursor,
            kind: kind.to_owned(),
            data,
            trace: block.trace.clone(),
        };
    }
    assert_eq!(block.trace, None, "an envelope has a member for it");
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope<'a> {
        stream: String,
        id: String,
        r#type: String,
        time: String,
        traceparent: Option<String>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    if let Some(cloud_event) = CloudEvent::of(&data) {
        assert_eq!(cloud_event.kind, kind, "the CloudEvent and the block agree");
        let id = cloud_event.id.expect("what is stored has an id");
        return Event { stream: cloud_event.stream, id, kind: cloud_event.kind, data, trace: None };
    }
    let envelope: Envelope = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
    assert_eq!(envelope.r#type, kind, "the envelope and the block agree");
    assert!(OffsetDateTime::parse(&envelope.time, &Rfc3339).is_ok(), "{}", envelope.time);
    let (id, kind, data) = (envelope.id, kind.to_owned(), envelope.data.get().to_owned());
    Event { stream: envelope.stream, id, kind, data, trace: envelope.traceparent }
}

/// What a CloudEvent says of its place.
#[derive(Deserialize)]
struct CloudEvent {
    #[serde(rename = "whimbrelstream")]
    stream: String,
    #[serde(rename = "whimbrelid")]
    id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
}

impl CloudEvent {
    fn of(data: &str) -> Option<Self> {
        data.starts_with("{\"specversion\":\"1.0\",").then(|| serde_json::from_str(data).unwrap())
    }
}

fn sse_ephemeral(only: Option<&str>, kind: &str, block: &Block) -> Said {
    let (kind, data) = (if kind.is_empty() { "message" } else { kind }, block.data.clone().unwrap());
    if let Some(stream) = only {
        let (stream, kind, trace) = (stream.to_owned(), kind.to_owned(), block.trace.clone());
        return Said::Ephemeral { stream, kind, data, trace };
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope<'a> {
        stream: String,
        r#type: String,
        traceparent: Option<String>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    if let Some(CloudEvent { stream, kind, .. }) = CloudEvent::of(&data) {
        return Said::Ephemeral { stream, kind, data, trace: None };
    }
    let envelope: Envelope = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
    assert_eq!(envelope.r#type, kind, "the envelope and the block agree");
    let data = envelope.data.get().to_owned();
    Said::Ephemeral { stream: envelope.stream, kind: envelope.r#type, data, trace: envelope.traceparent }
}

/// A frame with a CloudEvent in place of type, time and data.
fn websocket_cloud_event(text: &str) -> Option<Said> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Frame<'a> {
        #[serde(rename = "op")]
        _op: String,
        stream: String,
        id: Option<String>,
        #[serde(borrow)]
        cloudevent: &'a RawValue,
    }
    let frame: Frame = serde_json::from_str(text).ok()?;
    let data = frame.cloudevent.get().to_owned();
    let CloudEvent { stream, id, kind } = CloudEvent::of(&data).unwrap();
    assert_eq!((&stream, &id), (&frame.stream, &frame.id), "the CloudEvent and the frame agree");
    Some(match id {
        Some(id) => Said::Event(Event { stream, id, kind, data, trace: None }),
        None => Said::Ephemeral { stream, kind, data, trace: None },
    })
}

fn websocket_said(text: &str) -> Said {
    #[derive(Deserialize)]
    struct Head {
        op: String,
    }
    let head: Head = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    // The data of an event may hold numbers that no type here does.
    let value: Value = if head.op == "event" { Value::Null } else { serde_json::from_str(text).unwrap() };
    match head.op.as_str() {
        "event" => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Frame<'a> {
                #[serde(rename = "op")]
                _op: String,
                stream: String,
                id: Option<String>,
                time: Option<String>,
                r#type: String,
                traceparent: Option<String>,
                #[serde(borrow)]
                data: &'a RawValue,
            }
            if let Some(said) = websocket_cloud_event(text) {
                return said;
            }
            let frame: Frame = serde_json::from_str(text).unwrap();
            assert_eq!(frame.id.is_some(), frame.time.is_some(), "what is stored has its time: {text}");
            assert!(frame.time.is_none_or(|time| OffsetDateTime::parse(&time, &Rfc3339).is_ok()), "{text}");
            let (stream, kind, data) = (frame.stream, frame.r#type, frame.data.get().to_owned());
            let trace = frame.traceparent;
            match frame.id {
                Some(id) => Said::Event(Event { stream, id, kind, data, trace }),
                None => Said::Ephemeral { stream, kind, data, trace },
            }
        }
        "gap" => {
            let mut gap = value;
            gap.as_object_mut().unwrap().remove("op");
            Said::Gap(serde_json::from_value(gap).unwrap())
        }
        "close" => {
            assert!(value["retry"].is_u64(), "{text}");
            Said::Close { reason: value["reason"].as_str().unwrap().to_owned(), code: None }
        }
        kind @ ("joined" | "left" | "members") => {
            let mut notice = value;
            notice.as_object_mut().unwrap().remove("op");
            Said::Member { kind: kind.to_owned(), notice }
        }
        // A position goes this way too, until the cursor was moved.
        "ready" | "ok" | "error" | "pong" | "position" | "expiring" | "unsubscribed" => Said::Answer(value),
        other => panic!("an operation that is not in the contract: {other}"),
    }
}
