//! What dispatchers want of the store is asked here: one task for each region takes what its [`Repairs`] say is due,
//! and hands it to the store in groups.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::{Attached, Registry};
use crate::dispatch::dispatcher::{Dispatcher, FollowUp};
use crate::dispatch::flush::Flush;
use crate::dispatch::merge::Question;
use crate::dispatch::repairs::{Asking, Next, Repairs};
use crate::model::{EventId, Marks, Page, Route, StreamName};
use crate::store::StoreError;

/// For how long a route holds at the least. Syncs grow rarer with the streams of a node, and a route that was asserted
/// when it had few must not lapse before its next one. Routes of dead nodes are cleaned up long before.
const LEAST_ROUTE_TIME: Duration = Duration::from_secs(600);

impl Registry {
    /// Asks the store of a region whatever is due, until the registry is gone.
    pub(super) async fn ask_for_ever(registry: Weak<Registry>, repairs: Arc<Repairs>) {
        loop {
            let now = Instant::now();
            match repairs.next(now) {
                Next::Ask(asking) => {
                    let Some(registry) = registry.upgrade() else { return };
                    registry.ask(&repairs, asking);
                }
                Next::Sleep(None) => repairs.woken().await,
                Next::Sleep(Some(until)) => {
                    let _ = tokio::time::timeout_at(until, repairs.woken()).await;
                }
            }
        }
    }

    /// Asks all of these: syncs in one call, histories that broke off one by one.
    fn ask(self: &Arc<Self>, repairs: &Arc<Repairs>, asking: Vec<Asking>) {
        let mut syncs = Vec::new();
        for asking in asking {
            match &asking.question {
                Question::Attach => {
                    self.metrics.attaches.inc();
                    syncs.push((asking, None));
                }
                Question::Sync { head } => {
                    self.metrics.syncs.inc();
                    let head = Some(*head);
                    syncs.push((asking, head));
                }
                Question::Recover { .. } => {
                    self.metrics.recoveries.inc();
                    tokio::spawn(self.clone().recover(repairs.clone(), asking));
                }
            }
        }
        if !syncs.is_empty() {
            tokio::spawn(self.clone().sync_group(repairs.clone(), syncs));
        }
    }

    async fn sync_group(self: Arc<Self>, repairs: Arc<Repairs>, syncs: Vec<(Asking, Option<EventId>)>) {
        let ttl = repairs.interval();
        let due = syncs.iter().map(|(asking, head)| {
            let dispatcher = &asking.dispatcher;
            (dispatcher.stream().clone(), self.route(dispatcher, repairs.generation(), ttl), *head)
        });
        let due: Vec<_> = due.collect();
        let answered = |place: usize, answer| self.answered(&repairs, &syncs[place].0, answer);
        self.store.sync_each(&due, &answered).await;
    }

    async fn recover(self: Arc<Self>, repairs: Arc<Repairs>, asking: Asking) {
        let Question::Recover { head, epoch, seen } = &asking.question else { return };
        let answer = self.store.recover(asking.dispatcher.stream(), *head, *epoch, seen).await;
        self.answered(&repairs, &asking, answer);
    }

    /// Deals with an answer of the store, or its lack.
    fn answered(self: &Arc<Self>, repairs: &Repairs, asking: &Asking, answer: Result<Page, StoreError>) {
        let dispatcher = &asking.dispatcher;
        let attaches = asking.question == Question::Attach;
        match &answer {
            Ok(page) => {
                self.clock.read(page.now_ms);
                self.observe_page(page);
            }
            Err(error) => {
                tracing::debug!(stream = %dispatcher.stream(), %error, attaches, "the store gave no answer");
                dispatcher.forget_note();
                if attaches {
                    // Out of the map first: a caller that gets the failure may try again at once.
                    self.dispatchers.lock().remove(dispatcher.stream());
                }
            }
        }
        let mut flush = Flush::default();
        let step = repairs.answered(asking, answer.as_ref(), Instant::now(), &mut flush);
        self.carry_out(dispatcher, step);
        self.flush(&mut flush);
        if self.repairs.len() > 1 {
            // The first to attach a stream may be the first to learn where its home is.
            self.repairs_of(dispatcher.stream()).adopt(dispatcher, Instant::now());
        }
        if attaches && dispatcher.is_unused() {
            self.linger(dispatcher.stream());
        }
        if let Ok(page) = answer {
            self.report_marks(dispatcher.stream(), page.marks);
        }
    }

    fn report_marks(&self, stream: &StreamName, marks: Marks) {
        if marks != Marks::default()
            && let Some(report) = self.on_marks.get()
        {
            report(stream, marks);
        }
    }

    fn route(&self, dispatcher: &Dispatcher, generation: u32, interval: Duration) -> Route {
        // Two syncs may fail before a route lapses.
        let ttl = (interval * 3 + self.settings.lease).max(LEAST_ROUTE_TIME);
        // Before the node's id is looked at: were that new, the mark that follows a new id has it noted again.
        let noted = dispatcher.note(generation);
        Route { node: (*self.node()).clone(), registration: dispatcher.registration(), ttl, noted }
    }

    /// Sees to what a step of a dispatcher leaves to be done.
    pub(super) fn carry_out(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>, follow_up: FollowUp) {
        if follow_up.ring_filled {
            self.rings.lock().push_back((Instant::now(), Arc::downgrade(dispatcher)));
        }
        if follow_up.need.is_something() {
            self.see_to(dispatcher, follow_up.need);
        }
        // Connections that could not keep up get temporary dispatchers.
        for (subscriber, chain) in follow_up.overflowed {
            self.metrics.outbox_overflows.inc();
            let attached = Attached { registry: self.clone(), dispatcher: dispatcher.clone(), head: chain.position() };
            attached.catch_up(subscriber, chain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::RegistrySettings;
    use crate::metrics::Metrics;
    use crate::model::NodeId;
    use crate::store::RetentionRules;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn a_route_outlasts_the_growth_of_its_node() {
        let second = Duration::from_secs(1);
        let store = Arc::new(MemoryStore::new(RetentionRules::default(), second * 3600, 1 << 20));
        let settings = RegistrySettings { sync: second * 30, lease: second * 15, ring_bytes: 1 << 20 };
        let registry = Registry::new(store, NodeId::random(), settings, Metrics::new());
        let attached = registry.attach(&"topic:news".parse().unwrap()).await.unwrap();
        let ttl = |interval| registry.route(attached.dispatcher(), 1, interval).ttl;
        // Asserted when the node had few streams. With a million, the next sync comes after 200 s, and may fail.
        assert!(ttl(second * 30) >= second * 400);
        assert!(ttl(second * 200) >= second * 600);
    }
}
