//! The attributes of a CloudEvent as they come in, checked one by one.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use bytes::Bytes;
use ring::digest;
use serde_json::{Map, Value};

use super::{BASE64_DATA, CloudEvent, CloudEventError, DATA, NO_DATA, OWN, STREAM, TRACE};
use crate::model::{Attributes, EventType, Time};

/// Longest name of an attribute. The specification has 20 as a recommendation.
const MOST_NAME: usize = 64;

/// How an event's data came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// There is none.
    None,
    /// JSON, or a text as a JSON string.
    Json(Bytes),
    /// Bytes, as a JSON string in base64.
    Base64(Bytes),
}

/// Attributes, and which of the required ones there are.
#[derive(Debug, Default)]
pub struct Context {
    has_version: bool,
    kind: Option<EventType>,
    stream: Option<String>,
    /// All but the above.
    others: Map<String, Value>,
}

impl Context {
    /// Adds an attribute.
    pub fn add(&mut self, name: &str, value: Value) -> Result<(), CloudEventError> {
        let is_name = (1..=MOST_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && name != DATA;
        if !is_name {
            return Err(CloudEventError::Name(name.chars().take(MOST_NAME).collect()));
        }
        let wrong = |what| Err(CloudEventError::Value(name.to_owned(), what));
        match &value {
            Value::String(text) if text.chars().any(char::is_control) => return wrong("has a control character"),
            Value::Number(number) if number.as_i64().is_none_or(|number| i32::try_from(number).is_err()) => {
                return wrong("is no whole number of 32 bits");
            }
            Value::Array(_) | Value::Object(_) => return wrong("is neither a text nor a number nor true or false"),
            // As if it were not there.
            Value::Null => return Ok(()),
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
        }
        let text = value.as_str().unwrap_or_default();
        match name {
            "specversion" | "id" | "source" | "type" | "subject" | "time" | "dataschema" | "datacontenttype"
            | STREAM
                if text.is_empty() =>
            {
                return wrong("has to be a text that is not empty");
            }
            "specversion" if text != "1.0" => {
                return Err(CloudEventError::Version(text.chars().take(64).collect()));
            }
            "time" if !Time::is_rfc3339(text) => {
                return wrong("is not a time in RFC 3339, such as 2025-11-22T07:03:20Z");
            }
            "source" | "dataschema" if text.contains(char::is_whitespace) => {
                return wrong("is no URI: it has white space");
            }
            "datacontenttype" if !text.contains('/') => return wrong("is no media type, such as application/json"),
            _ => {}
        }
        let again = match name {
            "specversion" => std::mem::replace(&mut self.has_version, true),
            "type" => self.kind.replace(text.parse()?).is_some(),
            STREAM => self.stream.replace(text.to_owned()).is_some(),
            // What another Whimbrel added to it.
            name if name.starts_with(OWN) => false,
            name => self.others.insert(name.to_owned(), value).is_some(),
        };
        if again { wrong("is given more than once") } else { Ok(()) }
    }

    /// The CloudEvent with this data.
    pub fn with(mut self, data: Data) -> Result<CloudEvent, CloudEventError> {
        if !self.has_version {
            return Err(CloudEventError::Missing("specversion"));
        }
        let required = |name| self.text(name).ok_or(CloudEventError::Missing(name));
        let key = key(required("source")?, required("id")?);
        let kind = self.kind.take().ok_or(CloudEventError::Missing("type"))?;
        let mut mark = |how: &str| self.others.insert(DATA.to_owned(), how.into());
        let data = match data {
            Data::Json(data) => data,
            Data::Base64(data) => {
                mark(BASE64_DATA);
                data
            }
            Data::None => {
                mark(NO_DATA);
                Bytes::from_static(b"null")
            }
        };
        let others = serde_json::to_string(&self.others).expect("a map of texts and numbers is JSON");
        let attributes = Attributes::of_json(&others).ok_or(CloudEventError::Long)?;
        let traceparent = self.text(TRACE).map(str::to_owned);
        Ok(CloudEvent { kind, key, stream: self.stream, traceparent, data, attributes })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.others.get(name).and_then(Value::as_str)
    }
}

/// A digest of both: either may be longer than a key may be, and hold characters that a key may not.
fn key(source: &str, id: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    // With its length in front, no part can be taken for another.
    context.update(&(source.len() as u64).to_le_bytes());
    context.update(source.as_bytes());
    context.update(id.as_bytes());
    format!("ce:{}", BASE64_URL_SAFE_NO_PAD.encode(context.finish()))
}

/// Type and subtype of a media type, in lower case.
pub fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type is one of JSON.
pub fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence.ends_with("/json") || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Context {
        let mut context = Context::default();
        for (name, value) in [("specversion", "1.0"), ("id", "1"), ("source", "/a"), ("type", "com.example.a")] {
            context.add(name, value.into()).unwrap();
        }
        context
    }

    #[test]
    fn source_and_id_make_the_key_and_nothing_else_does() {
        let key = |source: &str, id: &str| super::key(source, id);
        assert_eq!(key("/a", "b"), key("/a", "b"));
        assert!(key("/a", "bc") != key("/ab", "c") && key("/a", "b") != key("/a", "c"));
        assert!(key(&"x".repeat(9000), "é").len() < 128);
    }

    #[test]
    fn what_another_whimbrel_added_is_dropped_but_for_the_stream() {
        let mut context = sound();
        context.add("whimbrelid", "5-1".into()).unwrap();
        context.add("whimbrelstream", "topic:news".into()).unwrap();
        let read = context.with(Data::None).unwrap();
        assert_eq!(read.stream.as_deref(), Some("topic:news"));
        assert_eq!(read.attributes.as_str(), r#"{"data":"none","id":"1","source":"/a"}"#);
    }

    #[test]
    fn an_attribute_that_is_wrong_is_named() {
        for (name, value) in [
            ("specversion", Value::from("0.3")),
            ("id", "".into()),
            ("id", 5.into()),
            ("time", "today".into()),
            ("source", "a b".into()),
            ("datacontenttype", "json".into()),
            ("number", 2_147_483_648_i64.into()),
            ("number", 1.5.into()),
            ("list", serde_json::json!([])),
            ("text", "a\u{7}".into()),
            ("camelCase", "a".into()),
            ("data", "a".into()),
            ("type", "a b".into()),
        ] {
            let error = Context::default().add(name, value.clone()).unwrap_err();
            assert!(error.to_string().contains(&format!("'{name}'")), "{name} {value}: {error}");
        }
        assert_eq!(
            sound().add("id", "2".into()).unwrap_err().to_string(),
            "the attribute 'id' is given more than once"
        );
        let mut long = sound();
        long.add("a", "x".repeat(Attributes::MOST_BYTES).into()).unwrap();
        assert_eq!(long.with(Data::None), Err(CloudEventError::Long));
    }
}
