//! Request bodies: what kinds are taken, and how much.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use hyper::{HeaderMap, header};
use serde::de::IgnoredAny;
use warp::Filter;

use super::Problem;

/// How long a body may take: a client that sends a byte now and then must not keep a socket for ever.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Room made for a body before any of it came.
const FIRST_CAPACITY: usize = 64 * 1024;

/// Bytes of bodies that a node holds at once, from their first byte until they are answered: eight batches of
/// the largest kind, or thousands of single events.
const HELD_BYTES: usize = 128 * 1024 * 1024;

/// A body as it comes in.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// Most of a refused body that is read all the same, and for how long.
const DISCARDED_BYTES: usize = 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

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

/// What the body holds, or why it is not taken.
pub fn kind(headers: &HeaderMap) -> Result<Kind, Problem> {
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
    let content_type = match (given.next(), given.next()) {
        (None, _) => return Ok(Kind::Json),
        (Some(value), None) => {
            value.to_str().map_err(|_| Problem::unsupported_media("the Content-Type is not text"))?
        }
        _ => return Err(Problem::unsupported_media("the Content-Type is given more than once")),
    };
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let essence = essence.trim().to_ascii_lowercase();
    if essence.starts_with("multipart/") || essence.starts_with("application/cloudevents") {
        let detail = format!("'{essence}' is not taken; send application/json, text/plain or application/x-ndjson");
        return Err(Problem::unsupported_media(detail));
    }
    let charset =
        parameters.split(';').filter_map(|parameter| parameter.trim().split_once('=')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"').to_ascii_lowercase())
        });
    if let Some(charset) = charset.filter(|charset| !matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii")) {
        return Err(Problem::unsupported_media(format!("the charset '{charset}' is not taken; send UTF-8")));
    }
    Ok(match essence.as_str() {
        "text/plain" => Kind::Text,
        "application/x-ndjson" => Kind::Lines,
        _ => Kind::Json,
    })
}

/// Takes what a client is still sending, within limits: one that is cut off in the middle of it is likely to
/// see a broken connection rather than the answer that says why.
async fn discard(mut body: BodyStream) {
    let taken = async {
        let mut room = DISCARDED_BYTES;
        while let Some(Ok(chunk)) = body.next().await {
            room = room.saturating_sub(chunk.len());
            if room == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, taken).await;
}

/// The bodies of all requests that are being answered.
#[derive(Debug)]
pub struct Bodies {
    held: AtomicUsize,
    limit: usize,
}

impl Default for Bodies {
    fn default() -> Self {
        Bodies { held: AtomicUsize::new(0), limit: HELD_BYTES }
    }
}

/// What one request holds of the room for bodies.
#[derive(Debug)]
pub struct Held<'a> {
    bodies: &'a Bodies,
    bytes: usize,
}

impl Bodies {
    /// Reads a body of at most `limit` bytes. It counts as held until what comes with it is dropped.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: BodyStream,
        limit: usize,
    ) -> Result<(Bytes, Held<'_>), Problem> {
        let late = || Problem::bad_request(format!("the body did not come within {} s", BODY_TIME.as_secs()));
        let mut held = Held { bodies: self, bytes: 0 };
        let read = tokio::time::timeout(BODY_TIME, read_all(headers, body, limit, &mut held));
        let bytes = read.await.unwrap_or_else(|_| Err(late()))?;
        Ok((bytes, held))
    }
}

impl Held<'_> {
    /// Counts what has come. Room is taken only then, and never waited for: clients that announce much and send
    /// nothing must not keep it from others.
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let grown = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.bodies.limit);
        if self.bodies.held.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
            let detail = "the bodies of the requests that are being answered take up all room there is for them";
            return Err(Problem::overload(detail));
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

async fn read_all(
    headers: &HeaderMap,
    mut body: BodyStream,
    limit: usize,
    held: &mut Held<'_>,
) -> Result<Bytes, Problem> {
    let too_large = |size| Problem::too_large(format!("the body has {size} bytes or more; allowed are {limit}"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if let Some(size) = announced.filter(|size| *size > limit) {
        discard(body).await;
        return Err(too_large(size));
    }
    let mut read = BytesMut::with_capacity(announced.unwrap_or(0).min(FIRST_CAPACITY));
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("the body was cut short"))?;
        if read.len() + chunk.len() > limit {
            discard(body).await;
            return Err(too_large(read.len() + chunk.len()));
        }
        if let Err(overload) = held.grow(chunk.len()) {
            drop(read);
            discard(body).await;
            return Err(overload);
        }
        // A body that came in one piece is not copied.
        if read.is_empty() && announced == Some(chunk.len()) {
            return Ok(chunk);
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.freeze())
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

    fn sent(chunks: &[&'static [u8]]) -> BodyStream {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Box::pin(futures_util::stream::iter(chunks))
    }

    #[tokio::test]
    async fn bodies_that_find_no_room_are_refused_until_others_are_answered() {
        let bodies = Bodies { held: AtomicUsize::new(0), limit: 10 };
        let headers = HeaderMap::new();
        let (first, held) = bodies.read(&headers, sent(&[b"1234", b"56"]), 100).await.unwrap();
        assert_eq!(first, "123456");
        let refused = bodies.read(&headers, sent(&[b"1234", b"5"]), 100).await.unwrap_err();
        assert_eq!(refused.status(), 503);
        let (small, _held) = bodies.read(&headers, sent(&[b"1234"]), 100).await.unwrap();
        assert_eq!(small, "1234");
        drop(held);
        assert!(bodies.read(&headers, sent(&[b"123456"]), 100).await.is_ok());
    }

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
