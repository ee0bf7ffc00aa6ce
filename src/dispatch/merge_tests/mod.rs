//! What a merge delivers and asks, step by step.

mod forks;
mod trimming;

use super::*;
use crate::dispatch::fixtures::{event, id, page};
use crate::model::{EventType, Fork, Gap, GapReason};

/// Read after `from`: all up to the newest event, `last`, is trimmed.
fn trimmed(from: u64, last: u64) -> Page {
    Page { first: Some(id(last)), ..page(from, &[(last, last - 1)], last) }
}

fn fork(ancestor: u64, head: u64, [next, before]: [u64; 2], mark: u64) -> Option<Fork> {
    Some(Fork { ancestor: id(ancestor), head: id(head), before: id(before), mark: id(mark), next: id(next) })
}

/// The machine with what it delivers, as short text.
struct Stream {
    merge: Merge,
    out: Vec<Outgoing>,
    now: Instant,
}

impl Stream {
    /// Attached at 5.
    fn new() -> Self {
        Stream::attached(&page(5, &[], 5), &[])
    }

    /// Attached while these came.
    fn attached(page: &Page, early: &[(u64, u64)]) -> Self {
        let (mut queue, now) = (Early::new(Budget::new(1 << 20)), Instant::now());
        for (at, prev) in early {
            queue.push(event(*at, *prev), 0);
        }
        Stream { merge: Merge::attached(page, queue, Budget::new(1 << 20), now), out: Vec::new(), now }
    }

    /// Attached at 5, with the events from 6 up to `head` in the ring.
    fn at(head: u64) -> Self {
        let mut stream = Stream::new();
        stream.come(6..=head);
        assert!(stream.is_settled());
        stream.out.clear();
        stream
    }

    /// The same, with a sync on its way.
    fn syncing(head: u64) -> Self {
        let mut stream = Stream::at(head);
        stream.sync();
        assert_eq!(stream.asks(), sync(head));
        stream
    }

    /// At 9, of which 8 and 9 are lost, and with a recovery on its way.
    fn recovering() -> Self {
        let mut stream = Stream::syncing(9);
        stream.answered(&page(9, &[], 7));
        assert_eq!(stream.asks(), recover(9, &[9, 8, 7, 6]));
        stream
    }

    fn message(&mut self, at: u64, prev: u64) {
        self.merge.message(event(at, prev), self.now, &mut self.out);
    }

    /// Messages of events that each follow the one of the id before.
    fn come(&mut self, events: impl IntoIterator<Item = u64>) {
        events.into_iter().for_each(|at| self.message(at, at - 1));
    }

    fn sync(&mut self) {
        self.merge.want_sync(Urgency::Routine);
    }

    /// What is asked now.
    fn asks(&mut self) -> Option<Question> {
        self.merge.question()
    }

    /// Lets the wait that runs come to its end; gives how long it was.
    fn wait(&mut self) -> Option<Duration> {
        let until = self.merge.deadline()?;
        let waited = until - self.now;
        self.now = until;
        self.merge.tick(until);
        Some(waited)
    }

    fn answered(&mut self, page: &Page) {
        self.merge.answered(page, self.now, &mut self.out);
    }

    fn failed(&mut self) {
        self.merge.failed(self.now);
    }

    fn is_settled(&self) -> bool {
        self.merge.is_settled()
    }

    /// What came out since this was last called: ids of events, `after..next reason`, `@position`.
    fn delivered(&mut self) -> String {
        let short = |step: Outgoing| match step.delivery {
            Delivery::Event(event) => event.id.ms.to_string(),
            Delivery::Gap(gap) => format!("{}..{} {:?}", gap.after.ms, gap.next.ms, gap.reason),
            Delivery::Position(id) => format!("@{}", id.ms),
            Delivery::Passed(id) => format!("({})", id.ms),
            Delivery::Ephemeral(_) => "~".to_owned(),
        };
        self.out.drain(..).map(short).collect::<Vec<_>>().join(", ")
    }
}

fn sync(head: u64) -> Option<Question> {
    Some(Question::Sync { head: id(head) })
}

fn recover(head: u64, seen: &[u64]) -> Option<Question> {
    Some(Question::Recover { head: id(head), epoch: id(1), seen: seen.iter().map(|n| id(*n)).collect() })
}

fn joins(merge: &Merge, position: u64) -> Option<Vec<u64>> {
    match merge.join(id(position)) {
        Join::Deliveries(deliveries) => Some(deliveries.iter().filter_map(|d| Some(d.position()?.ms)).collect()),
        Join::Behind | Join::Ahead => None,
    }
}

#[test]
fn a_duplicate_is_dropped() {
    let mut stream = Stream::at(8);
    stream.come([8, 6]);
    assert_eq!(stream.delivered(), "");
    assert!(stream.is_settled());
}

#[test]
fn a_duplicate_that_the_ring_forgot_costs_a_sync_and_nothing_else() {
    let mut stream = Stream::at(8);
    stream.merge.forget_ring();
    stream.message(6, 5);
    assert_eq!(stream.asks(), sync(8));
    stream.answered(&page(8, &[], 8));
    assert_eq!(stream.delivered(), "");
    assert!(stream.is_settled());
}

#[test]
fn a_hole_waits_and_the_late_message_fills_it() {
    let mut stream = Stream::at(6);
    stream.come([8, 9]);
    assert_eq!((stream.delivered(), stream.asks()), (String::new(), None));
    stream.message(7, 6);
    assert_eq!(stream.delivered(), "7, 8, 9");
    assert!(stream.is_settled());
}

#[test]
fn a_hole_that_stays_is_read_from_the_store() {
    let mut stream = Stream::at(6);
    stream.message(8, 7);
    assert_eq!(stream.wait(), Some(HOLE_WAIT));
    assert_eq!(stream.merge.wants(), Some(Urgency::Urgent), "a client waits for it");
    assert_eq!(stream.asks(), sync(6));
    stream.answered(&page(6, &[(7, 6), (8, 7)], 8));
    assert_eq!(stream.delivered(), "7, 8");
    assert!(stream.is_settled());
}

#[test]
fn a_second_hole_behind_the_first_is_waited_for_too() {
    let mut stream = Stream::at(6);
    stream.come([8, 10]);
    stream.now += HOLE_WAIT / 2;
    stream.message(7, 6);
    assert_eq!(stream.delivered(), "7, 8");
    stream.message(11, 10);
    assert_eq!(stream.wait(), Some(HOLE_WAIT), "the wait of the first hole is not the second one's");
    assert_eq!(stream.asks(), sync(8));
}

#[test]
fn what_continues_the_chain_is_dispatched_while_a_question_is_out() {
    let mut stream = Stream::syncing(6);
    // The answer was computed before 8 was published, and its message overtook that of 7.
    stream.message(8, 7);
    assert_eq!(stream.delivered(), "");
    stream.message(7, 6);
    assert_eq!(stream.delivered(), "7, 8");
    stream.answered(&page(6, &[(7, 6)], 7));
    assert_eq!(stream.delivered(), "");
    assert!(stream.is_settled());
}

#[test]
fn an_answer_goes_on_above_the_present_head() {
    let mut stream = Stream::syncing(6);
    stream.come([7, 11]);
    assert_eq!(stream.delivered(), "7");
    stream.answered(&page(6, &[(7, 6), (8, 7), (9, 8), (10, 9)], 10));
    assert_eq!(stream.delivered(), "8, 9, 10, 11");
    assert!(stream.is_settled());
}

#[test]
fn an_answer_is_judged_at_the_head_it_was_asked_with() {
    let mut stream = Stream::syncing(6);
    stream.message(7, 6);
    // It ends at 6, where it was asked: 7 came later and is no contradiction.
    stream.answered(&page(6, &[], 6));
    assert_eq!(stream.delivered(), "7");
    assert!(stream.is_settled());
}

#[test]
fn an_answer_that_contradicts_what_came_meanwhile_is_looked_into() {
    for answer in [&[(8, 6)][..], &[(8, 6), (9, 8)]] {
        let mut stream = Stream::syncing(6);
        // A master that is no longer one sent this.
        stream.come([7, 8]);
        stream.answered(&page(6, answer, answer[answer.len() - 1].0));
        assert_eq!(stream.asks(), recover(8, &[8, 7, 6]), "{answer:?}");
    }
}

#[test]
fn a_sync_that_becomes_due_while_one_is_out_follows_it() {
    let mut stream = Stream::syncing(6);
    stream.sync();
    assert_eq!((stream.merge.wants(), stream.asks()), (None, None));
    stream.answered(&page(6, &[(7, 6)], 7));
    assert_eq!(stream.asks(), sync(7));
    stream.answered(&page(7, &[], 7));
    assert!(stream.is_settled());
}

#[test]
fn a_sync_that_is_wanted_beside_a_recovery_follows_it() {
    let mut stream = Stream::syncing(9);
    // The route may be gone since.
    stream.sync();
    stream.answered(&page(9, &[], 7));
    assert_eq!(stream.asks(), recover(9, &[9, 8, 7, 6]));
    stream.answered(&Page { fork: fork(7, 9, [20, 7], 20), ..page(7, &[], 20) });
    assert_eq!(stream.asks(), sync(20));
}

#[test]
fn however_often_a_sync_is_wanted_one_question_is_enough() {
    let mut stream = Stream::at(6);
    for _ in 0..3 {
        stream.sync();
        stream.merge.want_sync(Urgency::Urgent);
    }
    assert_eq!(stream.asks(), sync(6));
    stream.answered(&page(6, &[], 6));
    assert!(stream.is_settled());
}

#[test]
fn what_has_no_room_in_the_queue_is_read_and_the_rest_is_kept() {
    let mut stream = Stream::at(6);
    stream.merge.early = Early::new(Budget::new(1 << 23));
    let big = |at: u64| {
        let data = "1".repeat(1 << 19);
        Arc::new(Event::new(id(at), id(at - 1), EventType::MESSAGE, data.into()))
    };
    for at in [8, 9, 10] {
        stream.merge.message(big(at), stream.now, &mut stream.out);
    }
    assert_eq!(stream.asks(), sync(6), "the store has what was dropped");
    stream.message(7, 6);
    assert_eq!(stream.delivered(), "7, 8");
    stream.answered(&page(6, &[(7, 6), (8, 7), (9, 8), (10, 9)], 10));
    assert_eq!(stream.delivered(), "9, 10");
    assert!(stream.is_settled());
}

#[test]
fn pages_with_more_are_read_to_the_end() {
    let mut stream = Stream::syncing(6);
    stream.answered(&Page { more: true, ..page(6, &[(7, 6), (8, 7)], 9) });
    assert_eq!(stream.asks(), sync(8));
    stream.answered(&page(8, &[(9, 8)], 9));
    assert_eq!(stream.delivered(), "7, 8, 9");
    assert!(stream.is_settled());
}

#[test]
fn a_page_with_more_that_messages_have_overtaken_is_read_on_from_where_they_are() {
    let mut stream = Stream::syncing(6);
    stream.come(7..=9);
    stream.answered(&Page { more: true, ..page(6, &[(7, 6), (8, 7)], 12) });
    assert_eq!(stream.asks(), sync(9));
}

#[test]
fn a_failed_sync_is_wanted_again_and_holds_up_no_message() {
    let mut stream = Stream::syncing(6);
    stream.message(7, 6);
    stream.failed();
    stream.message(8, 7);
    assert_eq!(stream.delivered(), "7, 8");
    assert_eq!((stream.merge.wants(), stream.asks()), (Some(Urgency::Routine), sync(8)));
}

#[test]
fn an_erasure_takes_effect_whatever_else_the_answer_says() {
    for answer in [trimmed(8, 20), page(8, &[], 6), page(6, &[], 20)] {
        let mut stream = Stream::syncing(8);
        stream.answered(&Page { erased: Some(id(7)), ..answer });
        assert_eq!(stream.delivered(), "");
        assert_eq!((joins(&stream.merge, 5), joins(&stream.merge, 7)), (None, Some(vec![8])));
    }
}

#[test]
fn what_came_during_an_attach_goes_on_from_there() {
    let mut stream = Stream::attached(&page(5, &[], 7), &[(9, 8), (6, 5), (8, 7), (7, 6)]);
    assert_eq!(stream.merge.head(), id(9));
    assert!(stream.is_settled());
    assert_eq!(joins(&stream.merge, 7), Some(vec![8, 9]));
    stream.message(10, 9);
    assert_eq!(stream.delivered(), "10");
    let mut stream = Stream::attached(&page(5, &[], 7), &[(9, 8)]);
    assert_eq!((stream.wait(), stream.asks()), (Some(HOLE_WAIT), sync(7)));
}

#[test]
fn a_flush_is_seen_on_an_empty_stream() {
    let mut stream = Stream::new();
    stream.sync();
    assert_eq!(stream.asks(), sync(5));
    let mut flushed = Page { epoch: id(9), first: None, ..page(5, &[], 9) };
    stream.answered(&flushed);
    assert_eq!(stream.asks(), recover(5, &[]));
    flushed.from = id(9);
    stream.answered(&flushed);
    assert_eq!(stream.delivered(), "5..9 Lost, @9");
    stream.message(10, 9);
    assert_eq!(stream.delivered(), "10");
}

#[test]
fn a_cursor_ahead_of_the_node_waits_for_a_sync() {
    let mut stream = Stream::syncing(8);
    assert_eq!(stream.merge.join(id(9)), Join::Ahead);
    stream.answered(&page(8, &[(9, 8)], 9));
    assert_eq!(joins(&stream.merge, 9), Some(vec![]));
}

#[test]
fn a_connection_joins_at_the_head_or_inside_the_ring() {
    let stream = Stream::at(8);
    assert_eq!(joins(&stream.merge, 8), Some(vec![]));
    assert_eq!(joins(&stream.merge, 5), Some(vec![6, 7, 8]));
    assert_eq!(stream.merge.join(id(4)), Join::Behind);
}

#[test]
fn whoever_joins_inside_the_ring_is_given_the_newest_of_each_key() {
    let mut stream = Stream::new();
    for (at, key) in [(6, Some("a")), (7, Some("b")), (8, None), (9, Some("a")), (10, Some("a"))] {
        let mut event = Arc::unwrap_or_clone(event(at, at - 1));
        event.collapse = key.map(Into::into);
        stream.merge.message(Arc::new(event), stream.now, &mut stream.out);
    }
    assert_eq!(stream.delivered(), "6, 7, 8, 9, 10", "present subscribers get all");
    let Join::Deliveries(deliveries) = stream.merge.join(id(5)) else { panic!("it is in the ring") };
    stream.out.extend(deliveries.into_iter().map(|delivery| Outgoing { delivery, resume: Chain::at(id(5)) }));
    assert_eq!(stream.delivered(), "(6), 7, 8, (9), 10");
}

#[test]
fn a_slow_connection_goes_on_where_it_stopped() {
    let mut stream = Stream::recovering();
    let mut found = page(7, &[(10, 7)], 20);
    found.fork = fork(7, 9, [10, 10], 20);
    stream.answered(&found);
    let [gap, event, position] = &stream.out[..] else { panic!("{:?}", stream.out) };
    let mut later = page(7, &[(10, 7), (30, 20)], 30);
    later.fork = found.fork;
    // Without the gap: it comes again. With it: it does not.
    let read = |step: &Outgoing, page: &Page| {
        let steps = step.resume.clone().read(page);
        steps
            .into_iter()
            .filter(|step| matches!(step.delivery, Delivery::Gap(Gap { reason: GapReason::Lost, .. })))
            .count()
    };
    assert_eq!((gap.resume.position(), read(gap, &later)), (id(9), 1));
    assert_eq!((event.resume.position(), read(event, &later)), (id(7), 0));
    let mut rest = page(10, &[(30, 20)], 30);
    rest.fork = found.fork;
    assert_eq!((position.resume.position(), read(position, &rest)), (id(10), 0));
}
