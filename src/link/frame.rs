//! What goes over a link once it is open: a letter, a number, and for events what a channel would carry.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::model::{Attributes, Event, StreamName};
use crate::store::ChannelMessage;
use crate::store::redis::{encode, parse};

/// Most data of an event that goes over links. A larger one would hold up those behind it, and the channel
/// takes it as well.
pub const MAX_DATA: usize = 256 * 1024;

/// Longest frame: the data, and what stands before it.
pub const MAX_FRAME: usize = MAX_DATA + Attributes::MOST_BYTES + 1024;

const EVENT: u8 = b'e';
const LOOK: u8 = b'l';
const PING: u8 = b'p';
const BYE: u8 = b'b';
const ACK: u8 = b'a';

/// A letter and a number.
const HEADER: usize = 9;

/// Frames of the sending end. The numbers are counted up, and each is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An event of a stream to which the receiver has a route.
    Event(u64, StreamName, Arc<Event>),
    /// There may be an event that was not sent to the receiver.
    Look(u64, StreamName),
    /// Is anybody there?
    Ping(u64),
    /// The link ends in good order: whatever was sent is acknowledged.
    Bye,
}

impl Frame {
    /// As bytes, without the length that goes before them.
    pub fn encode(&self) -> Bytes {
        let (letter, number, body) = match self {
            Frame::Event(number, stream, event) => (EVENT, *number, encode(stream, event)),
            Frame::Look(number, stream) => (LOOK, *number, stream.as_str().as_bytes().to_vec()),
            Frame::Ping(number) => (PING, *number, Vec::new()),
            Frame::Bye => (BYE, 0, Vec::new()),
        };
        let mut bytes = BytesMut::with_capacity(HEADER + body.len());
        bytes.put_u8(letter);
        bytes.put_u64(number);
        bytes.extend_from_slice(&body);
        bytes.freeze()
    }

    /// Reads a frame; `None` if it makes no sense.
    pub fn decode(mut bytes: Bytes) -> Option<Frame> {
        let (letter, number) = (bytes.try_get_u8().ok()?, bytes.try_get_u64().ok()?);
        match letter {
            EVENT => match parse(bytes)? {
                ChannelMessage::Event(stream, event) => Some(Frame::Event(number, stream, event)),
                _ => None,
            },
            LOOK => Some(Frame::Look(number, std::str::from_utf8(&bytes).ok()?.parse().ok()?)),
            PING => Some(Frame::Ping(number)),
            BYE => Some(Frame::Bye),
            _ => None,
        }
    }
}

/// The frame of the receiving end: it has dealt with everything up to this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack(pub u64);

impl Ack {
    /// As bytes, without the length that goes before them.
    pub fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER);
        bytes.put_u8(ACK);
        bytes.put_u64(self.0);
        bytes.freeze()
    }

    /// Reads an acknowledgement; `None` if it is none.
    pub fn decode(mut bytes: Bytes) -> Option<Ack> {
        let (letter, number) = (bytes.try_get_u8().ok()?, bytes.try_get_u64().ok()?);
        (letter == ACK).then_some(Ack(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventId;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let stream: StreamName = "topic:news".parse().unwrap();
        let mut event =
            Event::new(EventId::new(7, 2), EventId::new(7, 1), "a.b".parse().unwrap(), "{\"a\":\n1}".into());
        (event.expires_ms, event.collapse) = (Some(9), Some("a=b".into()));
        event.attributes = Attributes::of_json(r#"{"id":"a b=1"}"#);
        for frame in [
            Frame::Event(3, stream.clone(), Arc::new(event)),
            Frame::Look(4, stream),
            Frame::Ping(u64::MAX),
            Frame::Bye,
        ] {
            assert_eq!(Frame::decode(frame.encode()), Some(frame));
        }
        assert_eq!(Ack::decode(Ack(9).encode()), Some(Ack(9)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = (Frame::decode(bytes.clone()), Ack::decode(bytes));
        }
    }
}
