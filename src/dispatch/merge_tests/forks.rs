//! Tails that a failover lost.

use super::*;

#[test]
fn a_lost_tail_and_then_new_events_are_told_once() {
    let mut stream = Stream::at(9);
    // 8 and 9 are lost, and the new master has gone on.
    stream.message(11, 10);
    stream.wait();
    assert_eq!(stream.asks(), sync(9));
    stream.answered(&page(9, &[(10, 7), (11, 10)], 11));
    assert_eq!(stream.asks(), recover(9, &[9, 8, 7, 6]));
    stream.answered(&Page { fork: fork(7, 9, [10, 11], 20), ..page(7, &[(10, 7), (11, 10)], 20) });
    assert_eq!(stream.delivered(), "9..10 Lost, 10, 11, @20");
    stream.message(21, 20);
    assert_eq!(stream.delivered(), "21");
    assert!(stream.is_settled());
}

#[test]
fn a_lost_tail_without_new_events_is_told_at_once() {
    let mut stream = Stream::recovering();
    stream.answered(&Page { fork: fork(7, 9, [20, 7], 20), ..page(7, &[], 20) });
    assert_eq!(stream.delivered(), "9..20 Lost, @20");
}

#[test]
fn new_events_below_the_head_are_a_fork_with_a_clock_behind() {
    let mut stream = Stream::at(9);
    // 8 and 9 are lost; the new master's clock gives an id that is neither ours nor above ours.
    let fresh = Arc::new(Event::new(EventId::new(8, 7), id(7), EventType::MESSAGE, "1".into()));
    stream.merge.message(fresh.clone(), stream.now, &mut stream.out);
    assert_eq!(stream.asks(), sync(9));
    stream.answered(&Page { last: fresh.id, ..page(9, &[], 7) });
    assert_eq!(stream.asks(), recover(9, &[9, 8, 7, 6]));
    let fork = Some(Fork { ancestor: id(7), head: id(9), before: fresh.id, mark: id(20), next: fresh.id });
    stream.answered(&Page { events: vec![fresh], fork, ..page(7, &[], 20) });
    assert_eq!(stream.delivered(), "9..8 Lost, 8, @20");
    assert!(stream.is_settled());
}

#[test]
fn a_new_event_above_the_head_that_does_not_connect_is_a_fork_with_a_clock_ahead() {
    let mut stream = Stream::at(9);
    stream.message(50, 7);
    assert_eq!(stream.asks(), sync(9));
    stream.answered(&page(9, &[(50, 7)], 50));
    assert_eq!(stream.asks(), recover(9, &[9, 8, 7, 6]));
    stream.answered(&Page { fork: fork(7, 9, [50, 50], 60), ..page(7, &[(50, 7)], 60) });
    assert_eq!(stream.delivered(), "9..50 Lost, 50, @60");
    assert!(stream.is_settled());
}

#[test]
fn a_second_node_that_finds_the_same_fork_reports_it_too() {
    let mut stream = Stream::syncing(8);
    // Another node reported it: the store reads from the ancestor by itself. But only a report shows it
    // how far this node had got.
    let known = Page { fork: fork(7, 9, [20, 7], 20), ..page(7, &[], 20) };
    stream.answered(&known);
    assert_eq!(stream.asks(), recover(8, &[8, 7, 6]));
    stream.answered(&known);
    assert_eq!(stream.delivered(), "8..20 Lost, @20");
}

#[test]
fn who_missed_the_tail_is_told_before_the_first_event_after_it() {
    let mut stream = Stream::at(7);
    stream.message(21, 20);
    stream.wait();
    assert_eq!(stream.asks(), sync(7));
    // Up to 10 it connects.
    stream.answered(&Page { fork: fork(7, 9, [10, 10], 20), ..page(7, &[(10, 7), (21, 20)], 21) });
    assert_eq!(stream.delivered(), "7..10 Lost, 10, 21");
    assert!(stream.is_settled());
}

#[test]
fn who_passed_the_place_of_the_loss_unaware_is_notified_of_it_at_the_mark() {
    let mut stream = Stream::at(7);
    stream.message(10, 7);
    stream.message(11, 10);
    stream.message(21, 20);
    stream.wait();
    assert_eq!((stream.delivered(), stream.asks()), ("10, 11".to_owned(), sync(11)));
    let page = Page { fork: fork(7, 9, [10, 11], 20), ..page(11, &[(21, 20)], 21) };
    stream.answered(&page);
    assert_eq!(stream.asks(), recover(11, &[11, 10, 7, 6]));
    stream.answered(&page);
    assert_eq!(stream.delivered(), "7..10 Lost, 21");
    assert!(stream.is_settled());
}

/// What a recovery found at the ancestor 7 of a lost tail up to 9, and that there is more.
fn found(before: u64, events: &[(u64, u64)]) -> Page {
    Page { more: true, fork: fork(7, 9, [10, before], 20), ..page(7, events, 30) }
}

#[test]
fn the_mark_of_a_fork_that_was_told_is_no_second_gap_and_nothing_after_it_comes_twice() {
    let (mut stream, found) = (Stream::recovering(), found(10, &[(10, 7)]));
    stream.answered(&found);
    assert_eq!((stream.delivered(), stream.asks()), ("9..10 Lost, 10".to_owned(), sync(10)));
    stream.answered(&Page { fork: found.fork, ..page(10, &[(30, 20)], 30) });
    stream.message(30, 20);
    assert_eq!(stream.delivered(), "30");
    assert!(stream.is_settled());
}

#[test]
fn an_early_event_behind_a_told_mark_connects_to_it() {
    let (mut stream, found) = (Stream::recovering(), found(10, &[(10, 7)]));
    stream.message(30, 20);
    stream.answered(&found);
    assert_eq!((stream.delivered(), stream.asks()), ("9..10 Lost, 10, 30".to_owned(), sync(30)));
    stream.answered(&Page { fork: found.fork, ..page(30, &[], 30) });
    assert_eq!(stream.delivered(), "");
    assert!(stream.is_settled());
}

#[test]
fn nobody_joins_between_a_gap_and_the_mark_that_it_covers() {
    let (mut stream, found) = (Stream::recovering(), found(12, &[(10, 7), (11, 10)]));
    stream.answered(&found);
    assert_eq!(stream.asks(), sync(11));
    // It has missed the tail, and the live end would go over the mark without a word.
    for position in [10, 11] {
        assert_eq!(joins(&stream.merge, position), None);
    }
    stream.answered(&Page { fork: found.fork, ..page(11, &[(12, 11), (30, 20)], 30) });
    assert_eq!(joins(&stream.merge, 20), Some(vec![30]));
}

#[test]
fn events_trimmed_right_before_a_told_mark_are_another_gap() {
    let (mut stream, found) = (Stream::recovering(), found(12, &[(10, 7)]));
    stream.answered(&found);
    stream.delivered();
    assert_eq!(stream.asks(), sync(10));
    // 11 and 12 are gone by now.
    let rest = Page { fork: found.fork, first: Some(id(30)), ..page(10, &[(30, 20)], 30) };
    stream.answered(&rest);
    assert_eq!(stream.asks(), recover(10, &[10]));
    stream.answered(&rest);
    assert!(stream.delivered().starts_with("10..30 "));
}
