//! CloudEvents in the headers of a request, with the data as its body.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use hyper::HeaderMap;
use percent_encoding::percent_decode;

use super::context::{Context, Data, essence, is_json};
use super::{CloudEvent, CloudEventError};

/// What the names of headers with attributes begin with.
const PREFIX: &str = "ce-";

/// What carries the data of a CloudEvent.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// The media type, as it was given.
    pub media_type: Option<&'a str>,
    /// Whether texts of that type are UTF-8.
    pub utf8: bool,
}

/// Whether a request's headers hold a CloudEvent.
pub fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion")
}

/// Reads a CloudEvent out of headers and the body that they came with.
pub fn binary(headers: &HeaderMap, carried: Carried<'_>, body: Bytes) -> Result<CloudEvent, CloudEventError> {
    let mut context = Context::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(PREFIX) else { continue };
        if name == "datacontenttype" {
            return Err(CloudEventError::Value(name.to_owned(), "is the Content-Type, where attributes are headers"));
        }
        let text = decoded(value.as_bytes())
            .ok_or_else(|| CloudEventError::Value(name.chars().take(64).collect(), "is not percent-encoded UTF-8"))?;
        context.add(name, text.into())?;
    }
    if let Some(media_type) = carried.media_type {
        context.add("datacontenttype", media_type.into())?;
    }
    let data = data(carried, body)?;
    context.with(data)
}

/// The value of a header, as the binding has it: without quotes around it, then decoded once.
fn decoded(value: &[u8]) -> Option<String> {
    let unquoted = match value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) {
        None => value.to_vec(),
        Some(quoted) => {
            let mut escaped = false;
            quoted
                .iter()
                .copied()
                .filter(|byte| {
                    escaped = *byte == b'\\' && !escaped;
                    !escaped
                })
                .collect()
        }
    };
    Some(percent_decode(&unquoted).decode_utf8().ok()?.into_owned())
}

/// The data, by its type and not by what it looks like, so that listeners can know what they are given.
fn data(carried: Carried<'_>, body: Bytes) -> Result<Data, CloudEventError> {
    if body.is_empty() {
        return Ok(Data::None);
    }
    let as_string = |text: &str| serde_json::to_vec(text).expect("a string is always JSON").into();
    match carried.media_type {
        None => Ok(Data::Json(body)),
        Some(media_type) if is_json(media_type) => Ok(Data::Json(body)),
        Some(media_type) if carried.utf8 && is_text(media_type) => {
            let text = std::str::from_utf8(&body)
                .map_err(|error| CloudEventError::Data(format!("is not UTF-8 at byte {}", error.valid_up_to())))?;
            Ok(Data::Json(as_string(text)))
        }
        Some(_) => Ok(Data::Base64(as_string(&BASE64_STANDARD.encode(&body)))),
    }
}

/// Whether a media type is one of texts.
fn is_text(media_type: &str) -> bool {
    let essence = essence(media_type);
    let (kind, subtype) = essence.split_once('/').unwrap_or((&essence, ""));
    let subtype = subtype.rsplit('+').next().unwrap_or_default();
    kind == "text" || matches!(subtype, "xml" | "yaml" | "javascript" | "x-ndjson" | "x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)], content_type: &str, body: &[u8]) -> Result<CloudEvent, String> {
        let sound = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "com.example.a")];
        let mut map = HeaderMap::new();
        for (name, value) in sound.iter().chain(headers) {
            map.append(*name, value.parse().unwrap());
        }
        let media_type = (!content_type.is_empty()).then_some(content_type);
        let carried = Carried { media_type, utf8: !content_type.contains("latin1") };
        binary(&map, carried, Bytes::copy_from_slice(body)).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_unquoted_and_decoded_once() {
        for (value, expected) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("%2541", "%41"),
            ("\"a \\\"b\\\" \\\\c\"", "a \"b\" \\c"),
            ("100%", "100%"),
        ] {
            assert_eq!(decoded(value.as_bytes()).as_deref(), Some(expected), "{value}");
        }
        assert_eq!(decoded("€".as_bytes()).as_deref(), Some("€"));
        assert_eq!(decoded(b"%FF"), None);
        let read = read(&[("ce-subject", "a%20b")], "application/json", b"1").unwrap();
        assert!(read.attributes.as_str().contains(r#""subject":"a\u0020b""#), "{read:?}");
    }

    #[test]
    fn data_is_json_or_a_string_by_its_type() {
        for (content_type, body, expected) in [
            ("application/json", &b"{\"a\" :1}"[..], r#"{"a" :1}"#),
            ("application/vnd.a+json; charset=utf-8", b"[1]", "[1]"),
            ("", b"5", "5"),
            ("text/csv", b"a,\"b\"", r#""a,\"b\"""#),
            ("application/soap+xml", b"<a/>", r#""<a/>""#),
            ("application/octet-stream", b"abc", r#""YWJj""#),
            ("text/plain; charset=latin1", b"\xe9", r#""6Q==""#),
            ("application/octet-stream", b"", "null"),
        ] {
            assert_eq!(read(&[], content_type, body).unwrap().data, expected, "{content_type}");
        }
        assert!(read(&[], "text/plain", b"a\xff").unwrap_err().contains("byte 1"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (header, named) in [
            (("ce-id", "2"), "'id' is given more than once"),
            (("ce-datacontenttype", "a/b"), "'datacontenttype'"),
            (("ce-a_b", "x"), "'a_b'"),
            (("ce-subject", "%FF"), "'subject'"),
            (("ce-subject", "%07"), "'subject'"),
        ] {
            let error = read(&[header], "", b"").unwrap_err();
            assert!(error.contains(named), "{header:?}: {error}");
        }
    }
}
