//! The temporary dispatcher: it feeds one connection with one stream from a position on, at the pace at
//! which the connection takes it, and is gone once the connection has joined the live end.
//!
//! It is made when a connection resumes behind the ring, and when a live connection's outbox overflows:
//! resume and slowness are the same thing. [`CatchUp`] is a value that says what comes next; [`catch_up`] does that.

use std::sync::Arc;
use std::time::Duration;

use super::chain::{Chain, Delivery};
use super::dispatcher::{Joining, Subscriber};
use super::reader::Reader;
use super::registry::{Attached, Registry};
use super::sink::Offer;
use crate::backoff::Backoff;
use crate::model::{EventId, Page};

/// The wait after a failed page read, at first and at the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// How long a client may take nothing before the page that was read for it is given back. Thousands that
/// have stopped reading, each at a place of its own, must not hold a page each.
const KEEP_PAGE: Duration = Duration::from_secs(1);

/// A temporary dispatcher as a value. Whoever drives it does what [`CatchUp::next`] says, and reports what came of it.
#[derive(Debug)]
pub struct CatchUp {
    reader: Reader,
    /// The dispatcher was synced since the last page.
    synced: bool,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Hand over what was read, then join.
    HandOver,
    WaitForRoom {
        with_page: bool,
    },
    Sync,
    Pause,
    Read,
    Done,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// Offer this to the connection, then call [`CatchUp::offered`].
    Offer(&'a Delivery),
    /// Wait until the connection has room, but not longer than this, if it is given; then call [`CatchUp::has_room`] or
    /// [`CatchUp::no_room`].
    Room(Option<Duration>),
    /// Try to join the live end at this position, then call [`CatchUp::joined`].
    Join(EventId),
    /// Have the dispatcher synced, wait for what comes of it, then call [`CatchUp::synced`].
    Sync,
    /// Read the page after this position, a new one if `fresh`; then call [`CatchUp::page`] or [`CatchUp::failed`].
    Read { position: EventId, fresh: bool },
    /// Wait, longer each time, then call [`CatchUp::paused`].
    Pause,
    /// It is over: the connection has joined the live end, or has ended.
    Done,
}

impl CatchUp {
    /// From a place in the stream on.
    pub fn new(chain: Chain) -> Self {
        CatchUp { reader: Reader::new(chain), synced: false, then: Then::HandOver }
    }

    /// What to do now.
    pub fn next(&self) -> Next<'_> {
        match self.then {
            Then::HandOver => match self.reader.next() {
                Some(delivery) => Next::Offer(delivery),
                None => Next::Join(self.reader.position()),
            },
            Then::WaitForRoom { with_page } => Next::Room(with_page.then_some(KEEP_PAGE)),
            Then::Sync => Next::Sync,
            Then::Pause => Next::Pause,
            Then::Read => Next::Read { position: self.reader.position(), fresh: self.reader.needs_fresh_page() },
            Then::Done => Next::Done,
        }
    }

    /// What became of the offer.
    pub fn offered(&mut self, offer: Offer) {
        match offer {
            Offer::Taken { .. } => self.reader.taken(),
            Offer::Full => self.then = Then::WaitForRoom { with_page: true },
            Offer::Closed => self.then = Then::Done,
        }
    }

    /// The connection has room, or has ended.
    pub fn has_room(&mut self) {
        self.then = Then::HandOver;
    }

    /// The connection took nothing for a while: what was read for it is given up.
    pub fn no_room(&mut self) {
        self.reader.give_back();
        self.then = Then::WaitForRoom { with_page: false };
    }

    /// What became of the attempt to join.
    pub fn joined(&mut self, joining: Joining) {
        self.then = match joining {
            Joining::Joined | Joining::Closed => Then::Done,
            Joining::Partly(position) => {
                self.reader.moved_to(position);
                Then::WaitForRoom { with_page: false }
            }
            // Another node was faster, or nothing follows in the store although the live end is elsewhere:
            // the store lost its tail, and nobody has noticed so far. After a sync it is known.
            Joining::Ahead if !self.synced => Then::Sync,
            Joining::Behind if !self.synced && self.reader.needs_fresh_page() => Then::Sync,
            Joining::Ahead | Joining::Behind => {
                let pauses = self.synced && self.reader.needs_fresh_page();
                self.synced = false;
                if pauses { Then::Pause } else { Then::Read }
            }
        };
    }

    /// The dispatcher was synced, or that took too long.
    pub fn synced(&mut self) {
        self.synced = true;
        self.then = Then::HandOver;
    }

    /// The page that was asked for. True when it brought something.
    pub fn page(&mut self, page: &Page) -> bool {
        self.reader.page(page);
        self.then = Then::HandOver;
        !self.reader.needs_fresh_page()
    }

    /// There was no page.
    pub fn failed(&mut self) {
        self.then = Then::Pause;
    }

    /// The pause is over.
    pub fn paused(&mut self) {
        self.then = Then::Read;
    }
}

/// Runs a temporary dispatcher until the connection has joined, left or ended. `attached` keeps the
/// stream's dispatcher here for as long.
pub async fn catch_up(registry: Arc<Registry>, attached: Attached, subscriber: Subscriber, chain: Chain) {
    let _counted = registry.metrics().count_temporary();
    let (dispatcher, sink) = (attached.dispatcher(), &subscriber.sink);
    let mut catching_up = CatchUp::new(chain);
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut flush = false;
    loop {
        let next = catching_up.next();
        if flush && !matches!(next, Next::Offer(_)) {
            sink.flush();
            flush = false;
        }
        match next {
            Next::Offer(delivery) => {
                let offer = sink.offer(subscriber.slot, dispatcher.stream(), delivery);
                flush |= matches!(offer, Offer::Taken { flush: true } | Offer::Full);
                catching_up.offered(offer);
            }
            Next::Room(None) => {
                sink.room().await;
                catching_up.has_room();
            }
            Next::Room(Some(limit)) => match tokio::time::timeout(limit, sink.room()).await {
                Ok(()) => catching_up.has_room(),
                Err(_) => catching_up.no_room(),
            },
            Next::Join(position) => {
                let joining = dispatcher.join(&subscriber, position);
                // What it took out of the ring.
                flush |= matches!(joining, Joining::Joined | Joining::Partly(_));
                catching_up.joined(joining);
            }
            Next::Sync => {
                registry.sync_and_wait(dispatcher).await;
                catching_up.synced();
            }
            Next::Read { position, fresh } => {
                let page = tokio::select! {
                    page = registry.pages().after(dispatcher.stream(), position, fresh) => page,
                    () = subscriber.ended() => return,
                };
                match page {
                    Ok(page) => {
                        if catching_up.page(&page) {
                            backoff.reset();
                        }
                        registry.hand_on(dispatcher, &page);
                    }
                    Err(error) => {
                        tracing::debug!(stream = %dispatcher.stream(), %error, "catching up waits for the store");
                        catching_up.failed();
                    }
                }
            }
            Next::Pause => {
                if tokio::time::timeout(backoff.next_wait(), subscriber.ended()).await.is_ok() {
                    return;
                }
                catching_up.paused();
            }
            Next::Done => return,
        }
    }
}
