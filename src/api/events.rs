//! Publishing and reading events.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::reply::Response;

use super::body::{self, Kind};
use super::parameters::Parameters;
use super::{Api, Problem, Request, json};
use crate::hub::{History, PublishError, check_ephemeral};
use crate::model::{
    Draft, Durability, Event, EventId, EventType, Gap, Progress, Published, Reached, ShownEvent, StreamKind,
    StreamName, Ttl,
};

/// Most bytes of a batch's body.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Most events of a batch; an entry with many devices counts as many.
const BATCH_EVENTS: usize = 10_000;

/// Ephemeral events of a batch that are on their way at once.
const TOLD_AT_ONCE: usize = 64;

/// Longest that a request may wait for an acknowledgement, in seconds.
const MAX_WAIT: usize = 60;

/// Events in an answer of history, unless the reader wants another number.
const HISTORY: usize = 100;

/// Most events in an answer of history.
const MAX_HISTORY: usize = 1000;

/// The note to a producer whose text is JSON: `fetch` with a string for its body sends that as text.
const TEXT_NOTE: &str = "the body looks like JSON but came as text/plain, so the event's data is one JSON string; \
                         send Content-Type: application/json for data that is JSON";

/// `POST …/events`
pub async fn publish(api: &Api, stream: StreamName, request: Request) -> Result<Response, Problem> {
    let parameters = Parameters::read(&request.query, &["type", "ttl", "collapse", "durable", "ephemeral", "exclude"])?;
    let durability = parameters.parsed::<Durability>("durable")?;
    let event_type = parameters.parsed::<EventType>("type")?.unwrap_or_default();
    let ttl = parameters.parsed::<Ttl>("ttl")?.map(Ttl::time);
    let collapse = parameters.one("collapse")?.map(str::to_owned);
    let ephemeral = parameters.switch("ephemeral")?;
    let exclude = connection("exclude", parameters.one("exclude")?).map_err(Problem::bad_request)?;
    let key = idempotency_key(&request.headers)?;
    if ephemeral {
        check_ephemeral([
            ("a ttl", ttl.is_some()),
            ("a collapse key", collapse.is_some()),
            ("a durability", durability.is_some()),
            ("an Idempotency-Key", key.is_some()),
        ])?;
    }
    let kind = body::kind(&request.headers)?;
    let (body, _held) = api.bodies.read(&request.headers, request.body, api.hub.limits().event_bytes).await?;
    let note = body::looks_like_json(kind, &body).then_some(TEXT_NOTE);
    let draft = Draft { key, ttl, collapse, exclude, ..Draft::new(event_type, body::data(kind, body)?) };
    if ephemeral {
        let nodes = api.hub.publish_ephemeral(&stream, &draft).await?;
        return Ok(json(StatusCode::ACCEPTED, &Told { stream, nodes, note }));
    }
    let (published, durable) = match durability {
        None => (api.hub.publish(&stream, &draft).await?, None),
        Some(durability) => {
            let receipt = api.hub.publish_durably(&stream, &draft, durability).await?;
            (receipt.published, Some(receipt.reached))
        }
    };
    let status = if published.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = json(status, &ShownReceipt { published: &published, durable, note });
    // Names hold no character that a path or a header could not.
    if let Ok(location) = location(&published).parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// What became of an event that is not stored.
#[derive(Serialize)]
struct Told {
    stream: StreamName,
    nodes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
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

/// The id of a connection, if one is given.
fn connection(name: &str, given: Option<&str>) -> Result<Option<Uuid>, String> {
    let read = |text: &str| {
        let shown: String = text.chars().take(64).collect();
        text.parse().map_err(|_| format!("'{name}': '{shown}' is not the id of a connection, which is a UUID"))
    };
    given.map(read).transpose()
}

fn location(published: &Published) -> String {
    let kind = published.stream.kind().plural();
    // '|' is the one character of names that a URL has to encode.
    format!("/v1/{kind}/{}/events/{}", published.stream.name().replace('|', "%7C"), published.id)
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    device: Option<String>,
    devices: Option<Vec<String>>,
    topic: Option<String>,
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(rename = "type")]
    kind: Option<String>,
    key: Option<String>,
    ttl: Option<&'a RawValue>,
    collapse: Option<String>,
    exclude: Option<String>,
    #[serde(default)]
    ephemeral: bool,
}

/// A value that is there, even if it is `null`: serde alone takes that for one that is missing.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// What became of an event of a batch.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Stored { id: EventId, stream: StreamName, nodes: u32, duplicate: bool },
    Told(Told),
    Refused { error: &'static str, detail: String },
}

/// The answer to a batch, in the batch's order.
#[derive(Serialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

/// `POST /v1/events`
pub async fn publish_batch(api: &Api, request: Request) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    if request.headers.contains_key("idempotency-key") {
        let detail = "a batch has no Idempotency-Key of its own; give each entry a \"key\"";
        return Err(Problem::bad_request(detail));
    }
    let kind = body::kind(&request.headers)?;
    let (body, _held) = api.bodies.read(&request.headers, request.body, BATCH_BYTES).await?;
    let entries = match kind {
        Kind::Lines => body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect(),
        Kind::Json => serde_json::from_slice::<Vec<&RawValue>>(&body)
            .map_err(|error| Problem::bad_request(format!("the body is not a JSON array: {error}")))?
            .into_iter()
            .map(|raw| raw.get().as_bytes())
            .collect::<Vec<_>>(),
        Kind::Text => {
            let detail = "a batch is a JSON array or, with application/x-ndjson, one JSON object a line";
            return Err(Problem::unsupported_media(detail));
        }
    };
    let mut batch = Vec::with_capacity(entries.len());
    for entry in entries {
        // The data of an entry is a part of the body, not a copy.
        drafts(entry, &body, &mut batch)?;
    }
    let outcomes = publish_sound(api, batch).await;
    Ok(json(StatusCode::OK, &Outcomes { results: outcomes }))
}

/// What an entry of a batch wants for one stream.
struct Wanted {
    stream: StreamName,
    draft: Draft,
    ephemeral: bool,
}

/// What an entry of a batch wants, or what is wrong with it.
type Read = Result<Wanted, (&'static str, String)>;

impl From<PublishError> for Outcome {
    fn from(error: PublishError) -> Self {
        Outcome::Refused { error: error.slug(), detail: error.to_string() }
    }
}

async fn publish_sound(api: &Api, batch: Vec<Read>) -> Vec<Outcome> {
    let mut sound = Vec::with_capacity(batch.len());
    let mut ephemeral = Vec::new();
    // `None` where the store has the word.
    let mut outcomes = Vec::with_capacity(batch.len());
    for (place, entry) in batch.into_iter().enumerate() {
        let refused = match entry {
            Ok(wanted) if wanted.ephemeral => {
                ephemeral.push((place, wanted));
                None
            }
            Ok(wanted) => {
                sound.push((wanted.stream, wanted.draft));
                None
            }
            Err((error, detail)) => Some(Outcome::Refused { error, detail }),
        };
        outcomes.push(refused);
    }
    let mut telling = futures_util::stream::iter(ephemeral.into_iter().map(|(place, wanted)| async move {
        let Wanted { stream, draft, .. } = wanted;
        let told = api.hub.publish_ephemeral(&stream, &draft).await;
        (place, told.map_or_else(Outcome::from, |nodes| Outcome::Told(Told { stream, nodes, note: None })))
    }))
    .buffered(TOLD_AT_ONCE);
    while let Some((place, outcome)) = telling.next().await {
        outcomes[place] = Some(outcome);
    }
    drop(telling);
    let mut published = api.hub.publish_all(sound).await.into_iter();
    let stored = |answer: Result<Published, PublishError>| match answer {
        Ok(Published { id, stream, nodes, duplicate }) => Outcome::Stored { id, stream, nodes, duplicate },
        Err(error) => error.into(),
    };
    outcomes.into_iter().filter_map(|outcome| outcome.or_else(|| published.next().map(stored))).collect()
}

/// Reads an entry of a batch: one draft, or one for each of its devices.
fn drafts(entry: &[u8], body: &Bytes, batch: &mut Vec<Read>) -> Result<(), Problem> {
    let entry: Entry<'_> = match serde_json::from_slice(entry) {
        Ok(entry) => entry,
        Err(error) => {
            batch.push(Err(("invalid-entry", format!("not an entry of a batch: {error}"))));
            return Ok(());
        }
    };
    // Before it is multiplied: a short entry may name very many devices.
    let count = entry.devices.as_ref().map_or(1, Vec::len);
    let bytes = entry.data.map_or(0, |data| data.get().len()) + entry.key.as_ref().map_or(0, String::len);
    if batch.len() + count > BATCH_EVENTS || count.saturating_mul(bytes) > BATCH_BYTES {
        let detail =
            format!("a batch may hold {BATCH_EVENTS} events, and an entry {BATCH_BYTES} bytes for all its devices");
        return Err(Problem::too_large(detail));
    }
    match draft(&entry, body) {
        Err(refusal) => batch.push(Err(refusal)),
        Ok(draft) => {
            let named = |kind, name: &String| match StreamName::new(kind, name) {
                Ok(stream) => Ok(Wanted { stream, draft: draft.clone(), ephemeral: entry.ephemeral }),
                Err(error) => Err(("invalid-name", error.to_string())),
            };
            match (&entry.device, &entry.topic, &entry.devices) {
                (Some(device), None, None) => batch.push(named(StreamKind::Device, device)),
                (None, Some(topic), None) => batch.push(named(StreamKind::Topic, topic)),
                (None, None, Some(devices)) => {
                    batch.extend(devices.iter().map(|device| named(StreamKind::Device, device)));
                }
                _ => batch.push(Err(("invalid-entry", "give one of \"device\", \"topic\" and \"devices\"".into()))),
            }
        }
    }
    Ok(())
}

/// The draft of an entry, for whichever streams it names.
fn draft(entry: &Entry<'_>, body: &Bytes) -> Result<Draft, (&'static str, String)> {
    let data = entry.data.ok_or_else(|| ("invalid-entry", "\"data\" is missing".to_owned()))?;
    let kind = entry.kind.as_deref().map(str::parse::<EventType>).transpose();
    let kind = kind.map_err(|error| ("invalid-type", error.to_string()))?.unwrap_or_default();
    let ttl = entry.ttl.map(|ttl| ttl.get().parse::<Ttl>()).transpose();
    let ttl = ttl.map_err(|error| ("invalid-ttl", error.to_string()))?.map(Ttl::time);
    if entry.ephemeral {
        let given =
            [("a ttl", ttl.is_some()), ("a collapse key", entry.collapse.is_some()), ("a key", entry.key.is_some())];
        check_ephemeral(given).map_err(|error| (error.slug(), error.to_string()))?;
    }
    let exclude = connection("exclude", entry.exclude.as_deref()).map_err(|error| ("invalid-entry", error))?;
    let draft = Draft::new(kind, body.slice_ref(data.get().as_bytes()));
    Ok(Draft { key: entry.key.clone(), ttl, collapse: entry.collapse.clone(), exclude, ..draft })
}

#[derive(Serialize)]
struct ShownHistory<'a> {
    events: Vec<ShownEvent<'a>>,
    gap: Option<&'a Gap>,
    last: EventId,
}

fn shown(event: &Event) -> Result<ShownEvent<'_>, Problem> {
    ShownEvent::of(event).map_err(|error| {
        tracing::error!(id = %event.id, %error, "an event in the store is not JSON");
        Problem::internal()
    })
}

/// `GET …/events`
pub async fn history(api: &Api, stream: StreamName, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["after", "before", "limit"])?;
    let limit = match parameters.number("limit")? {
        None => HISTORY,
        Some(limit @ 1..=MAX_HISTORY) => limit,
        Some(limit) => {
            return Err(Problem::bad_request(format!("the limit is {limit}; allowed are 1 to {MAX_HISTORY}")));
        }
    };
    let (after, before) = (parameters.parsed("after")?, parameters.parsed("before")?);
    let History { events, gap, last } = api.hub.history(&stream, after, before, limit).await?;
    let events = events.iter().map(|event| shown(event)).collect::<Result<_, _>>()?;
    Ok(json(StatusCode::OK, &ShownHistory { events, gap: gap.as_ref(), last }))
}

#[derive(Serialize)]
struct ShownProgress<'a> {
    #[serde(flatten)]
    event: ShownEvent<'a>,
    status: Progress,
}

/// `GET …/events/{id}`
pub async fn event(api: &Api, stream: &StreamName, id: EventId, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["wait"])?;
    let patience = match parameters.number("wait")?.unwrap_or(0) {
        seconds @ 0..=MAX_WAIT => Duration::from_secs(seconds as u64),
        seconds => {
            let detail = format!("the parameter 'wait': {seconds} s are too long; up to {MAX_WAIT} are allowed");
            return Err(Problem::bad_request(detail));
        }
    };
    match api.hub.event(stream, id, patience).await? {
        Some((event, status)) => Ok(json(StatusCode::OK, &ShownProgress { event: shown(&event)?, status })),
        None => Err(Problem::no_such_event(format!("{stream} has no event {id}, or keeps it no longer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_of(entry: &'static str) -> Result<Bytes, &'static str> {
        let body = Bytes::from_static(entry.as_bytes());
        let mut batch = Vec::new();
        drafts(&body, &body, &mut batch).unwrap();
        batch.pop().unwrap().map(|wanted| wanted.draft.data).map_err(|(slug, _)| slug)
    }

    #[test]
    fn null_is_data_and_no_data_is_not() {
        assert_eq!(data_of(r#"{"topic":"a","data":null}"#), Ok("null".into()));
        assert_eq!(data_of(r#"{"topic":"a"}"#), Err("invalid-entry"));
    }
}
