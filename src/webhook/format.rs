//! What requests hold.

use std::str::FromStr;

use serde::Serialize;

use crate::cloudevents;
use crate::model::{Event, Gap, ShownEvent, StreamName};

/// What requests hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Events as the API shows them, and a gap, in one object.
    Whimbrel,
    /// One CloudEvent: what most receivers of CloudEvents take.
    CloudEvent,
    /// CloudEvents in an array.
    CloudEvents,
}

/// Why a text names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not one of whimbrel, cloudevents, cloudevents-batch")]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "whimbrel" => Ok(Format::Whimbrel),
            "cloudevents" => Ok(Format::CloudEvent),
            "cloudevents-batch" => Ok(Format::CloudEvents),
            other => Err(FormatError(other.to_owned())),
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    events: Vec<ShownEvent>,
    /// What is missing right before the first of `events`.
    gap: Option<&'a Gap>,
}

impl Format {
    /// Whether a request holds one event, or one gap, and no more.
    pub fn is_single(self) -> bool {
        self == Format::CloudEvent
    }

    /// The media type of a request.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Whimbrel => "application/json",
            Format::CloudEvent => cloudevents::STRUCTURED,
            Format::CloudEvents => cloudevents::BATCH,
        }
    }

    /// The body of a request.
    pub fn body(self, events: &[&Event], gap: Option<&Gap>) -> Vec<u8> {
        if self == Format::Whimbrel {
            let body = Body { events: events.iter().map(|event| shown(event)).collect(), gap };
            return serde_json::to_vec(&body).expect("JSON of strings and JSON");
        }
        let stream = StreamName::lifecycle();
        let gap = gap.iter().map(|gap| cloudevents::gap(&stream, gap));
        let mut all = gap.chain(events.iter().map(|event| cloudevents::event(&stream, event)));
        match self.is_single() {
            true => all.next().unwrap_or_default(),
            false => cloudevents::batch(all),
        }
    }
}

/// Somebody may have put what is not JSON into the store, past the service. It must not hold up the rest.
fn shown(event: &Event) -> ShownEvent {
    ShownEvent::of(event).unwrap_or_else(|error| {
        tracing::error!(id = %event.id, %error, "an event in the store is not JSON: its data is sent as null");
        ShownEvent::without_data(event)
    })
}
