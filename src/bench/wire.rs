//! What comes in on a listening connection: just enough parsing to count events, read their due times, keep
//! the last id, and answer pings. A value: bytes go in, what arrived comes out.

use std::io;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::chunks::Chunks;
use super::{Dialect, Transport};

/// A frame longer than this is none that a bench publishes.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Opcodes of WebSocket frames.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What some bytes held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// When each event was due.
    pub due_times: Vec<u64>,
    /// What has to be sent back: pongs, and the second step of Socket.IO's handshake.
    pub reply: Vec<u8>,
}

/// The reading side of one connection.
#[derive(Debug)]
pub struct Wire {
    dialect: Dialect,
    transport: Transport,
    /// The answer's head is through.
    answered: bool,
    /// The body of the answer comes in chunks.
    chunks: Option<Chunks>,
    /// The listener is accepted: every event from now on is its.
    ready: bool,
    last_id: String,
    /// A frame that has come in part.
    rest: Vec<u8>,
}

struct Patterns {
    due: Finder<'static>,
    id_line: Finder<'static>,
    id_member: Finder<'static>,
    positions: Finder<'static>,
    block_end: Finder<'static>,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| Patterns {
    due: Finder::new(b"{\"due\":"),
    id_line: Finder::new(b"id: "),
    id_member: Finder::new(b"\"id\":\""),
    positions: Finder::new(b"\"positions\":{\""),
    block_end: Finder::new(b"\n\n"),
});

impl Wire {
    pub fn new(dialect: Dialect, transport: Transport) -> Self {
        Wire {
            dialect,
            transport,
            answered: false,
            chunks: None,
            ready: false,
            last_id: String::new(),
            rest: Vec::new(),
        }
    }

    /// Whether the server has accepted the listener.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The position to come back at; empty before the server sent one.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Takes bytes as they came from the socket.
    pub fn feed(&mut self, bytes: &[u8], incoming: &mut Incoming) -> io::Result<()> {
        if self.answered {
            return self.body(bytes, incoming);
        }
        self.rest.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.rest, b"\r\n\r\n") else { return self.bounded() };
        let head = std::mem::take(&mut self.rest);
        let (head, body) = head.split_at(end + 4);
        self.head(head)?;
        self.body(body, incoming)
    }

    fn head(&mut self, head: &[u8]) -> io::Result<()> {
        if !head.starts_with(b"HTTP/1.1 200") && !head.starts_with(b"HTTP/1.1 101") {
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(io::Error::other(String::from_utf8_lossy(line).into_owned()));
        }
        let chunked = |line: &[u8]| line.trim_ascii_end().eq_ignore_ascii_case(b"transfer-encoding: chunked");
        self.chunks = head.split(|byte| *byte == b'\n').any(chunked).then(Chunks::default);
        self.answered = true;
        // Nchan sends nothing more until there is an event.
        self.ready = self.dialect == Dialect::Nchan;
        Ok(())
    }

    fn body(&mut self, mut bytes: &[u8], incoming: &mut Incoming) -> io::Result<()> {
        let Some(mut chunks) = self.chunks.take() else { return self.content(bytes, incoming) };
        while let Some(piece) = chunks.next(&mut bytes)? {
            self.content(piece, incoming)?;
        }
        self.chunks = Some(chunks);
        Ok(())
    }

    fn content(&mut self, bytes: &[u8], incoming: &mut Incoming) -> io::Result<()> {
        if self.rest.is_empty() {
            let used = self.frames(bytes, incoming)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(bytes);
            let used = self.frames(&rest, incoming)?;
            rest.drain(..used);
            self.rest = rest;
        }
        self.bounded()
    }

    fn bounded(&self) -> io::Result<()> {
        match self.rest.len() {
            0..=MAX_FRAME => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Takes whole frames off the front. Returns the bytes they took.
    fn frames(&mut self, bytes: &[u8], incoming: &mut Incoming) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let taken = match self.transport {
                Transport::Sse => self.block(&bytes[used..], incoming),
                Transport::WebSocket => self.frame(&bytes[used..], incoming)?,
            };
            match taken {
                0 => return Ok(used),
                taken => used += taken,
            }
        }
    }

    /// An SSE block, or a comment line. Returns its length, 0 when it is not whole.
    fn block(&mut self, bytes: &[u8], incoming: &mut Incoming) -> usize {
        match bytes.first() {
            // A ping is a line of its own, and some servers put an empty one behind it.
            Some(b'\n') => return 1,
            Some(b':') => return memchr::memchr(b'\n', bytes).map_or(0, |end| end + 1),
            _ => {}
        }
        let Some(end) = PATTERNS.block_end.find(bytes) else { return 0 };
        let block = &bytes[..end];
        if let Some(id) = after(&PATTERNS.id_line, block) {
            self.at(id, b'\n');
        }
        due(block, incoming);
        end + 2
    }

    /// A WebSocket frame. Returns its length, 0 when it is not whole.
    fn frame(&mut self, bytes: &[u8], incoming: &mut Incoming) -> io::Result<usize> {
        let Some((start, length)) = extent(bytes) else { return Ok(0) };
        let Some(payload) = bytes[start..].get(..length) else { return Ok(0) };
        match bytes[0] & 0x0f {
            CLOSE => return Err(io::ErrorKind::UnexpectedEof.into()),
            PING => send(PONG, payload, &mut incoming.reply),
            PONG => {}
            _ if self.dialect == Dialect::SocketIo => self.packet(payload, incoming),
            _ => self.message(payload, incoming),
        }
        Ok(start + length)
    }

    fn message(&mut self, payload: &[u8], incoming: &mut Incoming) {
        // The id of an event, or the position that comes first: what stands behind the first colon and
        // quote of `"positions":{"topic:x":"5-1"}`.
        let id = after(&PATTERNS.id_member, payload).or_else(|| {
            let positions = after(&PATTERNS.positions, payload)?;
            memchr::memmem::find(positions, b"\":\"").map(|at| &positions[at + 3..])
        });
        if let Some(id) = id {
            self.at(id, b'"');
        }
        due(payload, incoming);
    }

    /// A packet of Engine.IO, which may hold one of Socket.IO.
    fn packet(&mut self, payload: &[u8], incoming: &mut Incoming) {
        match payload {
            [b'0', ..] => send(TEXT, b"40", &mut incoming.reply),
            [b'2', ..] => send(TEXT, b"3", &mut incoming.reply),
            [b'4', b'0', ..] => self.ready = true,
            _ => due(payload, incoming),
        }
    }

    fn at(&mut self, id: &[u8], end: u8) {
        let length = memchr::memchr(end, id).unwrap_or(id.len());
        self.last_id.clear();
        self.last_id.push_str(&String::from_utf8_lossy(&id[..length]));
        self.ready = true;
    }
}

fn due(frame: &[u8], incoming: &mut Incoming) {
    if let Some(due) = after(&PATTERNS.due, frame) {
        let digits = due.iter().take_while(|byte| byte.is_ascii_digit());
        incoming.due_times.push(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
    }
}

fn after<'a>(pattern: &Finder<'_>, bytes: &'a [u8]) -> Option<&'a [u8]> {
    pattern.find(bytes).map(|at| &bytes[at + pattern.needle().len()..])
}

/// Where a server's frame has its payload, and how long that is; `None` while its head is not whole.
fn extent(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => Some((4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into())),
        127 => Some((10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?)),
        length => Some((2, length.into())),
    }
}

/// A short client's frame. Clients have to mask; a mask of zeros changes nothing.
fn send(opcode: u8, payload: &[u8], reply: &mut Vec<u8>) {
    let length = payload.len().min(125);
    reply.extend_from_slice(&[0x80 | opcode, 0x80 | length as u8, 0, 0, 0, 0]);
    reply.extend_from_slice(&payload[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

    fn text(payload: &str) -> Vec<u8> {
        [&[0x81, payload.len() as u8], payload.as_bytes()].concat()
    }

    /// The same comes out however the bytes are cut.
    #[track_caller]
    fn receive(dialect: Dialect, transport: Transport, bytes: &[u8]) -> (Wire, Incoming) {
        let mut whole = (Wire::new(dialect, transport), Incoming::default());
        whole.0.feed(bytes, &mut whole.1).unwrap();
        for step in 1..30 {
            let (mut wire, mut incoming) = (Wire::new(dialect, transport), Incoming::default());
            for part in bytes.chunks(step) {
                wire.feed(part, &mut incoming).unwrap();
            }
            assert_eq!((&incoming, wire.last_id(), wire.is_ready()), (&whole.1, whole.0.last_id(), whole.0.is_ready()));
        }
        whole
    }

    #[test]
    fn whimbrels_sse_is_counted_with_its_ids() {
        let blocks = "retry: 5\nid: 5-1\nevent: whimbrel:position\ndata: {}\n\n:\nid: 6-1\ndata: {\"due\":12}\n\n\
                      id: 7-1\ndata: {\"due\":13,\"fill\":\"xx\"}\n\nid: 8";
        let (wire, incoming) = receive(Dialect::Whimbrel, Transport::Sse, format!("{OK}{blocks}").as_bytes());
        assert_eq!((incoming.due_times, wire.last_id(), wire.is_ready()), (vec![12, 13], "7-1", true));
    }

    #[test]
    fn chunks_are_counted_as_what_they_hold() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let blocks =
            ["id: 5-1\nevent: whimbrel:position\ndata: {}\n\n", ":\n", "id: 6-1\ndata: {\"due\":12}\n\n", "id: 8"];
        let body: String = blocks.iter().map(|block| format!("{:x}\r\n{block}\r\n", block.len())).collect();
        let (wire, incoming) = receive(Dialect::Whimbrel, Transport::Sse, format!("{head}{body}").as_bytes());
        assert_eq!((incoming.due_times, wire.last_id(), wire.is_ready()), (vec![12], "6-1", true));
    }

    #[test]
    fn nchans_sse_is_ready_with_its_head() {
        let (wire, _) = receive(Dialect::Nchan, Transport::Sse, format!("{OK}: hi\n\n").as_bytes());
        assert_eq!((wire.is_ready(), wire.last_id()), (true, ""));
        let (wire, incoming) =
            receive(Dialect::Nchan, Transport::Sse, format!("{OK}: hi\n\nid: 5:0\ndata: {{\"due\":9}}\n\n").as_bytes());
        assert_eq!((wire.last_id(), incoming.due_times), ("5:0", vec![9]));
    }

    #[test]
    fn whimbrels_frames_are_counted_and_its_pings_answered() {
        let bytes = [
            UPGRADED.as_bytes(),
            &text(r#"{"op":"ready","positions":{"topic:a":"5-1"}}"#),
            &[0x89, 2, b'h', b'i'],
            &text(r#"{"op":"event","stream":"topic:a","id":"6-1","data":{"due":12}}"#),
        ]
        .concat();
        let (wire, incoming) = receive(Dialect::Whimbrel, Transport::WebSocket, &bytes);
        assert_eq!((incoming.due_times, wire.last_id(), wire.is_ready()), (vec![12], "6-1", true));
        assert_eq!(incoming.reply, [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i']);
        let (wire, _) = receive(Dialect::Whimbrel, Transport::WebSocket, &bytes[..UPGRADED.len() + 46]);
        assert_eq!((wire.last_id(), wire.is_ready()), ("5-1", true));
    }

    #[test]
    fn socket_io_is_greeted_and_its_pings_answered() {
        let open = [UPGRADED.as_bytes(), &text(r#"0{"sid":"a","pingInterval":25000}"#)].concat();
        let (wire, incoming) = receive(Dialect::SocketIo, Transport::WebSocket, &open);
        assert_eq!((wire.is_ready(), &incoming.reply[..]), (false, &[0x81, 0x82, 0, 0, 0, 0, b'4', b'0'][..]));
        let (joined, ping, event) = (text(r#"40{"sid":"b"}"#), text("2"), text(r#"42["event",{"due":7}]"#));
        let (wire, incoming) = receive(Dialect::SocketIo, Transport::WebSocket, &[open, joined, ping, event].concat());
        assert_eq!((wire.is_ready(), incoming.due_times), (true, vec![7]));
        assert!(incoming.reply.ends_with(&[0x81, 0x81, 0, 0, 0, 0, b'3']));
    }

    #[test]
    fn long_frames_are_counted() {
        for fill in [100, 200, 70_000] {
            let payload = format!("{{\"due\":7,\"fill\":\"{}\"}}", "x".repeat(fill));
            let length = payload.len();
            let head = match length {
                0..=125 => vec![0x81, length as u8],
                126..=65_535 => [&[0x81, 126][..], &(length as u16).to_be_bytes()].concat(),
                _ => [&[0x81, 127][..], &(length as u64).to_be_bytes()].concat(),
            };
            let frame = [&head[..], payload.as_bytes()].concat();
            let bytes = [UPGRADED.as_bytes(), &frame, &frame].concat();
            let (mut wire, mut incoming) = (Wire::new(Dialect::Nchan, Transport::WebSocket), Incoming::default());
            for part in bytes.chunks(999) {
                wire.feed(part, &mut incoming).unwrap();
            }
            assert_eq!(incoming.due_times, [7, 7]);
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let mut wire = Wire::new(Dialect::Whimbrel, Transport::Sse);
        let error = wire.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n{}", &mut Incoming::default()).unwrap_err();
        assert_eq!(error.to_string(), "HTTP/1.1 400 Bad Request");
    }
}
