//! Events: what is published and what is delivered.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::weight::{self, Charge, Counter};
use super::{Attributes, EventId, Observer, StreamName, Time, TraceParent};

const MAX_TYPE: usize = 128;

/// What a channel's message has in front of an event's data, about.
const MESSAGE_HEADER: usize = 96;

/// The type of an event, `message` unless the producer says otherwise. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Option<Arc<str>>);

impl EventType {
    /// The type of an event that names none. Over SSE it has no `event:` line.
    pub const MESSAGE: EventType = EventType(None);

    /// The type's text.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("message")
    }

    /// Published by the service itself in a stream whose producer is gone.
    pub const ABANDONED: &str = "whimbrel:abandoned";

    /// The type of such an event. Producers can't use it.
    pub fn abandoned() -> Self {
        EventType(Some(EventType::ABANDONED.into()))
    }

    /// The type of an event that a store has: those of the service itself are among them. One that can't be a
    /// type is no reason to lose the event.
    pub fn of_store(text: &str) -> Self {
        if text == EventType::ABANDONED { EventType::abandoned() } else { text.parse().unwrap_or_default() }
    }

    /// A type to filter by: any that an event may have.
    pub fn wanted(text: &str) -> Result<Self, EventTypeError> {
        if text == EventType::ABANDONED { Ok(EventType::abandoned()) } else { text.parse() }
    }

    /// Whether this is the default type.
    pub fn is_message(&self) -> bool {
        self.0.is_none()
    }
}

impl Default for EventType {
    fn default() -> Self {
        EventType::MESSAGE
    }
}

/// Why a text can't be an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' can't be an event type; allowed are 1 to {MAX_TYPE} characters out of A-Z a-z 0-9 . _ : / -, \
     not 'open' or 'error', not beginning with 'whimbrel:'"
)]
pub struct EventTypeError(String);

impl FromStr for EventType {
    type Err = EventTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sound = (1..=MAX_TYPE).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
            // EventSource uses these two names for its own events.
            && text != "open"
            && text != "error"
            && !text.starts_with("whimbrel:");
        match (sound, text) {
            (false, _) => Err(EventTypeError(text.chars().take(64).collect())),
            (true, "message") => Ok(EventType::MESSAGE),
            (true, text) => Ok(EventType(Some(text.into()))),
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One entry of a stream's log, as every reader sees it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where it stands.
    pub id: EventId,
    /// The id of the event before it in the same stream: what makes a loss visible.
    pub prev: EventId,
    /// Its type.
    pub kind: EventType,
    /// Its data: JSON text, byte for byte as published.
    pub data: Bytes,
    /// When it is no longer delivered, in milliseconds since 1970 on the store's clock.
    pub expires_ms: Option<u64>,
    /// Its collapse key: whoever catches up is given only the newest event of each.
    pub collapse: Option<Arc<str>>,
    /// The one connection that is not given it.
    pub exclude: Option<Uuid>,
    /// The attributes with which it came, if it came as a CloudEvent.
    pub attributes: Option<Attributes>,
    /// The trace that its publish belongs to: boxed, as few events have one.
    traced: Option<Box<Traced>>,
    encoded: Encoded,
    /// Few want these: there is room for them once one is made.
    cloud_events: OnceLock<Box<[OnceLock<Bytes>; Encoding::CLOUD_EVENTS]>>,
    charge: Charge,
}

/// The forms of an event that were made.
type Encoded = [OnceLock<Bytes>; Encoding::PLAIN];

/// A trace, the forms of its event that name it, and who records the event's way through this node.
#[derive(Clone)]
struct Traced {
    parent: TraceParent,
    encoded: Encoded,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl Traced {
    fn new(parent: TraceParent) -> Self {
        Traced { parent, encoded: Default::default(), observer: OnceLock::new() }
    }
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.parent, f)
    }
}

/// The forms in which events go out. Each is made at most once an event and node, and then shared by all
/// connections that want it. Those that ask for an event's trace share another one, of an event that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// An SSE block with the id as its cursor: connections of one stream.
    Sse,
    /// An SSE block with an envelope and the id as its cursor: one stream, `envelope=1`.
    SseEnvelope,
    /// An SSE block with an envelope and no id line: each connection of several streams puts its own
    /// cursor in front.
    SseShared,
    /// A WebSocket text frame.
    WebSocket,
    /// As [`Encoding::Sse`], with a CloudEvent for its data.
    SseCloudEvent,
    /// As [`Encoding::SseShared`], with a CloudEvent for its data.
    SseSharedCloudEvent,
    /// A WebSocket text frame with a CloudEvent.
    WebSocketCloudEvent,
}

impl Encoding {
    /// How many are not CloudEvents, and how many are.
    const PLAIN: usize = 4;
    const CLOUD_EVENTS: usize = 3;

    /// Whether each connection puts its own cursor in front.
    pub fn is_shared(self) -> bool {
        matches!(self, Encoding::SseShared | Encoding::SseSharedCloudEvent)
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.prev, &self.kind, &self.data) == (other.id, other.prev, &other.kind, &other.data)
            && (self.expires_ms, &self.collapse, self.exclude) == (other.expires_ms, &other.collapse, other.exclude)
            && self.trace() == other.trace()
            && self.attributes == other.attributes
    }
}

impl Eq for Event {}

impl Event {
    /// An event as the store has it, that neither expires nor has a collapse key.
    pub fn new(id: EventId, prev: EventId, kind: EventType, data: Bytes) -> Self {
        Event {
            id,
            prev,
            kind,
            data,
            expires_ms: None,
            collapse: None,
            exclude: None,
            traced: None,
            attributes: None,
            encoded: Default::default(),
            cloud_events: OnceLock::new(),
            charge: Charge::default(),
        }
    }

    /// An event for the connections of this moment. It is not stored and has no place in the stream.
    pub fn ephemeral(kind: EventType, data: Bytes) -> Self {
        Event::new(EventId::ZERO, EventId::ZERO, kind, data)
    }

    /// The trace that its publish belongs to.
    pub fn trace(&self) -> Option<TraceParent> {
        self.traced.as_ref().map(|traced| traced.parent)
    }

    /// Makes its publish a part of a trace, or of none.
    pub fn set_trace(&mut self, trace: Option<TraceParent>) {
        self.traced = trace.map(Traced::new).map(Box::new);
    }

    /// Has its way through this node recorded, unless somebody does already. It has to have a trace.
    pub fn observe(&self, observer: impl FnOnce() -> Arc<dyn Observer>) {
        if let Some(traced) = &self.traced {
            traced.observer.get_or_init(observer);
        }
    }

    /// Who records its way through this node.
    pub fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.traced.as_ref()?.observer.get()
    }

    /// Whether it is sent without being stored.
    pub fn is_ephemeral(&self) -> bool {
        self.id == EventId::ZERO
    }

    /// Whether it is no longer to be delivered when the store's clock shows `now_ms`.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    /// Counts what it takes, and what forms of it will take, in a counter, unless another counts it already.
    pub fn charge_to(&self, counter: &Counter) {
        let cloud_events = self.cloud_events.get();
        let plain = self.encoded.iter().chain(self.traced.iter().flat_map(|traced| &traced.encoded));
        let forms = plain.chain(cloud_events.into_iter().flat_map(|forms| forms.iter()));
        let encoded: usize = forms.filter_map(OnceLock::get).map(|bytes| weight::shared(bytes.len())).sum();
        self.charge.to(counter, self.bytes() + encoded + cloud_events.map_or(0, |_| Event::room_for_cloud_events()));
    }

    /// Ends that.
    pub fn release_from(&self, counter: &Counter) {
        self.charge.release(counter);
    }

    /// What it takes in memory, but for the forms of it that were made.
    pub fn bytes(&self) -> usize {
        let text = |text: &str| weight::shared(text.len());
        let kind = if self.kind.is_message() { 0 } else { text(self.kind.as_str()) };
        // Its data is a part of the message that brought it.
        let data = weight::shared(self.data.len() + MESSAGE_HEADER);
        let own = weight::heap(size_of::<Event>() + 2 * size_of::<usize>());
        let traced = self.traced.as_ref().map_or(0, |_| weight::heap(size_of::<Traced>()));
        let attributes = self.attributes.as_ref().map_or(0, |attributes| text(attributes.as_str()));
        own + data + kind + traced + self.collapse.as_deref().map_or(0, text) + attributes
    }

    /// Bytes of what its producer handed in, as queues and pages count them.
    pub fn payload_bytes(&self) -> usize {
        payload_bytes(&self.data, self.attributes.as_ref())
    }

    /// This event in the form of `encoding`, made by `encode` unless it was made before. With `trace` it names the
    /// trace, if there is one.
    pub fn encoded(
        &self,
        encoding: Encoding,
        trace: bool,
        encode: impl FnOnce(&Event, Option<TraceParent>) -> Bytes,
    ) -> Bytes {
        let traced = self.traced.as_ref().filter(|_| trace);
        let made = || {
            let bytes = encode(self, traced.map(|traced| traced.parent));
            self.charge.add(weight::shared(bytes.len()));
            bytes
        };
        let form = match (encoding as usize).checked_sub(Encoding::PLAIN) {
            None => &traced.map_or(&self.encoded, |traced| &traced.encoded)[encoding as usize],
            Some(cloud_event) => &self.cloud_events()[cloud_event],
        };
        form.get_or_init(made).clone()
    }

    fn cloud_events(&self) -> &[OnceLock<Bytes>; Encoding::CLOUD_EVENTS] {
        self.cloud_events.get_or_init(|| {
            self.charge.add(Event::room_for_cloud_events());
            Box::default()
        })
    }

    fn room_for_cloud_events() -> usize {
        weight::heap(size_of::<[OnceLock<Bytes>; Encoding::CLOUD_EVENTS]>())
    }

    /// When the store took it, as RFC 3339 text in UTC.
    pub fn time(&self) -> Time {
        Time::from_ms(self.id.ms)
    }
}

fn payload_bytes(data: &Bytes, attributes: Option<&Attributes>) -> usize {
    data.len() + attributes.map_or(0, |attributes| attributes.as_str().len())
}

/// For how long an event is delivered: whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u32);

impl Ttl {
    /// A year. To have an event delivered for longer, leave the time out: what is kept is
    /// decided by retention.
    pub const LONGEST: Ttl = Ttl(31_536_000);

    /// The time.
    pub fn time(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

/// Why a text is no time to live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' can't be a ttl: it is a whole number of seconds from 1 to {longest}", longest = Ttl::LONGEST.time().as_secs())]
pub struct TtlError(String);

impl FromStr for Ttl {
    type Err = TtlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = text.parse().ok().filter(|seconds| digits && (1..=Ttl::LONGEST.0).contains(seconds));
        seconds.map(Ttl).ok_or_else(|| TtlError(text.chars().take(64).collect()))
    }
}

/// What a producer hands in: an event that has no place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its type.
    pub kind: EventType,
    /// Its data: valid JSON text.
    pub data: Bytes,
    /// Idempotency key: a repeat with the same key stores nothing and answers with the first id.
    pub key: Option<String>,
    /// For how long the key is remembered, where the usual time is too short.
    pub key_time: Option<Duration>,
    /// After which time it is no longer delivered.
    pub ttl: Option<Duration>,
    /// Collapse key: whoever catches up is given only the newest event of each.
    pub collapse: Option<String>,
    /// The one connection that is not given it.
    pub exclude: Option<Uuid>,
    /// The attributes with which it came, if it came as a CloudEvent.
    pub attributes: Option<Attributes>,
    /// The inbox of the device that publishes it, where that is known.
    pub from: Option<StreamName>,
    /// The trace that the publish belongs to.
    pub trace: Option<TraceParent>,
    /// When the request for it came, where that is recorded.
    pub received: Option<SystemTime>,
}

impl Draft {
    /// A draft of this type and data, and nothing else said of it.
    pub fn new(kind: EventType, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        Draft {
            kind,
            data,
            key: None,
            key_time: None,
            ttl: None,
            collapse: None,
            exclude: None,
            attributes: None,
            from: None,
            trace: None,
            received: None,
        }
    }

    /// Bytes of what its producer hands in, as queues and pages count them.
    pub fn payload_bytes(&self) -> usize {
        payload_bytes(&self.data, self.attributes.as_ref())
    }

    /// The event that it becomes at `id`, after `prev`, when the store's clock shows `now_ms`. The data is copied, as
    /// that of the draft may be a small part of a large request body.
    pub fn event(&self, id: EventId, prev: EventId, now_ms: u64) -> Event {
        let mut event = Event::new(id, prev, self.kind.clone(), Bytes::copy_from_slice(&self.data));
        let ttl_ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        event.expires_ms = self.ttl.map(|ttl| now_ms.saturating_add(ttl_ms(ttl)));
        event.collapse = self.collapse.as_deref().map(Arc::from);
        event.exclude = self.exclude;
        event.set_trace(self.trace);
        event.attributes = self.attributes.clone();
        event
    }

    /// The event that it becomes if it is not stored.
    pub fn ephemeral(&self) -> Event {
        self.event(EventId::ZERO, EventId::ZERO, 0)
    }
}

/// The store's answer to a publish: it has the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The id the event got, or had already.
    pub id: EventId,
    /// Where it was published.
    pub stream: StreamName,
    /// Nodes that it was sent to.
    pub nodes: u32,
    /// Whether an earlier publish with the same idempotency key had stored it.
    pub duplicate: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_type_is_refused_with_what_is_allowed() {
        let long = "x".repeat(129);
        for text in ["", "open", "error", "whimbrel:gap", "a b", "a\nb", "é", &long] {
            assert!(text.parse::<EventType>().unwrap_err().to_string().contains("allowed are"), "{text:?}");
        }
        assert_eq!("a.b_c:d/e-f".parse::<EventType>().unwrap().as_str(), "a.b_c:d/e-f");
    }

    #[test]
    fn a_ttl_is_a_whole_number_of_seconds_up_to_a_year() {
        assert_eq!("60".parse::<Ttl>().unwrap().time(), Duration::from_secs(60));
        assert!("31536000".parse::<Ttl>().is_ok());
        for text in ["", "0", "-1", "+5", "1.5", "1e3", "5s", "31536001", "99999999999", "\"5\"", "null", "true"] {
            assert!(text.parse::<Ttl>().unwrap_err().to_string().contains("seconds"), "{text:?}");
        }
    }

    #[test]
    fn message_and_no_type_are_the_same() {
        assert_eq!("message".parse::<EventType>().unwrap(), EventType::default());
    }
}
