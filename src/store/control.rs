//! Messages from node to node, on channels, that are no events.

use std::fmt;

use bytes::Bytes;

/// What a control message begins with. An event's message begins with its stream, so the two can't be taken
/// for each other.
const SIGN: u8 = b'!';

/// A message from node to node, written `!word rest`. Like all messages of a channel it arrives at most once,
/// so whatever it brings about has another way to come about.
#[derive(Clone, PartialEq, Eq)]
pub struct Control {
    /// What it is about. A node that does not know the word ignores the message: it is of a newer version.
    pub word: String,
    /// All that follows the word and a space.
    pub rest: Bytes,
}

impl Control {
    /// A message about `word`, which has no spaces.
    pub fn new(word: &str, rest: impl Into<Bytes>) -> Self {
        Control { word: word.to_owned(), rest: rest.into() }
    }

    /// Reads a payload; `None` when it is no control message.
    pub fn parse(payload: &Bytes) -> Option<Self> {
        if payload.first() != Some(&SIGN) {
            return None;
        }
        let end = payload.iter().position(|byte| *byte == b' ').unwrap_or(payload.len());
        let word = std::str::from_utf8(&payload[1..end]).ok().filter(|word| !word.is_empty())?;
        Some(Control { word: word.to_owned(), rest: payload.slice((end + 1).min(payload.len())..) })
    }

    /// The payload.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.word.len() + self.rest.len() + 2);
        payload.push(SIGN);
        payload.extend_from_slice(self.word.as_bytes());
        payload.push(b' ');
        payload.extend_from_slice(&self.rest);
        payload
    }

    /// The rest as text.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.rest).ok()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "!{} ({} bytes)", self.word, self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_message_is_read_back_as_it_was_written() {
        for rest in ["", "device:42 7 0", "two\nlines and  spaces"] {
            let control = Control::new("kick", rest);
            assert_eq!(Control::parse(&control.payload().into()), Some(control));
        }
        assert_eq!(Control::parse(&Bytes::from_static(b"!beat")), Some(Control::new("beat", "")));
    }

    #[test]
    fn what_is_no_control_message_is_not_taken_for_one() {
        for payload in [&b""[..], b"beat", b"!", b"! x", b"device:42 5-7 5-1 x\n!kick x", b"!\xff x"] {
            assert_eq!(Control::parse(&Bytes::from_static(payload)), None, "{payload:?}");
        }
    }
}
