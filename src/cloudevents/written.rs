//! Events as CloudEvents in JSON.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{BASE64_DATA, DATA, ID, NO_DATA, STREAM, TRACE};
use crate::model::{Event, Gap, StreamName};

/// Room for what a CloudEvent has beside its data.
const ROOM: usize = 320;

/// An event: as it came, if it came as a CloudEvent, and with the stream and its id there.
pub fn event(stream: &StreamName, event: &Event) -> Vec<u8> {
    let mut attributes = given(event).unwrap_or_else(|| own(stream, event));
    let carried = attributes.remove(DATA);
    // It is written in any case.
    attributes.remove("specversion");
    attributes.insert("type".into(), event.kind.as_str().into());
    attributes.insert(STREAM.into(), stream.as_str().into());
    if let Some(trace) = event.trace() {
        // One that it came with may say more.
        attributes.entry(TRACE).or_insert_with(|| trace.to_string().into());
    }
    if !event.is_ephemeral() {
        attributes.insert(ID.into(), event.id.to_string().into());
    }
    let member: &[u8] = match carried.as_ref().and_then(Value::as_str) {
        Some(NO_DATA) => b"",
        Some(BASE64_DATA) => b",\"data_base64\":",
        _ => b",\"data\":",
    };
    let mut json = Vec::with_capacity(event.data.len() + ROOM);
    write(&mut json, &attributes);
    if !member.is_empty() {
        json.extend_from_slice(member);
        json.extend_from_slice(&event.data);
    }
    json.push(b'}');
    json
}

/// What is missing from a stream.
pub fn gap(stream: &StreamName, gap: &Gap) -> Vec<u8> {
    let mut attributes = Map::new();
    attributes.insert("id".into(), format!("gap:{}:{}", gap.after, gap.next).into());
    attributes.insert("source".into(), stream.path().into());
    attributes.insert("type".into(), "whimbrel:gap".into());
    attributes.insert(STREAM.into(), stream.as_str().into());
    attributes.insert(DATA.into(), json!(gap));
    let mut json = Vec::with_capacity(ROOM);
    write(&mut json, &attributes);
    json.push(b'}');
    json
}

/// Several in one array.
pub fn batch(events: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut json = vec![b'['];
    for (place, event) in events.into_iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&event);
    }
    json.push(b']');
    json
}

/// The attributes with which an event came.
fn given(event: &Event) -> Option<Map<String, Value>> {
    let attributes: Map<String, Value> = serde_json::from_str(event.attributes.as_ref()?.as_str()).ok()?;
    let has = |name| attributes.get(name).is_some_and(Value::is_string);
    (has("id") && has("source")).then_some(attributes)
}

/// The attributes of an event that did not come as a CloudEvent.
fn own(stream: &StreamName, event: &Event) -> Map<String, Value> {
    let mut attributes = Map::new();
    let id = if event.is_ephemeral() { Uuid::new_v4().to_string() } else { event.id.to_string() };
    attributes.insert("id".into(), id.into());
    attributes.insert("source".into(), stream.path().into());
    attributes.insert("datacontenttype".into(), "application/json".into());
    if !event.is_ephemeral() {
        attributes.insert("time".into(), event.time().to_string().into());
    }
    attributes
}

/// Begins an object with the attributes.
fn write(json: &mut Vec<u8>, attributes: &Map<String, Value>) {
    json.extend_from_slice(b"{\"specversion\":\"1.0\"");
    for (name, value) in attributes {
        json.push(b',');
        json.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
        json.push(b':');
        json.extend_from_slice(value.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cloudevents::structured;
    use crate::model::{Attributes, EventId, EventType, GapReason};

    fn stored(data: &'static str) -> Event {
        let id = EventId::new(1_763_795_000_000, 2731);
        Event::new(id, EventId::ZERO, "price".parse::<EventType>().unwrap(), data.into())
    }

    fn read(json: &[u8]) -> Value {
        serde_json::from_slice(json).unwrap()
    }

    #[test]
    fn a_plain_event_gets_the_attributes_that_follow_from_where_it_stands() {
        let written = event(&"topic:a|b".parse().unwrap(), &stored("{\"n\" :1}"));
        let expected = json!({
            "specversion": "1.0", "id": "1763795000000-2731", "source": "/v1/topics/a%7Cb", "type": "price",
            "time": "2025-11-22T07:03:20.000Z", "datacontenttype": "application/json", "data": {"n": 1},
            "whimbrelstream": "topic:a|b", "whimbrelid": "1763795000000-2731",
        });
        assert_eq!(read(&written), expected);
        assert!(written.ends_with(b"\"data\":{\"n\" :1}}"));
    }

    #[test]
    fn a_cloudevent_goes_out_as_it_came() {
        for data in [
            r#""data":{"a":1}"#,
            r#""data_base64":"AAH/""#,
            r#""datacontenttype":"text/xml","data":"<a/>""#,
            r#""n":5"#,
        ] {
            let came = format!(
                r#"{{"specversion":"1.0","id":"ä 1","source":"urn:x","type":"price","time":"2025-01-01T00:00:00+01:00",
                "subject":"a b","flag":true,"whimbrelid":"1-1","whimbrelstream":"topic:other",{data}}}"#
            );
            let body = Bytes::from(came.clone());
            let cloud_event = structured(&body, &body).unwrap();
            let mut made = stored("");
            (made.data, made.attributes) = (cloud_event.data, Some(cloud_event.attributes));
            let mut expected = read(came.as_bytes());
            expected["whimbrelid"] = "1763795000000-2731".into();
            expected["whimbrelstream"] = "topic:a".into();
            assert_eq!(read(&event(&"topic:a".parse().unwrap(), &made)), expected, "{data}");
        }
    }

    #[test]
    fn an_event_that_is_not_stored_has_an_id_all_the_same() {
        let made = Event::ephemeral("typing".parse::<EventType>().unwrap(), "5".into());
        let written = read(&event(&"topic:a".parse().unwrap(), &made));
        assert!(written["id"].as_str().is_some_and(|id| !id.is_empty()) && written.get("whimbrelid").is_none());
    }

    #[test]
    fn attributes_that_make_no_sense_are_as_if_there_were_none() {
        for text in ["{}", r#"{"id":5,"source":"/a"}"#, "{]"] {
            let mut made = stored("1");
            made.attributes = Attributes::of_store(text);
            assert_eq!(event(&"topic:a".parse().unwrap(), &made), event(&"topic:a".parse().unwrap(), &stored("1")));
        }
    }

    #[test]
    fn a_batch_is_an_array_in_which_a_gap_has_its_place() {
        let stream: StreamName = "topic:a".parse().unwrap();
        let missing = Gap { after: EventId::new(1, 1), next: EventId::new(5, 1), reason: GapReason::Trimmed };
        let written = read(&batch([gap(&stream, &missing), event(&stream, &stored("1"))]));
        assert_eq!((&written[0]["type"], &written[0]["data"]["next"]), (&"whimbrel:gap".into(), &"5-1".into()));
        assert_eq!((written.as_array().unwrap().len(), &written[1]["data"]), (2, &1.into()));
        assert_eq!(batch([]), b"[]");
    }
}
