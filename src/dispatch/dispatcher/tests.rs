use std::sync::atomic::AtomicBool;

use super::*;
use crate::dispatch::fixtures::{self, Outbox, id};
use crate::model::{Fork, Gap, GapReason};

fn page(from: u64, events: &[(u64, u64)], last: u64, fork: Option<Fork>) -> Page {
    Page { fork, ..fixtures::page(from, events, last) }
}

#[test]
fn who_overflows_behind_the_notice_of_a_loss_is_not_notified_of_it_again() {
    let (memory, now) = (Memory::new(1 << 20), Instant::now());
    let dispatcher = Dispatcher::attaching("topic:news".parse().unwrap(), 1, memory, Metrics::new());
    let answer = |page: &Page| dispatcher.answered(Ok(page), now, &mut Flush::default());
    assert_eq!(dispatcher.ask(), Some(Question::Attach));
    answer(&page(9, &[], 9, None));
    let outbox =
        Outbox { number: 1, queue: Mutex::default(), capacity: 1, closed: AtomicBool::new(false), now: Arc::default() };
    let subscriber = Subscriber { sink: Arc::new(outbox), slot: 0 };
    assert_eq!(dispatcher.join(&subscriber, id(9)), Joining::Joined);

    // 6 to 9 were lost, and 11 was stored before that was reported.
    let fork = Fork { ancestor: id(5), head: id(9), before: id(11), mark: id(12), next: id(11) };
    let branch = page(5, &[(11, 5)], 12, Some(fork));
    dispatcher.want_sync(Urgency::Urgent);
    assert_eq!(dispatcher.ask(), Some(Question::Sync { head: id(9) }));
    answer(&branch);
    assert!(matches!(dispatcher.ask(), Some(Question::Recover { .. })));
    // The outbox takes the notice, and is full.
    let (_, mut chain) = answer(&branch).overflowed.pop().expect("an overflow");
    let read: Vec<_> = chain.read(&branch).into_iter().map(|step| step.delivery).collect();
    assert_eq!(read, [Delivery::Event(branch.events[0].clone()), Delivery::Position(id(12))]);
    let unaware = Chain::at(id(5)).read(&branch).remove(0).delivery;
    assert_eq!(unaware, Delivery::Gap(Gap { after: id(5), next: id(11), reason: GapReason::Lost }));
}
