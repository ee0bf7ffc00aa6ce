//! Cursors: a connection's position in every stream it follows, as one opaque string.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{EventId, EventIdError, StreamName};

/// The longest cursor that a client ever gets, in bytes: 64 streams at 32 characters each, the worst case.
pub const MAX_CURSOR_BYTES: usize = 2048;

/// What composite cursors begin with; the digit is the version of the layout.
const PREFIX: &str = "c1.";

/// What a cursor ends with whose client must not reconnect.
const STOP: &str = ".stop";

/// A position in every stream of a connection.
///
/// With one stream it is written as the event id alone. With several it is `c1.` and, in base64url, for
/// each stream its fingerprint (8 bytes) and its id (two variable-length numbers), then a check byte. Either
/// may be followed by `.stop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// The position in the connection's only stream.
    Single(EventId),
    /// Positions by stream fingerprint.
    Several(Vec<(u64, EventId)>),
    /// One of the others, given to a client that must not reconnect. A client that reconnects all
    /// the same sends it as its last id, and is recognised by it.
    Stopped(Box<Cursor>),
}

impl Cursor {
    /// The cursor of these streams, one or several.
    pub fn of<'a>(positions: impl ExactSizeIterator<Item = (&'a StreamName, EventId)>) -> Self {
        let mut positions = positions.peekable();
        match (positions.len(), positions.peek()) {
            (1, Some((_, id))) => Cursor::Single(*id),
            _ => Cursor::several(positions),
        }
    }

    /// The cursor of several streams.
    pub fn several<'a>(positions: impl IntoIterator<Item = (&'a StreamName, EventId)>) -> Self {
        Cursor::Several(positions.into_iter().map(|(stream, id)| (stream.fingerprint(), id)).collect())
    }

    /// The same position with the stop mark.
    pub fn stopped(self) -> Self {
        match self {
            Cursor::Stopped(_) => self,
            cursor => Cursor::Stopped(Box::new(cursor)),
        }
    }

    /// Whether the client must not reconnect, and the position without that mark.
    pub fn unmarked(self) -> (bool, Self) {
        match self {
            Cursor::Stopped(cursor) => (true, *cursor),
            cursor => (false, cursor),
        }
    }

    /// The position in `stream`; `None` when the cursor doesn't know it.
    pub fn position(&self, stream: &StreamName) -> Option<EventId> {
        match self {
            Cursor::Single(id) => Some(*id),
            Cursor::Stopped(cursor) => cursor.position(stream),
            Cursor::Several(positions) => {
                let wanted = stream.fingerprint();
                positions.iter().find(|(fingerprint, _)| *fingerprint == wanted).map(|(_, id)| *id)
            }
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Single(id) => id.fmt(f),
            Cursor::Stopped(cursor) => write!(f, "{cursor}{STOP}"),
            Cursor::Several(positions) => {
                let mut bytes = Vec::with_capacity(positions.len() * 18 + 1);
                for (fingerprint, id) in positions {
                    bytes.extend_from_slice(&fingerprint.to_be_bytes());
                    put_varint(&mut bytes, id.ms);
                    put_varint(&mut bytes, id.seq);
                }
                bytes.push(check_byte(&bytes));
                write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
            }
        }
    }
}

/// Why a text is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Neither an event id nor a composite cursor.
    #[error("{0}, or a cursor that this service gave out")]
    Id(#[from] EventIdError),
    /// It begins as a composite cursor, but was cut or changed.
    #[error("the cursor is damaged: it has to be handed back exactly as it was given out")]
    Damaged,
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(marked) = text.strip_suffix(STOP) {
            return match marked.parse()? {
                Cursor::Stopped(_) => Err(CursorError::Damaged),
                cursor => Ok(cursor.stopped()),
            };
        }
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Ok(Cursor::Single(text.parse()?));
        };
        if text.len() > MAX_CURSOR_BYTES {
            return Err(CursorError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| CursorError::Damaged)?;
        read_positions(&bytes).map(Cursor::Several).ok_or(CursorError::Damaged)
    }
}

fn read_positions(bytes: &[u8]) -> Option<Vec<(u64, EventId)>> {
    let (check, mut rest) = bytes.split_last()?;
    if *check != check_byte(rest) {
        return None;
    }
    let mut positions = Vec::new();
    while !rest.is_empty() {
        let (fingerprint, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        let ms = take_varint(&mut rest)?;
        let seq = take_varint(&mut rest)?;
        positions.push((u64::from_be_bytes(*fingerprint), EventId::new(ms, seq)));
    }
    Some(positions)
}

/// Enough to see that a cursor was cut or mistyped; it is no secret and need not be one.
fn check_byte(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0x57, |check: u8, byte| check.rotate_left(3) ^ byte)
}

/// LEB128: seven bits a byte, least significant first.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(name: &str) -> StreamName {
        name.parse().unwrap()
    }

    #[test]
    fn a_cursor_of_one_stream_is_the_event_id() {
        let id = EventId::new(1_763_795_000_000, 2731);
        assert_eq!(Cursor::Single(id).to_string(), "1763795000000-2731");
        assert_eq!("1763795000000-2731".parse(), Ok(Cursor::Single(id)));
    }

    #[test]
    fn a_cursor_of_several_streams_knows_each_and_no_other() {
        let (news, sport, other) = (stream("topic:news"), stream("topic:sport"), stream("device:news"));
        let (first, second) = (EventId::new(5, 1), EventId::new(7, 0));
        let written = Cursor::several([(&news, first), (&sport, second)]).to_string();
        let read: Cursor = written.parse().unwrap();
        assert_eq!(read.position(&news), Some(first));
        assert_eq!(read.position(&sport), Some(second));
        assert_eq!(read.position(&other), None);
    }

    #[test]
    fn a_stop_mark_changes_no_position() {
        let (news, sport) = (stream("topic:news"), stream("topic:sport"));
        let one = Cursor::Single(EventId::new(5, 1));
        let two = Cursor::several([(&news, EventId::new(5, 1)), (&sport, EventId::new(7, 0))]);
        for cursor in [one, two] {
            let text = cursor.clone().stopped().to_string();
            assert_eq!(text, format!("{cursor}.stop"));
            let read: Cursor = text.parse().unwrap();
            assert_eq!(read.position(&news), Some(EventId::new(5, 1)));
            assert_eq!(read.unmarked(), (true, cursor));
        }
        for text in [".stop", "5.stop", "5-1.stop.stop", "5-1.stops", "c1.AAAA.stop", "5-1.STOP", "stop"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cursor_of_64_streams_fits_in_2_kib() {
        let positions = (0..64).map(|n| (n, EventId::new(4_000_000_000_000, 1 << 48))).collect();
        assert!(Cursor::Several(positions).stopped().to_string().len() <= MAX_CURSOR_BYTES);
    }

    proptest! {
        #[test]
        fn any_cursor_is_read_back_as_it_was_written(positions in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..64)) {
            let cursor = Cursor::Several(positions.into_iter().map(|(f, ms, seq)| (f, EventId::new(ms, seq))).collect());
            let text = cursor.to_string();
            if text.len() <= MAX_CURSOR_BYTES {
                prop_assert_eq!(text.parse(), Ok(cursor));
            }
        }

        #[test]
        fn a_cut_cursor_is_damaged_or_at_least_never_panics(text in "\\PC{0,80}", cut in 0usize..60) {
            let _ = text.parse::<Cursor>();
            let whole = Cursor::Several(vec![(7, EventId::new(1_763_795_000_000, 9)); 3]).to_string();
            if cut < whole.len() && cut > PREFIX.len() {
                let _ = whole[..cut].parse::<Cursor>();
            }
        }
    }
}
