//! The sending end of a link: where events are put in, and the task that brings them over.
//!
//! A [`Peer`] is held by every task that may still send something. When the last of them drops it, the link says
//! goodbye and ends; so a publish that has left a node out always finds the way that it counted on, or finds
//! it broken, and takes the channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::frame::{Ack, Frame};
use super::listing::State;
use super::unacked::{ACK_TIME, Unacked, Underway};
use super::wire::Wire;
use crate::dispatch::{Flush, Path, Registry};
use crate::model::{Event, NodeId, StreamName};

/// Most bytes that wait for a link. One that is so far behind is no short cut any more.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// What a waiting event costs beside its data.
const OVERHEAD: usize = 256;

/// Most frames on their way at once.
const MAX_UNACKED: usize = 8192;

/// Frames that share a write, and events that share a flush.
const BATCH: usize = 256;

/// How often an end is asked whether it is there. A link on which nothing goes would otherwise be found
/// broken only by the event that needs it.
const PING: Duration = Duration::from_secs(2);

/// What is put into a link.
enum Parcel {
    Event(StreamName, Arc<Event>),
    Look(StreamName),
}

impl Parcel {
    fn cost(&self) -> usize {
        match self {
            Parcel::Event(_, event) => OVERHEAD + event.payload_bytes(),
            Parcel::Look(_) => OVERHEAD,
        }
    }
}

/// Where events for one node are put in.
pub struct Peer {
    node: NodeId,
    parcels: mpsc::UnboundedSender<Parcel>,
    /// Bytes in the queue: it has no other bound.
    waiting: Arc<AtomicUsize>,
    /// Cancelled by the sender that finds the queue full. A link ends of it; a node's way to itself does not.
    broken: Option<CancellationToken>,
    /// When it was opened, in milliseconds of the keeper's clock.
    opened_ms: u64,
    /// When it last carried something, on the same clock.
    used_ms: AtomicU64,
    /// Whether it was opened for a device that had sent nothing yet.
    ahead: bool,
    carried: Arc<AtomicBool>,
}

/// The other end of a [`Peer`]'s queue.
pub struct Outgoing {
    parcels: mpsc::UnboundedReceiver<Parcel>,
    waiting: Arc<AtomicUsize>,
    broken: CancellationToken,
}

/// How a link ended.
#[derive(Debug)]
pub struct Ended {
    /// Why it broke; `None` when it ended in good order.
    pub failure: Option<&'static str>,
    /// Events of which it is not known that they arrived.
    pub left: Vec<Underway>,
}

impl Peer {
    /// A way to `node` that is opened at `now_ms`, `ahead` for a device that has sent nothing yet.
    #[expect(clippy::disallowed_methods, reason = "bounded in bytes, by `waiting`")]
    pub fn new(node: NodeId, now_ms: u64, ahead: bool) -> (Peer, Outgoing) {
        let (parcels, taken) = mpsc::unbounded_channel();
        let (waiting, broken) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let outgoing = Outgoing { parcels: taken, waiting: waiting.clone(), broken: broken.clone() };
        let broken = Some(broken);
        let (opened_ms, used_ms, carried) = (now_ms, now_ms.into(), Arc::default());
        (Peer { node, parcels, waiting, broken, opened_ms, used_ms, ahead, carried }, outgoing)
    }

    /// A node's way to its own dispatchers.
    pub fn own(node: NodeId) -> (Peer, Outgoing) {
        let (peer, outgoing) = Peer::new(node, 0, false);
        (Peer { broken: None, ..peer }, outgoing)
    }

    /// The node at the other end.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Whether this is the node's way to itself.
    pub fn is_own(&self) -> bool {
        self.broken.is_none()
    }

    /// When it last carried an event, or was opened.
    pub fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// What it is at `now_ms`.
    pub fn state(&self, now_ms: u64) -> State {
        let since = |ms| Duration::from_millis(now_ms.saturating_sub(ms));
        let idle = self.carried.load(Ordering::Relaxed).then(|| since(self.used_ms()));
        let waiting = self.waiting.load(Ordering::Relaxed);
        State::Open { age: since(self.opened_ms), idle, waiting, ahead: self.ahead }
    }

    /// Whether it has carried an event; also when it is gone.
    pub fn carried(&self) -> Arc<AtomicBool> {
        self.carried.clone()
    }

    /// Notes that it carries an event. True the first time, if it was opened ahead.
    pub fn begin_use(&self) -> bool {
        !self.carried.swap(true, Ordering::Relaxed) && self.ahead
    }

    /// Takes an event. False when it can't: the event has to go another way.
    pub fn carry(&self, stream: &StreamName, event: &Arc<Event>, now_ms: u64) -> bool {
        self.used_ms.store(now_ms, Ordering::Relaxed);
        self.put(Parcel::Event(stream.clone(), event.clone()))
    }

    /// Has the node look into a stream. Where the link is broken, its end does so anyway.
    pub fn look(&self, stream: &StreamName) {
        self.put(Parcel::Look(stream.clone()));
    }

    fn put(&self, parcel: Parcel) -> bool {
        let cost = parcel.cost();
        let before = self.waiting.fetch_add(cost, Ordering::Relaxed);
        if before > MAX_WAITING {
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
            if let Some(broken) = &self.broken {
                broken.cancel();
            }
            return false;
        }
        self.parcels.send(parcel).is_ok()
    }
}

impl Outgoing {
    /// Hands what comes in to this node's own dispatchers, as much at a time as there is, until no sender is left.
    pub async fn deliver(mut self, registry: Arc<Registry>) {
        let mut parcels = Vec::with_capacity(BATCH);
        let mut flush = Flush::default();
        while self.parcels.recv_many(&mut parcels, BATCH).await > 0 {
            // Publishes that were answered together come one after the other: those still to come share the flush.
            tokio::task::yield_now().await;
            while parcels.len() < BATCH
                && let Ok(parcel) = self.parcels.try_recv()
            {
                parcels.push(parcel);
            }
            for parcel in parcels.drain(..) {
                self.waiting.fetch_sub(parcel.cost(), Ordering::Relaxed);
                match parcel {
                    Parcel::Event(stream, event) => registry.message(&stream, event, Path::Local, &mut flush),
                    Parcel::Look(stream) => registry.sync_followed(&stream),
                }
            }
            registry.flush(&mut flush);
        }
    }

    /// Brings what comes in over a link, until no sender is left or the link fails.
    pub async fn send(mut self, mut wire: Wire) -> Ended {
        let mut unacked = Unacked::default();
        let failure = self.run(&mut wire, &mut unacked).await.err();
        // Nothing more gets in; a sender that comes too late gets an error.
        self.parcels.close();
        let mut left: Vec<_> = unacked.into_events().collect();
        while let Some(parcel) = self.parcels.recv().await {
            if let Parcel::Event(stream, event) = parcel {
                left.push((stream, event.id));
            }
        }
        Ended { failure, left }
    }

    async fn run(&mut self, wire: &mut Wire, unacked: &mut Unacked) -> Result<(), &'static str> {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ending = false;
        loop {
            if ending && unacked.is_empty() {
                return write(wire, [Frame::Bye]).await;
            }
            let late_at = unacked.late_at();
            let late = async {
                match late_at {
                    Some(late_at) => sleep_until(late_at).await,
                    None => std::future::pending().await,
                }
            };
            let taking = !ending && unacked.len() < MAX_UNACKED;
            tokio::select! {
                biased;
                () = self.broken.cancelled() => return Err("full"),
                answer = wire.next() => {
                    let Some(Ok(answer)) = answer else { return Err("cut") };
                    let acked = Ack::decode(answer.freeze()).is_some_and(|Ack(number)| unacked.acked(number));
                    if !acked {
                        return Err("nonsense");
                    }
                }
                () = late => return Err("late"),
                parcel = self.parcels.recv(), if taking => match parcel {
                    Some(parcel) => {
                        let frames = self.batch(parcel, unacked);
                        write(wire, frames).await?;
                    }
                    None => ending = true,
                },
                _ = pings.tick(), if !ending => {
                    let number = unacked.sent(None, Instant::now());
                    write(wire, [Frame::Ping(number)]).await?;
                }
            }
        }
    }

    /// A parcel, and what else is there.
    fn batch(&mut self, first: Parcel, unacked: &mut Unacked) -> Vec<Frame> {
        let now = Instant::now();
        let mut frames = Vec::new();
        let mut next = Some(first);
        while let Some(parcel) = next {
            self.waiting.fetch_sub(parcel.cost(), Ordering::Relaxed);
            frames.push(match parcel {
                Parcel::Event(stream, event) => {
                    let number = unacked.sent(Some((stream.clone(), event.id)), now);
                    Frame::Event(number, stream, event)
                }
                Parcel::Look(stream) => Frame::Look(unacked.sent(None, now), stream),
            });
            next = if frames.len() < BATCH { self.parcels.try_recv().ok() } else { None };
        }
        frames
    }
}

/// Writes frames. The other end may not read: then they are late by the time that this gives up.
async fn write(wire: &mut Wire, frames: impl IntoIterator<Item = Frame>) -> Result<(), &'static str> {
    let write = async {
        for frame in frames {
            wire.feed(frame.encode()).await?;
        }
        futures_util::SinkExt::<Bytes>::flush(wire).await
    };
    match timeout(ACK_TIME, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("cut"),
        Err(_) => Err("late"),
    }
}
