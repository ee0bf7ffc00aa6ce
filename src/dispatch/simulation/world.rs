//! The simulated world: a store that can be replaced by an older copy, nodes with a lossy channel, and
//! clients that come and go. Everything between them takes as many steps as the actions say.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::dispatcher::{Dispatcher, Readiness};
use super::actions::{Action, Fate, From, Settings};
use super::connection::{Connection, Feed};
use super::history::{Branch, Client, History};
use super::node::Node;
use crate::metrics::Metrics;
use crate::model::{Draft, EventId, EventType, Page, Route, Start, StreamName};
use crate::store::memory::StreamLog;
use crate::store::{Retention, StoreError};

pub const NODES: usize = 3;
pub const CLIENTS: usize = 4;

/// Times of the store, in milliseconds.
pub const LOG_TIME: u64 = 1_000;
pub const POSITION_TIME: u64 = 10_000;
const ROUTE_TIME: u64 = 5_000;

/// Rounds in which a healed world has to come to rest.
const PATIENCE: usize = 300;

pub struct World {
    pub(super) settings: Settings,
    pub(super) stream: StreamName,
    pub(super) log: StreamLog,
    replica: (StreamLog, Branch),
    /// The store's clock.
    pub(super) now: u64,
    /// The nodes' clock, which never goes back.
    pub(super) time: Instant,
    pub(super) history: History,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<(Client, Option<Connection>)>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) numbers: u64,
    published: u64,
    /// Dispatchers whose lost tail was trimmed over before they could report it.
    too_late: HashSet<u64>,
    /// What nodes know of the store's time.
    pub(super) clock: Arc<AtomicU64>,
}

impl World {
    pub fn new(settings: Settings) -> Self {
        let retention = Retention { events: settings.keep, time: Duration::from_millis(LOG_TIME) };
        let log = StreamLog::new(retention, Duration::from_millis(POSITION_TIME));
        let mut world = World {
            stream: "topic:news".parse().expect("a name"),
            replica: (log.clone(), Branch::default()),
            log,
            now: 1_000_000,
            time: Instant::now(),
            history: History::default(),
            nodes: Vec::new(),
            clients: Vec::new(),
            metrics: Metrics::new(),
            numbers: 0,
            published: 0,
            too_late: HashSet::new(),
            clock: Arc::default(),
            settings,
        };
        world.nodes = (0..NODES).map(|n| Node::new(n, 0, world.settings.ring, world.time)).collect();
        let epoch = world.touch(1);
        world.replica = (world.log.clone(), world.history.branch.clone());
        world.clients = (0..CLIENTS).map(|_| (Client::new(epoch), None)).collect();
        world
    }

    pub fn act(&mut self, action: &Action) {
        match *action {
            Action::Publish { step, ttl, key } => self.publish(step, ttl, key),
            Action::Tick { ms } => {
                self.now += ms;
                self.time += Duration::from_millis(ms);
            }
            Action::Erase => {
                self.touch(1);
                self.log.erase(self.now);
                self.history.erased();
            }
            Action::Replicate => {
                self.touch(1);
                self.replica = (self.log.clone(), self.history.branch.clone());
            }
            Action::Failover { behind } => self.fail_over(behind),
            Action::Flush => {
                let retention = Retention { events: self.settings.keep, time: Duration::from_millis(LOG_TIME) };
                self.log = StreamLog::new(retention, Duration::from_millis(POSITION_TIME));
                self.history.replaced(Branch::default());
                self.replica = (self.log.clone(), Branch::default());
            }
            Action::Deliver { node, which, again } => self.deliver(node % NODES, which, again),
            Action::Drop { node, which } => {
                let channel = &mut self.nodes[node % NODES].channel;
                if !channel.is_empty() {
                    channel.remove(which % channel.len());
                }
            }
            Action::Work { node, which, fate } => self.work(node % NODES, which, fate),
            Action::Mark { node } => self.mark(node % NODES),
            Action::ForgetRing { node } => {
                if let Some(dispatcher) = &self.nodes[node % NODES].dispatcher {
                    dispatcher.keeps_ring(self.time, Duration::ZERO);
                }
            }
            Action::Detach { node } => self.detach(node % NODES),
            Action::Kill { node } => self.kill(node % NODES),
            Action::Connect { client, node, from } => self.connect(client % CLIENTS, node % NODES, from),
            Action::Disconnect { client } => self.disconnect(client % CLIENTS),
            Action::Feed { client, fate, shared } => self.feed(client % CLIENTS, fate, shared),
            Action::Take { client, count } => self.take(client % CLIENTS, count),
        }
    }

    /// The network heals: everything that is under way arrives, every client connects and reads, every
    /// node syncs. Then all have to be at the same place, and a last event has to reach all.
    pub fn heal(&mut self) {
        self.settle();
        for node in 0..NODES {
            self.mark(node);
        }
        self.settle();
        // Messages again: what was missed before is known now.
        self.publish(1, None, None);
        self.settle();
        for node in &self.nodes {
            if let Some(dispatcher) = &node.dispatcher {
                assert!(dispatcher.is_settled(), "a dispatcher waits for something");
                let Readiness::Ready(head) = dispatcher.readiness() else { panic!("not attached") };
                assert_eq!(Some(head), self.history.branch.tip, "a dispatcher is elsewhere");
            }
        }
        for (client, connection) in &self.clients {
            assert_eq!(Some(client.at), self.history.branch.tip, "a client is elsewhere");
            let alive = self.nodes.iter().filter_map(|node| node.dispatcher.as_ref());
            for dispatcher in alive {
                let number = dispatcher.registration();
                let owes = client.owed_by.contains(&number) && !self.too_late.contains(&number);
                assert!(!owes, "a client got no gap for a lost tail that dispatcher {number} had seen");
            }
            let live = connection.as_ref().is_some_and(|connection| matches!(connection.feed, Feed::Live));
            assert!(live, "a client does not follow the live end");
        }
    }

    fn settle(&mut self) {
        for _ in 0..PATIENCE {
            let mut busy = false;
            for node in 0..NODES {
                while !self.nodes[node].channel.is_empty() {
                    busy = true;
                    self.deliver(node, 0, false);
                }
                busy |= self.work_off(node);
            }
            for client in 0..CLIENTS {
                if self.clients[client].1.is_none() {
                    busy = true;
                    self.connect(client, client % NODES, From::Cursor);
                }
                let connection = self.clients[client].1.as_ref();
                busy |= connection.is_some_and(|connection| {
                    !matches!(connection.feed, Feed::Live) || !connection.outbox.queue.lock().is_empty()
                });
                self.feed(client, Fate::Done, false);
                self.take(client, usize::MAX);
            }
            if !busy {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// A step that makes no id that was ever given: two histories sharing one is what steps are random for.
    fn fresh_step(&self, mut step: u64, operation: impl Fn(&mut StreamLog, u64) -> EventId) -> u64 {
        loop {
            let made = operation(&mut self.log.clone(), step);
            if Some(made) == self.history.branch.tip || !self.history.has(made) {
                return step;
            }
            step += 1;
        }
    }

    /// What any operation begins with: expiry, and perhaps a birth. Gives `last`.
    pub(super) fn touch(&mut self, step: u64) -> EventId {
        let now = self.now;
        self.history.expire(now);
        self.clock.store(now, Ordering::Relaxed);
        let operation = |log: &mut StreamLog, step| {
            log.epoch(now, step);
            log.read(Start::Last(0), 1, now).last
        };
        let step = self.fresh_step(step, operation);
        self.log.epoch(now, step);
        let page = self.log.read(Start::Last(0), 1, now);
        if !self.history.has(page.epoch) {
            self.history.epoch(page.epoch);
        }
        assert_eq!(Some(page.last), self.history.branch.tip);
        assert_eq!(page.first, self.history.oldest_kept());
        page.last
    }

    fn publish(&mut self, step: u64, ttl: Option<u64>, key: Option<u8>) {
        self.touch(step);
        self.published += 1;
        let draft = Draft {
            ttl: ttl.map(Duration::from_millis),
            collapse: key.map(|key| key.to_string()),
            ..Draft::new(EventType::MESSAGE, self.published.to_string())
        };
        let now = self.now;
        let step = self.fresh_step(step, |log, step| log.publish(&draft, now, step).map_or(EventId::ZERO, |it| it.id));
        let stored = self.log.publish(&draft, now, step).expect("it has no key");
        let event = stored.event.expect("it is new");
        self.history.published(&event, self.settings.keep as usize, now + LOG_TIME);
        for node in &mut self.nodes {
            if stored.nodes.contains(&node.id) {
                node.channel.push(event.clone());
            }
        }
    }

    fn fail_over(&mut self, behind: u64) {
        self.touch(1);
        self.now = (self.now - behind).max(500_000);
        self.log = self.replica.0.clone();
        let lost: HashSet<_> = self.history.replaced(self.replica.1.clone()).into_iter().collect();
        for node in &self.nodes {
            let Some(dispatcher) = &node.dispatcher else { continue };
            let Readiness::Ready(head) = dispatcher.readiness() else { continue };
            for (client, _) in &mut self.clients {
                let path = self.history.path(head);
                if path.contains(&client.at)
                    && path
                        .iter()
                        .take_while(|id| **id != client.at)
                        .any(|id| lost.contains(id) && self.history.is_event(*id))
                {
                    client.owed_by.push(dispatcher.registration());
                }
            }
        }
    }

    pub(super) fn ask<T>(&mut self, fate: Fate, operation: impl FnOnce(&mut Self) -> T) -> Result<T, StoreError> {
        match fate {
            Fate::Done => Ok(operation(self)),
            Fate::Refused => Err(StoreError::Unavailable("the simulation's fault".into())),
            Fate::Unanswered => {
                operation(self);
                Err(StoreError::Unknown("the simulation's fault".into()))
            }
        }
    }

    pub(super) fn sync_in_store(&mut self, node: usize, dispatcher: &Dispatcher, head: Option<EventId>) -> Page {
        self.touch(1);
        let route = Route {
            node: self.nodes[node].id.clone(),
            registration: dispatcher.registration(),
            ttl: Duration::from_millis(ROUTE_TIME),
            noted: true,
        };
        let page = self.log.sync(&route, head, self.now, 1);
        self.cut(page)
    }

    pub(super) fn recover_in_store(&mut self, number: u64, head: EventId, epoch: EventId, seen: &[EventId]) -> Page {
        let before = self.touch(1);
        let now = self.now;
        let operation = |log: &mut StreamLog, step| log.recover(head, epoch, seen, now, step).last;
        let step = self.fresh_step(1, operation);
        let page = self.log.recover(head, epoch, seen, now, step);
        let lost = !self.history.on_branch(head);
        if lost {
            self.history.found_lost(head);
        }
        if page.last != before {
            self.history.raised(page.last, head, page.from);
        }
        if let Some(fork) = page.fork {
            self.history.recorded(fork, head);
        }
        if lost && self.history.oldest_kept().is_none_or(|oldest| head < oldest) {
            self.too_late.insert(number);
        }
        self.cut(page)
    }

    /// A page as the store would answer it if pages were smaller.
    pub(super) fn cut(&mut self, mut page: Page) -> Page {
        if page.events.len() > self.settings.page {
            page.events.truncate(self.settings.page);
            page.more = true;
        }
        self.history.answered(&page);
        page
    }
}
