//! What becomes of a stream whose store lost the end of its history, or all of it: on a real Redis whose
//! newest entries are taken away, and on the embedded store's log, put back to what it was.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whimbrel::model::{EventId, Fork, NodeId, Page, Start, StreamName};
use whimbrel::store::memory::StreamLog;
use whimbrel::store::redis::RedisStore;
use whimbrel::store::{EventLog, RetentionRules};

use crate::conformance::{connect, draft, ids, route, stream};
use crate::support::redis::RedisServer;

/// One stream in a store that can be made to lose things.
trait Fragile {
    async fn publish(&mut self) -> EventId;
    async fn sync(&mut self, head: EventId) -> Page;
    async fn recover(&mut self, head: EventId, epoch: EventId, seen: &[EventId]) -> Page;
    async fn read(&mut self, start: Start) -> Page;
    /// A failover to a replica that never got the newest `count` events, nor what came with them.
    async fn lose(&mut self, count: usize);
    /// A flush.
    async fn flush(&mut self);
}

struct InMemory {
    now: StreamLog,
    /// As it was before each publish.
    past: Vec<StreamLog>,
}

fn blank() -> StreamLog {
    StreamLog::new(RetentionRules::default().of(&stream("topic:news")), Duration::from_secs(3600))
}

fn clock() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn step() -> u64 {
    rand::random_range(1..=65_535)
}

impl Fragile for InMemory {
    async fn publish(&mut self) -> EventId {
        self.past.push(self.now.clone());
        self.now.publish(&draft("1"), clock(), step()).unwrap().id
    }

    async fn sync(&mut self, head: EventId) -> Page {
        self.now.sync(&route(&NodeId::random(), 1), Some(head), clock(), step())
    }

    async fn recover(&mut self, head: EventId, epoch: EventId, seen: &[EventId]) -> Page {
        self.now.recover(head, epoch, seen, clock(), step())
    }

    async fn read(&mut self, start: Start) -> Page {
        self.now.read(start, 100, clock())
    }

    async fn lose(&mut self, count: usize) {
        for _ in 0..count {
            self.now = self.past.pop().unwrap();
        }
    }

    async fn flush(&mut self) {
        self.now = blank();
        self.past.clear();
    }
}

struct InRedis {
    server: RedisServer,
    store: Arc<RedisStore>,
    stream: StreamName,
}

impl Fragile for InRedis {
    async fn publish(&mut self) -> EventId {
        self.store.publish(&self.stream, &draft("1")).await.unwrap().id
    }

    async fn sync(&mut self, head: EventId) -> Page {
        self.store.sync(&self.stream, &route(&NodeId::random(), 1), Some(head)).await.unwrap()
    }

    async fn recover(&mut self, head: EventId, epoch: EventId, seen: &[EventId]) -> Page {
        self.store.recover(&self.stream, head, epoch, seen).await.unwrap()
    }

    async fn read(&mut self, start: Start) -> Page {
        self.store.read(&self.stream, start, 100).await.unwrap()
    }

    async fn lose(&mut self, count: usize) {
        let lost: Vec<EventId> = ids(&self.read(Start::Last(count as u32)).await);
        let last = self.read(Start::Last(count as u32)).await.from.to_string();
        let (events, meta) = ("whimbrel:{topic:news}:events", "whimbrel:{topic:news}:meta");
        let mut pipeline = ::redis::pipe();
        for id in lost {
            pipeline.cmd("XDEL").arg(events).arg(id.to_string());
        }
        pipeline.cmd("XSETID").arg(events).arg(&last).cmd("HSET").arg(meta).arg("last").arg(&last);
        pipeline.exec_async(&mut self.server.raw().await).await.unwrap();
    }

    async fn flush(&mut self) {
        ::redis::cmd("FLUSHALL").exec_async(&mut self.server.raw().await).await.unwrap();
    }
}

async fn memory() -> InMemory {
    InMemory { now: blank(), past: Vec::new() }
}

async fn redis() -> InRedis {
    let server = RedisServer::start();
    let store = Arc::new(connect(&server, RetentionRules::default()).await);
    InRedis { server, store, stream: stream("topic:news") }
}

macro_rules! for_each_store {
    ($($name:ident)*) => {
        for_each_store!(@ memory $($name)*);
        for_each_store!(@ redis $($name)*);
    };
    (@ $kind:ident $($name:ident)*) => {
        mod $kind {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&mut super::$kind().await).await;
            })*
        }
    };
}

for_each_store! {
    a_lost_tail_is_found_and_the_stream_goes_on_above_it
    a_reader_that_saw_the_lost_tail_reads_on_from_the_ancestor
    a_second_report_of_a_fork_only_raises_its_head
    who_had_seen_what_the_old_master_took_meanwhile_misses_nothing_of_the_new_one
    a_reader_that_got_the_gap_and_waits_at_the_mark_gets_it_once
    what_was_published_before_the_report_is_in_its_page
    a_report_of_what_is_still_there_changes_nothing
    a_flush_is_a_new_birth
    after_a_flush_with_a_clock_behind_ids_go_on_above_what_was_shown
    a_tail_that_nothing_is_left_of_forks_at_the_newest_event
    a_second_failover_at_another_event_is_another_fork
    a_lost_head_among_newer_ids_is_a_fork_even_when_nothing_else_was_seen
    a_second_report_from_far_ahead_lifts_the_ids_but_breaks_no_chain
    a_position_right_before_the_oldest_event_is_known
}

/// Five events, of which the last `lost` are lost. Gives the ids and the epoch id.
async fn cut(store: &mut impl Fragile, lost: usize) -> (Vec<EventId>, EventId) {
    let mut stored = Vec::new();
    for _ in 0..5 {
        stored.push(store.publish().await);
    }
    let epoch = store.read(Start::Earliest).await.epoch;
    store.lose(lost).await;
    assert_eq!(store.read(Start::Earliest).await.last, stored[4 - lost]);
    (stored, epoch)
}

/// Newest first, as a ring gives them.
fn seen(stored: &[EventId]) -> Vec<EventId> {
    stored.iter().rev().copied().collect()
}

async fn a_lost_tail_is_found_and_the_stream_goes_on_above_it(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let page = store.recover(stored[4], epoch, &seen(&stored)).await;
    assert_eq!((page.from, page.events.len(), page.epoch), (stored[2], 0, epoch));
    assert_eq!(
        page.fork,
        Some(Fork { ancestor: stored[2], head: stored[4], before: stored[2], mark: page.last, next: page.last })
    );
    assert!(page.last > stored[4]);
    let next = store.publish().await;
    let after = store.read(Start::After(page.last)).await;
    assert_eq!((ids(&after), after.events[0].prev, after.fork), (vec![next], page.last, page.fork));
}

async fn a_reader_that_saw_the_lost_tail_reads_on_from_the_ancestor(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    store.recover(stored[4], epoch, &seen(&stored)).await;
    let next = store.publish().await;
    for position in [stored[3], stored[4]] {
        for page in [store.read(Start::After(position)).await, store.sync(position).await] {
            assert_eq!((page.from, ids(&page)), (stored[2], vec![next]));
        }
        // A node with nothing but its head, such as one that serves a resume.
        let page = store.recover(position, epoch, &[]).await;
        assert_eq!((page.from, ids(&page), page.last), (stored[2], vec![next], next));
    }
    for kept in [stored[1], stored[2]] {
        assert_eq!(store.read(Start::After(kept)).await.from, kept);
    }
}

async fn a_second_report_of_a_fork_only_raises_its_head(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let first = store.recover(stored[3], epoch, &seen(&stored[..4])).await;
    let fork = first.fork.unwrap();
    let second = store.recover(stored[4], epoch, &seen(&stored)).await;
    assert_eq!((second.last, second.from), (first.last, stored[2]));
    assert_eq!(second.fork, Some(Fork { head: stored[4], ..fork }));
    let third = store.recover(stored[3], epoch, &seen(&stored[..4])).await;
    assert_eq!((third.last, third.fork), (first.last, second.fork));
}

async fn who_had_seen_what_the_old_master_took_meanwhile_misses_nothing_of_the_new_one(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let fresh = [store.publish().await, store.publish().await];
    let first = store.recover(stored[4], epoch, &seen(&stored)).await;
    // Another node was still with the old master, which gave ids above the mark.
    let shown = EventId::new(first.last.ms + 500, 5);
    store.recover(shown, epoch, &[shown, stored[3], stored[2]]).await;
    let page = store.read(Start::After(shown)).await;
    assert_eq!((page.from, ids(&page), page.last), (stored[2], fresh.to_vec(), first.last));
}

async fn a_reader_that_got_the_gap_and_waits_at_the_mark_gets_it_once(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let first = store.recover(stored[4], epoch, &seen(&stored)).await;
    let mark = first.last;
    for _ in 0..2 {
        let page = store.recover(mark, epoch, &seen(&stored)).await;
        assert_eq!((page.from, page.fork), (mark, first.fork));
        assert_eq!(store.read(Start::After(mark)).await.from, mark);
        assert_eq!(store.sync(mark).await.from, mark);
        store.publish().await;
    }
}

async fn what_was_published_before_the_report_is_in_its_page(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let fresh = [store.publish().await, store.publish().await];
    let page = store.recover(stored[4], epoch, &seen(&stored)).await;
    assert_eq!((page.from, ids(&page)), (stored[2], fresh.to_vec()));
    assert!(page.last > fresh[1] && page.last > stored[4]);
    let fork = Fork { ancestor: stored[2], head: stored[4], before: fresh[1], mark: page.last, next: fresh[0] };
    assert_eq!(page.fork, Some(fork));
    // Who follows the new history stands at its newest event, and finds it there.
    let page = store.recover(fresh[1], epoch, &fresh).await;
    assert_eq!((page.from, page.events.len()), (fresh[1], 0));
}

async fn a_report_of_what_is_still_there_changes_nothing(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let page = store.recover(stored[1], epoch, &seen(&stored[..2])).await;
    assert_eq!((page.from, ids(&page)), (stored[1], vec![stored[2]]));
    assert_eq!((page.last, page.fork), (stored[2], None));
}

async fn a_flush_is_a_new_birth(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 0).await;
    store.flush().await;
    let page = store.recover(stored[4], epoch, &seen(&stored)).await;
    // Not always above: all this may happen within one millisecond.
    assert_ne!(page.epoch, epoch);
    assert_eq!((page.from, page.events.len(), page.first), (page.epoch, 0, None));
    let next = store.publish().await;
    let again = store.recover(stored[3], epoch, &seen(&stored[..4])).await;
    assert_eq!((again.from, ids(&again), again.epoch), (page.epoch, vec![next], page.epoch));
}

async fn after_a_flush_with_a_clock_behind_ids_go_on_above_what_was_shown(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 0).await;
    // Shown while the clock was an hour ahead.
    let hour = 3_600_000;
    let (shown, newer) = (EventId::new(stored[4].ms + hour, 5), EventId::new(stored[4].ms + hour, 9));
    store.flush().await;
    let early = store.publish().await;
    let page = store.recover(shown, epoch, &[shown, stored[4]]).await;
    assert_eq!((page.from, ids(&page)), (page.epoch, vec![early]));
    // Every chain breaks at a birth: a mark would only report to those of the new history a loss that is
    // none to them.
    assert_eq!(page.fork, Some(Fork { ancestor: early, head: shown, before: early, mark: early, next: early }));
    assert_eq!(page.last, early);
    let again = store.recover(newer, epoch, &[newer, shown]).await;
    assert_eq!(again.fork.map(|fork| (fork.ancestor, fork.mark)), Some((early, early)));
    let next = store.publish().await;
    assert!(next > newer);
}

async fn a_tail_that_nothing_is_left_of_forks_at_the_newest_event(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let page = store.recover(stored[4], epoch, &[stored[4], stored[3]]).await;
    assert_eq!((page.from, page.events.len()), (stored[2], 0));
    assert_eq!(
        page.fork,
        Some(Fork { ancestor: stored[2], head: stored[4], before: stored[2], mark: page.last, next: page.last })
    );
    assert!(page.last > stored[4]);
}

async fn a_second_failover_at_another_event_is_another_fork(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let first = store.recover(stored[4], epoch, &seen(&stored)).await;
    let mut more = vec![stored[2]];
    for _ in 0..3 {
        more.push(store.publish().await);
    }
    store.lose(2).await;
    let second = store.recover(more[3], epoch, &seen(&more)).await;
    assert_eq!(second.from, more[1]);
    let fork = Fork { ancestor: more[1], head: more[3], before: more[1], mark: second.last, next: second.last };
    assert_eq!(second.fork, Some(fork));
    assert!(second.last > more[3] && second.last > first.last);
}

async fn a_lost_head_among_newer_ids_is_a_fork_even_when_nothing_else_was_seen(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    // In memory all this may happen within one millisecond, where ids step at random.
    let mut below = stored[2];
    let mut newest = store.publish().await;
    while newest < stored[4] {
        below = newest;
        newest = store.publish().await;
    }
    let page = store.recover(stored[4], epoch, &[]).await;
    let fork = Fork { ancestor: below, head: stored[4], before: newest, mark: page.last, next: newest };
    assert_eq!((page.from, ids(&page), page.fork), (below, vec![newest], Some(fork)));
    assert!(page.last > newest);
}

async fn a_second_report_from_far_ahead_lifts_the_ids_but_breaks_no_chain(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let first = store.recover(stored[4], epoch, &seen(&stored)).await;
    let shown = EventId::new(stored[4].ms + 3_600_000, 5);
    let second = store.recover(shown, epoch, &[shown, stored[3], stored[2]]).await;
    assert_eq!((second.from, second.last), (stored[2], first.last));
    let next = store.publish().await;
    let page = store.read(Start::After(first.last)).await;
    assert_eq!((ids(&page), page.events[0].prev), (vec![next], first.last));
    assert!(next > shown);
}

async fn a_position_right_before_the_oldest_event_is_known(store: &mut impl Fragile) {
    let (stored, epoch) = cut(store, 2).await;
    let mark = store.recover(stored[4], epoch, &seen(&stored)).await.last;
    // A second fork takes the place of the first: its mark is now known by the event after it alone.
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(store.publish().await);
    }
    store.lose(1).await;
    let second = store.recover(more[2], epoch, &seen(&more)).await;
    let again = store.recover(mark, epoch, &[]).await;
    assert_eq!((again.from, again.last, again.fork), (mark, second.last, second.fork));
    assert_eq!(again.events[0].prev, mark);
}
