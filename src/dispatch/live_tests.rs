use super::*;
use crate::model::{EventType, Fork, Gap, GapReason};

fn id(n: u64) -> EventId {
    EventId::new(n, 1)
}

fn event(at: u64, prev: u64) -> Arc<Event> {
    Arc::new(Event::new(id(at), id(prev), EventType::MESSAGE, at.to_string().into()))
}

fn page(from: u64, events: &[(u64, u64)], last: u64) -> Page {
    Page {
        from: id(from),
        events: events.iter().map(|(at, prev)| event(*at, *prev)).collect(),
        superseded: Vec::new(),
        more: false,
        last: id(last),
        first: Some(id(2)),
        erased: None,
        epoch: id(1),
        fork: None,
        marks: Default::default(),
        now_ms: 0,
    }
}

/// Read after `from`: all up to the newest event, `last`, is trimmed.
fn trimmed(from: u64, last: u64) -> Page {
    Page { first: Some(id(last)), ..page(from, &[(last, last - 1)], last) }
}

fn fork(ancestor: u64, head: u64, before: u64, mark: u64) -> Option<Fork> {
    Some(Fork { ancestor: id(ancestor), head: id(head), before: id(before), mark: id(mark) })
}

/// The machine with what it delivers, as short text.
struct Stream {
    live: Live,
    out: Vec<Step>,
}

impl Stream {
    /// Attached at 5.
    fn new() -> Self {
        Stream { live: Live::attached(&page(5, &[], 5), RingBudget::new(1 << 20)), out: Vec::new() }
    }

    /// Attached at 5, with the events from 6 up to `head` in the ring.
    fn at(head: u64) -> Self {
        let mut stream = Stream::new();
        for n in 6..=head {
            assert_eq!(stream.message(n, n - 1), None);
        }
        stream.out.clear();
        stream
    }

    fn message(&mut self, at: u64, prev: u64) -> Option<Ask> {
        self.live.message(event(at, prev), &mut self.out)
    }

    fn answered(&mut self, page: &Page) -> Option<Ask> {
        self.live.answered(page, &mut self.out)
    }

    fn failed(&mut self) -> Option<Ask> {
        self.live.failed(&mut self.out)
    }

    /// What came out since this was last called: ids of events, `after..next reason`, `@position`.
    fn told(&mut self) -> String {
        let short = |step: Step| match step.delivery {
            Delivery::Event(event) => event.id.ms.to_string(),
            Delivery::Gap(gap) => format!("{}..{} {:?}", gap.after.ms, gap.next.ms, gap.reason),
            Delivery::Position(id) => format!("@{}", id.ms),
            Delivery::Passed(id) => format!("({})", id.ms),
            Delivery::Ephemeral(_) => "~".to_owned(),
        };
        self.out.drain(..).map(short).collect::<Vec<_>>().join(", ")
    }
}

fn sync(head: u64) -> Option<Ask> {
    Some(Ask::Sync { head: id(head) })
}

fn wait(head: u64) -> Option<Ask> {
    Some(Ask::Wait { head: id(head) })
}

fn wait_trimmed(head: u64) -> Option<Ask> {
    Some(Ask::WaitTrimmed { head: id(head) })
}

fn recover(head: u64, seen: &[u64]) -> Option<Ask> {
    Some(Ask::Recover { head: id(head), epoch: id(1), seen: seen.iter().map(|n| id(*n)).collect() })
}

fn joins(live: &Live, position: u64) -> Option<Vec<u64>> {
    match live.join(id(position)) {
        Join::Deliveries(deliveries) => Some(deliveries.iter().filter_map(|d| Some(d.position()?.ms)).collect()),
        Join::Behind | Join::Ahead => None,
    }
}

#[test]
fn a_duplicate_is_dropped() {
    let mut stream = Stream::at(8);
    for (at, prev) in [(8, 7), (6, 5)] {
        assert_eq!(stream.message(at, prev), None);
    }
    assert_eq!(stream.told(), "");
    assert!(stream.live.is_settled());
}

#[test]
fn a_duplicate_that_the_ring_forgot_costs_a_sync_and_nothing_else() {
    let mut stream = Stream::at(8);
    stream.live.forget_ring();
    assert_eq!(stream.message(6, 5), sync(8));
    assert_eq!(stream.answered(&page(8, &[], 8)), None);
    assert_eq!(stream.told(), "");
}

#[test]
fn a_hole_waits_and_the_late_message_fills_it() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.message(8, 7), wait(6));
    assert_eq!(stream.message(9, 8), None, "one wait is enough");
    assert_eq!(stream.told(), "");
    assert_eq!(stream.message(7, 6), None);
    assert_eq!(stream.told(), "7, 8, 9");
    assert_eq!(stream.live.hole_is_old(id(6)), None);
    assert!(stream.live.is_settled());
}

#[test]
fn a_hole_that_stays_is_read_from_the_store() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.message(8, 7), wait(6));
    assert_eq!(stream.live.hole_is_old(id(6)), sync(6));
    assert_eq!(stream.answered(&page(6, &[(7, 6), (8, 7)], 8)), None);
    assert_eq!(stream.told(), "7, 8");
    assert!(stream.live.is_settled());
}

#[test]
fn a_second_hole_behind_the_first_is_waited_for_too() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.message(8, 7), wait(6));
    assert_eq!(stream.message(10, 9), None);
    assert_eq!(stream.message(7, 6), wait(8));
    assert_eq!(stream.told(), "7, 8");
    assert_eq!(stream.live.hole_is_old(id(6)), None, "the wait of the first hole is not the second one's");
    assert_eq!(stream.message(11, 10), None, "one wait a hole is enough");
    assert_eq!(stream.live.hole_is_old(id(8)), sync(8));
}

#[test]
fn messages_while_a_sync_is_out_are_judged_after_its_answer() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    // The answer was computed before 8 was published, and its message overtook the answer.
    assert_eq!(stream.message(8, 7), None);
    assert_eq!(stream.message(7, 6), None);
    assert_eq!(stream.told(), "");
    assert_eq!(stream.answered(&page(6, &[(7, 6)], 7)), None);
    assert_eq!(stream.told(), "7, 8");
    assert!(stream.live.is_settled());
}

#[test]
fn an_answer_is_judged_against_the_head_it_was_asked_with() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.message(7, 6), None);
    // It ends at 6, where it was asked: 7 came later and is no contradiction.
    assert_eq!(stream.answered(&page(6, &[], 6)), None);
    assert_eq!(stream.told(), "7");
}

#[test]
fn a_sync_that_becomes_due_while_one_is_out_follows_it() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.live.sync(), None);
    assert_eq!(stream.answered(&page(6, &[(7, 6)], 7)), sync(7));
    assert_eq!(stream.answered(&page(7, &[], 7)), None);
    assert!(stream.live.is_settled());
}

#[test]
fn a_queue_that_overflows_is_read_again() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    for n in 7..=7 + MAX_EARLY as u64 {
        assert_eq!(stream.message(n, n - 1), None);
    }
    assert_eq!(stream.answered(&page(6, &[], 6)), sync(6));
    assert!(stream.live.early.is_empty());
    assert_eq!(stream.answered(&page(6, &[(7, 6), (8, 7)], 8)), None);
    assert_eq!(stream.told(), "7, 8");
}

#[test]
fn pages_with_more_are_read_to_the_end() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    let mut first = page(6, &[(7, 6), (8, 7)], 9);
    first.more = true;
    assert_eq!(stream.answered(&first), sync(8));
    assert_eq!(stream.answered(&page(8, &[(9, 8)], 9)), None);
    assert_eq!(stream.told(), "7, 8, 9");
}

#[test]
fn a_failed_sync_lets_messages_that_connect_go_on() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.message(7, 6), None);
    assert_eq!(stream.failed(), None);
    assert_eq!(stream.message(8, 7), None);
    assert_eq!(stream.told(), "7, 8");
    assert_eq!(stream.live.sync(), sync(8));
}

#[test]
fn what_a_failed_sync_asks_for_is_all_there_is_to_ask() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.live.sync(), None);
    assert_eq!(stream.failed(), sync(6));
    // Whoever carried on with this instead of the answer above would wait for ever.
    assert_eq!(stream.live.sync(), None);
}

#[test]
fn events_trimmed_while_the_node_was_cut_off_are_a_gap() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    let trimmed = trimmed(6, 20);
    assert_eq!(stream.answered(&trimmed), wait_trimmed(6));
    assert_eq!(stream.told(), "");
    assert_eq!(stream.live.hole_is_old(id(6)), recover(6, &[6]));
    assert_eq!(stream.answered(&trimmed), None);
    assert_eq!(stream.told(), "6..20 Trimmed, 20");
    assert_eq!(joins(&stream.live, 6), None, "the ring is a run without a break");
    assert_eq!(joins(&stream.live, 19), Some(vec![20]));
}

#[test]
fn events_trimmed_on_their_way_are_no_gap() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.message(7, 6), None);
    assert_eq!(stream.answered(&trimmed(6, 10)), wait_trimmed(7), "what came meanwhile counts");
    assert_eq!(stream.told(), "7");
    for n in 8..=10 {
        assert_eq!(stream.message(n, n - 1), None);
    }
    assert_eq!(stream.told(), "8, 9, 10");
    assert!(stream.live.is_asking(), "whoever wants to know waits with it");
    assert_eq!(stream.live.hole_is_old(id(7)), None);
    assert!(stream.live.is_settled());
}

#[test]
fn who_keeps_asking_learns_that_trimmed_events_do_not_come() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.answered(&trimmed(6, 10)), wait_trimmed(6));
    for _ in 0..2 {
        assert_eq!(stream.live.sync(), sync(6));
        // Somebody else wants to know too.
        assert_eq!(stream.live.sync(), None);
        assert_eq!(stream.answered(&trimmed(6, 10)), None, "the first wait is enough");
    }
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.live.hole_is_old(id(6)), None, "an answer is awaited");
    assert_eq!(stream.answered(&trimmed(6, 10)), recover(6, &[6]));
    assert_eq!(stream.answered(&trimmed(6, 10)), None);
    assert_eq!(stream.told(), "6..10 Trimmed, 10");
    assert!(stream.live.is_settled());
}

#[test]
fn a_sync_that_is_wanted_while_trimmed_events_are_awaited_comes_after_them() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.live.sync(), None);
    assert_eq!(stream.answered(&trimmed(6, 10)), wait_trimmed(6));
    for n in 7..=10 {
        assert_eq!(stream.message(n, n - 1), None);
    }
    assert_eq!(stream.live.hole_is_old(id(6)), sync(10));
    assert_eq!(stream.answered(&page(10, &[], 10)), None);
    assert_eq!(stream.told(), "7, 8, 9, 10");
    assert!(stream.live.is_settled());
}

#[test]
fn trimmed_events_that_came_at_last_are_not_waited_for() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.answered(&trimmed(6, 8)), wait_trimmed(6));
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.live.hole_is_old(id(6)), None, "an answer is awaited");
    for n in 7..=8 {
        assert_eq!(stream.message(n, n - 1), None);
    }
    assert_eq!(stream.answered(&trimmed(6, 8)), None);
    assert_eq!(stream.told(), "7, 8");
    assert!(stream.live.is_settled() && !stream.live.is_asking());
}

#[test]
fn all_that_was_trimmed_may_have_come_before_the_answer() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    for n in 7..=10 {
        assert_eq!(stream.message(n, n - 1), None);
    }
    assert_eq!(stream.answered(&trimmed(6, 10)), None);
    assert_eq!(stream.told(), "7, 8, 9, 10");
    assert!(stream.live.is_settled());
}

#[test]
fn what_is_lost_behind_trimmed_events_that_came_is_found() {
    let mut stream = Stream::at(6);
    assert_eq!(stream.live.sync(), sync(6));
    assert_eq!(stream.message(7, 6), None);
    assert_eq!(stream.answered(&trimmed(6, 10)), wait_trimmed(7));
    // 8 and 9 never come.
    assert_eq!(stream.message(10, 9), wait(7));
    assert_eq!(stream.live.hole_is_old(id(7)), recover(7, &[7, 6]));
    assert_eq!(stream.live.hole_is_old(id(7)), None, "one of the two waits is enough");
    assert_eq!(stream.answered(&trimmed(7, 10)), None);
    assert_eq!(stream.told(), "7, 7..10 Trimmed, 10");
    assert!(stream.live.is_settled());
}

#[test]
fn a_lost_tail_and_then_new_events_are_told_once() {
    let mut stream = Stream::at(9);
    // 8 and 9 are lost, and the new master has gone on.
    assert_eq!(stream.message(11, 10), wait(9));
    assert_eq!(stream.live.hole_is_old(id(9)), sync(9));
    assert_eq!(stream.answered(&page(9, &[(10, 7), (11, 10)], 11)), recover(9, &[9, 8, 7, 6]));
    let mut found = page(7, &[(10, 7), (11, 10)], 20);
    found.fork = fork(7, 9, 11, 20);
    assert_eq!(stream.answered(&found), None);
    assert_eq!(stream.told(), "9..10 Lost, 10, 11, @20");
    assert_eq!(stream.message(21, 20), None);
    assert_eq!(stream.told(), "21");
}

#[test]
fn a_lost_tail_without_new_events_is_told_at_once() {
    let mut stream = Stream::at(9);
    assert_eq!(stream.live.sync(), sync(9));
    assert_eq!(stream.answered(&page(9, &[], 7)), recover(9, &[9, 8, 7, 6]));
    let mut found = page(7, &[], 20);
    found.fork = fork(7, 9, 7, 20);
    assert_eq!(stream.answered(&found), None);
    assert_eq!(stream.told(), "9..20 Lost, @20");
}

#[test]
fn new_events_below_the_head_are_a_fork_with_a_clock_behind() {
    let mut stream = Stream::at(9);
    // 8 and 9 are lost; the new master's clock gives an id that is neither ours nor above ours.
    let fresh = Arc::new(Event::new(EventId::new(8, 7), id(7), EventType::MESSAGE, "1".into()));
    assert_eq!(stream.live.message(fresh.clone(), &mut stream.out), sync(9));
    let mut after = page(9, &[], 7);
    after.last = fresh.id;
    assert_eq!(stream.answered(&after), recover(9, &[9, 8, 7, 6]));
    let mut found = page(7, &[], 20);
    found.events = vec![fresh.clone()];
    found.fork = Some(Fork { ancestor: id(7), head: id(9), before: fresh.id, mark: id(20) });
    assert_eq!(stream.answered(&found), None);
    assert_eq!(stream.told(), "9..8 Lost, 8, @20");
}

#[test]
fn a_new_event_above_the_head_that_does_not_connect_is_a_fork_with_a_clock_ahead() {
    let mut stream = Stream::at(9);
    assert_eq!(stream.message(50, 7), sync(9));
    assert_eq!(stream.answered(&page(9, &[(50, 7)], 50)), recover(9, &[9, 8, 7, 6]));
    let mut found = page(7, &[(50, 7)], 60);
    found.fork = fork(7, 9, 50, 60);
    assert_eq!(stream.answered(&found), None);
    assert_eq!(stream.told(), "9..50 Lost, 50, @60");
}

#[test]
fn a_second_node_that_finds_the_same_fork_reports_it_too() {
    let mut stream = Stream::at(8);
    assert_eq!(stream.live.sync(), sync(8));
    // Another node reported it: the store reads from the ancestor by itself. But only a report tells it
    // how far this node had got.
    let mut known = page(7, &[], 20);
    known.fork = fork(7, 9, 7, 20);
    assert_eq!(stream.answered(&known), recover(8, &[8, 7, 6]));
    assert_eq!(stream.answered(&known), None);
    assert_eq!(stream.told(), "8..20 Lost, @20");
}

#[test]
fn who_missed_the_tail_is_told_at_the_mark() {
    let mut stream = Stream::at(7);
    assert_eq!(stream.message(21, 20), wait(7));
    assert_eq!(stream.live.hole_is_old(id(7)), sync(7));
    let mut known = page(7, &[(10, 7), (21, 20)], 21);
    known.fork = fork(7, 9, 10, 20);
    assert_eq!(stream.answered(&known), None, "up to 10 it connects");
    assert_eq!(stream.told(), "10, 10..21 Lost, 21");
}

#[test]
fn the_mark_of_a_fork_that_was_told_is_no_second_gap_and_nothing_after_it_comes_twice() {
    let mut stream = Stream::at(9);
    assert_eq!(stream.live.sync(), sync(9));
    stream.answered(&page(9, &[], 7));
    let mut found = page(7, &[(10, 7)], 30);
    found.fork = fork(7, 9, 10, 20);
    found.more = true;
    assert_eq!(stream.answered(&found), sync(10));
    assert_eq!(stream.told(), "9..10 Lost, 10");
    let mut rest = page(10, &[(30, 20)], 30);
    rest.fork = found.fork;
    assert_eq!(stream.answered(&rest), None);
    assert_eq!(stream.message(30, 20), None);
    assert_eq!(stream.told(), "30");
}

#[test]
fn nobody_joins_between_a_gap_and_the_mark_that_it_covers() {
    let mut stream = Stream::at(9);
    stream.live.sync();
    stream.answered(&page(9, &[], 7));
    let mut found = page(7, &[(10, 7), (11, 10)], 30);
    found.fork = fork(7, 9, 12, 20);
    found.more = true;
    assert_eq!(stream.answered(&found), sync(11));
    // It has missed the tail, and the live end would go over the mark without a word.
    for position in [10, 11] {
        assert_eq!(joins(&stream.live, position), None);
    }
    let mut rest = page(11, &[(12, 11), (30, 20)], 30);
    rest.fork = found.fork;
    assert_eq!(stream.answered(&rest), None);
    assert_eq!(joins(&stream.live, 20), Some(vec![30]));
}

#[test]
fn events_trimmed_right_before_a_told_mark_are_another_gap() {
    let mut stream = Stream::at(9);
    stream.live.sync();
    stream.answered(&page(9, &[], 7));
    let mut found = page(7, &[(10, 7)], 30);
    found.fork = fork(7, 9, 12, 20);
    found.more = true;
    stream.answered(&found);
    stream.told();
    // 11 and 12 are gone by now.
    let mut rest = page(10, &[(30, 20)], 30);
    (rest.fork, rest.first) = (found.fork, Some(id(30)));
    assert_eq!(stream.answered(&rest), recover(10, &[10]));
    stream.answered(&rest);
    assert!(stream.told().starts_with("10..30 "));
}

#[test]
fn a_flush_is_seen_on_an_empty_stream() {
    let mut stream = Stream::new();
    assert_eq!(stream.live.sync(), sync(5));
    let mut flushed = page(5, &[], 9);
    (flushed.epoch, flushed.first) = (id(9), None);
    assert_eq!(stream.answered(&flushed), recover(5, &[]));
    flushed.from = id(9);
    assert_eq!(stream.answered(&flushed), None);
    assert_eq!(stream.told(), "5..9 Lost, @9");
    assert_eq!(stream.message(10, 9), None);
    assert_eq!(stream.told(), "10");
}

#[test]
fn a_cursor_ahead_of_the_node_waits_for_a_sync() {
    let mut stream = Stream::at(8);
    assert_eq!(stream.live.join(id(9)), Join::Ahead);
    stream.live.sync();
    stream.answered(&page(8, &[(9, 8)], 9));
    assert_eq!(joins(&stream.live, 9), Some(vec![]));
}

#[test]
fn a_connection_joins_at_the_head_or_inside_the_ring() {
    let stream = Stream::at(8);
    assert_eq!(joins(&stream.live, 8), Some(vec![]));
    assert_eq!(joins(&stream.live, 5), Some(vec![6, 7, 8]));
    assert_eq!(stream.live.join(id(4)), Join::Behind);
}

#[test]
fn what_was_erased_is_no_longer_in_the_ring_after_the_next_answer() {
    let mut stream = Stream::at(8);
    assert_eq!(stream.live.sync(), sync(8));
    stream.answered(&Page { erased: Some(id(7)), ..page(8, &[], 8) });
    assert_eq!(stream.told(), "");
    assert_eq!((joins(&stream.live, 5), joins(&stream.live, 7)), (None, Some(vec![8])));
}

#[test]
fn whoever_joins_inside_the_ring_is_given_the_newest_of_each_key() {
    let mut stream = Stream::new();
    for (at, key) in [(6, Some("a")), (7, Some("b")), (8, None), (9, Some("a")), (10, Some("a"))] {
        let mut event = Arc::unwrap_or_clone(event(at, at - 1));
        event.collapse = key.map(Into::into);
        stream.live.message(Arc::new(event), &mut stream.out);
    }
    assert_eq!(stream.told(), "6, 7, 8, 9, 10", "who is there already is given all");
    let Join::Deliveries(deliveries) = stream.live.join(id(5)) else { panic!("it is in the ring") };
    stream.out.extend(deliveries.into_iter().map(|delivery| Step { delivery, resume: Chain::at(id(5)) }));
    assert_eq!(stream.told(), "(6), 7, 8, (9), 10");
}

#[test]
fn a_slow_connection_goes_on_where_it_stopped() {
    let mut stream = Stream::at(9);
    stream.live.sync();
    stream.answered(&page(9, &[], 7));
    let mut found = page(7, &[(10, 7)], 20);
    found.fork = fork(7, 9, 10, 20);
    stream.answered(&found);
    let [gap, event, position] = &stream.out[..] else { panic!("{:?}", stream.out) };
    let mut later = page(7, &[(10, 7), (30, 20)], 30);
    later.fork = found.fork;
    // Without the gap: it is told again. With it: it is not.
    let read = |step: &Step, page: &Page| {
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
