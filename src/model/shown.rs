//! An event as answers and webhooks show it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Event, EventId, EventType};

/// An event, to be written as JSON; its data stays byte for byte.
#[derive(Debug, Serialize)]
pub struct ShownEvent<'a> {
    id: EventId,
    r#type: &'a EventType,
    time: String,
    data: &'a RawValue,
}

impl<'a> ShownEvent<'a> {
    /// The event as it is shown. Fails when its data is not JSON, which only a direct write into the store
    /// past the service can bring about.
    pub fn of(event: &'a Event) -> Result<Self, serde_json::Error> {
        Ok(ShownEvent::with_data(event, serde_json::from_slice(&event.data)?))
    }

    /// The event with this in place of its data.
    pub fn with_data(event: &'a Event, data: &'a RawValue) -> Self {
        ShownEvent { id: event.id, r#type: &event.kind, time: event.time().to_string(), data }
    }
}
