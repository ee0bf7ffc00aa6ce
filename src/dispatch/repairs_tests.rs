use std::collections::HashMap;

use super::super::dispatcher::Memory;
use super::*;
use crate::dispatch::fixtures::{id, page};
use crate::metrics::Metrics;
use crate::model::{Event, EventType, StreamName};

const HOUR: Duration = Duration::from_secs(3600);

/// What the store answers to everything: nothing new since 5.
fn silence() -> Page {
    Page { first: Some(id(5)), ..page(5, &[], 5) }
}

/// A node and a clock that jumps to whatever comes next.
struct Node {
    repairs: Repairs,
    now: Instant,
    streams: Vec<Arc<Dispatcher>>,
    memory: Memory,
    metrics: Arc<Metrics>,
}

/// What was asked of which stream, and when.
type Asked = Vec<(Instant, StreamName, Question)>;

impl Node {
    /// With so many streams, attached.
    fn new(interval: Duration, streams: usize) -> Self {
        let now = Instant::now();
        let repairs = Repairs::new(0, interval, 1, now);
        let (memory, metrics) = (Memory::new(1 << 20), Metrics::new());
        let mut node = Node { repairs, now, streams: Vec::new(), memory, metrics };
        for _ in 0..streams {
            node.attach();
        }
        assert_eq!(node.ask(Duration::ZERO, |_| true).len(), streams);
        node
    }

    fn attach(&mut self) -> Arc<Dispatcher> {
        let number = self.streams.len();
        let stream = format!("topic:{number}").parse().unwrap();
        let dispatcher = Dispatcher::attaching(stream, number as u64, self.memory.clone(), self.metrics.clone());
        let dispatcher = Arc::new(dispatcher);
        self.repairs.attach(&dispatcher, self.now);
        self.streams.push(dispatcher.clone());
        dispatcher
    }

    /// A message that leaves a hole behind the head.
    fn hole(&self, stream: usize) {
        let dispatcher = &self.streams[stream];
        let event = Event::new(id(8), id(7), EventType::MESSAGE, "1".into());
        let step = dispatcher.message(Arc::new(event), self.now, &mut Flush::default());
        self.repairs.see_to(dispatcher, step.need, self.now);
    }

    fn answer(&self, asking: &Asking, answers: bool) {
        let answer = if answers { Ok(silence()) } else { Err(StoreError::Unavailable("away".into())) };
        self.repairs.answered(asking, answer.as_ref(), self.now, &mut Flush::default());
    }

    /// Lets time pass. Each question is answered at once, if the store answers it.
    fn ask(&mut self, time: Duration, mut answers: impl FnMut(&Asking) -> bool) -> Asked {
        let end = self.now + time;
        let mut asked = Vec::new();
        loop {
            match self.repairs.next(self.now) {
                Next::Ask(all) => {
                    for asking in all {
                        asked.push((self.now, asking.dispatcher.stream().clone(), asking.question.clone()));
                        self.answer(&asking, answers(&asking));
                    }
                }
                Next::Sleep(Some(until)) if until <= end => self.now = self.now.max(until),
                Next::Sleep(_) => break,
            }
        }
        self.now = end;
        asked
    }

    /// What goes out although nothing is answered.
    fn unanswered(&self) -> Vec<Asking> {
        let mut asking = Vec::new();
        while let Next::Ask(all) = self.repairs.next(self.now) {
            asking.extend(all);
        }
        asking
    }
}

fn per_stream(asked: &Asked) -> HashMap<StreamName, usize> {
    let mut counts = HashMap::new();
    for (_, stream, _) in asked {
        *counts.entry(stream.clone()).or_default() += 1;
    }
    counts
}

#[test]
fn every_stream_is_synced_once_in_an_interval_evenly_spread() {
    let mut node = Node::new(Duration::from_secs(30), 1_000);
    let begun = node.now;
    let asked = node.ask(Duration::from_secs(66), |_| true);
    let counts = per_stream(&asked);
    assert_eq!(counts.len(), 1_000);
    assert!(counts.values().all(|count| (1..=3).contains(count)), "{:?}", counts.values().max());
    assert!((1_800..2_600).contains(&asked.len()), "{}", asked.len());
    for second in 0..60 {
        let from = begun + Duration::from_secs(second);
        let count = asked.iter().filter(|(at, ..)| (from..from + Duration::from_secs(1)).contains(at)).count();
        assert!((15..60).contains(&count), "{count} in second {second}");
    }
}

#[test]
fn very_many_streams_are_synced_as_often_as_the_store_affords() {
    let mut node = Node::new(Duration::from_secs(1), 20_000);
    node.repairs.set_nodes(2);
    let asked = node.ask(Duration::from_secs(10), |_| true).len();
    assert!((20_000..30_000).contains(&asked), "{asked} in ten seconds, of 5,000 a second for two nodes");
}

#[test]
fn a_lone_stream_is_synced_in_its_interval_and_not_before() {
    let mut node = Node::new(Duration::from_secs(30), 1);
    assert_eq!(node.ask(Duration::from_secs(26), |_| true).len(), 0);
    assert_eq!(node.ask(Duration::from_secs(8), |_| true).len(), 1);
}

#[test]
fn after_an_interruption_all_streams_are_synced_at_the_pace_of_repairs_oldest_need_first() {
    let mut node = Node::new(HOUR, 20_000);
    node.repairs.mark_all(node.now);
    let begun = node.now;
    let asked = node.ask(Duration::from_secs(5), |_| true);
    // The rotation goes on behind them.
    let order = asked[..20_000].iter().map(|(_, stream, _)| stream);
    assert!(order.eq(node.streams.iter().map(|dispatcher| dispatcher.stream())));
    let took = asked[19_999].0 - begun;
    assert!((1.9..2.1).contains(&took.as_secs_f64()), "{took:?} for 20,000 at 10,000 a second");
}

#[test]
fn an_attach_and_a_hole_go_ahead_of_any_number_of_repairs() {
    let mut node = Node::new(HOUR, 10_000);
    node.repairs.mark_all(node.now);
    // As many as may be under way, and none is answered.
    let out = node.unanswered();
    assert!(out.len() <= 128, "{}", out.len());
    assert!(out.iter().all(|asking| matches!(asking.question, Question::Sync { .. })));
    node.hole(9_999);
    node.now += Duration::from_millis(5);
    let attached = node.attach();
    let next = node.unanswered();
    let streams: Vec<_> = next.iter().map(|asking| asking.dispatcher.stream().clone()).collect();
    assert_eq!(streams[..2], [attached.stream().clone(), node.streams[9_999].stream().clone()]);
}

#[test]
fn questions_that_clients_wait_for_do_not_keep_repairs_from_the_store() {
    let mut node = Node::new(HOUR, 1_000);
    for _ in 0..1_000 {
        node.attach();
    }
    let attaching = node.unanswered();
    assert_eq!(attaching.len(), 256, "so many at once");
    node.repairs.mark_all(node.now);
    assert!(!node.unanswered().is_empty());
    // Each permit goes to the next as soon as it is given back.
    node.answer(&attaching[0], true);
    let next = node.unanswered();
    assert_eq!(next.iter().filter(|asking| asking.question == Question::Attach).count(), 1);
}

#[test]
fn messages_that_continue_go_out_while_a_stream_waits_for_its_repair() {
    let node = Node::new(HOUR, 1);
    node.repairs.mark_all(node.now);
    let event = |at, prev| Arc::new(Event::new(id(at), id(prev), EventType::MESSAGE, "1".into()));
    let head = || match node.streams[0].readiness() {
        super::super::dispatcher::Readiness::Ready(head) => head,
        _ => panic!("it is attached"),
    };
    node.streams[0].message(event(6, 5), node.now, &mut Flush::default());
    assert_eq!(head(), id(6));
    let out = node.unanswered();
    assert_eq!(out[0].question, Question::Sync { head: id(6) });
    node.streams[0].message(event(7, 6), node.now, &mut Flush::default());
    assert_eq!(head(), id(7));
}

#[test]
fn while_the_store_is_away_each_stream_has_one_retry_and_its_return_costs_one_sync_a_stream() {
    let mut node = Node::new(Duration::from_secs(30), 5_000);
    let mut tries = 0;
    // Each try to subscribe again marks all, and holes open at streams that links feed.
    for round in 0..60 {
        node.repairs.mark_all(node.now);
        node.hole(round);
        tries += node.ask(Duration::from_secs(10), |_| false).len();
    }
    // A group every 2.5 to 7.5 seconds, and what was under way or fresh.
    assert!(tries < 600 / 2 * 64, "{tries} tries in ten minutes");
    node.repairs.mark_all(node.now);
    let asked = node.ask(Duration::from_secs(8), |_| true);
    let counts = per_stream(&asked);
    assert_eq!(counts.len(), 5_000, "all are synced");
    // What the interval itself asks for in 8 seconds comes on top.
    let again = asked.len() - 5_000;
    assert!(again < 5_000 * 8 / 30, "{again} were synced again");
}

#[test]
fn one_stream_that_fails_again_and_again_slows_down_itself_alone() {
    let mut node = Node::new(Duration::from_secs(30), 100);
    let bad = node.streams[7].stream().clone();
    node.repairs.mark_all(node.now);
    let asked = node.ask(Duration::from_secs(60), |asking| *asking.dispatcher.stream() != bad);
    let counts = per_stream(&asked);
    assert!((10..40).contains(&counts[&bad]), "{}", counts[&bad]);
    assert!(counts.values().all(|count| *count >= 2));
}

#[test]
fn a_stream_that_moved_is_marked_with_its_new_region_alone() {
    let mut node = Node::new(HOUR, 1);
    let elsewhere =
        Node { repairs: Repairs::new(1, HOUR, 1, node.now), streams: node.streams.clone(), ..Node::new(HOUR, 0) };
    let need = node.streams[0].want_sync(crate::dispatch::merge::Urgency::Urgent);
    elsewhere.repairs.see_to(&node.streams[0], need, elsewhere.now);
    for asking in elsewhere.unanswered() {
        elsewhere.answer(&asking, true);
    }
    node.repairs.mark_all(node.now);
    assert_eq!(node.ask(Duration::from_secs(1), |_| true).len(), 0);
    elsewhere.repairs.mark_all(elsewhere.now);
    assert_eq!(elsewhere.unanswered().len(), 1);
}

#[test]
fn a_stream_whose_home_was_unknown_when_it_was_attached_is_marked_with_its_region() {
    let mut node = Node::new(HOUR, 1);
    let elsewhere = Repairs::new(1, HOUR, 1, node.now);
    elsewhere.adopt(&node.streams[0], node.now);
    node.repairs.mark_all(node.now);
    assert_eq!(node.ask(Duration::from_secs(1), |_| true).len(), 0);
    elsewhere.mark_all(node.now);
    assert!(matches!(elsewhere.next(node.now), Next::Ask(asking) if asking.len() == 1));
}

#[test]
fn a_sync_that_fell_due_while_a_question_was_out_follows_its_answer() {
    let mut node = Node::new(HOUR, 1);
    let need = node.streams[0].want_sync(crate::dispatch::merge::Urgency::Urgent);
    node.repairs.see_to(&node.streams[0], need, node.now);
    let out = node.unanswered();
    assert_eq!(out.len(), 1);
    node.repairs.mark_all(node.now);
    assert!(node.unanswered().is_empty(), "one question of a stream at a time");
    node.answer(&out[0], true);
    assert_eq!(node.ask(Duration::from_secs(1), |_| true).len(), 1);
}

#[test]
fn a_stream_that_is_marked_while_it_attaches_is_synced_once_it_is_attached() {
    let mut node = Node::new(HOUR, 0);
    node.attach();
    let out = node.unanswered();
    assert_eq!(out[0].question, Question::Attach);
    // The answer may be from before the interruption.
    node.repairs.mark_all(node.now);
    assert!(node.unanswered().is_empty());
    node.answer(&out[0], true);
    let asked = node.ask(Duration::from_secs(1), |_| true);
    let questions: Vec<_> = asked.into_iter().map(|(.., question)| question).collect();
    assert_eq!(questions, [Question::Sync { head: id(5) }]);
}

#[tokio::test]
async fn only_streams_that_were_interrupted_are_marked_and_each_once() {
    let mut node = Node::new(HOUR, 3_000);
    let is_wanted = |stream: &StreamName| stream.as_str().ends_with('7');
    node.repairs.mark_where(is_wanted).await;
    let counts = per_stream(&node.ask(Duration::from_secs(2), |_| true));
    let (wanted, others): (Vec<_>, Vec<_>) = counts.iter().partition(|(stream, _)| is_wanted(stream));
    assert!(wanted.len() == 300 && wanted.iter().all(|(_, count)| **count == 1), "{wanted:?}");
    // Those whose turn it was anyway.
    assert!(others.len() < 10, "{others:?}");
}

#[test]
fn what_is_gone_costs_nothing() {
    let mut node = Node::new(HOUR, 1_000);
    node.streams.drain(..999);
    node.repairs.mark_all(node.now);
    assert_eq!(node.ask(Duration::from_secs(1), |_| true).len(), 1);
}

#[test]
fn the_lag_is_for_how_long_a_sync_is_overdue() {
    let mut node = Node::new(Duration::from_secs(30), 100);
    let lag = |node: &Node| node.repairs.lag(node.now);
    node.ask(Duration::from_secs(60), |_| true);
    assert_eq!(lag(&node), Duration::ZERO);
    node.repairs.mark_all(node.now);
    let out = node.unanswered();
    node.now += Duration::from_secs(3);
    node.repairs.mark_all(node.now);
    assert_eq!(lag(&node), Duration::from_secs(3), "some have waited since the first mark");
    out.iter().for_each(|asking| node.answer(asking, true));
    node.ask(Duration::from_secs(2), |_| true);
    assert_eq!(lag(&node), Duration::ZERO);
    // While the store is away, groups are tried one after another, and none of them is synced.
    node.ask(Duration::from_secs(60), |_| false);
    assert!(lag(&node) > Duration::from_secs(55), "{:?}", lag(&node));
    node.ask(Duration::from_secs(10), |_| true);
    assert_eq!(lag(&node), Duration::ZERO);
}
