//! The temporary dispatcher: it feeds one connection with one stream from a position on, at the pace at
//! which the connection takes it, and is gone once the connection has joined the live end.
//!
//! It is made when a connection resumes behind the ring, and when a live connection's outbox overflows:
//! resume and slowness are the same thing. [`CatchUp`] is a value that decides what comes next; [`catch_up`] does that.

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

/// How often a page is read again for a position that the store does not know: some five seconds, in which the nodes
/// that have shown the position report that a failover lost it, or in which this node leaves a store that was replaced.
const UNEXPLAINED_TRIES: u32 = 6;

/// A temporary dispatcher as a value. Its driver does what [`CatchUp::next`] returns, and reports the outcome.
#[derive(Debug)]
pub struct CatchUp {
    reader: Reader,
    /// The dispatcher was synced since the last page.
    synced: bool,
    /// Pages so far that did not know the position, nor what became of it.
    unexplained: u32,
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
    /// Read a page, then call [`CatchUp::page`] or [`CatchUp::failed`].
    Read {
        /// The page begins after it.
        position: EventId,
        /// Whether a page that was read for others before is too old.
        fresh: bool,
    },
    /// Wait, longer each time, then call [`CatchUp::paused`].
    Pause,
    /// It is over: the connection has joined the live end, or has ended.
    Done,
}

impl CatchUp {
    /// From a place in the stream on.
    pub fn new(chain: Chain) -> Self {
        CatchUp { reader: Reader::new(chain), synced: false, unexplained: 0, then: Then::HandOver }
    }

    /// What to do now.
    pub fn next(&self) -> Next<'_> {
        match self.then {
            Then::HandOver => match self.reader.next() {
                Some(delivery) => Next::Offer(delivery),
                // At the live end it would be notified a second time.
                None if self.reader.is_before_notified_break() && !self.reader.needs_fresh_page() => self.read(),
                None => Next::Join(self.reader.position()),
            },
            Then::WaitForRoom { with_page } => Next::Room(with_page.then_some(KEEP_PAGE)),
            Then::Sync => Next::Sync,
            Then::Pause => Next::Pause,
            Then::Read => self.read(),
            Then::Done => Next::Done,
        }
    }

    fn read(&self) -> Next<'_> {
        let fresh = self.reader.needs_fresh_page() || self.unexplained > 0;
        Next::Read { position: self.reader.position(), fresh }
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
        if self.unexplained < UNEXPLAINED_TRIES && self.reader.is_unexplained_by(page) {
            self.unexplained += 1;
            // This node may be the one that has to report it.
            self.then = if self.unexplained == 1 { Then::Sync } else { Then::Pause };
            return false;
        }
        self.unexplained = 0;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::fixtures::{self, id};
    use crate::model::{Fork, Gap, GapReason};

    fn page(from: u64, events: &[(u64, u64)], last: u64, fork: Option<Fork>) -> Page {
        Page { fork, ..fixtures::page(from, events, last) }
    }

    /// 6 to 9 were lost, and 11 was stored before that was reported.
    fn fork() -> Option<Fork> {
        Some(Fork { ancestor: id(5), head: id(9), before: id(11), mark: id(12), next: id(11) })
    }

    fn lost(after: u64, next: u64) -> Delivery {
        Delivery::Gap(Gap { after: id(after), next: id(next), reason: GapReason::Lost })
    }

    /// One that comes back with a lost position, and has read a page that does not know it.
    fn unexplained() -> CatchUp {
        let mut catch_up = CatchUp::new(Chain::at(id(9)));
        catch_up.joined(Joining::Behind);
        assert!(!catch_up.page(&page(9, &[(11, 5)], 11, None)));
        assert_eq!(catch_up.next(), Next::Sync, "this node may have to report it");
        catch_up.synced();
        catch_up.joined(Joining::Behind);
        assert_eq!(catch_up.next(), Next::Read { position: id(9), fresh: true });
        catch_up
    }

    #[test]
    fn a_position_that_the_store_does_not_know_is_read_on_from_once_its_loss_is_reported() {
        let mut catch_up = unexplained();
        assert!(!catch_up.page(&page(9, &[(11, 5)], 11, None)));
        assert_eq!(catch_up.next(), Next::Pause);
        catch_up.paused();
        assert!(catch_up.page(&page(5, &[(11, 5)], 12, fork())));
        assert_eq!(catch_up.next(), Next::Offer(&lost(9, 11)));
    }

    #[test]
    fn no_page_is_held_for_a_client_that_takes_nothing() {
        let mut catch_up = CatchUp::new(Chain::at(id(5)));
        catch_up.page(&page(5, &[(6, 5), (7, 6)], 7, None));
        catch_up.offered(Offer::Taken { flush: false });
        catch_up.offered(Offer::Full);
        assert_eq!(catch_up.next(), Next::Room(Some(KEEP_PAGE)));
        catch_up.no_room();
        assert_eq!(catch_up.next(), Next::Room(None));
        catch_up.has_room();
        assert_eq!(catch_up.next(), Next::Join(id(6)), "nothing is left to be handed over");
        catch_up.joined(Joining::Behind);
        assert_eq!(catch_up.next(), Next::Read { position: id(6), fresh: false });
    }

    #[test]
    fn a_loss_that_nobody_reports_is_told_in_the_end() {
        let mut catch_up = unexplained();
        let unknown = page(9, &[(11, 5)], 11, None);
        let pauses = (0..100).take_while(|_| {
            let known = catch_up.page(&unknown);
            catch_up.paused();
            !known
        });
        assert_eq!(pauses.count() as u32, UNEXPLAINED_TRIES - 1);
        catch_up.page(&unknown);
        assert_eq!(catch_up.next(), Next::Offer(&lost(9, 11)));
    }

    #[test]
    fn who_was_told_of_a_loss_joins_the_live_end_behind_its_mark() {
        let mut catch_up = CatchUp::new(Chain::at(id(9)));
        catch_up.joined(Joining::Behind);
        catch_up.page(&Page { more: true, ..page(5, &[(11, 5)], 13, fork()) });
        for _ in 0..2 {
            catch_up.offered(Offer::Taken { flush: false });
        }
        assert_eq!(catch_up.next(), Next::Read { position: id(11), fresh: false });
        catch_up.page(&page(11, &[(13, 12)], 13, fork()));
        assert!(matches!(catch_up.next(), Next::Offer(Delivery::Event(_))));
        catch_up.offered(Offer::Taken { flush: false });
        assert_eq!(catch_up.next(), Next::Join(id(13)));
    }
}
