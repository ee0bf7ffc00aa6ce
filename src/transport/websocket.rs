//! WebSocket: how frames are written, and the codec for what clients send.
//!
//! Frames that go out are built here, once, and shared by all connections: a server's frames carry no
//! mask, so the same bytes serve everyone. What comes in is read by tungstenite, fed from memory.

use std::io::{self, Cursor, Read, Write};

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message, error::CapacityError};

use super::CloseReason;
use crate::cloudevents;
use crate::model::{Encoding, Event, EventId, Gap, MemberNotice, StreamName, TraceParent};

/// The subprotocol that clients may ask for.
pub const SUBPROTOCOL: &str = "whimbrel.v1";

/// The codec's read buffer. Client messages are short and rare.
const READ_BUFFER: usize = 512;

/// The answer to the handshake.
pub fn head(key: &str, subprotocol: bool, extra_headers: &str) -> String {
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let protocol = if subprotocol { format!("sec-websocket-protocol: {SUBPROTOCOL}\r\n") } else { String::new() };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n{protocol}{extra_headers}\r\n"
    )
}

/// A text frame.
pub fn text(payload: impl Into<Bytes>) -> Bytes {
    encode(Frame::message(payload, OpCode::Data(Data::Text), true))
}

/// A ping frame.
pub fn ping() -> Bytes {
    encode(Frame::ping(Bytes::new()))
}

/// A close frame.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    encode(Frame::close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() })))
}

fn encode(frame: Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).expect("writing to memory does not fail");
    bytes.into()
}

/// An event in one of the encodings of WebSocket, with its trace where that is named.
pub fn event(stream: &StreamName, event: &Event, trace: Option<TraceParent>, encoding: Encoding) -> Bytes {
    if encoding == Encoding::WebSocketCloudEvent {
        return cloud_event(stream, event);
    }
    let mut json = Vec::with_capacity(event.data.len() + 160);
    // Stream names, types and traces hold nothing that JSON would escape.
    json.extend_from_slice(format!(r#"{{"op":"event","stream":"{stream}","#).as_bytes());
    if !event.is_ephemeral() {
        json.extend_from_slice(format!(r#""id":"{}","time":"{}","#, event.id, event.time()).as_bytes());
    }
    json.extend_from_slice(format!(r#""type":"{}","#, event.kind).as_bytes());
    if let Some(trace) = trace {
        json.extend_from_slice(format!(r#""traceparent":"{trace}","#).as_bytes());
    }
    json.extend_from_slice(br#""data":"#);
    json.extend_from_slice(&event.data);
    json.push(b'}');
    text(json)
}

/// An event as a CloudEvent. Stream and id stand beside it, as a client subscribes and resumes by them.
fn cloud_event(stream: &StreamName, event: &Event) -> Bytes {
    let id = if event.is_ephemeral() { String::new() } else { format!(r#""id":"{}","#, event.id) };
    let mut json = format!(r#"{{"op":"event","stream":"{stream}",{id}"cloudevent":"#).into_bytes();
    json.extend_from_slice(&cloudevents::event(stream, event));
    json.push(b'}');
    text(json)
}

/// A gap notice.
pub fn gap(stream: &StreamName, gap: &Gap) -> Bytes {
    text(gap.to_json(stream, Some("gap")))
}

/// A device joined a topic, or left it.
pub fn member(notice: &MemberNotice) -> Bytes {
    text(notice.to_json(Some(notice.kind())))
}

/// Notices of members may have been missed.
pub fn missed_members() -> Bytes {
    text(r#"{"op":"members","reason":"missed"}"#)
}

/// The position moved without an event.
pub fn position(stream: &StreamName, id: EventId) -> Bytes {
    text(format!(r#"{{"op":"position","stream":"{stream}","id":"{id}"}}"#))
}

/// The notice that the server ends the connection, then the close frame.
pub fn close(reason: CloseReason, retry_ms: u64) -> [Bytes; 2] {
    let name = reason.as_str();
    [text(format!(r#"{{"op":"close","reason":"{name}","retry":{retry_ms}}}"#)), close_frame(reason.code(), name)]
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, whole.
    Text(String),
    /// Some other frame that shows the client to be alive.
    Alive,
    /// The client closes.
    Close,
}

/// Reads what one client sends. Between messages it holds no buffers: most clients send nothing but pongs.
pub struct Codec {
    max_message: usize,
    boundary: Boundary,
    /// There while a message has come in part.
    context: Option<Box<WebSocketContext>>,
}

/// Why a client's bytes can't be read on.
#[derive(Debug, PartialEq, Eq)]
pub struct CodecError {
    /// The close code that says so.
    pub code: u16,
    /// In words.
    pub detail: String,
}

impl Codec {
    /// A codec for messages of at most `max_message` bytes.
    pub fn new(max_message: usize) -> Self {
        Codec { max_message, boundary: Boundary::default(), context: None }
    }

    /// Takes bytes as they came from the socket, whole messages or parts. `answer` gets what the protocol
    /// itself wants sent: pongs and close replies.
    pub fn read(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> Result<Vec<Incoming>, CodecError> {
        self.boundary.pass(bytes);
        let mut context = self.context.take().unwrap_or_else(|| Box::new(context(self.max_message)));
        let incoming = read(&mut context, bytes, answer);
        if !self.boundary.is_reached() {
            self.context = Some(context);
        }
        incoming
    }
}

fn context(max_message: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    WebSocketContext::new(Role::Server, Some(config))
}

fn read(context: &mut WebSocketContext, bytes: &[u8], answer: &mut Vec<u8>) -> Result<Vec<Incoming>, CodecError> {
    let mut memory = Memory { input: bytes, output: answer };
    let mut incoming = Vec::new();
    loop {
        match context.read(&mut memory) {
            Ok(Message::Text(text)) => incoming.push(Incoming::Text(text.as_str().to_owned())),
            Ok(Message::Close(_)) => {
                // The close reply is in the codec's hands; this sends it.
                let _ = context.flush(&mut memory);
                incoming.push(Incoming::Close);
                return Ok(incoming);
            }
            Ok(Message::Binary(_)) => {
                return Err(CodecError { code: 1003, detail: "binary messages are not spoken here".into() });
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => incoming.push(Incoming::Alive),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = context.flush(&mut memory);
                return Ok(incoming);
            }
            Err(error) => return Err(CodecError::from(error)),
        }
    }
}

/// Follows the frames of a client far enough to know when nothing of a message is outstanding.
#[derive(Default)]
struct Boundary {
    /// The begin of a frame's header that has come in part.
    header: Vec<u8>,
    /// Bytes of the current frame's payload that are still to come.
    payload: u64,
    /// A message's last frame is still to come.
    fragmented: bool,
}

impl Boundary {
    fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let count = self.payload.min(bytes.len() as u64);
            self.payload -= count;
            bytes = &bytes[count as usize..];
            let Some((first, rest)) = bytes.split_first() else { break };
            self.header.push(*first);
            bytes = rest;
            match FrameHeader::parse(&mut Cursor::new(&self.header)) {
                Ok(None) => {}
                Ok(Some((header, payload))) => {
                    self.header.clear();
                    self.payload = payload;
                    if let OpCode::Data(_) = header.opcode {
                        self.fragmented = !header.is_final;
                    }
                }
                // The codec refuses it too, and the client is let go.
                Err(_) => return,
            }
        }
        if self.header.is_empty() {
            self.header = Vec::new();
        }
    }

    fn is_reached(&self) -> bool {
        self.payload == 0 && self.header.is_empty() && !self.fragmented
    }
}

impl From<tungstenite::Error> for CodecError {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::Error;
        let code = match &error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => 1009,
            Error::Utf8(_) => 1007,
            _ => 1002,
        };
        CodecError { code, detail: error.to_string() }
    }
}

/// A stream in memory: reads end with "would block" where a socket would have no more bytes yet.
struct Memory<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(mut frame: Frame) -> Vec<u8> {
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        bytes
    }

    fn masked_text(payload: &str) -> Vec<u8> {
        masked(Frame::message(payload.to_owned(), OpCode::Data(Data::Text), true))
    }

    /// A message in several frames, with a ping before each.
    fn fragmented(payload: &[u8], pieces: usize) -> Vec<u8> {
        let parts: Vec<&[u8]> = payload.chunks(payload.len().div_ceil(pieces)).collect();
        let frame = |(at, part): (usize, &&[u8])| {
            let opcode = OpCode::Data(if at == 0 { Data::Text } else { Data::Continue });
            [masked(Frame::ping("?")), masked(Frame::message(part.to_vec(), opcode, at + 1 == parts.len()))].concat()
        };
        parts.iter().enumerate().flat_map(frame).collect()
    }

    #[test]
    fn an_event_frame_is_one_text_frame_without_mask() {
        let made = Event::new(EventId::new(5, 1), EventId::ZERO, Default::default(), "{\"a\":1}".into());
        let frame = event(&"topic:news".parse().unwrap(), &made, None, Encoding::WebSocket);
        assert_eq!(frame[0], 0x81);
        assert_eq!(frame[1] as usize, frame.len() - 2);
        assert_eq!(&frame[2..], br#"{"op":"event","stream":"topic:news","id":"5-1","time":"1970-01-01T00:00:00.005Z","type":"message","data":{"a":1}}"#);
    }

    #[test]
    fn a_ping_is_answered_with_its_payload() {
        let mut answer = Vec::new();
        let incoming = Codec::new(100).read(&masked(Frame::ping("hi")), &mut answer).unwrap();
        assert_eq!(incoming, [Incoming::Alive]);
        assert_eq!(answer, [0x8a, 2, b'h', b'i']);
    }

    #[test]
    fn a_ping_is_an_empty_control_frame() {
        assert_eq!(ping()[..], [0x89, 0]);
    }

    #[test]
    fn a_message_over_the_limit_is_refused_with_1009() {
        let refusal = Codec::new(100).read(&masked_text(&"x".repeat(101)), &mut Vec::new()).unwrap_err();
        assert_eq!(refusal.code, 1009);
    }

    #[test]
    fn an_unmasked_frame_is_a_protocol_error() {
        let refusal = Codec::new(100).read(&text("hi"), &mut Vec::new()).unwrap_err();
        assert_eq!(refusal.code, 1002);
    }

    proptest! {
        #[test]
        fn messages_are_read_whole_however_they_are_cut(texts in prop::collection::vec("\\PC{0,40}", 1..6), step in 1usize..50) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| masked_text(text)).collect();
            let mut codec = Codec::new(1000);
            let mut read = Vec::new();
            for part in bytes.chunks(step) {
                read.extend(codec.read(part, &mut Vec::new()).unwrap());
            }
            prop_assert_eq!(read, texts.into_iter().map(Incoming::Text).collect::<Vec<_>>());
        }

        #[test]
        fn fragments_with_pings_between_are_read_whole_and_nothing_is_held_afterwards(
            texts in prop::collection::vec("\\PC{2,300}", 1..4),
            pieces in 1usize..5,
            step in 1usize..400,
        ) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| fragmented(text.as_bytes(), pieces)).collect();
            let mut codec = Codec::new(10_000);
            let mut read = Vec::new();
            for part in bytes.chunks(step) {
                read.extend(codec.read(part, &mut Vec::new()).unwrap());
            }
            read.retain(|incoming| *incoming != Incoming::Alive);
            prop_assert_eq!(read, texts.into_iter().map(Incoming::Text).collect::<Vec<_>>());
            prop_assert!(codec.context.is_none());
        }

        #[test]
        fn no_bytes_panic_the_codec(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Codec::new(100).read(&bytes, &mut Vec::new());
        }
    }
}
