//! Histories with each kind of violation, and sound ones that look odd.

mod losses;

use super::record::{Loss, Outcome, Place, Record, read};
use super::{Verdict, judge};
use crate::model::{Cursor, EventId, GapReason, StreamName};

/// Builds a history of `topic:a`, in which publish N is stored as `N-1`.
#[derive(Default)]
struct History(Vec<Record>);

fn stream() -> StreamName {
    "topic:a".parse().unwrap()
}

fn id(n: u64) -> EventId {
    EventId::new(n, 1)
}

fn place(n: u64) -> Place {
    Place::Cursor(id(n).to_string())
}

impl History {
    fn attempt(mut self, n: u64) -> Self {
        let (producer, payload) = ("p".to_owned(), n.to_string());
        self.0.push(Record::Publish { producer, sequence: n, stream: stream(), stream_sequence: n, payload });
        self
    }

    fn outcome(mut self, n: u64, outcome: Outcome) -> Self {
        self.0.push(Record::Outcome { producer: "p".into(), sequence: n, outcome });
        self
    }

    fn ok(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        numbers.into_iter().fold(self, |h, n| h.attempt(n).outcome(n, Outcome::Ok { id: id(n) }))
    }

    /// A session of client `c{client}`, asked to go on after publish `after` and placed there.
    fn session(self, session: u64, client: u64, after: u64) -> Self {
        self.session_at(session, client, Some(after), after)
    }

    fn session_at(mut self, session: u64, client: u64, after: Option<u64>, told: u64) -> Self {
        self.0.push(Record::Session {
            session,
            client: format!("c{client}"),
            node: Some("n1".into()),
            streams: vec![stream()],
            after: after.map(place),
        });
        self.0.push(Record::Position { session, at: place(told) });
        self
    }

    fn event_as(mut self, session: u64, n: u64, payload: &str) -> Self {
        let cursor = Some(id(n).to_string());
        self.0.push(Record::Event { session, stream: stream(), id: id(n), payload: payload.to_owned(), cursor });
        self
    }

    fn events(self, session: u64, numbers: impl IntoIterator<Item = u64>) -> Self {
        numbers.into_iter().fold(self, |h, n| h.event_as(session, n, &n.to_string()))
    }

    /// The same, of a session that follows other streams too, whose cursors are not looked at.
    fn events_of_both(self, session: u64, numbers: impl IntoIterator<Item = u64>) -> Self {
        let event =
            |n: u64| Record::Event { session, stream: stream(), id: id(n), payload: n.to_string(), cursor: None };
        numbers.into_iter().fold(self, |h, n| h.and(event(n)))
    }

    fn gap(mut self, session: u64, after: u64, next: u64, reason: GapReason) -> Self {
        self.0.push(Record::Gap { session, stream: stream(), after: id(after), next: id(next), reason });
        self
    }

    fn end(self, session: u64) -> Self {
        self.and(Record::End { session })
    }

    fn log(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        let ids = numbers.into_iter().map(id).collect();
        self.and(Record::Log { stream: stream(), ids, retention: None })
    }

    fn and(mut self, record: Record) -> Self {
        self.0.push(record);
        self
    }

    fn loss(self, kind: Loss) -> Self {
        self.and(Record::Loss { kind })
    }

    /// The judgement, of what was read back from a file.
    fn verdict(self) -> Verdict {
        let history = self.and(Record::Quiet).0;
        let file: String = history.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
        let back = read(file.as_bytes()).unwrap();
        assert_eq!(back, history);
        judge(&back)
    }

    #[track_caller]
    fn sound(self) -> Verdict {
        let verdict = self.verdict();
        assert_eq!(verdict.violations, []);
        verdict
    }

    /// All violations have to be these, in this order.
    #[track_caller]
    fn breaks(self, wanted: &[&str]) {
        let found: Vec<_> = self.verdict().violations.iter().map(ToString::to_string).collect();
        let fits = found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, part)| found.contains(part));
        assert!(fits, "{found:#?}");
    }
}

#[test]
fn a_sound_history_breaks_nothing() {
    let verdict = History::default()
        .ok(1..=2)
        .session_at(1, 1, None, 2)
        .ok(3..=4)
        .events(1, 3..=4)
        .end(1)
        .ok(5..=6)
        .session(2, 1, 4)
        .events(2, 5..=6)
        .log(1..=6)
        .sound();
    let summary = verdict.summary.to_string();
    let wanted = "6 publishes (6 ok, 0 failed, 0 unknown), 4 events and 0 gap notices received \
                  in 2 sessions of 1 clients, 1 of them to the end";
    assert_eq!(summary, wanted);
}

#[test]
fn order() {
    History::default().session(1, 1, 0).ok(1..=3).events(1, [1, 3, 2]).breaks(&["without a word of 2-1", "backwards"]);
    History::default().session(1, 1, 0).ok(1..=2).events(1, [1, 2, 2]).breaks(&["got topic:a 2-1 again"]);
}

#[test]
fn a_resume_that_brings_again_what_was_seen() {
    History::default()
        .session(1, 1, 0)
        .ok(1..=2)
        .events(1, 1..=2)
        .end(1)
        .session(2, 1, 2)
        .events(2, 2..=2)
        .breaks(&["got topic:a 2-1 again"]);
}

#[test]
fn a_session_that_begins_elsewhere_than_it_asked_for() {
    History::default().ok(1..=2).session_at(1, 1, Some(1), 2).breaks(&["asked to go on in topic:a at 1-1, but was"]);
}

#[test]
fn a_hole() {
    let hole = History::default().session(1, 1, 0).ok(1..=4).events(1, [1, 4]);
    hole.breaks(&["went from 1-1 to 4-1 without a word of 2-1, 3-1", "never saw 2-1, 3-1"]);
}

#[test]
fn a_hole_between_sessions() {
    History::default()
        .session(1, 1, 0)
        .ok(1..=4)
        .events(1, 1..=1)
        .end(1)
        .session(2, 1, 1)
        .events(2, 3..=4)
        .breaks(&["without a word of 2-1", "never saw 2-1"]);
}

#[test]
fn a_position_that_skips_events() {
    let skipped = History::default().session(1, 1, 0).ok(1..=2).and(Record::Position { session: 1, at: place(2) });
    skipped.breaks(&["without a word of 1-1, 2-1", "never saw"]);
}

#[test]
fn a_missed_end() {
    History::default()
        .session(1, 1, 0)
        .ok(1..=3)
        .events(1, 1..=2)
        .breaks(&["read topic:a to the end, but never saw 3-1"]);
    // One that left early may not have seen it.
    History::default().session(1, 1, 0).ok(1..=3).events(1, 1..=2).end(1).sound();
    // And what came before it began is not for it.
    History::default().ok(1..=3).session_at(1, 1, None, 3).sound();
}

#[test]
fn a_gap_notice_that_tells_the_hole_is_no_violation() {
    let trimmed = || History::default().session(1, 1, 0).ok(1..=5).events(1, 1..=1);
    trimmed().gap(1, 1, 4, GapReason::Trimmed).events(1, 4..=5).log(4..=5).sound();
    trimmed()
        .gap(1, 1, 3, GapReason::Trimmed)
        .events(1, 4..=5)
        .log(4..=5)
        .breaks(&["notified to miss 1-1..3-1, but went", "never saw 3-1"]);
    trimmed()
        .gap(1, 0, 4, GapReason::Trimmed)
        .events(1, 4..=5)
        .log(4..=5)
        .breaks(&["notified to miss 0-1..4-1, but went"]);
    trimmed()
        .gap(1, 1, 4, GapReason::Trimmed)
        .events(1, 4..=5)
        .log(3..=5)
        .breaks(&["the store keeps 3-1", "never saw 3-1"]);
}

#[test]
fn a_store_that_trims_more_than_it_may() {
    let log = |retention| Record::Log { stream: stream(), ids: vec![id(4), id(5)], retention: Some(retention) };
    History::default().ok(1..=5).and(log(2)).sound();
    History::default().ok(1..=5).and(log(3)).breaks(&["trimmed to 2 events, though 3"]);
}

#[test]
fn a_false_alarm() {
    let alarm =
        |reason| History::default().session(1, 1, 0).ok(1..=2).events(1, 1..=1).gap(1, 1, 2, reason).events(1, 2..=2);
    for reason in [GapReason::Trimmed, GapReason::Expired, GapReason::Lost] {
        alarm(reason).log(1..=2).breaks(&["notified to miss 1-1..2-1, but nothing is missing"]);
    }
}

#[test]
fn what_is_gone_though_the_store_lost_nothing() {
    History::default()
        .session(1, 1, 0)
        .ok(1..=3)
        .events(1, 1..=3)
        .log([1, 3])
        .breaks(&["2-1: p/2 was stored and is gone"]);
}

#[test]
fn one_id_has_one_payload() {
    let two = History::default().ok(1..=1).attempt(2).outcome(2, Outcome::Unknown);
    two.session(1, 1, 0).event_as(1, 1, "2").breaks(&["1-1 is two events, p/1 and p/2"]);
}

#[test]
fn what_nobody_published() {
    History::default().session(1, 1, 0).event_as(1, 1, "x").breaks(&["1-1: nobody published x"]);
}

#[test]
fn a_failed_publish_never_appears() {
    let failed = || History::default().session(1, 1, 0).attempt(1).outcome(1, Outcome::Failed);
    failed().sound();
    failed().events(1, 1..=1).breaks(&["p/1 was answered as failed, yet it appeared"]);
}

#[test]
fn an_unknown_publish_appears_at_most_once_but_then_to_everyone() {
    let unknown = || History::default().session(1, 1, 0).session(2, 2, 0).attempt(1).outcome(1, Outcome::Unknown);
    unknown().sound();
    unknown().events(1, 1..=1).events(2, 1..=1).sound();
    unknown().events(1, 1..=1).breaks(&["c2: read topic:a to the end, but never saw 1-1"]);
    let twice = |h: History, session| h.event_as(session, 5, "1").event_as(session, 6, "1");
    twice(twice(unknown(), 1), 2).breaks(&["p/1 is stored twice, as 5-1 and 6-1"]);
    // No outcome at all is unknown too.
    History::default().session(1, 1, 0).attempt(1).events(1, 1..=1).sound();
}

#[test]
fn an_ok_publish_is_stored_under_the_id_of_the_answer() {
    let other = History::default().ok(1..=1).session(1, 1, 1).event_as(1, 2, "1");
    other.breaks(&["p/1 is stored twice, as 1-1 and 2-1"]);
}

#[test]
fn a_producer_that_waits_finds_its_events_in_order() {
    let swapped = |h: History| h.attempt(2).outcome(2, Outcome::Ok { id: id(9) }).ok(3..=3);
    swapped(History::default()).breaks(&["p/3 came after the answer to p/2, but is stored before it"]);
}

#[test]
fn a_cursor_says_where_the_session_stands() {
    let (a, b): (StreamName, StreamName) = ("topic:a".parse().unwrap(), "topic:b".parse().unwrap());
    let cursor = |a_at, b_at| Cursor::several([(&a, id(a_at)), (&b, id(b_at))]).to_string();
    let history = |told: String| {
        let h = History::default().ok(1..=1).and(Record::Session {
            session: 1,
            client: "c1".into(),
            node: None,
            streams: vec![a.clone(), b.clone()],
            after: None,
        });
        let h = h.and(Record::Position { session: 1, at: Place::Cursor(cursor(0, 3)) });
        h.and(Record::Event { session: 1, stream: a.clone(), id: id(1), payload: "1".into(), cursor: Some(told) })
    };
    history(cursor(1, 3)).sound();
    history(cursor(0, 3)).breaks(&["the cursor c1."]);
    history(cursor(1, 4)).breaks(&["the cursor c1."]);
    history("nonsense".into()).breaks(&["the cursor nonsense"]);
}

#[test]
fn a_history_that_makes_no_sense() {
    History::default().events(1, 1..=1).breaks(&["nobody published", "session 1 was never begun"]);
    History::default().ok(1..=1).session(1, 1, 0).end(1).events(1, 1..=1).breaks(&["the session is over"]);
    History::default().outcome(1, Outcome::Failed).breaks(&["never begun"]);
    assert!(read("{\"record\":\"nonsense\"}".as_bytes()).unwrap_err().to_string().contains("line 1"));
}
