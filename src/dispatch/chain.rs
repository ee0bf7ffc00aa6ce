//! The chain rule: how a reader sees that nothing is missing between two events.
//!
//! Every event carries the id of the one before it in its stream. **The next event's `prev` equals the
//! position, or there is no next event and the stream's `last` equals the position; otherwise something
//! is missing.** The same rule judges live messages, sync answers, pages and rings.

use std::sync::Arc;

use crate::model::{Event, EventId, Fork, Gap, GapReason, Observer, Page};

/// Positions this far from the store's clock may be of a history that a failover has just ended.
const RECENT_MS: u64 = 60_000;

/// What a connection gets of one stream, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next event.
    Event(Arc<Event>),
    /// Events are missing here.
    Gap(Gap),
    /// An event that this connection need not be given any more: a newer one of its collapse key follows.
    Passed(EventId),
    /// The position moved without an event: no event has this id, and the stream goes on after it.
    Position(EventId),
    /// An event outside the stream's order, for connections at the live end: it moves nothing.
    Ephemeral(Arc<Event>),
}

impl Delivery {
    /// Where a connection that took it stands; a notice alone moves nothing.
    pub fn position(&self) -> Option<EventId> {
        match self {
            Delivery::Event(event) => Some(event.id),
            Delivery::Passed(id) | Delivery::Position(id) => Some(*id),
            Delivery::Gap(_) | Delivery::Ephemeral(_) => None,
        }
    }

    /// Who records the way of its event.
    pub fn observer(&self) -> Option<&Arc<dyn Observer>> {
        match self {
            Delivery::Event(event) => event.observer(),
            _ => None,
        }
    }
}

/// A delivery, and where a connection that can't take it now goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What comes next.
    pub delivery: Delivery,
    /// The place of a connection that took everything before it.
    pub resume: Chain,
}

/// A reader's place in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    position: EventId,
    /// A break ahead that is no news to this reader, because a gap notice that it got covers it: the
    /// one that the mark of a fork makes on purpose.
    notified: Option<Jump>,
}

/// From the last position before a break of the chain to the first one after it. Both ends count: events
/// that are missing right before the break, trimmed meanwhile, are another loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Jump {
    from: EventId,
    to: EventId,
}

impl Chain {
    /// A reader that has seen everything up to and including `position`.
    pub fn at(position: EventId) -> Self {
        Chain { position, notified: None }
    }

    /// The id of the last event seen, or the id at which the stream was joined.
    pub fn position(&self) -> EventId {
        self.position
    }

    /// Whether an event with this `prev` is the next one.
    pub fn continues_with(&self, prev: EventId) -> bool {
        prev == self.position || self.jumps_to(prev)
    }

    /// What the next event may have for its `prev`.
    pub fn continuations(&self) -> impl Iterator<Item = EventId> + use<> {
        let jump = self.notified.filter(|jump| jump.from == self.position);
        [Some(self.position), jump.map(|jump| jump.to)].into_iter().flatten()
    }

    /// Whether a break lies ahead that is no news to this reader, but would be to others.
    pub fn is_before_notified_break(&self) -> bool {
        self.notified.is_some_and(|jump| jump.from >= self.position)
    }

    /// A reader at `position` that got the notice that there is nothing between there and `to`.
    pub fn notified_up_to(position: EventId, to: EventId) -> Self {
        Chain { position, notified: Some(Jump { from: position, to }) }
    }

    fn jumps_to(&self, to: EventId) -> bool {
        self.notified == Some(Jump { from: self.position, to })
    }

    /// The same knowledge at an earlier or later position.
    pub fn moved_to(self, position: EventId) -> Self {
        Chain { position, ..self }
    }

    /// Moves over `event`, which has to be the next one.
    pub fn event(&mut self, event: &Arc<Event>) -> Outgoing {
        debug_assert!(self.continues_with(event.prev));
        let resume = *self;
        self.position = event.id;
        Outgoing { delivery: Delivery::Event(event.clone()), resume }
    }

    /// Whether `page`, read after this position, shows that something is missing right here.
    pub fn is_broken_by(&self, page: &Page) -> bool {
        match page.events.first() {
            Some(event) => !self.continues_with(event.prev),
            None => !page.more && !self.continues_with(page.last),
        }
    }

    /// Whether `page`, read after this position, shows that what comes next is no longer kept.
    pub fn is_gone_in(&self, page: &Page) -> bool {
        self.is_broken_by(page) && self.reason(page) != GapReason::Lost
    }

    /// Reads on through a page that was asked for after this position: what to deliver, with a gap
    /// notice before whatever the chain does not connect.
    ///
    /// When the page is the log's end, the position afterwards is the stream's `last`.
    pub fn read(&mut self, page: &Page) -> Vec<Outgoing> {
        if self.position == EventId::ZERO && page.is_complete() {
            // A reader from before the first event stands where the history began, unless some of it is gone.
            self.position = page.epoch;
        }
        let mut outgoing = Vec::with_capacity(page.events.len() + 2);
        for event in &page.events {
            if !self.continues_with(event.prev) {
                outgoing.push(self.gap(event.prev, event.id, page));
                // The notice covers everything up to the event, which connects to its own `prev`.
                self.position = event.prev;
            } else if page.fork.is_some_and(|fork| fork.is_first(event) && !self.is_notified_of(fork)) {
                outgoing.push(self.gap(event.prev, event.id, page));
            }
            outgoing.push(self.event(event));
        }
        if !page.more && page.last != self.position {
            let covered = self.jumps_to(page.last);
            let gap = (!covered).then(|| self.gap(page.last, page.last, page));
            let resume = if covered { *self } else { Chain::notified_up_to(self.position, page.last) };
            outgoing.extend(gap);
            self.position = page.last;
            outgoing.push(Outgoing { delivery: Delivery::Position(page.last), resume });
        }
        outgoing
    }

    /// The notice of what is missing before `next`, which follows `prev`.
    fn gap(&mut self, prev: EventId, next: EventId, page: &Page) -> Outgoing {
        let resume = *self;
        let gap = self.missing(prev, next, page);
        // The hole before `next` covers what a fork lost only if the lost tail began before it.
        let covered = page.fork.filter(|fork| fork.ancestor < next && fork.before != fork.mark);
        self.notified = covered.map(|fork| Jump { from: fork.before, to: fork.mark });
        Outgoing { delivery: Delivery::Gap(gap), resume }
    }

    fn missing(&self, prev: EventId, next: EventId, page: &Page) -> Gap {
        let position = self.position;
        match page.fork {
            // The tail is missing right here, whether or not the log reaches back.
            Some(fork) if prev == position && position == fork.ancestor => {
                Gap { after: position, next, reason: GapReason::Lost }
            }
            // Nothing is missing at the mark itself: the reader passed the place of the loss before it was known.
            Some(fork) if prev == fork.mark && position == fork.before && fork.next <= position => {
                Gap { after: fork.ancestor, next: fork.next, reason: GapReason::Lost }
            }
            _ => Gap { after: position, next, reason: self.reason(page) },
        }
    }

    /// Whether a notice that this reader was given covers what the fork lost.
    fn is_notified_of(&self, fork: Fork) -> bool {
        self.notified.is_some_and(|jump| jump.to == fork.mark)
    }

    /// Whether `page`, read after this position, shows that the position belongs to another history, while the store
    /// has no fork on record that says where the two parted.
    pub fn is_unexplained_by(&self, page: &Page) -> bool {
        self.is_broken_by(page)
            && page.from == self.position
            && self.position >= page.epoch
            && self.reason(page) == GapReason::Lost
            && !self.crosses_mark(page)
            && self.position.ms.abs_diff(page.now_ms) < RECENT_MS
    }

    /// Why `page` does not connect to the position.
    fn reason(&self, page: &Page) -> GapReason {
        let position = self.position;
        if position > page.last || page.from != position || (position < page.epoch && position != EventId::ZERO) {
            // The store has less than the reader, or began anew after it. A position that is merely
            // older than positions are kept for (`epoch` anew, long after) can't be distinguished from a flush.
            GapReason::Lost
        } else if page.first.is_none() {
            // The position outlives the log: its time was up.
            GapReason::Expired
        } else if page.first.is_some_and(|first| first > position) && !self.crosses_mark(page) {
            GapReason::Trimmed
        } else {
            GapReason::Lost
        }
    }

    /// Whether the hole after the position is the one that a fork left behind.
    fn crosses_mark(&self, page: &Page) -> bool {
        let Some(fork) = page.fork else { return false };
        page.events.first().map_or(page.last, |event| event.prev) == fork.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::fixtures::{self, event, id};

    fn page(from: u64, events: &[(u64, u64)], last: u64, first: Option<u64>) -> Page {
        Page { first: first.map(id), ..fixtures::page(from, events, last) }
    }

    fn read(chain: &mut Chain, page: &Page) -> Vec<Delivery> {
        chain.read(page).into_iter().map(|next| next.delivery).collect()
    }

    fn gap(after: u64, next: u64, reason: GapReason) -> Delivery {
        Delivery::Gap(Gap { after: id(after), next: id(next), reason })
    }

    #[test]
    fn a_page_that_connects_is_delivered_without_notice() {
        let mut chain = Chain::at(id(5));
        let page = page(5, &[(6, 5), (8, 6)], 8, Some(2));
        assert!(!chain.is_broken_by(&page));
        assert_eq!(read(&mut chain, &page), [Delivery::Event(event(6, 5)), Delivery::Event(event(8, 6))]);
        assert_eq!(chain.position(), id(8));
    }

    #[test]
    fn an_up_to_date_reader_gets_no_gap_even_when_the_log_is_gone() {
        let mut chain = Chain::at(id(8));
        let page = page(8, &[], 8, None);
        assert!(!chain.is_broken_by(&page));
        assert_eq!(read(&mut chain, &page), []);
    }

    #[test]
    fn trimmed_history_is_a_gap_up_to_the_first_kept_event() {
        let mut chain = Chain::at(id(5));
        let page = page(5, &[(20, 19), (21, 20)], 21, Some(20));
        assert!(chain.is_broken_by(&page));
        let read = read(&mut chain, &page);
        assert_eq!(read[0], gap(5, 20, GapReason::Trimmed));
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn an_expired_log_is_a_gap_up_to_the_newest_id() {
        let mut chain = Chain::at(id(5));
        let read = read(&mut chain, &page(5, &[], 9, None));
        assert_eq!(read, [gap(5, 9, GapReason::Expired), Delivery::Position(id(9))]);
        assert_eq!(chain.position(), id(9));
    }

    #[test]
    fn a_reader_that_was_given_nothing_yet_misses_nothing_that_was_before() {
        let mut chain = Chain::at(EventId::ZERO);
        let mut page = page(1, &[(6, 1)], 6, Some(6));
        page.from = EventId::ZERO;
        assert_eq!(read(&mut chain, &page), [Delivery::Event(event(6, 1))]);
    }

    #[test]
    fn a_position_above_the_newest_id_is_a_lost_tail() {
        let mut chain = Chain::at(id(50));
        let read = read(&mut chain, &page(50, &[], 9, Some(2)));
        assert_eq!(read, [gap(50, 9, GapReason::Lost), Delivery::Position(id(9))]);
    }

    #[test]
    fn a_flush_is_reported_to_a_reader_that_waited_on_an_empty_stream() {
        let mut chain = Chain::at(id(5));
        let mut flushed = page(5, &[], 9, None);
        flushed.epoch = id(9);
        assert_eq!(read(&mut chain, &flushed)[0], gap(5, 9, GapReason::Lost));
    }

    #[test]
    fn the_mark_of_a_fork_breaks_the_chain_only_for_readers_without_the_gap() {
        let fork = Some(Fork { ancestor: id(5), head: id(9), before: id(11), mark: id(12), next: id(11) });
        // This one had seen the lost tail up to 9: one gap, then the new history without a second.
        let mut chain = Chain::at(id(9));
        let mut new_history = page(5, &[(11, 5), (13, 12)], 13, Some(2));
        new_history.fork = fork;
        assert_eq!(
            read(&mut chain, &new_history),
            [gap(9, 11, GapReason::Lost), Delivery::Event(event(11, 5)), Delivery::Event(event(13, 12))]
        );
        // This one had not seen the tail: what it missed shows at the mark.
        let mut chain = Chain::at(id(5));
        assert_eq!(
            read(&mut chain, &new_history),
            [gap(5, 11, GapReason::Lost), Delivery::Event(event(11, 5)), Delivery::Event(event(13, 12))]
        );
        // This one passed the place of the loss before anybody knew of it.
        let mut chain = Chain::at(id(11));
        let mut after_mark = page(11, &[(13, 12)], 13, Some(2));
        after_mark.fork = fork;
        assert_eq!(read(&mut chain, &after_mark), [gap(5, 11, GapReason::Lost), Delivery::Event(event(13, 12))]);
        let mut chain = Chain::at(id(11));
        let mut at_mark = page(11, &[], 12, Some(2));
        at_mark.fork = fork;
        assert_eq!(read(&mut chain, &at_mark), [gap(5, 11, GapReason::Lost), Delivery::Position(id(12))]);
    }

    #[test]
    fn a_lost_tail_is_named_right_behind_a_log_that_was_trimmed_up_to_it() {
        let mut new_history = page(5, &[(11, 5), (13, 12)], 13, Some(11));
        new_history.fork = Some(Fork { ancestor: id(5), head: id(9), before: id(11), mark: id(12), next: id(11) });
        assert_eq!(read(&mut Chain::at(id(5)), &new_history)[0], gap(5, 11, GapReason::Lost));
    }

    #[test]
    fn a_fork_that_lost_nothing_to_readers_before_it_is_not_reported_to_them() {
        // Nothing was raised: the histories share nothing.
        let mut reborn = page(5, &[(11, 5)], 11, Some(2));
        reborn.fork = Some(Fork { ancestor: id(5), head: id(9), before: id(11), mark: id(11), next: id(11) });
        assert_eq!(read(&mut Chain::at(id(5)), &reborn), [Delivery::Event(event(11, 5))]);
    }

    #[test]
    fn a_position_that_the_store_does_not_know_is_unexplained_until_a_fork_says_where_it_left() {
        let chain = Chain::at(id(9));
        let mut new_history = page(9, &[(11, 5)], 11, Some(2));
        assert!(chain.is_unexplained_by(&new_history));
        assert!(chain.is_unexplained_by(&page(9, &[], 8, Some(2))), "above all that there is");
        new_history.now_ms = 10 * RECENT_MS;
        assert!(!chain.is_unexplained_by(&new_history), "somebody made it up, or kept it for long");
        let mut explained = page(5, &[(11, 5)], 12, Some(2));
        explained.fork = Some(Fork { ancestor: id(5), head: id(9), before: id(11), mark: id(12), next: id(11) });
        assert!(!chain.is_unexplained_by(&explained));
        assert!(!chain.is_unexplained_by(&page(9, &[(21, 20)], 21, Some(21))), "trimmed");
        assert!(!chain.is_unexplained_by(&page(9, &[(11, 9)], 11, Some(2))));
        assert!(!Chain::at(id(11)).is_unexplained_by(&explained), "the mark is ahead");
    }

    #[test]
    fn a_gap_before_a_fork_covers_nothing_of_what_the_fork_lost() {
        // It stands on the lost side of an older fork, which the store has forgotten for this one at 11.
        let mut chain = Chain::at(id(9));
        let mut page = page(9, &[(11, 10), (12, 11), (21, 20)], 21, Some(2));
        page.fork = Some(Fork { ancestor: id(11), head: id(15), before: id(12), mark: id(20), next: id(12) });
        let read = read(&mut chain, &page);
        assert_eq!((&read[0], &read[2]), (&gap(9, 11, GapReason::Lost), &gap(11, 12, GapReason::Lost)));
    }

    #[test]
    fn who_stops_between_two_gaps_of_one_page_is_notified_of_the_second() {
        let mut page = page(9, &[(11, 10), (21, 20)], 21, Some(2));
        page.fork = Some(Fork { ancestor: id(11), head: id(15), before: id(11), mark: id(20), next: id(20) });
        let outgoing = Chain::at(id(9)).read(&page);
        assert_eq!(outgoing[1].delivery, Delivery::Event(event(11, 10)));
        let mut resumed = outgoing[1].resume;
        page.from = id(10);
        assert_eq!(read(&mut resumed, &page)[1], gap(11, 21, GapReason::Lost));
    }

    #[test]
    fn the_end_of_a_page_is_judged_only_when_the_log_ends_there() {
        let mut chain = Chain::at(id(5));
        let mut first = page(5, &[(6, 5)], 30, Some(2));
        first.more = true;
        assert_eq!(read(&mut chain, &first), [Delivery::Event(event(6, 5))]);
        assert_eq!(chain.position(), id(6));
    }
}
