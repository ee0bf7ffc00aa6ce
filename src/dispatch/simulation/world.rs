//! The simulated world: a store that can be replaced by an older copy, nodes with a lossy channel, and
//! clients that come and go. Everything between them takes as many steps as the actions say.
//!
//! The dispatchers, the temporary dispatchers' readers and the store's log are the real ones; what the
//! registry and [`catch_up`](super::super::catch_up) do around them with tasks is done here step by step.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::catch_up::Reader;
use super::super::chain::{Chain, Delivery};
use super::super::dispatcher::{Detach, Dispatcher, Joining, Readiness, Step, Subscriber};
use super::super::flush::Flush;
use super::super::live::Ask;
use super::super::ring::RingBudget;
use super::super::sink::{Offer, Sink, Slot};
use super::history::{Branch, Client, History};
use crate::metrics::Metrics;
use crate::model::{Draft, Event, EventId, EventType, Page, Start, StreamName};
use crate::store::memory::StreamLog;
use crate::store::{NodeId, Retention, Route, StoreError};

pub const NODES: usize = 3;
pub const CLIENTS: usize = 4;

/// Times of the store, in milliseconds.
pub const LOG_TIME: u64 = 1_000;
pub const POSITION_TIME: u64 = 10_000;
const ROUTE_TIME: u64 = 5_000;

/// Rounds in which a healed world has to come to rest.
const PATIENCE: usize = 300;

/// What may differ between worlds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Events that the log keeps.
    pub keep: u64,
    /// Events in a page.
    pub page: usize,
    /// Deliveries that an outbox takes.
    pub outbox: usize,
    /// Bytes for the ring of a node.
    pub ring: usize,
}

/// What becomes of a request to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// It never gets there.
    Refused,
    /// It takes effect, the answer is lost.
    Unanswered,
}

/// With what a client connects.
#[derive(Debug, Clone, Copy)]
pub enum From {
    Cursor,
    /// A cursor so many deliveries old.
    Old(usize),
    Now,
    Earliest,
}

#[derive(Debug, Clone)]
pub enum Action {
    Publish {
        step: u64,
        /// After so many milliseconds it expires.
        ttl: Option<u64>,
        /// Its collapse key.
        key: Option<u8>,
    },
    Tick {
        ms: u64,
    },
    /// A replica is as far as the master is now.
    Replicate,
    /// The replica becomes the master; its clock is so much behind.
    Failover {
        behind: u64,
    },
    Flush,
    Erase,
    Deliver {
        node: usize,
        which: usize,
        again: bool,
    },
    Drop {
        node: usize,
        which: usize,
    },
    /// A task of a node takes its next step.
    Work {
        node: usize,
        which: usize,
        fate: Fate,
    },
    Sync {
        node: usize,
    },
    ForgetRing {
        node: usize,
    },
    Detach {
        node: usize,
    },
    Kill {
        node: usize,
    },
    Connect {
        client: usize,
        node: usize,
        from: From,
    },
    Disconnect {
        client: usize,
    },
    /// A client's temporary dispatcher takes its next step.
    Feed {
        client: usize,
        fate: Fate,
        shared: bool,
    },
    /// A client takes what is in its outbox.
    Take {
        client: usize,
        count: usize,
    },
}

enum Task {
    Attach,
    Attached(Result<Page, StoreError>),
    Ask(Ask),
    Answered(Result<Page, StoreError>),
    Backoff(Option<Ask>),
}

struct Node {
    id: NodeId,
    dispatcher: Option<Arc<Dispatcher>>,
    channel: Vec<Arc<Event>>,
    tasks: VecDeque<(Arc<Dispatcher>, Task)>,
    budget: Arc<RingBudget>,
    /// Pages that others at the same position may be given.
    pages: HashMap<EventId, Arc<Page>>,
}

struct Outbox {
    number: u64,
    queue: Mutex<VecDeque<Delivery>>,
    capacity: usize,
    closed: AtomicBool,
    /// The world's time, as nodes know it.
    now: Arc<AtomicU64>,
}

#[async_trait]
impl Sink for Outbox {
    fn number(&self) -> u64 {
        self.number
    }

    fn wants(&self, _slot: Slot) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    fn offer(&self, slot: Slot, _stream: &StreamName, delivery: &Delivery) -> Offer {
        let mut queue = self.queue.lock();
        if !self.wants(slot) {
            Offer::Closed
        } else if queue.len() >= self.capacity {
            Offer::Full
        } else {
            // As a real connection does.
            queue.push_back(match delivery {
                Delivery::Event(event) if event.is_expired(self.now.load(Ordering::Relaxed)) => {
                    Delivery::Passed(event.id)
                }
                delivery => delivery.clone(),
            });
            Offer::Taken { flush: false }
        }
    }

    fn flush(&self) {}

    async fn room(&self) {}

    async fn left(&self, _slot: Slot) {
        std::future::pending().await
    }
}

struct Connection {
    node: usize,
    outbox: Arc<Outbox>,
    feed: Feed,
}

enum Feed {
    /// Waits for the node to attach.
    Attaching(From),
    Reading(Box<Reading>),
    Live,
}

struct Reading {
    dispatcher: Arc<Dispatcher>,
    reader: Reader,
    synced: bool,
    next: Next,
}

enum Next {
    Join,
    Synced,
    Read,
    Answered(Arc<Page>),
}

pub struct World {
    settings: Settings,
    stream: StreamName,
    log: StreamLog,
    replica: (StreamLog, Branch),
    now: u64,
    history: History,
    nodes: Vec<Node>,
    clients: Vec<(Client, Option<Connection>)>,
    metrics: Arc<Metrics>,
    numbers: u64,
    published: u64,
    /// Dispatchers whose lost tail was trimmed over before they could report it.
    too_late: HashSet<u64>,
    /// What nodes know of the store's time.
    clock: Arc<AtomicU64>,
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
        for n in 0..NODES {
            world.nodes.push(Node {
                id: NodeId::from(format!("node-{n}")),
                dispatcher: None,
                channel: Vec::new(),
                tasks: VecDeque::new(),
                budget: RingBudget::new(world.settings.ring),
                pages: HashMap::new(),
            });
        }
        let epoch = world.touch(1);
        world.replica = (world.log.clone(), world.history.branch.clone());
        world.clients = (0..CLIENTS).map(|_| (Client::new(epoch), None)).collect();
        world
    }

    pub fn act(&mut self, action: &Action) {
        match *action {
            Action::Publish { step, ttl, key } => self.publish(step, ttl, key),
            Action::Tick { ms } => self.now += ms,
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
            Action::Sync { node } => self.sync(node % NODES),
            Action::ForgetRing { node } => {
                if let Some(dispatcher) = &self.nodes[node % NODES].dispatcher {
                    dispatcher.forget_ring_if_quiet(Duration::ZERO);
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
            self.sync(node);
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
                assert!(!owes, "a client was not told of a lost tail that dispatcher {number} had seen");
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
                for _ in 0..self.nodes[node].tasks.len() {
                    busy = true;
                    self.work(node, 0, Fate::Done);
                }
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
            if Some(made) == self.history.branch.tip || !self.history.knows(made) {
                return step;
            }
            step += 1;
        }
    }

    /// What any operation begins with: expiry, and perhaps a birth. Gives `last`.
    fn touch(&mut self, step: u64) -> EventId {
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
        if !self.history.knows(page.epoch) {
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

    fn deliver(&mut self, node: usize, which: usize, again: bool) {
        let this = &mut self.nodes[node];
        if this.channel.is_empty() {
            return;
        }
        let which = which % this.channel.len();
        let event = if again { this.channel[which].clone() } else { this.channel.remove(which) };
        match this.dispatcher.clone() {
            Some(dispatcher) => {
                let step = dispatcher.message(event, &mut Flush::default());
                self.carry_out(node, &dispatcher, step);
            }
            // A stray route.
            None => self.log.detach(&self.nodes[node].id.clone(), None),
        }
    }

    fn sync(&mut self, node: usize) {
        if let Some(dispatcher) = self.nodes[node].dispatcher.clone()
            && let Some(ask) = dispatcher.sync()
        {
            self.start(node, dispatcher, ask);
        }
    }

    fn start(&mut self, node: usize, dispatcher: Arc<Dispatcher>, ask: Ask) {
        self.nodes[node].tasks.push_back((dispatcher, Task::Ask(ask)));
    }

    fn carry_out(&mut self, node: usize, dispatcher: &Arc<Dispatcher>, step: Step) {
        for (subscriber, chain) in step.overflowed {
            self.read_on(subscriber.sink.number(), dispatcher.clone(), chain);
        }
        if let Some(ask) = step.ask {
            self.start(node, dispatcher.clone(), ask);
        }
    }

    fn read_on(&mut self, number: u64, dispatcher: Arc<Dispatcher>, chain: Chain) {
        let connection = self
            .clients
            .iter_mut()
            .filter_map(|(_, connection)| connection.as_mut())
            .find(|connection| connection.outbox.number == number);
        match connection {
            Some(connection) => {
                let reading = Reading { dispatcher, reader: Reader::new(chain), synced: false, next: Next::Join };
                connection.feed = Feed::Reading(Box::new(reading));
            }
            None => {
                dispatcher.unpin();
            }
        }
    }

    /// What `Registry::run` and `Registry::run_attach` do, one step at a time.
    fn work(&mut self, node: usize, which: usize, fate: Fate) {
        let tasks = &mut self.nodes[node].tasks;
        if tasks.is_empty() {
            return;
        }
        let (dispatcher, task) = tasks.remove(which % tasks.len()).expect("within bounds");
        let next = match task {
            Task::Attach => Some(Task::Attached(self.ask(fate, |world| world.sync_in_store(node, &dispatcher, None)))),
            Task::Attached(answer) => {
                let failed = answer.is_err();
                if let Some(ask) = dispatcher.attached(answer, &self.nodes[node].budget.clone()) {
                    self.start(node, dispatcher.clone(), ask);
                }
                if failed {
                    self.nodes[node].dispatcher = None;
                    self.close_all(node);
                }
                None
            }
            Task::Ask(Ask::Sync { head }) => {
                Some(Task::Answered(self.ask(fate, |world| world.sync_in_store(node, &dispatcher, Some(head)))))
            }
            Task::Ask(Ask::Recover { head, epoch, seen }) => {
                let number = dispatcher.registration();
                Some(Task::Answered(self.ask(fate, |world| world.recover_in_store(number, head, epoch, &seen))))
            }
            Task::Ask(Ask::Wait { head } | Ask::WaitTrimmed { head }) => dispatcher.hole_is_old(head).map(Task::Ask),
            Task::Answered(answer) => {
                let step = dispatcher.answered(answer.as_ref(), &mut Flush::default());
                let ask = step.ask.clone();
                self.carry_out(node, &dispatcher, Step { ask: None, ..step });
                if answer.is_ok() { ask.map(Task::Ask) } else { Some(Task::Backoff(ask)) }
            }
            Task::Backoff(ask) => ask.or_else(|| dispatcher.sync()).map(Task::Ask),
        };
        if let Some(next) = next {
            self.nodes[node].tasks.push_back((dispatcher, next));
        }
    }

    fn ask<T>(&mut self, fate: Fate, operation: impl FnOnce(&mut Self) -> T) -> Result<T, StoreError> {
        match fate {
            Fate::Done => Ok(operation(self)),
            Fate::Refused => Err(StoreError::Unavailable("the simulation says so".into())),
            Fate::Unanswered => {
                operation(self);
                Err(StoreError::Unknown("the simulation says so".into()))
            }
        }
    }

    fn sync_in_store(&mut self, node: usize, dispatcher: &Dispatcher, head: Option<EventId>) -> Page {
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

    fn recover_in_store(&mut self, number: u64, head: EventId, epoch: EventId, seen: &[EventId]) -> Page {
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
    fn cut(&mut self, mut page: Page) -> Page {
        if page.events.len() > self.settings.page {
            page.events.truncate(self.settings.page);
            page.more = true;
        }
        self.history.answered(&page);
        page
    }

    fn detach(&mut self, node: usize) {
        let Some(dispatcher) = self.nodes[node].dispatcher.clone() else { return };
        if let Some(Detach::Now) = dispatcher.start_detach(Duration::ZERO) {
            self.log.detach(&self.nodes[node].id.clone(), Some(dispatcher.registration()));
            dispatcher.detached();
            self.nodes[node].dispatcher = None;
        }
    }

    fn kill(&mut self, node: usize) {
        self.close_all(node);
        let this = &mut self.nodes[node];
        this.dispatcher = None;
        this.tasks.clear();
        this.channel.clear();
        this.pages.clear();
        self.numbers += 1;
        this.id = NodeId::from(format!("node-{node}-{}", self.numbers));
    }

    fn close_all(&mut self, node: usize) {
        for client in 0..CLIENTS {
            if self.clients[client].1.as_ref().is_some_and(|connection| connection.node == node) {
                self.disconnect(client);
            }
        }
    }

    fn connect(&mut self, client: usize, node: usize, from: From) {
        self.disconnect(client);
        self.numbers += 1;
        let outbox = Outbox {
            number: self.numbers,
            queue: Mutex::default(),
            capacity: self.settings.outbox,
            closed: AtomicBool::new(false),
            now: self.clock.clone(),
        };
        self.dispatcher(node);
        let connection = Connection { node, outbox: Arc::new(outbox), feed: Feed::Attaching(from) };
        self.clients[client].1 = Some(connection);
    }

    /// The node's dispatcher, attaching if there was none.
    fn dispatcher(&mut self, node: usize) -> Arc<Dispatcher> {
        self.numbers += 1;
        let this = &mut self.nodes[node];
        let dispatcher = this.dispatcher.get_or_insert_with(|| {
            let (stream, metrics) = (self.stream.clone(), self.metrics.clone());
            let dispatcher = Arc::new(Dispatcher::attaching(stream, self.numbers, metrics));
            this.tasks.push_back((dispatcher.clone(), Task::Attach));
            dispatcher
        });
        dispatcher.clone()
    }

    fn disconnect(&mut self, client: usize) {
        let Some(connection) = self.clients[client].1.take() else { return };
        connection.outbox.closed.store(true, Ordering::Relaxed);
        if let Feed::Reading(reading) = connection.feed {
            reading.dispatcher.unpin();
        } else if let Some(dispatcher) = &self.nodes[connection.node].dispatcher {
            dispatcher.leave(connection.outbox.number, 0);
        }
    }

    fn take(&mut self, client: usize, count: usize) {
        let (client, Some(connection)) = &mut self.clients[client] else { return };
        let mut queue = connection.outbox.queue.lock();
        let count = count.min(queue.len());
        for delivery in queue.drain(..count) {
            client.take(&delivery, &self.history);
        }
    }

    fn feed(&mut self, client: usize, fate: Fate, shared: bool) {
        let Some(mut connection) = self.clients[client].1.take() else { return };
        match std::mem::replace(&mut connection.feed, Feed::Live) {
            Feed::Attaching(from) => connection.feed = self.follow(client, &connection, from, fate),
            Feed::Reading(reading) => connection.feed = self.read(&connection, *reading, fate, shared),
            Feed::Live => {}
        }
        self.clients[client].1 = Some(connection);
    }

    /// What `Hub::listen_to` and `Attached::follow` do.
    fn follow(&mut self, client: usize, connection: &Connection, from: From, fate: Fate) -> Feed {
        let dispatcher = self.dispatcher(connection.node);
        if from_store(from) && fate != Fate::Done {
            return Feed::Attaching(from);
        }
        let Readiness::Ready(head) = dispatcher.pin() else { return Feed::Attaching(from) };
        let known = &mut self.clients[client].0;
        let position = match from {
            From::Cursor => known.at,
            From::Old(age) => known.trail[known.trail.len().saturating_sub(1 + age)],
            From::Now => head,
            From::Earliest => {
                let last = self.touch(1);
                let page = self.log.read(Start::Earliest, 1, self.now);
                page.events.first().map_or(last, |event| event.prev)
            }
        };
        let known = &mut self.clients[client].0;
        known.resume(position);
        if matches!(from, From::Now | From::Earliest) {
            known.owed_by.clear();
            known.trail = vec![position];
        }
        let subscriber = Subscriber { sink: connection.outbox.clone(), slot: 0 };
        let reached = match dispatcher.join(&subscriber, position) {
            Joining::Joined | Joining::Closed => {
                dispatcher.unpin();
                return Feed::Live;
            }
            Joining::Partly(reached) => reached,
            Joining::Behind | Joining::Ahead => position,
        };
        let reader = Reader::new(Chain::at(reached));
        Feed::Reading(Box::new(Reading { dispatcher, reader, synced: false, next: Next::Join }))
    }

    /// What `catch_up` does, one step at a time.
    fn read(&mut self, connection: &Connection, mut reading: Reading, fate: Fate, shared: bool) -> Feed {
        let subscriber = Subscriber { sink: connection.outbox.clone(), slot: 0 };
        let dispatcher = reading.dispatcher.clone();
        reading.next = match reading.next {
            Next::Join => {
                while let Some(delivery) = reading.reader.next() {
                    if subscriber.sink.offer(0, &self.stream, delivery) == Offer::Full {
                        return Feed::Reading(Box::new(reading));
                    }
                    reading.reader.taken();
                }
                match dispatcher.join(&subscriber, reading.reader.position()) {
                    Joining::Joined | Joining::Closed => {
                        dispatcher.unpin();
                        return Feed::Live;
                    }
                    Joining::Partly(position) => {
                        reading.reader.moved_to(position);
                        Next::Join
                    }
                    joining if !reading.synced && (joining == Joining::Ahead || reading.reader.needs_fresh_page()) => {
                        reading.synced = true;
                        self.sync(connection.node);
                        Next::Synced
                    }
                    Joining::Ahead | Joining::Behind => {
                        reading.synced = false;
                        Next::Read
                    }
                }
            }
            // It waits for a while only, so a step is enough.
            Next::Synced => Next::Join,
            Next::Read => {
                let position = reading.reader.position();
                let cached = self.nodes[connection.node].pages.get(&position).cloned();
                match cached.filter(|_| shared && !reading.reader.needs_fresh_page()) {
                    Some(page) => Next::Answered(page),
                    None => {
                        let answer = self.ask(fate, |world| {
                            world.touch(1);
                            let page = world.log.read(Start::After(position), world.settings.page, world.now);
                            Arc::new(world.cut(page))
                        });
                        match answer {
                            Ok(page) => {
                                self.nodes[connection.node].pages.insert(position, page.clone());
                                Next::Answered(page)
                            }
                            Err(_) => Next::Join,
                        }
                    }
                }
            }
            Next::Answered(page) => {
                reading.reader.page(&page);
                let step = dispatcher.hand_on(&page, &mut Flush::default());
                self.carry_out(connection.node, &dispatcher, step);
                Next::Join
            }
        };
        Feed::Reading(Box::new(reading))
    }
}

fn from_store(from: From) -> bool {
    matches!(from, From::Earliest)
}
