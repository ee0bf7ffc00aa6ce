//! The bodies of all requests that are being answered: read within a time, and within room for all together.
//!
//! Room is taken by what has come, never by what was announced, and a part of it is for small bodies. When there
//! is none left, the body gives way that has stalled for longest, so that clients which begin large bodies and
//! don't finish them can't keep others out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hyper::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Problem;
use super::body::BodyStream;

/// Room made for a body before any of it came.
const FIRST_CAPACITY: usize = 64 * 1024;

/// Room for all: eight batches of the largest kind, or thousands of single events.
const ROOM: Room = Room { all: 128 * 1024 * 1024, small: 256 * 1024, for_small: 16 * 1024 * 1024 };

/// A body has stalled when no more than [`STALLED_BYTES`] came within this time.
const STALLED: Duration = Duration::from_secs(1);
const STALLED_BYTES: usize = 16 * 1024;

/// Most of a refused body that is read all the same, and for how long.
const DISCARDED_BYTES: usize = 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// How many bytes of bodies a node holds at once, from their first byte until they are answered.
#[derive(Debug, Clone, Copy)]
struct Room {
    all: usize,
    /// Up to so many bytes a body is small.
    small: usize,
    /// What larger ones have to leave for small ones.
    for_small: usize,
}

#[derive(Debug)]
struct Body {
    bytes: usize,
    /// Not whole yet.
    arriving: bool,
    /// When it last made headway, and what came since.
    headway: Instant,
    since: usize,
    give_way: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    room: Room,
    held: usize,
    next: u64,
    bodies: HashMap<u64, Body>,
}

impl State {
    fn begin(&mut self, now: Instant) -> (u64, Arc<Notify>) {
        let (number, give_way) = (self.next, Arc::<Notify>::default());
        self.next += 1;
        let body = Body { bytes: 0, arriving: true, headway: now, since: 0, give_way: give_way.clone() };
        self.bodies.insert(number, body);
        (number, give_way)
    }

    /// Takes room for so many bytes that have come. False if there is none, however many give way.
    fn grow(&mut self, number: u64, bytes: usize, now: Instant) -> bool {
        let Some(body) = self.bodies.get(&number) else { return false };
        let kept = if body.bytes + bytes <= self.room.small { 0 } else { self.room.for_small };
        while self.held + bytes > self.room.all - kept {
            if !self.evict(number, now) {
                return false;
            }
        }
        self.held += bytes;
        if let Some(body) = self.bodies.get_mut(&number) {
            body.bytes += bytes;
            body.since += bytes;
            if body.since > STALLED_BYTES {
                (body.headway, body.since) = (now, 0);
            }
        }
        true
    }

    /// Has the body give way that has stalled for longest.
    fn evict(&mut self, but: u64, now: Instant) -> bool {
        let stalled = self.bodies.iter_mut().filter(|(number, body)| {
            **number != but && body.arriving && body.bytes > 0 && now - body.headway >= STALLED
        });
        let Some((_, body)) = stalled.min_by_key(|(_, body)| body.headway) else { return false };
        body.arriving = false;
        self.held -= std::mem::take(&mut body.bytes);
        body.give_way.notify_one();
        true
    }

    fn complete(&mut self, number: u64) {
        if let Some(body) = self.bodies.get_mut(&number) {
            body.arriving = false;
        }
    }

    fn end(&mut self, number: u64) {
        if let Some(body) = self.bodies.remove(&number) {
            self.held -= body.bytes;
        }
    }
}

/// The bodies of all requests that are being answered.
#[derive(Debug)]
pub struct Bodies {
    state: Mutex<State>,
    time: Duration,
}

/// What one request holds of the room for bodies.
#[derive(Debug)]
pub struct Held<'a> {
    bodies: &'a Bodies,
    number: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.bodies.state.lock().end(self.number);
    }
}

impl Bodies {
    /// Each body may take so long to come.
    pub fn new(time: Duration) -> Self {
        Bodies::with(ROOM, time)
    }

    fn with(room: Room, time: Duration) -> Self {
        Bodies { state: Mutex::new(State { room, held: 0, next: 0, bodies: HashMap::new() }), time }
    }

    /// Reads a body of at most `limit` bytes. It counts as held until what comes with it is dropped.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: BodyStream,
        limit: usize,
    ) -> Result<(Bytes, Held<'_>), Problem> {
        let (number, give_way) = self.state.lock().begin(Instant::now());
        let held = Held { bodies: self, number };
        let bytes = tokio::select! {
            read = timeout(self.time, self.read_all(headers, body, limit, number)) => read.unwrap_or_else(|_| {
                Err(Problem::bad_request(format!("the body did not come within {} s", self.time.as_secs())))
            })?,
            () = give_way.notified() => {
                return Err(Problem::overload("there was no room for more bodies, and this one made no headway"));
            }
        };
        self.state.lock().complete(number);
        Ok((bytes, held))
    }

    async fn read_all(
        &self,
        headers: &HeaderMap,
        mut body: BodyStream,
        limit: usize,
        number: u64,
    ) -> Result<Bytes, Problem> {
        let too_large = |size| Problem::too_large(format!("the body has {size} bytes or more; allowed are {limit}"));
        let length = headers.get(header::CONTENT_LENGTH);
        let announced = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
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
            if !self.state.lock().grow(number, chunk.len(), Instant::now()) {
                drop(read);
                discard(body).await;
                let detail = "the bodies of the requests that are being answered take up all room there is for them";
                return Err(Problem::overload(detail));
            }
            // A body that came in one piece is not copied.
            if read.is_empty() && announced == Some(chunk.len()) {
                return Ok(chunk);
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read.freeze())
    }
}

/// Takes what a client is still sending, within limits: one that is cut off in the middle of it is likely to
/// see a broken connection rather than the answer.
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
    let _ = timeout(DISCARD_TIME, taken).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { all: 10, small: 2, for_small: 2 };
    const LONG: Duration = Duration::from_secs(60);

    fn sent(chunks: &[&'static [u8]]) -> BodyStream {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Box::pin(futures_util::stream::iter(chunks))
    }

    /// One that goes no further.
    fn stalled(chunk: &'static [u8]) -> BodyStream {
        Box::pin(sent(&[chunk]).chain(futures_util::stream::pending()))
    }

    #[tokio::test]
    async fn bodies_that_find_no_room_are_refused_until_others_are_answered() {
        let bodies = Bodies::with(ROOM, LONG);
        let headers = HeaderMap::new();
        let (first, held) = bodies.read(&headers, sent(&[b"1234", b"56"]), 100).await.unwrap();
        assert_eq!(first, "123456");
        let refused = bodies.read(&headers, sent(&[b"12", b"3"]), 100).await.unwrap_err();
        assert_eq!(refused.status(), 503);
        let (small, _held) = bodies.read(&headers, sent(&[b"12"]), 100).await.unwrap();
        assert_eq!(small, "12", "a part of the room is for small ones");
        drop(held);
        assert!(bodies.read(&headers, sent(&[b"123456"]), 100).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_stalls_gives_way_when_there_is_no_room() {
        let (bodies, headers) = (Bodies::with(ROOM, LONG), HeaderMap::new());
        let stalls = bodies.read(&headers, stalled(b"12345678"), 100);
        let others = async {
            let refused = bodies.read(&headers, sent(&[b"1234"]), 100).await.unwrap_err();
            assert_eq!(refused.status(), 503, "it may only be slow");
            let later = Instant::now() + STALLED;
            let (number, _) = bodies.state.lock().begin(later);
            assert!(bodies.state.lock().grow(number, 4, later));
            bodies.state.lock().end(number);
        };
        let (stalls, ()) = tokio::join!(stalls, others);
        assert_eq!(stalls.unwrap_err().status(), 503);
        assert_eq!(bodies.state.lock().held, 0);
    }

    #[tokio::test]
    async fn a_body_has_its_time() {
        let bodies = Bodies::with(ROOM, Duration::from_millis(20));
        let late = bodies.read(&HeaderMap::new(), stalled(b"1"), 100).await.unwrap_err();
        assert!(late.status() == 400 && late.to_string().contains("did not come within"), "{late}");
        assert_eq!(bodies.state.lock().held, 0);
    }
}
