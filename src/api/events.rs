//! Publishing and reading events.

use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use super::body;
use super::parameters::{Format, Parameters};
use super::{Api, Problem, Request, json, reply};
use crate::cloudevents;
use crate::hub::{Accepted, History, PublishError, PublishOptions, PublishRequest};
use crate::model::{EventId, Gap, Published, Reached, ShownEvent, StreamName};

/// Longest that a request may wait for an acknowledgement, in seconds.
const MAX_WAIT: usize = 60;

/// Most events in an answer of history.
const MAX_HISTORY: usize = 1000;

/// The note to a producer whose text is JSON: `fetch` with a string for its body sends that as text.
const TEXT_NOTE: &str = "the body looks like JSON but came as text/plain, so the event's data is one JSON string; \
                         send Content-Type: application/json for data that is JSON";

/// `POST …/events`
pub async fn publish(api: &Api, stream: StreamName, request: Request) -> Result<Response, Problem> {
    let parameters = Parameters::read(&request.query, &["type", "ttl", "collapse", "durable", "ephemeral", "exclude"])?;
    let key = idempotency_key(&request.headers)?;
    let options = PublishRequest::read(PublishOptions {
        kind: parameters.one("type")?,
        ttl: parameters.one("ttl")?,
        collapse: parameters.one("collapse")?,
        key: key.as_deref(),
        durable: parameters.one("durable")?,
        exclude: parameters.one("exclude")?,
        ephemeral: parameters.switch("ephemeral")?,
        traceparent: traceparent(&request.headers),
        received: api.hub.received(),
    })?;
    let kind = body::kind(&request.headers)?;
    let (body, _held) = api.bodies.read(&request.headers, request.body, api.hub.limits().event_bytes).await?;
    let note = body::looks_like_json(kind, &body).then_some(TEXT_NOTE);
    let draft = options.draft(body::data(kind, body)?);
    let (published, durable) = match api.hub.carry_out(&stream, &options, &draft).await? {
        Accepted::Sent { nodes } => return Ok(json(StatusCode::ACCEPTED, &Sent { stream, nodes, note })),
        Accepted::Stored { published, durable } => (published, durable),
    };
    let status = if published.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok(located(json(status, &ShownReceipt { published: &published, durable, note }), &published))
}

/// The answer, with where the event is.
pub(super) fn located(mut response: Response, published: &Published) -> Response {
    // Names hold no character that a path or a header could not.
    if let Ok(location) = format!("{}/events/{}", published.stream.path(), published.id).parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// What became of an event that is not stored.
#[derive(Serialize)]
pub(super) struct Sent {
    pub(super) stream: StreamName,
    pub(super) nodes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<&'static str>,
}

#[derive(Serialize)]
struct ShownReceipt<'a> {
    #[serde(flatten)]
    published: &'a Published,
    /// What was reached, where a durability was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<Reached>,
    /// A hint for the producer.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::bad_request("the Idempotency-Key is given more than once"));
    }
    let text = value.to_str().map_err(|_| Problem::from(PublishError::Key))?;
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    Ok(Some(bare.to_owned()))
}

/// The trace that a request belongs to. More than one is none.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&[u8]> {
    let mut given = headers.get_all("traceparent").iter();
    given.next().filter(|_| given.next().is_none()).map(HeaderValue::as_bytes)
}

#[derive(Serialize)]
struct ShownHistory<'a> {
    events: Vec<ShownEvent>,
    gap: Option<&'a Gap>,
    last: EventId,
}

/// Entries of the store that are no events do not get this far: this would be our own fault.
fn shown(shown: Result<ShownEvent, serde_json::Error>) -> Result<ShownEvent, Problem> {
    shown.map_err(|error| {
        tracing::error!(%error, "an event is not JSON");
        Problem::internal()
    })
}

fn as_cloudevents(media_type: &str, body: Vec<u8>) -> Response {
    reply(StatusCode::OK, &[(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-store")], body)
}

/// `GET …/events`
pub async fn history(api: &Api, stream: StreamName, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["after", "before", "limit", "format"])?;
    let format = Format::of(&parameters)?;
    let limit = parameters.limit(MAX_HISTORY)?;
    let (after, before) = (parameters.parsed("after")?, parameters.parsed("before")?);
    let History { events, gap, last } = api.hub.history(&stream, after, before, limit).await?;
    if format == Format::CloudEvents {
        let gap = gap.iter().map(|gap| cloudevents::gap(&stream, gap));
        let events = events.iter().map(|event| cloudevents::event(&stream, event));
        return Ok(as_cloudevents(cloudevents::BATCH, cloudevents::batch(gap.chain(events))));
    }
    let events = events.iter().map(|event| shown(ShownEvent::of(event))).collect::<Result<_, _>>()?;
    Ok(json(StatusCode::OK, &ShownHistory { events, gap: gap.as_ref(), last }))
}

/// `GET …/events/{id}`
pub async fn event(api: &Api, stream: &StreamName, id: EventId, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["wait", "format"])?;
    let format = Format::of(&parameters)?;
    let patience = match parameters.number("wait")?.unwrap_or(0) {
        seconds @ 0..=MAX_WAIT => Duration::from_secs(seconds as u64),
        seconds => {
            let detail = format!("the parameter 'wait': {seconds} s are too long; up to {MAX_WAIT} are allowed");
            return Err(Problem::bad_request(detail));
        }
    };
    match api.hub.event(stream, id, patience).await? {
        Some((event, _)) if format == Format::CloudEvents => {
            Ok(as_cloudevents(cloudevents::STRUCTURED, cloudevents::event(stream, &event)))
        }
        Some((event, status)) => Ok(json(StatusCode::OK, &shown(ShownEvent::with_status(&event, &status))?)),
        None => Err(Problem::no_such_event(format!("{stream} has no event {id}, or keeps it no longer"))),
    }
}
