//! A listening connection that costs next to nothing: raw sockets, and just enough parsing to count
//! events, read their due times and keep the last id.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Transport;

/// Bytes read at a time, shared by all connections of a thread.
const READ_BYTES: usize = 64 * 1024;

/// A frame longer than this is none that a bench publishes.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// How long the server may take to accept a listener.
const ACCEPT_TIME: Duration = Duration::from_secs(30);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What all listeners of a run count together.
pub struct Tally {
    start: Instant,
    pub received: AtomicU64,
    pub bytes: AtomicU64,
    pub ended: AtomicU64,
    /// Microseconds from due to received.
    latency: Mutex<Histogram<u64>>,
}

impl Tally {
    pub fn new(start: Instant) -> Arc<Self> {
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are sound");
        Arc::new(Tally {
            start,
            received: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            latency: Mutex::new(latency),
        })
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub fn latency(&self) -> Histogram<u64> {
        self.latency.lock().clone()
    }

    fn took(&self, due_times: &[u64]) {
        let now = self.now();
        self.received.fetch_add(due_times.len() as u64, Ordering::Relaxed);
        let mut latency = self.latency.lock();
        for due in due_times {
            latency.saturating_record(now.saturating_sub(*due) / 1000);
        }
    }
}

/// One listening connection.
pub struct Listener {
    socket: TcpStream,
    transport: Transport,
    /// A frame that has come in part.
    rest: Vec<u8>,
    last_id: String,
    accepted: bool,
}

impl Listener {
    /// Connects to `target` (path and query) and waits until the server has accepted the listener.
    pub async fn connect(server: SocketAddr, transport: Transport, target: &str) -> io::Result<Self> {
        let mut listener = Self::connect_early(server, transport, target).await?;
        let accepted = async {
            // Until the first position is here: from then on every event is this listener's.
            while listener.last_id.is_empty() {
                listener.socket.readable().await?;
                listener.read(&mut Vec::new())?;
            }
            Ok::<_, io::Error>(())
        };
        tokio::time::timeout(ACCEPT_TIME, accepted).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(listener)
    }

    /// Connects and asks, without waiting for the answer: events may follow it at once.
    pub async fn connect_early(server: SocketAddr, transport: Transport, target: &str) -> io::Result<Self> {
        let mut socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let request = match transport {
            Transport::Sse => format!("GET {target} HTTP/1.1\r\nhost: {server}\r\naccept: text/event-stream\r\n\r\n"),
            Transport::WebSocket => format!(
                "GET {target} HTTP/1.1\r\nhost: {server}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        };
        socket.write_all(request.as_bytes()).await?;
        Ok(Listener { socket, transport, rest: Vec::new(), last_id: String::new(), accepted: false })
    }

    /// The position to come back at.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Counts what comes in until `enough` events came, the server ends the connection, or `stop` is told.
    /// Returns how many came.
    pub async fn listen(&mut self, tally: &Tally, enough: u64, mut stop: watch::Receiver<bool>) -> u64 {
        let mut due_times = Vec::new();
        let mut count = 0;
        while count < enough {
            let readable = tokio::select! {
                readable = self.socket.readable() => readable,
                _ = stop.wait_for(|stop| *stop) => return count,
            };
            match readable.and_then(|()| self.read(&mut due_times)) {
                Ok(bytes) => {
                    tally.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::debug!(%error, "a listener ended");
                    tally.ended.fetch_add(1, Ordering::Relaxed);
                    return count;
                }
            }
            if !due_times.is_empty() {
                count += due_times.len() as u64;
                tally.took(&due_times);
                due_times.clear();
            }
        }
        count
    }

    fn read(&mut self, due_times: &mut Vec<u64>) -> io::Result<usize> {
        BUFFER.with_borrow_mut(|buffer| {
            let count = match self.socket.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error),
            };
            if self.rest.is_empty() {
                let used = self.frames(&buffer[..count], due_times)?;
                self.rest.extend_from_slice(&buffer[used..count]);
            } else {
                let mut rest = std::mem::take(&mut self.rest);
                rest.extend_from_slice(&buffer[..count]);
                let used = self.frames(&rest, due_times)?;
                rest.drain(..used);
                self.rest = rest;
            }
            if self.rest.len() > MAX_FRAME {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(count)
        })
    }

    /// Takes whole frames off the front. Returns the bytes they took.
    fn frames(&mut self, bytes: &[u8], due_times: &mut Vec<u64>) -> io::Result<usize> {
        let mut used = 0;
        if !self.accepted {
            let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 200") && !bytes.starts_with(b"HTTP/1.1 101") {
                let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(io::Error::other(String::from_utf8_lossy(line).into_owned()));
            }
            self.accepted = true;
            used = end + 4;
        }
        while let Some(length) = self.frame_length(&bytes[used..])? {
            let frame = &bytes[used..used + length];
            used += length;
            self.frame(frame, due_times);
        }
        Ok(used)
    }

    /// The length of the first frame, if it is whole.
    fn frame_length(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self.transport {
            // A ping is a line of its own.
            Transport::Sse if bytes.starts_with(b":") => Ok(find(bytes, b"\n").map(|end| end + 1)),
            Transport::Sse => Ok(find(bytes, b"\n\n").map(|end| end + 2)),
            Transport::WebSocket => {
                use tungstenite::protocol::frame::FrameHeader;
                let mut cursor = io::Cursor::new(bytes);
                let header = FrameHeader::parse(&mut cursor).map_err(io::Error::other)?;
                Ok(header
                    .map(|(_, length)| cursor.position() as usize + length as usize)
                    .filter(|whole| *whole <= bytes.len()))
            }
        }
    }

    fn frame(&mut self, frame: &[u8], due_times: &mut Vec<u64>) {
        let (id, end) = match self.transport {
            Transport::Sse => (after(frame, b"id: "), b'\n'),
            // The position told first, or the id of an event.
            Transport::WebSocket => (after(frame, b"\"id\":\"").or_else(|| first_position(frame)), b'"'),
        };
        if let Some(id) = id {
            let id = id.split(|byte| *byte == end).next().unwrap_or_default();
            self.last_id.clear();
            self.last_id.push_str(&String::from_utf8_lossy(id));
        }
        if let Some(due) = after(frame, b"{\"due\":") {
            let digits = due.iter().take_while(|byte| byte.is_ascii_digit());
            due_times.push(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
        }
    }
}

/// `"positions":{"topic:x":"5-1"}`: what stands behind the first colon and quote.
fn first_position(frame: &[u8]) -> Option<&[u8]> {
    after(after(frame, b"\"positions\":{\"")?, b"\":\"")
}

fn after<'a>(bytes: &'a [u8], pattern: &[u8]) -> Option<&'a [u8]> {
    find(bytes, pattern).map(|at| &bytes[at + pattern.len()..])
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, pattern)
}
