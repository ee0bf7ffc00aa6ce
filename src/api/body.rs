//! Request bodies: what kinds are taken.

use std::pin::Pin;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt as _};
use hyper::{HeaderMap, header};
use serde::de::IgnoredAny;
use warp::Filter;

use super::Problem;

/// A body as it comes in.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JSON text; also whatever names no other kind, so that plain `curl -d` works.
    Json,
    /// Text that becomes a JSON string.
    Text,
    /// One JSON value a line.
    Lines,
}

fn contiguous_chunks<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> impl Stream<Item = Result<Bytes, warp::Error>> {
    body.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
}

/// The body of a request, for warp.
pub fn stream() -> impl Filter<Extract = (BodyStream,), Error = warp::Rejection> + Clone {
    warp::body::stream().map(|body| Box::pin(contiguous_chunks(body)) as BodyStream)
}

/// What a `Content-Type` says of a body.
#[derive(Debug, PartialEq, Eq)]
pub struct ContentType<'a> {
    /// All of it, as it was given.
    pub text: &'a str,
    /// Type and subtype, in lower case.
    pub essence: String,
    /// The charset, in lower case, if one is given.
    charset: Option<String>,
}

impl ContentType<'_> {
    /// Whether a text of this type is UTF-8: that is so unless another charset is given.
    pub fn is_utf8(&self) -> bool {
        self.charset.as_deref().is_none_or(|charset| matches!(charset, "utf-8" | "utf8" | "us-ascii"))
    }

    /// Refuses texts in other charsets.
    pub fn require_utf8(&self) -> Result<(), Problem> {
        let charset = self.charset.as_deref().filter(|_| !self.is_utf8());
        let refused = |charset| Problem::unsupported_media(format!("the charset '{charset}' is not taken; send UTF-8"));
        charset.map_or(Ok(()), |charset| Err(refused(charset)))
    }
}

/// The type of a body that came as it is, without any coding, if a type is given.
pub fn content_type(headers: &HeaderMap) -> Result<Option<ContentType<'_>>, Problem> {
    let other_than = |name, plain: &str| {
        headers.get_all(name).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(plain.as_bytes()))
    };
    if other_than(header::CONTENT_ENCODING, "identity") {
        return Err(Problem::unsupported_media("a Content-Encoding is not taken; send the body as it is"));
    }
    // What stands before `chunked` would otherwise be taken for the body itself.
    if other_than(header::TRANSFER_ENCODING, "chunked") {
        return Err(Problem::unsupported_media("a Transfer-Encoding other than chunked is not taken"));
    }
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let text = match (given.next(), given.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => {
            value.to_str().map_err(|_| Problem::unsupported_media("the Content-Type is not text"))?
        }
        _ => return Err(Problem::unsupported_media("the Content-Type is given more than once")),
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let essence = essence.trim().to_ascii_lowercase();
    let charset =
        parameters.split(';').filter_map(|parameter| parameter.trim().split_once('=')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"').to_ascii_lowercase())
        });
    Ok(Some(ContentType { text, essence, charset }))
}

/// What the body holds, or why it is not taken.
pub fn kind(headers: &HeaderMap) -> Result<Kind, Problem> {
    let Some(content_type) = content_type(headers)? else { return Ok(Kind::Json) };
    let essence = content_type.essence.as_str();
    if essence.starts_with("application/cloudevents") {
        let detail = format!(
            "'{essence}' is not taken here; CloudEvents go to /v1/devices/{{device}}/cloudevents, \
             /v1/topics/{{topic}}/cloudevents or /v1/cloudevents"
        );
        return Err(Problem::unsupported_media(detail));
    }
    if essence.starts_with("multipart/") {
        let detail = format!("'{essence}' is not taken; send application/json, text/plain or application/x-ndjson");
        return Err(Problem::unsupported_media(detail));
    }
    content_type.require_utf8()?;
    Ok(match essence {
        "text/plain" => Kind::Text,
        "application/x-ndjson" => Kind::Lines,
        _ => Kind::Json,
    })
}

/// The body as JSON data: text becomes a JSON string.
pub fn data(kind: Kind, body: Bytes) -> Result<Bytes, Problem> {
    if kind != Kind::Text {
        return Ok(body);
    }
    let text = std::str::from_utf8(&body)
        .map_err(|error| Problem::bad_request(format!("the text is not UTF-8 at byte {}", error.valid_up_to())))?;
    Ok(serde_json::to_vec(text).expect("a string is always JSON").into())
}

/// Whether a text is an object or array in JSON, so that it was most likely meant to be data as it is.
pub fn looks_like_json(kind: Kind, body: &[u8]) -> bool {
    kind == Kind::Text
        && matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(content_type: &str) -> Result<Kind, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        kind(&headers)
    }

    #[test]
    fn what_names_no_other_kind_is_json() {
        for content_type in ["application/json", "application/x-www-form-urlencoded", "x/y", "application/JSON; a=b"] {
            assert_eq!(kind_of(content_type).ok(), Some(Kind::Json), "{content_type}");
        }
        assert_eq!(kind_of("text/plain; charset=UTF-8").ok(), Some(Kind::Text));
        assert_eq!(kind_of("application/x-ndjson").ok(), Some(Kind::Lines));
    }

    #[test]
    fn kinds_that_would_be_misread_are_refused() {
        for content_type in
            ["multipart/form-data; boundary=x", "application/cloudevents+json", "text/plain; charset=latin1"]
        {
            assert_eq!(kind_of(content_type).unwrap_err().status(), 415, "{content_type}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(kind(&headers).unwrap_err().status(), 415);
    }
}
