//! A connection's task: it reads what the client sends, and waits for a socket that was full.
//!
//! ```text
//!   wait for: bytes to read | room in a full socket | being woken (full, closing, over)
//!   until:    the client leaves, or the server has said why it ends the connection
//! ```

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::Wakeup;
use super::connections::retry_ms;
use super::context::Context;
use super::handoff::Accepted;
use super::websocket::{self, Codec, Incoming};
use super::{CloseReason, Connection, Permit, Protocol, Socket};
use crate::access::rates::Bucket;
use crate::dispatch::Sink as _;
use crate::metrics::{ByReason, ByTransport};
use crate::model::StreamName;
use crate::presence::PresenceGuard;

/// What waits when the server ends a connection has this long to be taken.
const REST_TIME: Duration = Duration::from_secs(5);

/// After the last byte the client may close first: closing on unread input would reset the connection,
/// and take away what the client has not read yet.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// The close code of a client that goes on doing what it may not.
const POLICY: u16 = 1008;

/// Bytes read from a socket at a time, on the stack.
const READ_BYTES: usize = 4096;

/// Begins a connection with its answer's head. What is returned runs it to its end. It is small: an idle
/// connection costs hardly more than its socket. `early` are bytes that the client sent after its request.
pub(super) fn start(
    socket: Socket,
    early: Bytes,
    accepted: Accepted,
    context: Arc<Context>,
) -> impl Future<Output = ()> + Send + use<> {
    let Accepted { protocol, head, headers: _, rights, device, types, streams, place, members, permit } = accepted;
    let hub = &context.hub;
    let connection = Arc::new(Connection::new(
        context.connections.next_number(),
        place.as_ref().map_or_else(|_| Uuid::new_v4(), PresenceGuard::connection),
        protocol,
        rights,
        device,
        types,
        members,
        socket,
        context.settings.outbox_bytes,
        streams.iter().map(|listening| (listening.stream().clone(), listening.position)).collect(),
        hub.registry(),
    ));
    if !matches!(connection.socket(), Socket::Streamed(_)) {
        connection.push(head);
    }
    match &place {
        Ok(_) => greet(&connection, &context, streams.iter().all(|listening| listening.complete)),
        Err(refused) => connection.close(refused.reason, refused.retry_ms),
    }
    hub.metrics().connections.get_or_create(&by_transport(protocol)).inc();
    if let Ok(place) = place {
        connection.occupy(place);
    }
    if let Some(members) = connection.members() {
        let watcher = Arc::downgrade(&connection);
        members.watch(connection.number(), watcher);
    }
    for (slot, listening) in (0..).zip(streams) {
        listening.attached.follow(connection.clone(), slot, listening.position);
    }
    // Only now may a ping write: a client that has its position receives what is published from then on, events
    // that are not stored among it.
    context.connections.insert(connection.clone());
    context.connections.expect_end(&connection);
    if let (Some(links), Some(device)) = (hub.links(), publisher(&connection)) {
        links.device_came(device);
    }
    tracing::debug!(connection = %connection.id(), transport = protocol.as_str(), "connected");
    connection.flush();

    // An empty one would still hold the HTTP server's whole buffer.
    let early = (!early.is_empty()).then(|| Box::<[u8]>::from(&early[..]));
    let speech = protocol.is_websocket().then(|| Speech::new(context.settings.max_message_bytes));
    run(Client { speech: speech.map(Box::new), connection, context }, early, permit)
}

async fn run(mut client: Client, early: Option<Box<[u8]>>, permit: Option<Permit>) {
    // Whatever happens, its streams and its place are given back. A panic was logged and counted where it happened.
    let _ = AssertUnwindSafe(client.live(early)).catch_unwind().await;
    Box::pin(client.finish()).await;
    drop(permit);
}

fn by_transport(protocol: Protocol) -> ByTransport {
    ByTransport { transport: protocol.as_str() }
}

/// The device that can publish over this connection.
fn publisher(connection: &Connection) -> Option<&StreamName> {
    connection.device().filter(|_| connection.protocol().is_websocket())
}

/// The first frames: when to come back, and the positions to come back at.
fn greet(connection: &Connection, context: &Context, complete: bool) {
    match connection.protocol() {
        Protocol::Sse { .. } => connection.push_welcome(retry_ms(), complete),
        Protocol::WebSocket { .. } => connection.push(websocket::text(context.operations.ready(connection, complete))),
    }
}

struct Client {
    connection: Arc<Connection>,
    /// Of a WebSocket client. Boxed, as those over SSE come without it.
    speech: Option<Box<Speech>>,
    context: Arc<Context>,
}

/// What a client says.
struct Speech {
    codec: Codec,
    /// How fast it sends.
    pace: Pace,
}

impl Speech {
    fn new(max_message_bytes: usize) -> Self {
        Speech { codec: Codec::new(max_message_bytes), pace: Pace::default() }
    }
}

impl Client {
    async fn live(&mut self, early: Option<Box<[u8]>>) {
        if let Some(early) = early {
            Box::pin(self.received(&early)).await;
        }
        // What waits when the server ends the connection is still written, but not for long.
        if self.steps(false).await {
            let _ = Box::pin(timeout(REST_TIME, self.steps(true))).await;
        }
    }

    /// Does what there is to do, until the connection is over, or is closing unless that is `closing` already.
    /// False when the client has left.
    async fn steps(&mut self, closing: bool) -> bool {
        loop {
            match self.connection.step(closing).await {
                Wakeup::Over => return false,
                Wakeup::Closing if !closing => return true,
                Wakeup::Closing => {}
                Wakeup::Write => self.connection.unblock(),
                Wakeup::Read => match self.read() {
                    Read::Left => return false,
                    Read::Nothing => {}
                    // Boxed: most clients never say anything, and none of them needs room for it.
                    Read::Bytes(bytes) => {
                        if !Box::pin(self.received(&bytes)).await {
                            return false;
                        }
                    }
                },
            }
        }
    }

    fn read(&self) -> Read {
        let mut buffer = [0; READ_BYTES];
        match self.connection.socket().try_read(&mut buffer) {
            Ok(0) => Read::Left,
            // What an SSE client sends after its request means nothing.
            Ok(_) if self.speech.is_none() => Read::Nothing,
            Ok(count) => Read::Bytes(buffer[..count].into()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Read::Nothing
            }
            Err(_) => Read::Left,
        }
    }

    /// Deals with bytes from a WebSocket client. False when it has left.
    async fn received(&mut self, bytes: &[u8]) -> bool {
        let Some(Speech { codec, pace }) = self.speech.as_deref_mut() else { return true };
        let mut answer = Vec::new();
        let incoming = codec.read(bytes, &mut answer);
        if !answer.is_empty() {
            self.connection.push(answer);
            self.connection.flush();
        }
        match incoming {
            Ok(messages) => {
                self.connection.is_alive();
                for message in messages {
                    let allowed = pace.message(self.context.settings.messages);
                    if allowed == Err(Flood::Lasting) {
                        self.context.hub.metrics().refused("messages");
                        self.connection.close(CloseReason::Protocol(POLICY), retry_ms());
                        return true;
                    }
                    match message {
                        Incoming::Text(text) if allowed.is_err() => {
                            self.context.hub.metrics().refused("messages");
                            self.context.operations.refuse(&self.connection, &text, self.context.settings.messages);
                        }
                        Incoming::Text(text) => {
                            let operation = self.context.operations.run(&self.connection, &text);
                            self.connection.writing_during(operation).await;
                        }
                        Incoming::Alive => {}
                        Incoming::Close => return false,
                    }
                }
                true
            }
            Err(error) => {
                tracing::debug!(connection = %self.connection.id(), detail = error.detail, "the client is not understood");
                self.connection.close(CloseReason::Protocol(error.code), retry_ms());
                true
            }
        }
    }

    async fn finish(self) {
        let Client { connection, context, .. } = self;
        let reason = connection.reason();
        connection.end(None);
        for following in connection.following() {
            context.hub.registry().leave(&following.stream, connection.number(), following.slot);
        }
        if let Some(members) = connection.members() {
            members.leave_all();
        }
        context.connections.remove(connection.number());
        context.connections.forget_end(&connection);
        let reason = reason.map_or("client", CloseReason::as_str);
        connection.vacate(reason);
        if let (Some(links), Some(device)) = (context.hub.links(), publisher(&connection)) {
            links.device_left(device);
        }
        let metrics = context.hub.metrics();
        metrics.connections.get_or_create(&by_transport(connection.protocol())).dec();
        metrics.connections_closed.get_or_create(&ByReason { reason }).inc();
        tracing::debug!(connection = %connection.id(), reason, "disconnected");
        let _ = timeout(LINGER_TIME, linger(connection.socket())).await;
    }
}

/// How fast a client sends: within what it may, too fast, or so for so long that it is let go.
#[derive(Default)]
struct Pace {
    bucket: Bucket,
    /// Messages refused since one was not.
    refused: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Flood {
    Passing,
    Lasting,
}

impl Pace {
    /// One message more came, where `rate` may come in a second. As many as that refused in a row are enough.
    fn message(&mut self, rate: u32) -> Result<(), Flood> {
        match self.bucket.take(1, rate, Instant::now()) {
            Ok(()) => {
                self.refused = 0;
                Ok(())
            }
            Err(_) if self.refused >= rate => Err(Flood::Lasting),
            Err(_) => {
                self.refused += 1;
                Err(Flood::Passing)
            }
        }
    }
}

/// What a socket had.
enum Read {
    Bytes(Box<[u8]>),
    Nothing,
    /// The client has left.
    Left,
}

/// Says that nothing more will come, and waits for the client to say the same.
async fn linger(socket: &Socket) {
    if socket.shut_write().is_err() {
        return;
    }
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let mut buffer = [0; READ_BYTES];
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
