//! CloudEvents in JSON: one object holds attributes and data.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::context::{Context, Data};
use super::{CloudEvent, CloudEventError};

/// Characters of a fault that quotes what the parser met, which may be as long as the text.
const FAULT_CHARS: usize = 200;

/// Reads a CloudEvent in JSON, which is a part of `body`. Its data is not copied.
pub fn structured(json: &[u8], body: &Bytes) -> Result<CloudEvent, CloudEventError> {
    let members: JsonMembers<'_> = serde_json::from_slice(json)
        .map_err(|error| CloudEventError::Json(error.to_string().chars().take(FAULT_CHARS).collect()))?;
    let (mut context, mut data) = (Context::default(), None);
    for (name, raw) in members.0 {
        let read = match name.as_str() {
            "data" => Data::Json(body.slice_ref(raw.get().as_bytes())),
            "data_base64" if raw.get() == "null" => continue,
            "data_base64" => Data::Base64(base64(raw, body)?),
            name => {
                let value: Value = serde_json::from_str(raw.get())
                    .map_err(|_| CloudEventError::Value(name.chars().take(64).collect(), "can't be read"))?;
                context.add(name, value)?;
                continue;
            }
        };
        if data.replace(read).is_some() {
            return Err(CloudEventError::Data("is given more than once; give one of 'data' and 'data_base64'".into()));
        }
    }
    context.with(data.unwrap_or(Data::None))
}

/// The member `data_base64`, checked, as it stands there.
fn base64(raw: &RawValue, body: &Bytes) -> Result<Bytes, CloudEventError> {
    let text: Option<String> = serde_json::from_str(raw.get()).ok();
    match text.filter(|text| BASE64_STANDARD.decode(text).is_ok()) {
        Some(_) => Ok(body.slice_ref(raw.get().as_bytes())),
        None => Err(CloudEventError::Data("in 'data_base64' is no base64".into())),
    }
}

/// The members of an object in their order, values as they are written.
struct JsonMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = JsonMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the attributes of a CloudEvent")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = object.next_entry()? {
                    members.push(member);
                }
                Ok(JsonMembers(members))
            }
        }

        deserializer.deserialize_map(Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<CloudEvent, String> {
        let body = Bytes::copy_from_slice(json.as_bytes());
        structured(&body, &body).map_err(|error| error.to_string())
    }

    const HEAD: &str = r#""specversion":"1.0","id":"1","source":"/a","type":"com.example.a""#;

    #[test]
    fn data_is_kept_byte_for_byte() {
        for data in ["{\"a\" :1.0}", "\"text\"", "null", " [1,\n2]"] {
            let read = read(&format!("{{{HEAD},\"data\":{data}}}")).unwrap();
            assert_eq!(read.data, data.trim(), "{data}");
            assert_eq!(read.attributes.as_str(), r#"{"id":"1","source":"/a"}"#);
        }
    }

    #[test]
    fn data_in_base64_and_no_data_can_be_told_from_texts() {
        let binary = read(&format!(r#"{{{HEAD},"data_base64":"AAH/"}}"#)).unwrap();
        assert_eq!(binary.data, r#""AAH/""#);
        assert!(binary.attributes.as_str().contains(r#""data":"base64""#));
        let none = read(&format!("{{{HEAD}}}")).unwrap();
        assert_eq!(none.data, "null");
        assert!(none.attributes.as_str().contains(r#""data":"none""#));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, named) in [
            ("[]", "object"),
            ("{", "JSON"),
            (r#"{"specversion":"1.0"}"#, "'source'"),
            (r#"{"id":"1","source":"/a","type":"a"}"#, "'specversion'"),
            (r#"{"specversion":"1.0","id":"1","source":"/a"}"#, "'type'"),
            (&format!(r#"{{{HEAD},"data":1,"data_base64":"AAH/"}}"#), "data_base64"),
            (&format!(r#"{{{HEAD},"data_base64":"*"}}"#), "base64"),
            (&format!(r#"{{{HEAD},"a":"\ud800"}}"#), "'a'"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
