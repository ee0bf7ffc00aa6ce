//! Events that are trimmed, or seem to be.

use super::*;

#[test]
fn events_trimmed_while_the_node_was_cut_off_are_a_gap() {
    let mut stream = Stream::syncing(6);
    stream.answered(&trimmed(6, 20));
    assert_eq!((stream.delivered(), stream.asks()), (String::new(), None));
    assert_eq!(stream.wait(), Some(TRIMMED_WAIT));
    assert_eq!(stream.asks(), recover(6, &[6]));
    stream.answered(&trimmed(6, 20));
    assert_eq!(stream.delivered(), "6..20 Trimmed, 20");
    assert_eq!(joins(&stream.merge, 6), None, "the ring is a run without a break");
    assert_eq!(joins(&stream.merge, 19), Some(vec![20]));
}

#[test]
fn events_trimmed_on_their_way_are_no_gap() {
    let mut stream = Stream::syncing(6);
    stream.message(7, 6);
    stream.answered(&trimmed(6, 10));
    assert!(stream.merge.is_catching_up(), "a joining client waits with it");
    stream.come(8..=10);
    assert_eq!(stream.delivered(), "7, 8, 9, 10");
    assert!(stream.is_settled() && !stream.merge.is_catching_up());
}

#[test]
fn a_log_that_expired_is_waited_for_like_one_that_was_trimmed() {
    let mut stream = Stream::syncing(6);
    stream.answered(&Page { first: None, ..page(6, &[], 8) });
    stream.come(7..=8);
    assert_eq!(stream.delivered(), "7, 8");
    assert!(stream.is_settled());
}

#[test]
fn a_hole_does_not_end_the_wait_for_trimmed_events() {
    let mut stream = Stream::syncing(6);
    stream.answered(&trimmed(6, 10));
    // 10 overtakes the others.
    stream.message(10, 9);
    stream.now += 2 * HOLE_WAIT;
    stream.merge.tick(stream.now);
    assert_eq!(stream.asks(), None);
    stream.come(7..=9);
    assert_eq!(stream.delivered(), "7, 8, 9, 10");
    assert!(stream.is_settled());
}

#[test]
fn who_keeps_asking_learns_that_trimmed_events_do_not_come() {
    let mut stream = Stream::at(6);
    for _ in 0..3 {
        stream.sync();
        assert_eq!(stream.asks(), sync(6));
        stream.answered(&trimmed(6, 10));
        stream.now += TRIMMED_WAIT / 4;
    }
    stream.sync();
    assert_eq!(stream.asks(), sync(6));
    stream.now += TRIMMED_WAIT;
    stream.answered(&trimmed(6, 10));
    assert_eq!(stream.asks(), recover(6, &[6]), "the first wait is enough");
    stream.answered(&trimmed(6, 10));
    assert_eq!(stream.delivered(), "6..10 Trimmed, 10");
    assert!(stream.is_settled());
}

#[test]
fn trimmed_events_that_came_at_last_are_not_waited_for() {
    let mut stream = Stream::syncing(6);
    stream.answered(&trimmed(6, 8));
    stream.sync();
    assert_eq!(stream.asks(), sync(6));
    stream.now += TRIMMED_WAIT;
    stream.come(7..=8);
    stream.answered(&trimmed(6, 8));
    assert_eq!(stream.delivered(), "7, 8");
    assert!(stream.is_settled());
}

#[test]
fn all_that_was_trimmed_may_have_come_before_the_answer() {
    let mut stream = Stream::syncing(6);
    stream.come(7..=10);
    stream.answered(&trimmed(6, 10));
    assert_eq!(stream.delivered(), "7, 8, 9, 10");
    assert!(stream.is_settled());
}

#[test]
fn when_part_of_a_trimmed_burst_came_the_rest_is_asked_for() {
    let mut stream = Stream::syncing(6);
    stream.answered(&trimmed(6, 10));
    stream.message(7, 6);
    assert_eq!(stream.wait(), Some(TRIMMED_WAIT));
    assert_eq!(stream.asks(), sync(7));
    stream.answered(&trimmed(7, 10));
    assert_eq!(stream.wait(), Some(TRIMMED_WAIT), "there may be more where 7 came from");
    assert_eq!(stream.asks(), recover(7, &[7, 6]));
    stream.answered(&trimmed(7, 10));
    assert_eq!(stream.delivered(), "7, 7..10 Trimmed, 10");
    assert!(stream.is_settled());
}

#[test]
fn what_was_queued_before_a_question_is_not_lost_to_trimming() {
    let mut stream = Stream::at(6);
    // 7 is lost on its way.
    stream.come(8..=9);
    assert_eq!(stream.wait(), Some(HOLE_WAIT));
    assert_eq!(stream.asks(), sync(6));
    stream.answered(&trimmed(6, 10));
    assert_eq!(stream.wait(), Some(TRIMMED_WAIT));
    assert_eq!(stream.asks(), recover(6, &[6]));
    stream.answered(&trimmed(6, 10));
    assert_eq!(stream.delivered(), "6..8 Trimmed, 8, 9, 10");
    assert!(stream.is_settled());
}

#[test]
fn what_came_during_a_recovery_is_not_lost_to_trimming() {
    let mut stream = Stream::recovering();
    stream.message(20, 7);
    stream.come(21..=22);
    // By the time of the answer, all but the newest are trimmed.
    stream.answered(&Page { first: Some(id(23)), fork: fork(7, 9, [7, 7], 7), ..page(7, &[(23, 22)], 23) });
    assert_eq!(stream.delivered(), "9..20 Lost, 20, 21, 22, 23");
    assert!(stream.is_settled());
}

#[test]
fn what_was_shown_during_a_recovery_is_reported_too() {
    let mut stream = Stream::recovering();
    // The last word of the old master.
    stream.message(10, 9);
    let found = Page { fork: fork(7, 9, [20, 7], 20), ..page(7, &[], 20) };
    stream.answered(&found);
    assert_eq!((stream.delivered(), stream.asks()), ("10".to_owned(), recover(10, &[10, 9, 8, 7, 6])));
    stream.answered(&found);
    assert_eq!(stream.delivered(), "10..20 Lost, @20");
}
