//! Publishing CloudEvents: in JSON, alone or many at once, or in the headers of a request.

use std::time::SystemTime;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, StatusCode, header};
use warp::reply::Response;

use super::batch::{self, BATCH_BYTES, Read, Wanted};
use super::body::{self, ContentType, Kind};
use super::events::{idempotency_key, located, traceparent};
use super::parameters::Parameters;
use super::{Api, Problem, Request, reply, throttle};
use crate::access::{Grant, Need};
use crate::cloudevents::{BATCH, Carried, CloudEvent, CloudEventError, STRUCTURED, binary, is_binary, structured};
use crate::hub::{Accepted, OptionError, PublishOptions, PublishRequest};
use crate::model::{Attributes, Draft, StreamName};

/// Room for attributes in JSON, beside the data: most characters of theirs may be written with six.
const ATTRIBUTES_ROOM: usize = 6 * Attributes::MOST_BYTES;

/// How a request carries CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One, in JSON.
    Structured,
    /// Many, in a JSON array.
    Batch,
    /// One, its attributes in the headers.
    Binary,
    /// One in JSON, or many, by the first character.
    Json,
}

impl Mode {
    fn of(headers: &HeaderMap, content_type: Option<&ContentType<'_>>) -> Result<Self, Problem> {
        let essence = content_type.map_or("", |content_type| content_type.essence.as_str());
        let mode = match essence {
            STRUCTURED => Mode::Structured,
            BATCH => Mode::Batch,
            other if other.starts_with("application/cloudevents") => {
                let detail =
                    format!("'{other}' is not taken; send {STRUCTURED}, {BATCH}, or the attributes as ce- headers");
                return Err(Problem::unsupported_media(detail));
            }
            _ if is_binary(headers) => return Ok(Mode::Binary),
            // For senders that can't choose the type.
            _ => Mode::Json,
        };
        content_type.map_or(Ok(()), ContentType::require_utf8)?;
        Ok(mode)
    }
}

/// The options that an address has for all CloudEvents that are sent to it.
struct Options<'a> {
    ttl: Option<&'a str>,
    collapse: Option<&'a str>,
    durable: Option<&'a str>,
    exclude: Option<&'a str>,
    ephemeral: bool,
    /// The trace of the request, for events that name none of their own.
    traceparent: Option<&'a [u8]>,
    received: Option<SystemTime>,
    /// In place of the key that source and id make.
    key: Option<&'a str>,
}

impl Options<'_> {
    fn request(&self, event: &CloudEvent) -> Result<PublishRequest, OptionError> {
        PublishRequest::read(PublishOptions {
            kind: Some(event.kind.as_str()),
            ttl: self.ttl,
            collapse: self.collapse,
            // What is not stored is not remembered either.
            key: self.key.or(Some(event.key.as_str()).filter(|_| !self.ephemeral)),
            durable: self.durable,
            exclude: self.exclude,
            ephemeral: self.ephemeral,
            traceparent: event.traceparent.as_deref().map(str::as_bytes).or(self.traceparent),
            received: self.received,
        })
    }
}

/// `POST …/cloudevents`: to the stream of the path, or to the one that each event names.
pub async fn publish(api: &Api, to: Option<StreamName>, request: Request, grant: &Grant) -> Result<Response, Problem> {
    let parameters = Parameters::read(&request.query, &["ttl", "collapse", "durable", "ephemeral", "exclude"])?;
    let key = idempotency_key(&request.headers)?;
    let options = Options {
        ttl: parameters.one("ttl")?,
        collapse: parameters.one("collapse")?,
        durable: parameters.one("durable")?,
        exclude: parameters.one("exclude")?,
        ephemeral: parameters.switch("ephemeral")?,
        traceparent: traceparent(&request.headers),
        received: api.hub.received(),
        key: key.as_deref(),
    };
    let content_type = body::content_type(&request.headers)?;
    let mode = Mode::of(&request.headers, content_type.as_ref())?;
    let most = match mode {
        Mode::Binary => api.hub.limits().event_bytes,
        Mode::Structured => api.hub.limits().event_bytes + ATTRIBUTES_ROOM,
        Mode::Batch | Mode::Json => BATCH_BYTES,
    };
    let (body, _held) = api.bodies.read(&request.headers, request.body, most).await?;
    let event = match mode {
        Mode::Batch => return publish_batch(api, to, &options, &body, grant).await,
        Mode::Json if body.trim_ascii_start().starts_with(b"[") => {
            return publish_batch(api, to, &options, &body, grant).await;
        }
        Mode::Structured | Mode::Json => structured(&body, &body)?,
        Mode::Binary => {
            let media_type = content_type.as_ref().map(|content_type| content_type.text);
            let utf8 = content_type.as_ref().is_none_or(ContentType::is_utf8);
            binary(&request.headers, Carried { media_type, utf8 }, body)?
        }
    };
    throttle(api, grant, 1)?;
    let stream = stream_of(to.as_ref(), &event).map_err(Problem::bad_request)?;
    grant.check(Need::Publish(&stream))?;
    let options = options.request(&event)?;
    let draft = draft(&options, event);
    Ok(match api.hub.carry_out(&stream, &options, &draft).await? {
        Accepted::Sent { .. } => empty(StatusCode::ACCEPTED),
        Accepted::Stored { published, .. } => {
            let status = if published.duplicate { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
            located(empty(status), &published)
        }
    })
}

/// The answer to OPTIONS, with consent to deliveries where a sender asks for it, as the specification of webhooks for
/// CloudEvents has it: without it some send nothing. Who may publish is judged with each delivery.
pub fn consenting(mut answer: Response, request: &Request) -> Response {
    let origin = request.headers.get("webhook-request-origin").filter(|_| request.path.ends_with("/cloudevents"));
    if let Some(origin) = origin {
        let headers = answer.headers_mut();
        headers.insert("webhook-allowed-origin", origin.clone());
        headers.insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    }
    answer
}

/// Some senders take whatever a body holds for a CloudEvent in reply, and deliver again what was answered with
/// another.
fn empty(status: StatusCode) -> Response {
    reply(status, &[(header::CACHE_CONTROL, "no-store")], "")
}

async fn publish_batch(
    api: &Api,
    to: Option<StreamName>,
    options: &Options<'_>,
    body: &Bytes,
    grant: &Grant,
) -> Result<Response, Problem> {
    if options.key.is_some() {
        let detail = "a batch has no Idempotency-Key of its own; source and id are the key of each CloudEvent";
        return Err(Problem::bad_request(detail));
    }
    if options.durable.is_some() {
        return Err(Problem::bad_request(
            "the parameter 'durable': nothing is awaited for a batch; send one CloudEvent",
        ));
    }
    let entries = batch::entries(Kind::Json, body)?;
    throttle(api, grant, entries.len())?;
    let batch = entries.into_iter().map(|entry| wanted(to.as_ref(), options, entry, body)).collect();
    Ok(batch::publish_allowed(api, batch, grant).await)
}

/// An entry of a batch.
fn wanted(to: Option<&StreamName>, options: &Options<'_>, entry: &[u8], body: &Bytes) -> Read {
    let event = structured(entry, body).map_err(|error| {
        let slug = if matches!(error, CloudEventError::Type(_)) { "invalid-type" } else { "invalid-entry" };
        (slug, error.to_string())
    })?;
    let stream = stream_of(to, &event).map_err(|detail| ("invalid-name", detail))?;
    let options = options.request(&event).map_err(batch::refusal)?;
    let ephemeral = options.is_ephemeral();
    Ok(Wanted { stream, draft: draft(&options, event), ephemeral })
}

/// The stream that an event is for, or why there is none.
fn stream_of(to: Option<&StreamName>, event: &CloudEvent) -> Result<StreamName, String> {
    match (to, &event.stream) {
        (Some(stream), _) => Ok(stream.clone()),
        (None, Some(name)) => name.parse().map_err(|error| format!("the attribute 'whimbrelstream': {error}")),
        (None, None) => Err("the attribute 'whimbrelstream' is missing: it names the stream, such as topic:news; \
                             or send to /v1/topics/{topic}/cloudevents"
            .to_owned()),
    }
}

fn draft(options: &PublishRequest, event: CloudEvent) -> Draft {
    Draft { attributes: Some(event.attributes), ..options.draft(event.data) }
}
