//! Streams on their way to another store: `GET` and `POST …/log`.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use warp::reply::Response;

use super::body::{self, Kind};
use super::parameters::Parameters;
use super::{Api, Problem, Request, json};
use crate::model::{Attributes, Event, EventId, EventType, Part, StreamName, TraceParent, json as json_text};

/// Room for what a part has beside the data of its largest event: a page, as JSON in strings, and ids.
const PART_BYTES: usize = 2 * 1024 * 1024;

/// A part, as it is shown and taken.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShownPart {
    stream: StreamName,
    after: Option<EventId>,
    epoch: EventId,
    last: EventId,
    acked: Option<EventId>,
    erased: Option<EventId>,
    more: bool,
    events: Vec<ShownEntry>,
}

/// An event, with what `…/events` does not show. Its data is a text, so that it is kept byte for byte.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShownEntry {
    id: EventId,
    prev: EventId,
    #[serde(rename = "type")]
    kind: String,
    /// For people: it is a part of the id.
    #[serde(default)]
    time: String,
    data: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collapse: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclude: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    /// Of an event that came as a CloudEvent, as text, so that they are kept byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attributes: Option<String>,
}

impl From<&Event> for ShownEntry {
    fn from(event: &Event) -> Self {
        ShownEntry {
            id: event.id,
            prev: event.prev,
            kind: event.kind.to_string(),
            time: event.time().to_string(),
            data: String::from_utf8_lossy(&event.data).into_owned(),
            expires_ms: event.expires_ms,
            collapse: event.collapse.as_deref().map(str::to_owned),
            exclude: event.exclude,
            traceparent: event.trace().map(|trace| trace.to_string()),
            attributes: event.attributes.as_ref().map(|attributes| attributes.as_str().to_owned()),
        }
    }
}

impl ShownEntry {
    fn event(self) -> Result<Event, Problem> {
        let ShownEntry { id, prev, kind, data, expires_ms, collapse, exclude, traceparent, attributes, .. } = self;
        let wrong = |error: &dyn std::fmt::Display| Problem::bad_request(format!("event {id}: {error}"));
        json_text::check(data.as_bytes()).map_err(|error| wrong(&error))?;
        let kind = EventType::wanted(&kind).map_err(|error| wrong(&error))?;
        let mut event = Event::new(id, prev, kind, data.into());
        (event.expires_ms, event.collapse, event.exclude) = (expires_ms, collapse.map(Into::into), exclude);
        event.set_trace(traceparent.and_then(|text| TraceParent::read(text.as_bytes())));
        let read = |text: String| {
            Attributes::of_store(&text).ok_or_else(|| wrong(&"its attributes are not a JSON object in one word"))
        };
        event.attributes = attributes.map(read).transpose()?;
        Ok(event)
    }
}

/// `GET …/log`
pub async fn export(api: &Api, stream: StreamName, query: &str) -> Result<Response, Problem> {
    let after = Parameters::read(query, &["after"])?.parsed("after")?;
    let part = api.hub.export(&stream, after).await.map_err(Problem::from).map_err(Problem::of_reading)?;
    let Some(Part { after, epoch, last, acked, erased, events, more }) = part else {
        return Err(Problem::no_such_event(format!("nobody ever used {stream}: there is nothing to export")));
    };
    let events = events.iter().map(ShownEntry::from).collect();
    Ok(json(StatusCode::OK, &ShownPart { stream, after, epoch, last, acked, erased, more, events }))
}

#[derive(Serialize)]
struct ShownImport {
    stream: StreamName,
    last: EventId,
}

/// `POST …/log`
pub async fn import(api: &Api, stream: StreamName, request: Request) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    if body::kind(&request.headers)? != Kind::Json {
        return Err(Problem::unsupported_media("a part of a stream is a JSON object"));
    }
    let limit = PART_BYTES + 2 * api.hub.limits().event_bytes;
    let (body, _held) = api.bodies.read(&request.headers, request.body, limit).await?;
    let shown: ShownPart = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body has to be what GET …/log answers: {error}")))?;
    if shown.stream != stream {
        return Err(Problem::bad_request(format!(
            "the body is a part of {}, and the path is that of {stream}",
            shown.stream
        )));
    }
    let ShownPart { after, epoch, last, acked, erased, more, events, .. } = shown;
    let events = events.into_iter().map(ShownEntry::event).collect::<Result<_, _>>()?;
    api.hub.import(&stream, &Part { after, epoch, last, acked, erased, events, more }).await?;
    Ok(json(StatusCode::OK, &ShownImport { stream, last }))
}
