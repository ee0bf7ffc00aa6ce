//! One client: its socket, its outbox and what it follows.
//!
//! Dispatchers write to the socket themselves, right where they dispatch, and only when it is full is the
//! connection's task woken to wait for it. Life cycle: `Open`, then `Closing` once the server has said
//! why it ends the connection (what waits is still written), then `Ended`.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::connections::retry_ms;
use super::framing::chunk;
use super::outbox::{Following, Frame, NEVER, Outbox};
use super::rights::{Due, Rights};
use super::{CloseReason, Framing, Socket, sse, websocket};
use crate::access::{Denied, Grant, Need};
use crate::dispatch::{Delivery, Offer, Registry, Sink, Slot};
use crate::metrics::Metrics;
use crate::model::{Encoding, Event, EventId, MemberNotice, StreamName, TypeFilter};
use crate::presence::{Eviction, Membership, Occupant, RenewError, Watcher};
use crate::store::StoreClock;

/// Slices in one vectored write.
const SLICES: usize = 64;

/// Ping intervals without any byte taken, or any pong, after which a client counts as gone.
const SILENT_INTERVALS: u8 = 2;

/// How a client is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Server-Sent Events.
    Sse {
        /// How its events are written; fixed when it connects.
        encoding: Encoding,
        /// Pings are events, not comments.
        heartbeat: bool,
        /// How the body of the answer is delimited.
        framing: Framing,
    },
    /// WebSocket.
    WebSocket,
}

impl Protocol {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Sse { .. } => "sse",
            Protocol::WebSocket => "websocket",
        }
    }

    /// How its frames are delimited.
    const fn framing(self) -> Framing {
        match self {
            Protocol::Sse { framing, .. } => framing,
            Protocol::WebSocket => Framing::Plain,
        }
    }
}

/// One client's connection.
pub struct Connection {
    number: u64,
    /// The public id that the client was given.
    known_as: Uuid,
    /// The device that it is connected as.
    device: Option<StreamName>,
    protocol: Protocol,
    /// The event types that the client wants; all when `None`.
    types: Option<TypeFilter>,
    /// Its part in the topics' presence, if the client asked for one.
    members: Option<Box<Membership>>,
    socket: Socket,
    inner: Mutex<Inner>,
    /// Wakes temporary dispatchers: the outbox has room, a stream was left, or the connection is over.
    changed: Notify,
    /// For events that expire while they wait.
    clock: Arc<StoreClock>,
    metrics: Arc<Metrics>,
}

struct Inner {
    id: Uuid,
    rights: Rights,
    outbox: Outbox,
    next_slot: Slot,
    phase: Phase,
    /// The connection's task, while it waits: to be woken when the socket is full or the connection closing.
    task: Option<Waker>,
    /// The socket took no more; the task waits for it.
    blocked: bool,
    /// Someone is going to flush.
    dirty: bool,
    /// The socket took something since the last ping.
    took: bool,
    /// Ping intervals in a row with frames waiting and none taken.
    stalled: u8,
    /// Pings without a pong.
    unanswered: u8,
    /// Notices of members found no room.
    missed_members: bool,
}

impl Inner {
    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing(CloseReason),
    Ended(Option<CloseReason>),
}

/// What there is to do for the connection's task.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The client said something.
    Read,
    /// The socket that was full has room.
    Write,
    /// The connection is closing, and something is still to be written.
    Closing,
    /// Nothing: it is over.
    Over,
}

/// How things stand between a connection and its socket.
struct Stand {
    phase: Phase,
    blocked: bool,
    empty: bool,
    full: bool,
}

impl Connection {
    /// A connection that follows these streams from these positions on. Nothing is written yet.
    #[allow(clippy::too_many_arguments, reason = "each is a thing of its own, given once")]
    pub fn new(
        number: u64,
        id: Uuid,
        protocol: Protocol,
        grant: Arc<Grant>,
        device: Option<StreamName>,
        types: Option<TypeFilter>,
        members: Option<Box<Membership>>,
        socket: Socket,
        outbox_bytes: usize,
        streams: Vec<(StreamName, EventId)>,
        registry: &Registry,
    ) -> Self {
        let following: Vec<_> =
            (0..).zip(streams).map(|(slot, (stream, position))| Following::new(slot, stream, position)).collect();
        let next_slot = following.len() as Slot;
        Connection {
            number,
            known_as: id,
            device,
            protocol,
            types,
            members,
            socket,
            inner: Mutex::new(Inner {
                id,
                rights: Rights::new(grant),
                outbox: Outbox::new(outbox_bytes, following, protocol.framing()),
                next_slot,
                phase: Phase::Open,
                task: None,
                blocked: false,
                dirty: false,
                took: true,
                stalled: 0,
                unanswered: 0,
                missed_members: false,
            }),
            changed: Notify::new(),
            clock: registry.clock().clone(),
            metrics: registry.metrics().clone(),
        }
    }

    /// The connection's public id. It has another when others took it for lost, see [`Occupant::rename`].
    pub fn id(&self) -> Uuid {
        self.inner.lock().id
    }

    /// The public id as the client knows it.
    pub fn known_as(&self) -> Uuid {
        self.known_as
    }

    /// The inbox of the device that it is connected as.
    pub fn device(&self) -> Option<&StreamName> {
        self.device.as_ref()
    }

    /// Its part in the topics' presence, if the client asked for one.
    pub(super) fn members(&self) -> Option<&Membership> {
        self.members.as_deref()
    }

    /// What the client may do.
    pub fn grant(&self) -> Arc<Grant> {
        self.inner.lock().rights.grant().clone()
    }

    /// Checks what the client may do. To follow a stream there may be a grant of its own.
    pub fn check(&self, need: Need<'_>) -> Result<(), Denied> {
        let inner = self.inner.lock();
        match need {
            Need::Subscribe(stream) => inner.rights.check_subscribe(stream),
            _ => inner.rights.grant().check(need),
        }
    }

    /// One more stream may be followed, for as long as this grant lasts.
    pub(super) fn allow(&self, stream: StreamName, grant: Arc<Grant>) {
        self.inner.lock().rights.add(stream, grant);
    }

    /// The client may do something else from now on. Answers which streams it may not follow any more.
    pub(super) fn renew(&self, grant: Arc<Grant>) -> Result<Vec<StreamName>, RenewError> {
        let mut inner = self.inner.lock();
        if inner.rights.grant().device != grant.device {
            return Err(RenewError::OtherDevice);
        }
        inner.rights.renew(grant);
        let followed = inner.outbox.following().iter().map(|following| &following.stream);
        Ok(followed.filter(|stream| inner.rights.check_subscribe(stream).is_err()).cloned().collect())
    }

    /// What is due by now, as time goes by.
    pub(super) fn due(&self, now_ms: u64) -> Option<Due> {
        self.inner.lock().rights.due(now_ms)
    }

    /// When something is due next, in milliseconds since 1970.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.inner.lock().rights.next_due_ms()
    }

    /// Whether one of the grants on which it rests is meant.
    pub(super) fn rests_on(&self, is_meant: &impl Fn(&Grant) -> bool) -> bool {
        self.inner.lock().rights.grants().any(|grant| is_meant(grant))
    }

    /// How the client is spoken to.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether it is open and follows a stream.
    pub(super) fn follows(&self, stream: &StreamName) -> bool {
        let inner = self.inner.lock();
        inner.phase == Phase::Open && inner.outbox.following().iter().any(|following| following.stream == *stream)
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Queues bytes that belong to no stream: heads, answers, control frames.
    pub(super) fn push(&self, bytes: impl Into<Bytes>) {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Open {
            inner.outbox.push(Frame::Bare(bytes.into()));
        }
    }

    /// Queues the first block of an event stream. `complete`: each stream has all that was asked for.
    pub(super) fn push_welcome(&self, retry_ms: u64, complete: bool) {
        let mut inner = self.inner.lock();
        let block = sse::welcome(retry_ms, &inner.outbox.cursor(), inner.id, complete);
        inner.outbox.push(Frame::Bare(self.protocol.framing().block(block)));
    }

    /// The streams that are followed, with their slots and positions.
    pub(super) fn following(&self) -> Vec<Following> {
        self.inner.lock().outbox.following().to_vec()
    }

    /// Follows one more stream, unless `limit` are followed already.
    pub(super) fn follow(&self, stream: StreamName, position: EventId, limit: usize) -> Option<Slot> {
        let mut inner = self.inner.lock();
        if inner.outbox.following().len() >= limit {
            return None;
        }
        let slot = inner.next_slot;
        inner.next_slot += 1;
        inner.outbox.follow(Following::new(slot, stream, position));
        Some(slot)
    }

    /// Stops following a stream.
    pub(super) fn unfollow(&self, stream: &StreamName) -> Option<Slot> {
        let slot = {
            let mut inner = self.inner.lock();
            let slot = inner.outbox.following().iter().find(|f| f.stream == *stream)?.slot;
            inner.outbox.unfollow(slot);
            inner.rights.remove(stream);
            slot
        };
        self.changed.notify_waiters();
        Some(slot)
    }

    /// Tells the client why the connection ends and when to come back, and ends it once that is written.
    pub fn close(&self, reason: CloseReason, retry_ms: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.phase != Phase::Open {
                return;
            }
            match self.protocol {
                Protocol::Sse { framing, .. } => {
                    let notice = sse::close(reason, retry_ms);
                    inner.outbox.push(if reason.is_final() {
                        Frame::Stop(chunk(notice.as_bytes()))
                    } else {
                        Frame::Bare(framing.block(notice))
                    });
                    if let Some(end) = framing.end() {
                        inner.outbox.push(Frame::Bare(end));
                    }
                }
                Protocol::WebSocket => {
                    for frame in websocket::close(reason, retry_ms) {
                        inner.outbox.push(Frame::Bare(frame));
                    }
                }
            }
            inner.phase = Phase::Closing(reason);
            self.write_out(&mut inner);
            inner.wake();
        }
        self.changed.notify_waiters();
    }

    /// Ends the connection without a word: the socket is of no use any more.
    pub(super) fn end(&self, reason: Option<CloseReason>) {
        {
            let mut inner = self.inner.lock();
            if let Phase::Ended(_) = inner.phase {
                return;
            }
            inner.phase = Phase::Ended(match inner.phase {
                Phase::Closing(reason) => Some(reason),
                _ => reason,
            });
            inner.wake();
        }
        self.changed.notify_waiters();
    }

    /// Why it ended; `None` while it has not, or when the client left.
    pub(super) fn reason(&self) -> Option<CloseReason> {
        match self.inner.lock().phase {
            Phase::Open => None,
            Phase::Closing(reason) => Some(reason),
            Phase::Ended(reason) => reason,
        }
    }

    /// A ping interval is over: pings the client, or gives it up.
    pub(super) fn ping(&self) {
        let mut inner = self.inner.lock();
        if inner.phase != Phase::Open {
            return;
        }
        inner.stalled = if inner.took || inner.outbox.is_empty() { 0 } else { inner.stalled + 1 };
        inner.took = false;
        if inner.stalled >= SILENT_INTERVALS {
            drop(inner);
            self.end(Some(CloseReason::Slow));
            return;
        }
        if inner.unanswered >= SILENT_INTERVALS {
            drop(inner);
            // It took the pings, so it may still learn why it is let go.
            self.close(CloseReason::Slow, retry_ms());
            return;
        }
        // A client that still has frames to take needs no ping on top of them.
        if inner.stalled > 0 {
            return;
        }
        // Behind frames that wait, the position would go back to before them.
        if inner.outbox.is_empty() {
            self.push_positions(&mut inner.outbox);
        }
        match self.protocol {
            Protocol::Sse { heartbeat, framing, .. } => {
                let ping = if heartbeat { &sse::HEARTBEAT } else { &sse::PING };
                inner.outbox.push(Frame::Bare(framing.shared(ping.clone())));
            }
            Protocol::WebSocket => {
                inner.unanswered += 1;
                inner.outbox.push(Frame::Bare(websocket::ping()));
            }
        }
        self.write_out(&mut inner);
    }

    /// The client showed that it is alive.
    pub(super) fn is_alive(&self) {
        self.inner.lock().unanswered = 0;
    }

    /// The socket that was full has room again.
    pub(super) fn unblock(&self) {
        let mut inner = self.inner.lock();
        inner.blocked = false;
        self.write_out(&mut inner);
    }

    /// Does something that may take a while without holding up what waits for a full socket.
    pub(super) async fn writing_during(&self, mut work: impl Future<Output = ()> + Unpin) {
        poll_fn(|cx| {
            if Pin::new(&mut work).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            while self.stand(cx).blocked && matches!(self.socket.poll_write_ready(cx), Poll::Ready(Ok(()))) {
                self.unblock();
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until there is something to do for the connection's task. `closing`: whether the task knows
    /// already that the connection is.
    pub(super) async fn step(&self, closing: bool) -> Step {
        poll_fn(|cx| {
            let stand = self.stand(cx);
            match stand.phase {
                Phase::Ended(_) => return Poll::Ready(Step::Over),
                Phase::Closing(_) if stand.empty => return Poll::Ready(Step::Over),
                Phase::Closing(_) if !closing => return Poll::Ready(Step::Closing),
                Phase::Open | Phase::Closing(_) => {}
            }
            if stand.blocked
                && let Poll::Ready(ready) = self.socket.poll_write_ready(cx)
            {
                return Poll::Ready(ready.map_or(Step::Over, |()| Step::Write));
            }
            // A client that does not take what is waiting can't ask for more.
            if !(stand.blocked && stand.full)
                && let Poll::Ready(ready) = self.socket.poll_read_ready(cx)
            {
                return Poll::Ready(ready.map_or(Step::Over, |()| Step::Read));
            }
            Poll::Pending
        })
        .await
    }

    /// How things stand. The task is woken when that changes.
    fn stand(&self, cx: &Context<'_>) -> Stand {
        let mut inner = self.inner.lock();
        if !inner.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            inner.task = Some(cx.waker().clone());
        }
        Stand {
            phase: inner.phase,
            blocked: inner.blocked,
            empty: inner.outbox.is_empty() && !inner.blocked,
            full: inner.outbox.is_full(),
        }
    }

    /// The frame of a delivery, for a connection that others know as `own`.
    fn frame(&self, own: Uuid, slot: Slot, stream: &StreamName, delivery: &Delivery) -> Frame {
        match (delivery, self.protocol) {
            (Delivery::Event(event), _) if !self.wants(event, own) => Frame::Silent { slot, id: event.id },
            (Delivery::Passed(id), _) => Frame::Silent { slot, id: *id },
            (Delivery::Event(event), Protocol::WebSocket) => Frame::Event {
                slot,
                id: event.id,
                expires_ms: event.expires_ms.unwrap_or(NEVER),
                body: event.encoded(Encoding::WebSocket, |event| websocket::event(stream, event)),
            },
            (Delivery::Event(event), Protocol::Sse { encoding, framing, .. }) => {
                let body = event.encoded(encoding, |event| sse::event(stream, event, encoding));
                let (id, expires_ms) = (event.id, event.expires_ms.unwrap_or(NEVER));
                if encoding == Encoding::SseShared {
                    Frame::WithCursor { slot, id, expires_ms, body }
                } else {
                    Frame::Event { slot, id, expires_ms, body: framing.shared(body) }
                }
            }
            (Delivery::Ephemeral(event), Protocol::Sse { encoding, framing, .. }) => {
                Frame::Bare(framing.shared(event.encoded(encoding, |event| sse::event(stream, event, encoding))))
            }
            (Delivery::Ephemeral(event), Protocol::WebSocket) => {
                Frame::Bare(event.encoded(Encoding::WebSocket, |event| websocket::event(stream, event)))
            }
            (Delivery::Gap(gap), Protocol::Sse { framing, .. }) => Frame::Bare(framing.block(sse::gap(stream, gap))),
            (Delivery::Gap(gap), Protocol::WebSocket) => Frame::Bare(websocket::gap(stream, gap)),
            (Delivery::Position(id), Protocol::Sse { .. }) => {
                Frame::WithCursor { slot, id: *id, expires_ms: NEVER, body: sse::POSITION.clone() }
            }
            (Delivery::Position(id), Protocol::WebSocket) => {
                Frame::Event { slot, id: *id, expires_ms: NEVER, body: websocket::position(stream, *id) }
            }
        }
    }

    /// Whether the client is to be given this event: it is of a type that it wants, has not expired, and does not
    /// exclude the connection, which others know as `own`.
    fn wants(&self, event: &Event, own: Uuid) -> bool {
        event.exclude.is_none_or(|excluded| excluded != own && excluded != self.known_as)
            && self.types.as_ref().is_none_or(|types| types.matches(event))
            && event.expires_ms.is_none_or(|expires_ms| expires_ms > self.clock.now_ms())
    }

    /// Queues the client's positions, after many events that it was not given.
    fn push_positions(&self, outbox: &mut Outbox) {
        let silent = outbox.take_silent();
        match self.protocol {
            Protocol::Sse { framing, .. } if !silent.is_empty() => {
                let notice = framing.block(sse::position(&outbox.cursor()));
                outbox.push(Frame::Bare(notice));
            }
            Protocol::Sse { .. } => {}
            Protocol::WebSocket => {
                for (stream, position) in silent {
                    outbox.push(Frame::Bare(websocket::position(&stream, position)));
                }
            }
        }
    }

    /// Writes until nothing waits or the socket takes no more.
    fn write_out(&self, inner: &mut Inner) {
        if inner.blocked || matches!(inner.phase, Phase::Ended(_)) {
            return;
        }
        loop {
            if inner.outbox.stage(|| self.clock.now_ms()) {
                self.push_positions(&mut inner.outbox);
                continue;
            }
            let outcome = match self.write_staged(&inner.outbox) {
                Some(outcome) => outcome,
                None => match self.socket.try_flush() {
                    Ok(()) => break,
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(written) => {
                    inner.took = true;
                    let frames = inner.outbox.advance(written);
                    self.metrics.writes.inc();
                    self.metrics.frames_written.inc_by(frames as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    inner.blocked = true;
                    inner.wake();
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(connection = %inner.id, %error, "the client is gone");
                    inner.phase = Phase::Ended(None);
                    inner.wake();
                    self.changed.notify_waiters();
                    return;
                }
            }
        }
        if inner.outbox.take_room() {
            self.changed.notify_waiters();
            // Nothing may follow a close.
            if inner.phase == Phase::Open && std::mem::take(&mut inner.missed_members) {
                inner.outbox.push(self.missed_members_frame());
                self.write_out(inner);
            }
        }
    }

    /// The notice that notices of members may have been missed.
    fn missed_members_frame(&self) -> Frame {
        Frame::Bare(match self.protocol {
            Protocol::Sse { framing, .. } => framing.block(sse::MISSED_MEMBERS),
            Protocol::WebSocket => websocket::missed_members(),
        })
    }

    /// Writes a notice of members, if there is room. If there was none, the client is notified once there is.
    fn notify_of_members(&self, frame: Frame) {
        let mut inner = self.inner.lock();
        if inner.phase != Phase::Open {
            return;
        }
        if !inner.outbox.has_room_for(&frame) {
            self.write_out(&mut inner);
        }
        if inner.outbox.offer(frame) {
            self.write_out(&mut inner);
        } else {
            inner.missed_members = true;
        }
    }

    /// Waits until the connection has changed so that `reached` holds.
    async fn until(&self, reached: impl Fn(&Inner) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if reached(&self.inner.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// One write of what is staged; `None` if nothing is.
    fn write_staged(&self, outbox: &Outbox) -> Option<io::Result<usize>> {
        if let Some(only) = outbox.only_slice() {
            return Some(self.socket.try_write(only));
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        match outbox.slices(&mut slices) {
            0 => None,
            count => Some(self.socket.try_write_vectored(&slices[..count])),
        }
    }
}

impl Occupant for Connection {
    fn evict(&self, why: Eviction) {
        self.close(why.into(), retry_ms());
    }

    fn rename(&self, id: Uuid) {
        self.inner.lock().id = id;
    }
}

impl Watcher for Connection {
    fn member(&self, notice: &MemberNotice) {
        // Its own coming and going is no news to a device.
        if self.members().is_some_and(|members| members.is_of(&notice.device)) {
            return;
        }
        self.notify_of_members(Frame::Bare(match self.protocol {
            Protocol::Sse { framing, .. } => framing.shared(notice.sse(sse::member)),
            Protocol::WebSocket => notice.websocket(websocket::member),
        }));
    }

    fn missed_members(&self) {
        self.notify_of_members(self.missed_members_frame());
    }
}

#[async_trait]
impl Sink for Connection {
    fn number(&self) -> u64 {
        self.number
    }

    fn wants(&self, slot: Slot) -> bool {
        let inner = self.inner.lock();
        inner.phase == Phase::Open && inner.outbox.follows(slot)
    }

    fn offer(&self, slot: Slot, stream: &StreamName, delivery: &Delivery) -> Offer {
        let mut inner = self.inner.lock();
        if inner.phase != Phase::Open || !inner.outbox.follows(slot) {
            return Offer::Closed;
        }
        if matches!(delivery, Delivery::Ephemeral(event) if !self.wants(event, inner.id)) {
            return Offer::Taken { flush: false };
        }
        let frame = self.frame(inner.id, slot, stream, delivery);
        if !inner.outbox.has_room_for(&frame) {
            // Perhaps only because more came at once than the outbox holds, and nobody has flushed so far.
            self.write_out(&mut inner);
            if inner.phase != Phase::Open {
                return Offer::Closed;
            }
        }
        if !inner.outbox.offer(frame) {
            return Offer::Full;
        }
        let flush = !inner.dirty && !inner.blocked;
        inner.dirty |= flush;
        Offer::Taken { flush }
    }

    fn flush(&self) {
        let mut inner = self.inner.lock();
        inner.dirty = false;
        self.write_out(&mut inner);
    }

    async fn room(&self) {
        self.until(|inner| inner.phase != Phase::Open || inner.outbox.has_room()).await;
    }

    async fn left(&self, slot: Slot) {
        self.until(|inner| inner.phase != Phase::Open || !inner.outbox.follows(slot)).await;
    }
}
