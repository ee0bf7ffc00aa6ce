//! An event as answers and webhooks show it.

use serde::{Serialize, Serializer, ser};
use serde_json::value::RawValue;

use super::Event;

/// An event, written as JSON; its data stays byte for byte, white space around it too.
#[derive(Debug, Clone)]
pub struct ShownEvent(Box<RawValue>);

impl ShownEvent {
    /// The event as it is shown. Fails when its data is not JSON, which only a direct write into the store
    /// past the service can bring about.
    pub fn of(event: &Event) -> Result<Self, serde_json::Error> {
        ShownEvent::written(event, data_of(event)?, "")
    }

    /// The event, and how far it got.
    pub fn with_status(event: &Event, status: &impl Serialize) -> Result<Self, serde_json::Error> {
        ShownEvent::written(event, data_of(event)?, &format!(r#","status":{}"#, serde_json::to_string(status)?))
    }

    /// The event without its data.
    pub fn without_data(event: &Event) -> Self {
        ShownEvent::written(event, "null", "").expect("ids, types and times are JSON")
    }

    fn written(event: &Event, data: &str, more: &str) -> Result<Self, serde_json::Error> {
        let (id, kind, time) = (event.id, &event.kind, event.time());
        // Ids, types and times hold nothing that JSON would escape.
        let json = format!(r#"{{"id":"{id}","type":"{kind}","time":"{time}","data":{data}{more}}}"#);
        RawValue::from_string(json).map(ShownEvent)
    }
}

/// Its data, checked by itself: a part of it could end the value, and go on as fields of the event.
fn data_of(event: &Event) -> Result<&str, serde_json::Error> {
    serde_json::from_slice::<&RawValue>(&event.data)?;
    std::str::from_utf8(&event.data).map_err(ser::Error::custom)
}

impl Serialize for ShownEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventId, EventType};

    fn event(data: &'static [u8]) -> Event {
        Event::new(EventId::new(1_763_795_000_000, 2), EventId::ZERO, EventType::MESSAGE, data.into())
    }

    #[test]
    fn data_is_shown_byte_for_byte_with_the_white_space_around_it() {
        let shown = serde_json::to_string(&ShownEvent::of(&event(b" \n{\"a\" :1.0}\t")).unwrap()).unwrap();
        let head = r#"{"id":"1763795000000-2","type":"message","time":"2025-11-22T07:03:20.000Z","data":"#;
        assert_eq!(shown, format!("{head} \n{{\"a\" :1.0}}\t}}"));
        let status = ShownEvent::with_status(&event(b"1"), &"stored").unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), format!("{head}1,\"status\":\"stored\"}}"));
    }

    #[test]
    fn data_that_is_no_json_is_an_error_and_can_not_forge_a_field() {
        for data in [&b"1,\"id\":\"5-5\""[..], b"{", b"\xff", b""] {
            let event = Event::new(EventId::ZERO, EventId::ZERO, EventType::MESSAGE, data.into());
            assert!(ShownEvent::of(&event).is_err(), "{data:?}");
        }
    }
}
