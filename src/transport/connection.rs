//! One client: its socket, its outbox and what it follows.
//!
//! Dispatchers write to the socket themselves, right where they dispatch, and only when it is full is the
//! connection's task woken to wait for it. Life cycle: `Open`, then `Closing` once the server has said
//! why it ends the connection (what waits is still written), then `Ended`.

mod roles;
mod waiting;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::connections::retry_ms;
use super::frame::{Frame, NEVER, WriteMark};
use super::liveness::{Beat, Liveness};
use super::outbox::{Following, Outbox};
use super::rights::{Due, Rights};
use super::{CloseReason, Protocol, Socket};
use crate::access::{Denied, Grant, Need, Visitor};
use crate::dispatch::{Delivery, Registry, Slot};
use crate::metrics::Metrics;
use crate::model::{Event, EventId, StreamName, TypeFilter};
use crate::presence::{PresenceGuard, RenewError, TopicPresence};
use crate::store::StoreClock;

pub use waiting::Wakeup;

/// Slices in one vectored write.
const SLICES: usize = 64;

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
    members: Option<Box<TopicPresence>>,
    /// Its place among the connections of its device, until it is given back.
    place: Mutex<Option<PresenceGuard>>,
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
    liveness: Liveness,
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

impl Connection {
    /// A connection that follows these streams from these positions on. Nothing is written yet.
    #[allow(clippy::too_many_arguments, reason = "each is a thing of its own, given once")]
    pub fn new(
        number: u64,
        id: Uuid,
        protocol: Protocol,
        rights: Rights,
        device: Option<StreamName>,
        types: Option<TypeFilter>,
        members: Option<Box<TopicPresence>>,
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
            place: Mutex::new(None),
            socket,
            inner: Mutex::new(Inner {
                id,
                rights,
                outbox: Outbox::new(outbox_bytes, following, protocol.framing()),
                next_slot,
                phase: Phase::Open,
                task: None,
                blocked: false,
                dirty: false,
                liveness: Liveness::new(),
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
    pub(crate) fn members(&self) -> Option<&TopicPresence> {
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

    /// By what the backend knows the client, where that decides about what its grant does not name.
    pub(crate) fn visitor(&self) -> Option<Arc<Visitor>> {
        self.inner.lock().rights.visitor()
    }

    /// One more stream may be followed, for as long as this grant lasts.
    pub(crate) fn allow(&self, stream: StreamName, grant: Arc<Grant>) {
        self.inner.lock().rights.add(stream, grant);
    }

    /// The client may do something else from now on. Answers which streams it may not follow any more.
    pub(super) fn renew(&self, grant: Arc<Grant>) -> Result<Vec<StreamName>, RenewError> {
        let info = grant.info.clone();
        let uncovered = {
            let mut inner = self.inner.lock();
            if inner.rights.grant().device != grant.device {
                return Err(RenewError::OtherDevice);
            }
            inner.rights.renew(grant);
            let followed = inner.outbox.following().iter().map(|following| &following.stream);
            followed.filter(|stream| inner.rights.check_subscribe(stream).is_err()).cloned().collect()
        };
        self.inform(info.as_ref());
        Ok(uncovered)
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
    pub(crate) fn push(&self, bytes: impl Into<Bytes>) {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Open {
            inner.outbox.push(Frame::Bare(bytes.into()));
        }
    }

    /// Queues the first block of an event stream. `complete`: each stream has all that was asked for.
    pub(super) fn push_welcome(&self, retry_ms: u64, complete: bool) {
        let mut inner = self.inner.lock();
        let welcome = self.protocol.welcome(retry_ms, &inner.outbox.cursor(), inner.id, complete);
        inner.outbox.push(welcome);
    }

    /// The streams that are followed, with their slots and positions.
    pub(crate) fn following(&self) -> Vec<Following> {
        self.inner.lock().outbox.following().to_vec()
    }

    /// Follows one more stream, unless `limit` are followed already.
    pub(crate) fn follow(&self, stream: StreamName, position: EventId, limit: usize) -> Option<Slot> {
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
    pub(crate) fn unfollow(&self, stream: &StreamName) -> Option<Slot> {
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

    /// Sends the client the reason and when to come back, and ends the connection once that is written.
    pub fn close(&self, reason: CloseReason, retry_ms: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.phase != Phase::Open {
                return;
            }
            for frame in self.protocol.close(reason, retry_ms) {
                inner.outbox.push(frame);
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
        let idle = inner.outbox.is_empty();
        match inner.liveness.beat(idle) {
            Beat::Stalled => {
                drop(inner);
                self.end(Some(CloseReason::Slow));
            }
            Beat::Unanswered => {
                drop(inner);
                self.close(CloseReason::Slow, retry_ms());
            }
            Beat::Wait => {}
            Beat::Ping => {
                // Behind frames that wait, the position would go back to before them.
                if idle {
                    self.push_positions(&mut inner.outbox);
                }
                if self.protocol.is_websocket() {
                    inner.liveness.pinged();
                }
                inner.outbox.push(self.protocol.ping());
                self.write_out(&mut inner);
            }
        }
    }

    /// The client showed that it is alive.
    pub(super) fn is_alive(&self) {
        self.inner.lock().liveness.answered();
    }

    /// The frame of a delivery, for a connection that others know as `own`.
    fn frame(&self, own: Uuid, slot: Slot, stream: &StreamName, delivery: &Delivery) -> Frame {
        match delivery {
            Delivery::Event(event) if !self.wants(event, own) => Frame::Silent { slot, id: event.id },
            _ => self.protocol.delivery(slot, stream, delivery),
        }
    }

    /// What is to be queued behind the frame of a delivery whose write is recorded.
    fn mark(&self, delivery: &Delivery, frame: &Frame) -> Option<Frame> {
        let Delivery::Event(event) = delivery else { return None };
        let observer = event.observer().filter(|_| !matches!(frame, Frame::Silent { .. }))?;
        observer.admits_write().then(|| {
            Frame::Mark(Box::new(WriteMark {
                observer: observer.clone(),
                transport: self.protocol.as_str(),
                begun: SystemTime::now(),
                expires_ms: event.expires_ms.unwrap_or(NEVER),
            }))
        })
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
        for frame in self.protocol.positions(silent, || outbox.cursor()) {
            outbox.push(frame);
        }
    }

    /// Writes until nothing waits or the socket takes no more.
    fn write_out(&self, inner: &mut Inner) {
        self.write_waiting(inner);
        self.count_waiting(inner);
    }

    /// Counts what the socket left.
    fn count_waiting(&self, inner: &mut Inner) {
        let change = inner.outbox.take_change();
        if change != 0 {
            self.metrics.outbox_bytes.inc_by(change);
        }
    }

    fn write_waiting(&self, inner: &mut Inner) {
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
                    inner.liveness.took();
                    let frames = inner.outbox.advance(written);
                    self.metrics.socket_writes.inc();
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
                inner.outbox.push(self.protocol.missed_members());
                self.write_out(inner);
            }
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

impl Drop for Connection {
    fn drop(&mut self) {
        let counted = self.inner.get_mut().outbox.counted();
        if counted != 0 {
            self.metrics.outbox_bytes.dec_by(counted);
        }
    }
}
