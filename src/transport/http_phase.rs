//! Connections that carry HTTP: from accept until a request on them is accepted as a listener's, or their end.
//!
//! Their number is bounded, and so are the bytes of heads that are not whole. At the bound, the connection closes
//! that has been idle for longest, as a client that will send a request later looks like one that never will. If
//! all are at work, new ones wait, and when nothing has moved for a while a few more are let in, for probes and
//! administration alone.
//!
//! [`State`] decides; [`HttpPhase`] is asked for each socket that is accepted, [`HttpSlot`] a connection's place, and
//! [`Tracked`] its socket, which shows what the client does.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Ambiguity, RequestHeads};

/// Bytes of all heads that are not whole.
const HEAD_BYTES: usize = 32 * 1024 * 1024;

/// How long a connection may stay open between two requests: longer than proxies keep theirs (60 s is usual),
/// as a request that crosses the end of its connection is lost.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a client may take nothing of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Nothing has moved for so long: waiting any longer would keep probes out.
const STUCK: Duration = Duration::from_millis(250);

/// What the HTTP phase is held to.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at once.
    pub connections: usize,
    /// More of them, for probes and administration.
    pub reserved: usize,
    /// How long a new connection may be silent, and how long a request's head may take from its first byte.
    pub head_time: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Connected, and nothing was sent.
    New,
    /// A part of a head has come.
    Head,
    /// A request is being answered.
    Busy,
    /// Between two requests.
    KeptAlive,
}

struct Peer {
    reserved: bool,
    stage: Stage,
    since: Instant,
    head_bytes: usize,
    /// When the client stopped taking its answer.
    blocked: Option<Instant>,
    evicted: bool,
    evict: Arc<Notify>,
}

impl Peer {
    fn can_give_way(&self) -> bool {
        self.stage != Stage::Busy && self.blocked.is_none() && !self.evicted
    }
}

/// The connections, and which of them have to close.
struct State {
    limits: HttpLimits,
    peers: HashMap<u64, Peer>,
    next: u64,
    ordinary: usize,
    reserved: usize,
    head_bytes: usize,
    /// Connections that were evicted and have not closed yet.
    leaving: usize,
    /// When a connection last came or went.
    moved: Instant,
}

impl State {
    fn new(limits: HttpLimits, now: Instant) -> Self {
        let peers = HashMap::new();
        State { limits, peers, next: 0, ordinary: 0, reserved: 0, head_bytes: 0, leaving: 0, moved: now }
    }

    /// A place for one more. The error is when to ask again at the latest.
    fn admit(&mut self, now: Instant) -> Result<u64, Instant> {
        if self.ordinary < self.limits.connections {
            self.moved = now;
            return Ok(self.enter(false, now));
        }
        if self.leaving > 0 || self.evict_oldest(false) {
            return Err(now + STUCK);
        }
        if now < self.moved + STUCK {
            return Err(self.moved + STUCK);
        }
        if self.reserved < self.limits.reserved {
            return Ok(self.enter(true, now));
        }
        self.evict_oldest(true);
        Err(now + STUCK)
    }

    fn enter(&mut self, reserved: bool, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        *if reserved { &mut self.reserved } else { &mut self.ordinary } += 1;
        let peer = Peer {
            reserved,
            stage: Stage::New,
            since: now,
            head_bytes: 0,
            blocked: None,
            evicted: false,
            evict: Arc::default(),
        };
        self.peers.insert(number, peer);
        number
    }

    fn leave(&mut self, number: u64, now: Instant) {
        let Some(peer) = self.peers.remove(&number) else { return };
        self.head_bytes -= peer.head_bytes;
        self.leaving -= usize::from(peer.evicted);
        if peer.reserved {
            self.reserved -= 1;
        } else {
            self.ordinary -= 1;
            self.moved = now;
        }
    }

    fn evict_oldest(&mut self, reserved: bool) -> bool {
        let idle = self.peers.iter().filter(|(_, peer)| peer.reserved == reserved && peer.can_give_way());
        let oldest = idle.min_by_key(|(number, peer)| (peer.since, **number)).map(|(number, _)| *number);
        oldest.is_some_and(|number| self.evict(number))
    }

    fn evict(&mut self, number: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&number) else { return false };
        peer.evicted = true;
        self.head_bytes -= std::mem::take(&mut peer.head_bytes);
        self.leaving += 1;
        peer.evict.notify_one();
        true
    }

    /// So many bytes have come.
    fn received(&mut self, number: u64, bytes: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if peer.stage == Stage::Busy || peer.evicted {
            return;
        }
        if peer.stage != Stage::Head {
            (peer.stage, peer.since) = (Stage::Head, now);
        }
        peer.head_bytes += bytes;
        self.head_bytes += bytes;
        if self.head_bytes > HEAD_BYTES {
            let largest = self.peers.iter().filter(|(_, peer)| peer.can_give_way());
            if let Some(number) = largest.max_by_key(|(_, peer)| peer.head_bytes).map(|(number, _)| *number) {
                self.evict(number);
            }
        }
    }

    fn request_begins(&mut self, number: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        self.head_bytes -= std::mem::take(&mut peer.head_bytes);
        (peer.stage, peer.since) = (Stage::Busy, now);
        // Too late to give way: its request may have been served.
        self.leaving -= usize::from(std::mem::take(&mut peer.evicted));
    }

    /// Returns whether somebody may wait for a connection to turn idle.
    fn request_ends(&mut self, number: u64, now: Instant) -> bool {
        if let Some(peer) = self.peers.get_mut(&number) {
            (peer.stage, peer.since) = (Stage::KeptAlive, now);
        }
        self.ordinary >= self.limits.connections
    }

    /// The client takes bytes, or has stopped taking them.
    fn writing(&mut self, number: u64, blocked: bool, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.blocked = blocked.then(|| peer.blocked.unwrap_or(now));
        }
    }

    fn gives_way(&self, number: u64) -> bool {
        self.peers.get(&number).is_none_or(|peer| peer.evicted)
    }

    /// When the connection is late, unless the client does something until then.
    fn deadline(&self, number: u64) -> Option<Instant> {
        let peer = self.peers.get(&number)?;
        match (peer.blocked, peer.stage) {
            (Some(since), _) => Some(since + ANSWER_TIME),
            (None, Stage::New | Stage::Head) => Some(peer.since + self.limits.head_time),
            (None, Stage::KeptAlive) => Some(peer.since + KEEP_ALIVE),
            // Bodies have a time of their own, and so has whatever an answer waits for.
            (None, Stage::Busy) => None,
        }
    }
}

struct Shared {
    state: Mutex<State>,
    /// Someone left, or turned idle.
    freed: Notify,
    /// Deadlines are looked at so often, as they may come nearer.
    look: Duration,
}

/// The bound on connections that carry HTTP.
pub struct HttpPhase(Arc<Shared>);

impl HttpPhase {
    pub fn new(limits: HttpLimits) -> Self {
        let state = Mutex::new(State::new(limits, Instant::now()));
        HttpPhase(Arc::new(Shared { state, freed: Notify::new(), look: limits.head_time }))
    }

    /// A place for one more connection; waits until there is one. For one caller at a time.
    pub async fn admit(&self) -> HttpSlot {
        loop {
            let admitted = self.0.state.lock().admit(Instant::now());
            match admitted {
                Ok(number) => return HttpSlot::new(self.0.clone(), number),
                Err(again) => _ = timeout_at(again, self.0.freed.notified()).await,
            }
        }
    }
}

/// A connection's place in the HTTP phase, until it is dropped.
pub struct HttpSlot {
    shared: Arc<Shared>,
    number: u64,
    reserved: bool,
    evict: Arc<Notify>,
    heads: Arc<Mutex<RequestHeads>>,
}

impl Drop for HttpSlot {
    fn drop(&mut self) {
        self.shared.state.lock().leave(self.number, Instant::now());
        self.shared.freed.notify_one();
    }
}

impl HttpSlot {
    fn new(shared: Arc<Shared>, number: u64) -> Self {
        let (reserved, evict) = {
            let state = shared.state.lock();
            let peer = &state.peers[&number];
            (peer.reserved, peer.evict.clone())
        };
        HttpSlot { shared, number, reserved, evict, heads: Arc::default() }
    }

    /// Whether it is one of those that are kept for probes and administration.
    pub fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// The socket, with an eye on what the client does.
    pub fn track<S>(&self, socket: S) -> Tracked<S> {
        let (shared, heads) = (self.shared.clone(), self.heads.clone());
        Tracked { socket, shared, number: self.number, blocked: false, heads }
    }

    /// A request is being answered until what this returns is dropped.
    pub fn request(&self) -> InRequest {
        self.shared.state.lock().request_begins(self.number, Instant::now());
        InRequest { shared: self.shared.clone(), number: self.number }
    }

    /// The next request of the socket is served: why it is not to be trusted, if it is not.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.heads.lock().serve()
    }

    /// Waits until the connection has to go, because the client is late or because it gives way to another.
    pub async fn over(&self) {
        loop {
            let now = Instant::now();
            let deadline = self.shared.state.lock().deadline(self.number);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            let look = deadline.unwrap_or(now + self.shared.look).min(now + self.shared.look);
            tokio::select! {
                () = self.evict.notified() => if self.shared.state.lock().gives_way(self.number) {
                    return;
                },
                () = sleep_until(look) => {}
            }
        }
    }
}

/// A request that is being answered.
pub struct InRequest {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for InRequest {
    fn drop(&mut self) {
        if self.shared.state.lock().request_ends(self.number, Instant::now()) {
            self.shared.freed.notify_one();
        }
    }
}

/// A socket whose reads and writes are noted.
pub struct Tracked<S> {
    socket: S,
    shared: Arc<Shared>,
    number: u64,
    blocked: bool,
    heads: Arc<Mutex<RequestHeads>>,
}

impl<S> Tracked<S> {
    pub fn into_inner(self) -> S {
        self.socket
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let blocked = written.is_pending();
        if blocked != self.blocked {
            self.blocked = blocked;
            self.shared.state.lock().writing(self.number, blocked, Instant::now());
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.shared.state.lock().received(self.number, bytes, Instant::now());
            self.heads.lock().read(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_TIME: Duration = Duration::from_secs(10);

    fn state(connections: usize, reserved: usize) -> (State, Instant) {
        let now = Instant::now();
        (State::new(HttpLimits { connections, reserved, head_time: HEAD_TIME }, now), now)
    }

    fn evicted(state: &State) -> Vec<u64> {
        let mut evicted: Vec<_> =
            state.peers.iter().filter(|(_, peer)| peer.evicted).map(|(number, _)| *number).collect();
        evicted.sort_unstable();
        evicted
    }

    #[test]
    fn the_connection_idle_for_longest_gives_way_and_only_one_for_each_newcomer() {
        let (mut state, start) = state(3, 1);
        let at = |ms| start + Duration::from_millis(ms);
        let seats: Vec<_> = (0..3).map(|n| state.admit(at(n)).unwrap()).collect();
        state.request_begins(seats[0], at(4));
        state.received(seats[2], 5, at(5));
        assert!(state.admit(at(6)).is_err() && state.admit(at(7)).is_err());
        assert_eq!(evicted(&state), [seats[1]], "0 is at work, and 2 did something later");
        state.leave(seats[1], at(8));
        assert!(state.admit(at(8)).is_ok());
        assert!(state.admit(at(9)).is_err());
        assert_eq!(evicted(&state), [seats[2]]);
        state.request_begins(seats[2], at(9));
        assert!(evicted(&state).is_empty() && state.leaving == 0, "its request came in time");
    }

    #[test]
    fn when_all_are_at_work_newcomers_wait_and_then_come_in_by_the_reserve() {
        let (mut state, start) = state(2, 1);
        for _ in 0..2 {
            let seat = state.admit(start).unwrap();
            state.request_begins(seat, start);
        }
        assert_eq!(state.admit(start), Err(start + STUCK), "something may move yet");
        let stuck = start + STUCK;
        let probe = state.admit(stuck).unwrap();
        assert!(state.peers[&probe].reserved);
        state.request_begins(probe, stuck);
        assert!(state.admit(stuck).is_err() && evicted(&state).is_empty());
        state.request_ends(probe, stuck);
        assert!(state.admit(stuck).is_err());
        assert_eq!(evicted(&state), [probe], "the next probe takes its place");
    }

    #[test]
    fn the_largest_unfinished_head_gives_way_when_all_together_are_too_large() {
        let (mut state, now) = state(10, 1);
        let seats: Vec<_> = (0..3).map(|_| state.admit(now).unwrap()).collect();
        state.received(seats[0], HEAD_BYTES / 2, now);
        state.received(seats[1], HEAD_BYTES / 2 - 10, now);
        state.received(seats[2], 10, now);
        assert!(evicted(&state).is_empty());
        state.received(seats[2], 1, now);
        assert_eq!(evicted(&state), [seats[0]]);
        state.request_begins(seats[1], now);
        assert_eq!(state.head_bytes, 11, "whole heads, and those of evicted connections, don't count");
        seats.iter().for_each(|seat| state.leave(*seat, now));
        assert_eq!((state.head_bytes, state.leaving, state.ordinary), (0, 0, 0));
    }

    #[test]
    fn each_stage_has_its_deadline() {
        let (mut state, start) = state(1, 1);
        let seat = state.admit(start).unwrap();
        assert_eq!(state.deadline(seat), Some(start + HEAD_TIME));
        let later = start + Duration::from_secs(3);
        state.received(seat, 1, later);
        state.received(seat, 1, later + Duration::from_secs(1));
        assert_eq!(state.deadline(seat), Some(later + HEAD_TIME), "a byte now and then makes it no longer");
        state.request_begins(seat, later);
        assert_eq!(state.deadline(seat), None);
        state.writing(seat, true, later);
        assert_eq!(state.deadline(seat), Some(later + ANSWER_TIME));
        state.writing(seat, false, later);
        state.request_ends(seat, later);
        assert_eq!(state.deadline(seat), Some(later + KEEP_ALIVE));
    }
}
