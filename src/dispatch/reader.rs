//! Reading on through a stream's pages, as a value: what was read and not handed over yet.

use std::collections::VecDeque;

use super::chain::{Chain, Delivery, Outgoing};
use crate::model::{EventId, Page};

/// A place in a stream, and what was read behind it.
#[derive(Debug)]
pub struct Reader {
    /// The place up to which everything was handed over or is pending.
    chain: Chain,
    pending: VecDeque<Outgoing>,
    /// The last page brought nothing, so reading the same one again would not either.
    stalled: bool,
}

impl Reader {
    /// A reader at a position of a stream.
    pub fn new(chain: Chain) -> Self {
        Reader { chain, pending: VecDeque::new(), stalled: false }
    }

    /// The position of what was read so far.
    pub fn position(&self) -> EventId {
        self.chain.position()
    }

    /// Whether the next page must be newer than the last.
    pub fn needs_fresh_page(&self) -> bool {
        self.stalled
    }

    /// Whether a break lies ahead that this reader was notified of, while those at the live end may not know of it.
    pub fn is_before_notified_break(&self) -> bool {
        self.chain.is_before_notified_break()
    }

    /// Whether `page` shows that the position is of another history, of which the store does not know yet.
    pub fn is_unexplained_by(&self, page: &Page) -> bool {
        self.chain.is_unexplained_by(page)
    }

    /// A page that was read after [`Reader::position`].
    pub fn page(&mut self, page: &Page) {
        let mut outgoing = self.chain.read(page);
        self.stalled = outgoing.is_empty();
        for next in &mut outgoing {
            if let Delivery::Event(event) = &next.delivery
                && page.is_superseded(event)
            {
                next.delivery = Delivery::Passed(event.id);
            }
        }
        self.pending.extend(outgoing);
    }

    /// The next delivery, to be handed over and then confirmed with [`Reader::taken`].
    pub fn next(&self) -> Option<&Delivery> {
        self.pending.front().map(|next| &next.delivery)
    }

    /// The connection took the delivery that [`Reader::next`] gave.
    pub fn taken(&mut self) {
        self.pending.pop_front();
    }

    /// Gives up what was read but not handed over, to be read again when it is wanted.
    pub fn give_back(&mut self) {
        if let Some(next) = self.pending.front() {
            self.chain = next.resume;
            self.pending.clear();
            self.stalled = false;
        }
    }

    /// The live end handed over everything up to `position`.
    pub(super) fn moved_to(&mut self, position: EventId) {
        self.chain = self.chain.moved_to(position);
        self.stalled = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::fixtures::{self, id};

    fn page(from: u64, events: std::ops::Range<u64>, last: u64, more: bool) -> Page {
        let events: Vec<_> = events.map(|n| (n, n - 1)).collect();
        Page { more, ..fixtures::page(from, &events, last) }
    }

    /// Takes what is pending: ids of events, 0 for anything else.
    fn take(reader: &mut Reader) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(delivery) = reader.next() {
            taken.push(if let Delivery::Event(event) = delivery { event.id.ms } else { 0 });
            reader.taken();
        }
        taken
    }

    #[test]
    fn what_is_given_back_is_read_again_from_where_the_client_is() {
        let mut reader = Reader::new(Chain::at(id(1)));
        reader.page(&page(1, 2..8, 7, false));
        for _ in 0..3 {
            reader.taken();
        }
        reader.give_back();
        assert_eq!((reader.position(), reader.next()), (id(4), None));
        reader.page(&page(4, 5..8, 7, false));
        assert_eq!(take(&mut reader), [5, 6, 7]);
    }

    #[test]
    fn a_reader_goes_on_from_page_to_page() {
        let mut reader = Reader::new(Chain::at(id(5)));
        reader.page(&page(5, 6..8, 9, true));
        assert_eq!((take(&mut reader), reader.position()), (vec![6, 7], id(7)));
        reader.page(&page(7, 8..10, 9, false));
        assert_eq!((take(&mut reader), reader.position()), (vec![8, 9], id(9)));
    }

    #[test]
    fn what_the_connection_did_not_take_stays_pending() {
        let mut reader = Reader::new(Chain::at(id(5)));
        reader.page(&page(5, 6..8, 7, false));
        for _ in 0..2 {
            assert!(matches!(reader.next(), Some(Delivery::Event(event)) if event.id == id(6)));
        }
        reader.taken();
        assert_eq!(take(&mut reader), [7]);
    }

    #[test]
    fn a_page_that_brings_nothing_asks_for_a_fresh_one() {
        let mut reader = Reader::new(Chain::at(id(5)));
        reader.page(&page(5, 6..6, 5, false));
        assert!(reader.needs_fresh_page() && reader.next().is_none());
        reader.page(&page(5, 6..7, 6, false));
        assert!(!reader.needs_fresh_page());
    }

    #[test]
    fn what_the_live_end_handed_over_is_not_read_again() {
        let mut reader = Reader::new(Chain::at(id(5)));
        reader.page(&page(5, 6..6, 5, false));
        reader.moved_to(id(7));
        assert_eq!(reader.position(), id(7));
        assert!(!reader.needs_fresh_page(), "it is another page now");
        reader.page(&page(7, 8..9, 8, false));
        assert_eq!(take(&mut reader), [8]);
    }

    #[test]
    fn a_reader_that_trimming_has_overtaken_tells_the_gap_first() {
        let mut reader = Reader::new(Chain::at(id(5)));
        let mut overtaken = page(5, 20..21, 20, false);
        overtaken.first = Some(id(20));
        reader.page(&overtaken);
        assert_eq!(take(&mut reader), [0, 20]);
    }
}
