//! What connections do in the simulated world, one step of a temporary dispatcher at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::super::catch_up::Next;
use super::super::chain::Chain;
use super::super::dispatcher::{Dispatcher, Joining, Readiness, Subscriber};
use super::super::fixtures::Outbox;
use super::super::flush::Flush;
use super::super::merge::Urgency;
use super::super::sink::Offer;
use super::actions::{Fate, From};
use super::connection::{CatchingUp, Connection, Feed};
use super::world::World;
use crate::model::{EventId, Page, Start};

impl World {
    pub(super) fn connect(&mut self, client: usize, node: usize, from: From) {
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

    pub(super) fn disconnect(&mut self, client: usize) {
        let Some(connection) = self.clients[client].1.take() else { return };
        connection.outbox.closed.store(true, Ordering::Relaxed);
        if let Feed::CatchingUp(catching_up) = connection.feed {
            catching_up.dispatcher.unpin();
        } else if let Some(dispatcher) = &self.nodes[connection.node].dispatcher {
            dispatcher.leave(connection.outbox.number, 0);
        }
    }

    pub(super) fn take(&mut self, client: usize, count: usize) {
        let (client, Some(connection)) = &mut self.clients[client] else { return };
        let mut queue = connection.outbox.queue.lock();
        let count = count.min(queue.len());
        for delivery in queue.drain(..count) {
            client.take(&delivery, &self.history);
        }
    }

    /// A connection that could not keep up gets a temporary dispatcher.
    pub(super) fn catch_up(&mut self, number: u64, dispatcher: Arc<Dispatcher>, chain: Chain) {
        let connection = self
            .clients
            .iter_mut()
            .filter_map(|(_, connection)| connection.as_mut())
            .find(|connection| connection.outbox.number == number);
        match connection {
            Some(connection) => connection.feed = Feed::catching_up(dispatcher, chain),
            None => {
                dispatcher.unpin();
            }
        }
    }

    /// The connection goes one step further.
    pub(super) fn feed(&mut self, client: usize, fate: Fate, shared: bool) {
        let Some(mut connection) = self.clients[client].1.take() else { return };
        match std::mem::replace(&mut connection.feed, Feed::Live) {
            Feed::Attaching(from) => connection.feed = self.follow(client, &connection, from, fate),
            Feed::CatchingUp(catching_up) => connection.feed = self.go_after(&connection, catching_up, fate, shared),
            Feed::Live => {}
        }
        self.clients[client].1 = Some(connection);
    }

    /// What `Hub::listen_to` and `Attached::follow` do.
    fn follow(&mut self, client: usize, connection: &Connection, from: From, fate: Fate) -> Feed {
        let dispatcher = self.dispatcher(connection.node);
        if matches!(from, From::Earliest) && fate != Fate::Done {
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
        Feed::catching_up(dispatcher, Chain::at(reached))
    }

    /// Does what a temporary dispatcher wants next. `shared`: it may be given a page that was read for others, and a
    /// client that takes nothing has done so for long.
    fn go_after(
        &mut self,
        connection: &Connection,
        mut catching_up: Box<CatchingUp>,
        fate: Fate,
        shared: bool,
    ) -> Feed {
        let CatchingUp { dispatcher, value, syncing, page } = &mut *catching_up;
        let subscriber = Subscriber { sink: connection.outbox.clone(), slot: 0 };
        match value.next() {
            Next::Offer(delivery) => {
                let offer = subscriber.sink.offer(0, &self.stream, delivery);
                value.offered(offer);
                if offer != Offer::Full {
                    return self.go_after(connection, catching_up, fate, shared);
                }
            }
            Next::Room(_) if connection.outbox.has_room() => value.has_room(),
            Next::Room(Some(_)) if shared => value.no_room(),
            Next::Room(_) => {}
            Next::Join(position) => value.joined(dispatcher.join(&subscriber, position)),
            // It waits for a while only, so a step is enough.
            Next::Sync if std::mem::replace(syncing, !*syncing) => value.synced(),
            Next::Sync => {
                let need = dispatcher.want_sync(Urgency::Urgent);
                self.nodes[connection.node].repairs.see_to(dispatcher, need, self.time);
            }
            Next::Read { position, fresh } => match page.take() {
                None => {
                    *page = self.read_page(connection.node, position, shared && !fresh, fate).or_else(|| {
                        value.failed();
                        None
                    })
                }
                Some(page) => {
                    value.page(&page);
                    let step = dispatcher.hand_on(&page, self.time, &mut Flush::default());
                    let dispatcher = dispatcher.clone();
                    self.carry_out(connection.node, &dispatcher, step);
                }
            },
            Next::Pause => value.paused(),
            Next::Done => {
                dispatcher.unpin();
                return Feed::Live;
            }
        }
        Feed::CatchingUp(catching_up)
    }

    fn read_page(&mut self, node: usize, position: EventId, shared: bool, fate: Fate) -> Option<Arc<Page>> {
        if let Some(page) = self.nodes[node].pages.get(&position).filter(|_| shared) {
            return Some(page.clone());
        }
        let answer = self.ask(fate, |world| {
            world.touch(1);
            let page = world.log.read(Start::After(position), world.settings.page, world.now);
            Arc::new(world.cut(page))
        });
        let page = answer.ok()?;
        self.nodes[node].pages.insert(position, page.clone());
        Some(page)
    }
}
