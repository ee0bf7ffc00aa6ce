//! Stores that lost something, and what clients are notified of it.

use super::super::record::{Loss, Outcome, Place, Record};
use super::{History, id, place, stream};
use crate::model::{GapReason, StreamName};

/// 1 and 2 were kept, the tail 3 and 4 was lost, 5 and 6 came after it.
fn fork() -> History {
    History::default().session(1, 1, 0).session(2, 2, 0).ok(1..=4).events(1, 1..=4).events(2, 1..=2)
}

#[test]
fn a_lost_tail_that_is_told_to_everyone() {
    fork()
        .loss(Loss::Tail)
        .ok(5..=6)
        // A client that saw it gets the notice that it is no longer true.
        .gap(1, 4, 5, GapReason::Lost)
        .events(1, 5..=6)
        // To one that did not see it, the first new event looks like the next one.
        .events(2, 5..=5)
        .gap(2, 5, 6, GapReason::Lost)
        .events(2, 6..=6)
        .log([1, 2, 5, 6])
        .sound();
}

#[test]
fn a_lost_tail_that_is_not_reported() {
    let unreported = |h: History| h.ok(5..=6).gap(1, 4, 5, GapReason::Lost).events(1, 5..=6).events(2, 5..=6);
    unreported(fork().loss(Loss::Tail))
        .log([1, 2, 5, 6])
        .breaks(&["c2: never got the notice that topic:a lost 3-1, 4-1"]);
    // Only the node that died had shown it to anyone.
    let died = Record::Died { node: "n1".into() };
    let verdict = unreported(fork().and(died).loss(Loss::Tail)).log([1, 2, 5, 6]).sound();
    assert_eq!(verdict.summary.unknowable, 2);
}

#[test]
fn a_lost_tail_that_is_told_twice() {
    fork()
        .end(2)
        .loss(Loss::Tail)
        .ok(5..=6)
        .gap(1, 4, 5, GapReason::Lost)
        .events(1, 5..=5)
        .gap(1, 5, 6, GapReason::Lost)
        .events(1, 6..=6)
        .log([1, 2, 5, 6])
        .breaks(&["notified to miss 5-1..6-1, but nothing is missing"]);
}

#[test]
fn a_loss_may_be_told_again_to_who_was_put_back_before_it_was_reported() {
    let put_back = || {
        fork().end(2).loss(Loss::Tail).gap(1, 4, 2, GapReason::Lost).and(Record::Position { session: 1, at: place(2) })
    };
    put_back().ok(5..=6).gap(1, 2, 5, GapReason::Lost).events(1, 5..=6).log([1, 2, 5, 6]).sound();
    put_back()
        .ok(5..=6)
        .events(1, 5..=5)
        .gap(1, 5, 6, GapReason::Lost)
        .events(1, 6..=6)
        .log([1, 2, 5, 6])
        .breaks(&["notified to miss 5-1..6-1, but nothing is missing"]);
}

#[test]
fn a_loss_may_be_told_again_once_to_who_left_before_the_mark() {
    // 5 and 6 come after the loss, but before any client gets the notice; the first client then leaves between them.
    let left = || {
        let notified = fork().loss(Loss::Tail).ok(5..=6).gap(1, 4, 5, GapReason::Lost).events(1, 5..=5);
        notified.events(2, 5..=6).end(1).ok(7..=8).session(3, 1, 5)
    };
    let rest = |h: History| h.gap(2, 6, 7, GapReason::Lost).events(2, 7..=8).log([1, 2, 5, 6, 7, 8]);
    let again = || left().events(3, 6..=6).gap(3, 6, 7, GapReason::Lost).events(3, 7..=7);
    rest(again().events(3, 8..=8)).sound();
    // What was published after the first notice lies behind the mark.
    let behind = left().events(3, 6..=7).gap(3, 7, 8, GapReason::Lost).events(3, 8..=8);
    rest(behind).breaks(&["notified to miss 7-1..8-1, but nothing is missing"]);
    // A client that stays got the notice, and so did one that got it twice.
    let stays = left().gap(3, 5, 6, GapReason::Lost).events(3, 6..=6).gap(3, 6, 7, GapReason::Lost).events(3, 7..=8);
    rest(stays).breaks(&["notified to miss 6-1..7-1, but nothing is missing"]);
}

/// The first client got the notice, and reads on, while the old master may still live.
fn while_the_old_master_lives() -> History {
    fork().end(2).loss(Loss::Tail).ok(5..=5).gap(1, 4, 5, GapReason::Lost).events(1, 5..=5)
}

#[test]
fn what_the_old_master_takes_after_the_first_notice_is_part_of_the_loss() {
    // The third client is on a node that is still there.
    let history = while_the_old_master_lives().session(3, 3, 4).ok([8]).events(3, 8..=8).end(3);
    history.and(Record::LossOver).ok(9..=9).events(1, 9..=9).log([1, 2, 5, 9]).sound();
}

#[test]
fn what_the_new_master_loses_while_the_old_one_lives_is_no_part_of_the_loss() {
    let gone = "6-1: p/6 was stored and is gone, though the store lost nothing";
    // Somebody saw it right behind the notice.
    let history = while_the_old_master_lives().ok(6..=6).events(1, 6..=6).ok(7..=7).events(1, 7..=7);
    history.and(Record::LossOver).log([1, 2, 5, 7]).breaks(&[gone]);
    // Or behind an event that somebody else saw behind the notice.
    let gone = "7-1: p/7 was stored and is gone, though the store lost nothing";
    let other = while_the_old_master_lives().ok(6..=6).events(1, 6..=6).session_at(3, 3, None, 5).events(3, 6..=6);
    let other = other.ok(7..=8).events(3, 7..=8).events(1, 8..=8);
    other.and(Record::LossOver).log([1, 2, 5, 6, 8]).breaks(&[gone, "c1: never got the notice that topic:a lost 7-1"]);
}

#[test]
fn nothing_that_is_kept_may_be_left_out_while_the_old_master_lives() {
    let hole = while_the_old_master_lives().ok(6..=8).events(1, [6, 8]).end(1);
    hole.and(Record::LossOver).log([1, 2, 5, 6, 7, 8]).breaks(&["went from 6-1 to 8-1 without a word of 7-1"]);
}

#[test]
fn a_notice_of_one_loss_is_none_of_the_next() {
    // 6 came after the first loss and fell victim to the second, of which only the first client gets a notice.
    let second = fork().loss(Loss::Tail).ok(5..=5).gap(1, 4, 5, GapReason::Lost).events(1, 5..=5).events(2, 5..=5);
    let second = second.and(Record::LossOver).ok(6..=6).events(1, 6..=6).gap(2, 2, 5, GapReason::Lost);
    let position = Record::Position { session: 2, at: place(5) };
    let second = second.and(position).loss(Loss::Tail).ok(7..=7).gap(1, 6, 7, GapReason::Lost).events(1, 7..=7);
    second
        .events(2, 7..=7)
        .and(Record::LossOver)
        .log([1, 2, 5, 7])
        .breaks(&["c2: never got the notice that topic:a lost 6-1"]);
}

#[test]
fn a_notice_in_one_stream_says_nothing_of_what_follows_in_another() {
    let b: StreamName = "topic:b".parse().unwrap();
    let on_b = |history: History, n: u64| {
        let (producer, payload, stream) = ("q".to_owned(), format!("b{n}"), b.clone());
        let attempt = Record::Publish { producer, sequence: n, stream, stream_sequence: n, payload };
        history.and(attempt).and(Record::Outcome {
            producer: "q".into(),
            sequence: n,
            outcome: Outcome::Ok { id: id(n) },
        })
    };
    // The second client follows both, and is behind in the first stream when it gets the notice in the second one.
    let both = || Place::Positions([(stream(), id(0)), (b.clone(), id(1))].into());
    let (client, node, streams) = ("c2".to_owned(), Some("n2".to_owned()), vec![stream(), b.clone()]);
    let second = Record::Session { session: 2, client, node, streams, after: Some(both()) };
    let begun =
        on_b(History::default(), 1).session(1, 1, 0).and(second).and(Record::Position { session: 2, at: both() });
    let lost = on_b(begun.ok(1..=2).events(1, 1..=2).loss(Loss::Tail).ok([3]).events(1, [3]), 5);
    let over = on_b(lost.and(Record::LossOver).ok([7]).gap(1, 3, 7, GapReason::Lost).events(1, [7]), 9);
    let gap = Record::Gap { session: 2, stream: b.clone(), after: id(1), next: id(9), reason: GapReason::Lost };
    let (stream_b, payload) = (b.clone(), "b9".to_owned());
    let event = Record::Event { session: 2, stream: stream_b, id: id(9), payload, cursor: None };
    let notified =
        over.and(gap).and(event).events_of_both(2, 1..=2).gap(2, 2, 7, GapReason::Lost).events_of_both(2, [7]);
    notified.log([1, 2, 7]).and(Record::Log { stream: b, ids: vec![id(1), id(9)], retention: None }).sound();
}

#[test]
fn a_late_notice_excuses_nothing_but_the_loss_that_it_names() {
    let known = || fork().loss(Loss::Tail).ok(5..=5).and(Record::LossOver).ok(6..=8);
    let passed = || known().gap(1, 4, 5, GapReason::Lost).events(1, 5..=8).events(2, 5..=5);
    let late = |h: History, after, next| h.gap(2, after, next, GapReason::Lost);
    late(passed(), 2, 5).events(2, 6..=8).log([1, 2, 5, 6, 7, 8]).sound();
    // What is left out behind the client's position.
    let hole = late(passed(), 2, 5).events(2, 8..=8).log([1, 2, 5, 6, 7, 8]);
    hole.breaks(&["c2, session 2: topic:a went from 5-1 to 8-1 without a word of 6-1, 7-1", "never saw 6-1, 7-1"]);
    // What is kept in the range that it names.
    let kept = late(passed(), 1, 5).events(2, 6..=8).log([1, 2, 5, 6, 7, 8]);
    kept.breaks(&["notified to miss 1-1..5-1, but the store keeps 2-1"]);
    // A range behind which nothing was lost.
    let nothing = late(passed().events(2, 6..=7), 6, 7).events(2, 8..=8).log([1, 2, 5, 6, 7, 8]);
    nothing.breaks(&["notified to miss 6-1..7-1, but nothing is missing"]);
}

#[test]
fn a_store_that_went_back_in_time() {
    // The new master's clock is behind: 3 and 4 are stored below the lost 7 and 8.
    let behind = History::default().session(1, 1, 0).ok([1, 7, 8]).events(1, [1, 7, 8]).loss(Loss::Tail).ok(3..=4);
    behind.gap(1, 8, 3, GapReason::Lost).events(1, 3..=4).log([1, 3, 4]).sound();
    let behind = History::default().session(1, 1, 0).ok([1, 7, 8]).events(1, [1, 7, 8]).loss(Loss::Tail).ok(3..=4);
    behind.gap(1, 8, 4, GapReason::Lost).events(1, 4..=4).log([1, 3, 4]).breaks(&["never saw 3-1"]);
    let unsaid = History::default().session(1, 1, 0).ok([1, 7]).events(1, [1, 7]).loss(Loss::Tail).ok(3..=3);
    unsaid.events(1, 3..=3).log([1, 3]).breaks(&["backwards, from 7-1 to 3-1"]);
}

#[test]
fn a_flush_that_is_reported() {
    let flushed = || History::default().session(1, 1, 0).ok(1..=2).events(1, 1..=2).loss(Loss::Flush);
    flushed().gap(1, 2, 4, GapReason::Lost).and(Record::Position { session: 1, at: place(4) }).log([]).sound();
    flushed().ok(5..=5).gap(1, 2, 5, GapReason::Lost).events(1, 5..=5).log([5]).sound();
    flushed().ok(5..=5).events(1, 5..=5).log([5]).sound();
}
