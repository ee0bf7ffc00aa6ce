//! Publishing many events with one request.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::StatusCode;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use warp::reply::Response;

use super::body::{self, Kind};
use super::events::{Sent, traceparent};
use super::parameters::Parameters;
use super::{Api, Problem, Request, json, throttle};
use crate::access::{Grant, Need};
use crate::hub::{OptionError, PublishError, PublishOptions, PublishRequest};
use crate::model::{Draft, EventId, Published, StreamKind, StreamName};

/// Most bytes of a batch's body.
pub(super) const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Most entries of a batch, sound or not; an entry with many devices counts as many. It bounds the answer too.
const BATCH_EVENTS: usize = 10_000;

/// Ephemeral events of a batch that are on their way at once.
const EPHEMERAL_AT_ONCE: usize = 64;

/// Characters of a fault that quotes what the parser met, which may be as long as the body.
const FAULT_CHARS: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    device: Option<String>,
    devices: Option<Bounded<String>>,
    topic: Option<String>,
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(rename = "type")]
    kind: Option<String>,
    key: Option<String>,
    ttl: Option<&'a RawValue>,
    collapse: Option<String>,
    exclude: Option<String>,
    /// In place of that of the request.
    traceparent: Option<String>,
    #[serde(default)]
    ephemeral: bool,
}

/// What its request says of each entry.
#[derive(Clone, Copy, Default)]
struct Came<'a> {
    /// The trace that it belongs to, unless the entry has one.
    traceparent: Option<&'a [u8]>,
    /// When it came, where that is recorded.
    at: Option<SystemTime>,
}

impl Entry<'_> {
    /// Events that it stands for.
    fn count(&self) -> usize {
        self.devices.as_ref().map_or(1, |devices| devices.count)
    }

    /// What each of them takes.
    fn bytes(&self) -> usize {
        self.data.map_or(0, |data| data.get().len()) + self.key.as_ref().map_or(0, String::len)
    }
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
    Ephemeral(Sent),
    Refused { error: &'static str, detail: String },
}

/// The answer to a batch, in the batch's order.
#[derive(Serialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

/// `POST /v1/events`
pub async fn publish(api: &Api, request: Request, grant: &Grant) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    if request.headers.contains_key("idempotency-key") {
        let detail = "a batch has no Idempotency-Key of its own; give each entry a \"key\"";
        return Err(Problem::bad_request(detail));
    }
    let kind = body::kind(&request.headers)?;
    let came = Came { traceparent: traceparent(&request.headers), at: api.hub.received() };
    let (body, _held) = api.bodies.read(&request.headers, request.body, BATCH_BYTES).await?;
    let entries = entries(kind, &body)?;
    throttle(api, grant, entries.len())?;
    let mut batch = Vec::with_capacity(entries.len());
    for entry in entries {
        // The data of an entry is a part of the body, not a copy.
        drafts(entry, &body, came, &mut batch)?;
    }
    Ok(publish_allowed(api, batch, grant).await)
}

/// Publishes the entries of a batch that their producer may publish, and answers what became of each.
pub(super) async fn publish_allowed(api: &Api, mut batch: Vec<Read>, grant: &Grant) -> Response {
    for read in &mut batch {
        if let Ok(wanted) = read
            && let Err(denied) = grant.check(Need::Publish(&wanted.stream))
        {
            *read = Err(("forbidden", denied.to_string()));
        }
    }
    let outcomes = publish_sound(api, batch).await;
    json(StatusCode::OK, &Outcomes { results: outcomes })
}

/// The entries as they stand in the body, unless there are too many.
pub(super) fn entries(kind: Kind, body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let (entries, count) = match kind {
        Kind::Lines => {
            let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            (lines().take(BATCH_EVENTS).collect(), lines().count())
        }
        Kind::Json => {
            let Bounded { first, count } = serde_json::from_slice::<Bounded<&RawValue>>(body)
                .map_err(|error| Problem::bad_request(format!("the body is not a JSON array: {}", fault(&error))))?;
            (first.into_iter().map(|raw| raw.get().as_bytes()).collect::<Vec<_>>(), count)
        }
        Kind::Text => {
            let detail = "a batch is a JSON array or, with application/x-ndjson, one JSON object a line";
            return Err(Problem::unsupported_media(detail));
        }
    };
    if count > BATCH_EVENTS {
        let detail = format!("the batch has {count} entries; allowed are {BATCH_EVENTS}");
        return Err(Problem::too_large(detail));
    }
    Ok(entries)
}

/// An array of which no more is kept than a batch may have, so that a body of tiny elements does not take many
/// times its size.
struct Bounded<T> {
    first: Vec<T>,
    /// Of all.
    count: usize,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(Vec<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = Bounded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut first = self.0;
                while first.len() < BATCH_EVENTS {
                    let Some(element) = array.next_element()? else {
                        return Ok(Bounded { count: first.len(), first });
                    };
                    first.push(element);
                }
                let mut count = first.len();
                while array.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Bounded { first, count })
            }
        }

        deserializer.deserialize_seq(Elements(Vec::new()))
    }
}

/// The parser's message, cut short.
fn fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.char_indices().nth(FAULT_CHARS) {
        Some((end, _)) => format!("{}… at line {} column {}", &text[..end], error.line(), error.column()),
        None => text,
    }
}

/// An entry of a batch, for one of its streams.
pub(super) struct Wanted {
    pub(super) stream: StreamName,
    pub(super) draft: Draft,
    pub(super) ephemeral: bool,
}

/// An entry of a batch, or what is wrong with it.
pub(super) type Read = Result<Wanted, (&'static str, String)>;

impl From<PublishError> for Outcome {
    fn from(error: PublishError) -> Self {
        Outcome::Refused { error: error.slug(), detail: error.to_string() }
    }
}

async fn publish_sound(api: &Api, batch: Vec<Read>) -> Vec<Outcome> {
    let mut sound = Vec::with_capacity(batch.len());
    let mut ephemeral = Vec::new();
    // `None` where the store decides.
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
    let mut sending = futures_util::stream::iter(ephemeral.into_iter().map(|(place, wanted)| async move {
        let Wanted { stream, draft, .. } = wanted;
        let nodes = api.hub.publish_ephemeral(&stream, &draft).await;
        (place, nodes.map_or_else(Outcome::from, |nodes| Outcome::Ephemeral(Sent { stream, nodes, note: None })))
    }))
    .buffered(EPHEMERAL_AT_ONCE);
    while let Some((place, outcome)) = sending.next().await {
        outcomes[place] = Some(outcome);
    }
    drop(sending);
    let mut published = api.hub.publish_all(sound).await.into_iter();
    let stored = |answer: Result<Published, PublishError>| match answer {
        Ok(Published { id, stream, nodes, duplicate }) => Outcome::Stored { id, stream, nodes, duplicate },
        Err(error) => error.into(),
    };
    outcomes.into_iter().filter_map(|outcome| outcome.or_else(|| published.next().map(stored))).collect()
}

/// Reads an entry of a batch: one draft, or one for each of its devices.
fn drafts(entry: &[u8], body: &Bytes, came: Came<'_>, batch: &mut Vec<Read>) -> Result<(), Problem> {
    let entry = serde_json::from_slice::<Entry<'_>>(entry);
    // Before it is multiplied: a short entry may name very many devices.
    let (count, bytes) = entry.as_ref().map_or((1, 0), |entry| (entry.count(), entry.bytes()));
    if batch.len() + count > BATCH_EVENTS || count.saturating_mul(bytes) > BATCH_BYTES {
        let detail =
            format!("a batch may hold {BATCH_EVENTS} events, and an entry {BATCH_BYTES} bytes for all its devices");
        return Err(Problem::too_large(detail));
    }
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => {
            batch.push(Err(("invalid-entry", format!("not an entry of a batch: {}", fault(&error)))));
            return Ok(());
        }
    };
    match draft(&entry, body, came) {
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
                    batch.extend(devices.first.iter().map(|device| named(StreamKind::Device, device)));
                }
                _ => batch.push(Err(("invalid-entry", "give one of \"device\", \"topic\" and \"devices\"".into()))),
            }
        }
    }
    Ok(())
}

/// The draft of an entry, for whichever streams it names.
fn draft(entry: &Entry<'_>, body: &Bytes, came: Came<'_>) -> Result<Draft, (&'static str, String)> {
    let data = entry.data.ok_or_else(|| ("invalid-entry", "\"data\" is missing".to_owned()))?;
    let options = PublishOptions {
        kind: entry.kind.as_deref(),
        ttl: entry.ttl.map(RawValue::get),
        collapse: entry.collapse.as_deref(),
        key: entry.key.as_deref(),
        durable: None,
        exclude: entry.exclude.as_deref(),
        ephemeral: entry.ephemeral,
        traceparent: entry.traceparent.as_deref().map(str::as_bytes).or(came.traceparent),
        received: came.at,
    };
    let request = PublishRequest::read(options).map_err(refusal)?;
    Ok(request.draft(body.slice_ref(data.get().as_bytes())))
}

/// What an entry is answered whose options can't be used.
pub(super) fn refusal(error: OptionError) -> (&'static str, String) {
    let slug = match &error {
        OptionError::Type(_) => "invalid-type",
        OptionError::Ttl(_) => "invalid-ttl",
        OptionError::Durable(_) | OptionError::Exclude(_) => "invalid-entry",
        OptionError::Event(error) => error.slug(),
    };
    (slug, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_of(entry: &'static str) -> Result<Bytes, &'static str> {
        let body = Bytes::from_static(entry.as_bytes());
        let mut batch = Vec::new();
        drafts(&body, &body, Came::default(), &mut batch).unwrap();
        batch.pop().unwrap().map(|wanted| wanted.draft.data).map_err(|(slug, _)| slug)
    }

    #[test]
    fn null_is_data_and_no_data_is_not() {
        assert_eq!(data_of(r#"{"topic":"a","data":null}"#), Ok("null".into()));
        assert_eq!(data_of(r#"{"topic":"a"}"#), Err("invalid-entry"));
    }
}
