//! From an entry's fields to an event for a stream, or to what is wrong with them.

use bytes::Bytes;

use crate::hub::{PublishOptions, PublishRequest};
use crate::model::{Draft, StreamKind, StreamName};
use crate::store::{IngressEntry, Placement, Rejection};

/// Fields of an entry.
const FIELDS: [&str; 8] = ["device", "topic", "data", "type", "ttl", "collapse", "key", "traceparent"];

/// What an entry may have around its data: names, a stream, a type, keys.
pub const OVERHEAD: usize = 4096;

/// Fields of a rejected entry that are kept, and bytes of each name and value.
const SHOWN_FIELDS: usize = 16;
const SHOWN_BYTES: usize = 1024;

/// Reads an entry. The error is for people, and names the field.
pub fn read(entry: &IngressEntry) -> Result<(StreamName, Draft), String> {
    if entry.fields.is_empty() {
        return Err(format!("the entry has {} bytes, more than any event has", entry.bytes));
    }
    let mut given: [Option<&Bytes>; FIELDS.len()] = [None; FIELDS.len()];
    for (name, value) in &entry.fields {
        let Some(at) = FIELDS.iter().position(|known| known.as_bytes() == name) else {
            return Err(format!("the field {} is not known; known: {}", quoted(name), FIELDS.join(", ")));
        };
        if given[at].replace(value).is_some() {
            return Err(format!("the field '{}' is given more than once", FIELDS[at]));
        }
    }
    let [device, topic, data, kind, ttl, collapse, key, traceparent] = given;
    let stream = match (device, topic) {
        (Some(name), None) => StreamName::new(StreamKind::Device, text("device", name)?),
        (None, Some(name)) => StreamName::new(StreamKind::Topic, text("topic", name)?),
        _ => return Err("give one of the fields 'device' and 'topic'".to_owned()),
    };
    let stream = stream.map_err(|error| error.to_string())?;
    let data = data.ok_or("the field 'data' is missing")?;
    let options = PublishOptions {
        kind: kind.map(|kind| text("type", kind)).transpose()?,
        ttl: ttl.map(|ttl| text("ttl", ttl)).transpose()?,
        collapse: collapse.map(|collapse| text("collapse", collapse)).transpose()?,
        key: key.map(|key| text("key", key)).transpose()?,
        traceparent: traceparent.map(|traceparent| &traceparent[..]),
        ..PublishOptions::default()
    };
    let request = PublishRequest::read(options).map_err(|error| error.to_string())?;
    Ok((stream, request.draft(data.clone())))
}

/// An entry that could be read, but is refused by its stream.
pub fn rejection_of(placement: &Placement, reason: String) -> Rejection {
    let Placement { id, stream, draft, .. } = placement;
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut fields = vec![(text(stream.kind().as_str()), text(stream.name())), (text("data"), draft.data.clone())];
    fields.extend(draft.key.as_deref().map(|key| (text("key"), text(key))));
    rejection(&IngressEntry { id: *id, bytes: 0, fields }, reason)
}

fn text<'a>(field: &str, value: &'a Bytes) -> Result<&'a str, String> {
    std::str::from_utf8(value).map_err(|_| format!("the field '{field}' is not UTF-8"))
}

/// What was given, cut short, and on one line whatever it holds.
fn quoted(value: &Bytes) -> String {
    let start: String = String::from_utf8_lossy(value).chars().take(64).collect();
    format!("'{}'", start.escape_debug())
}

/// The entry as it is kept among the rejected ones: a large one is cut short.
pub fn rejection(entry: &IngressEntry, reason: String) -> Rejection {
    let cut = |bytes: &Bytes| Bytes::copy_from_slice(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    let fields = entry.fields.iter().take(SHOWN_FIELDS).map(|(name, value)| (cut(name), cut(value))).collect();
    Rejection { id: entry.id, reason, fields }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::EventId;

    fn entry(words: &[&str]) -> IngressEntry {
        let bytes = |word: &str| Bytes::copy_from_slice(word.as_bytes());
        let fields = words.chunks(2).map(|pair| (bytes(pair[0]), bytes(pair[1]))).collect();
        IngressEntry { id: EventId::new(5, 1), bytes: 0, fields }
    }

    #[test]
    fn an_entry_names_its_stream_and_holds_an_event() {
        let words = ["topic", "a:b", "data", "{}", "type", "x.y", "ttl", "60", "collapse", "c", "key", "k"];
        let (stream, draft) = read(&entry(&words)).unwrap();
        assert_eq!((stream.as_str(), &draft.data[..], draft.kind.as_str()), ("topic:a:b", &b"{}"[..], "x.y"));
        assert_eq!(draft.ttl, Some(Duration::from_secs(60)));
        assert_eq!((draft.collapse.as_deref(), draft.key.as_deref()), (Some("c"), Some("k")));
        assert_eq!(read(&entry(&["device", "42", "data", "1"])).unwrap().0.as_str(), "device:42");
    }

    #[test]
    fn an_entry_may_belong_to_a_trace_and_is_not_refused_for_one_that_is_invalid() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace_of = |given: &str| {
            let (_, draft) = read(&entry(&["topic", "a", "data", "1", "traceparent", given])).unwrap();
            draft.trace.map(|trace| trace.to_string())
        };
        assert_eq!((trace_of(text).as_deref(), trace_of("\u{7}")), (Some(text), None));
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_named() {
        for (words, wrong) in [
            (&["data", "1"][..], "'device' and 'topic'"),
            (&["device", "1", "topic", "2", "data", "1"], "'device' and 'topic'"),
            (&["device", "no spaces", "data", "1"], "' '"),
            (&["device", "1"], "'data' is missing"),
            (&["device", "1", "data", "1", "data", "2"], "'data' is given more than once"),
            (&["device", "1", "data", "1", "typ", "x"], "'typ' is not known"),
            (&["device", "1", "data", "1", "type", "open"], "'open'"),
            (&["device", "1", "data", "1", "ttl", "0"], "'0' can't be a ttl"),
            (&["device", "1", "data", "1", "ttl", "+5"], "'+5' can't be a ttl"),
            (&["device", "1", "data", "1", "ttl", "99999999999999999999"], "number of seconds"),
            (&[], "more than any event"),
        ] {
            let refused = read(&entry(words)).unwrap_err();
            assert!(refused.contains(wrong), "{words:?}: {refused}");
        }
        let odd = IngressEntry { fields: vec![("topic".into(), Bytes::from_static(b"\xff"))], ..entry(&[]) };
        assert!(read(&odd).unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn of_a_large_entry_little_is_shown() {
        let fields = vec![("data".into(), Bytes::from(vec![b'x'; 100_000])); 100];
        let shown = rejection(&IngressEntry { fields, ..entry(&[]) }, "too much".to_owned());
        assert_eq!(shown.fields.len(), SHOWN_FIELDS);
        assert!(shown.fields.iter().all(|(_, value)| value.len() == SHOWN_BYTES));
    }
}
