//! One stream's log as a plain value: no clock, no I/O, no lock.
//!
//! Time and randomness come in as arguments, so that a test can run a store backwards: clone the value,
//! go on, put the clone back, and a failover has lost a tail; pass an older `now_ms`, and the new master's
//! clock is behind.

mod pages;
mod recorded;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use uuid::Uuid;

use super::device_slots::DeviceSlots;
use super::entry::{Entries, Entry};
use crate::model::{Draft, Event, EventId, Fork, Imported, Inbox, Marks, NodeId, Page, Part, Route, Standing};
use crate::store::presence::{Claim, Claimed, DeviceLimit, DeviceState};
use crate::store::{Checkpoint, ONCE_TIME, PAGE_EVENTS, Retention, StoreError, millis};

/// What a key, a route, a connection or the name of a log takes: texts of a usual length, and the room that maps keep
/// beside what is in them.
const OVERHEAD: usize = 256;

/// Collapse keys that are remembered; over that, those that were used longest ago are forgotten. Some at a
/// time, as looking for them takes going through all.
const MAX_GROUPS: usize = 256;
const KEPT_GROUPS: usize = 192;

/// A stream's events, its position, its routes and its idempotency keys.
#[derive(Debug, Clone)]
pub struct StreamLog {
    retention: Retention,
    position_ms: u64,
    events: Entries,
    /// When the log is dropped.
    events_until: u64,
    /// `None` before the first touch, and again once it expired.
    position: Option<Position>,
    position_until: u64,
    /// A `Vec`, as a stream is followed by few nodes.
    routes: Vec<HeldRoute>,
    once: HashMap<String, Once>,
    /// The newest event of each collapse key, as long as there are events.
    groups: HashMap<Arc<str>, EventId>,
    /// Of a device: who is connected.
    slots: DeviceSlots,
}

/// What outlives the events.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Position {
    last: EventId,
    epoch: EventId,
    fork: Option<Fork>,
    told: Option<EventId>,
    acked: Option<EventId>,
    erased: Option<EventId>,
    checkpoint: Option<Checkpoint>,
}

impl Position {
    /// No new id may fall below: a lost tail had been shown up to there.
    fn highest_shown(&self) -> EventId {
        self.last.max(self.fork.map_or(EventId::ZERO, |fork| fork.head))
    }
}

#[derive(Debug, Clone)]
struct HeldRoute {
    node: NodeId,
    registration: u64,
    until: u64,
}

#[derive(Debug, Clone)]
struct Once {
    id: EventId,
    /// Of all that the producer handed in. A collision would only hide a producer's own mistake from it.
    digest: u64,
    until: u64,
}

/// What a publish did.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The id the event got, or had already.
    pub id: EventId,
    /// The event, unless it was stored before.
    pub event: Option<Arc<Event>>,
    /// Nodes that it is sent to.
    pub nodes: Vec<NodeId>,
}

impl StreamLog {
    /// A stream that nobody touched yet.
    pub fn new(retention: Retention, position_time: Duration) -> Self {
        StreamLog {
            retention,
            // A log without its position could not go on: new ids might fall among the old.
            position_ms: millis(position_time.max(retention.time)),
            events: Entries::default(),
            events_until: 0,
            position: None,
            position_until: 0,
            routes: Vec::new(),
            once: HashMap::new(),
            groups: HashMap::new(),
            slots: DeviceSlots::default(),
        }
    }

    /// Stores an event, or finds that its key was used before.
    pub fn publish(&mut self, draft: &Draft, now_ms: u64, step: u64) -> Result<Stored, StoreError> {
        self.expire(now_ms);
        if let Some(once) = draft.key.as_ref().and_then(|key| self.once.get(key)).filter(|once| once.until > now_ms) {
            return if once.digest == digest(draft) {
                Ok(Stored { id: once.id, event: None, nodes: Vec::new() })
            } else {
                Err(StoreError::KeyReused)
            };
        }
        let position = self.open(now_ms, step);
        let prev = position.last;
        let id = position.highest_shown().next(now_ms, step);
        position.last = id;
        let event = Arc::new(draft.event(id, prev, now_ms));
        self.append(Entry::of(&event), now_ms);
        if let Some(key) = &draft.key {
            let until = now_ms.saturating_add(millis(draft.key_time.unwrap_or(ONCE_TIME)));
            self.once.insert(key.clone(), Once { id, digest: digest(draft), until });
        }
        let nodes = self.routes.iter().map(|route| route.node.clone()).collect();
        Ok(Stored { id, event: Some(event), nodes })
    }

    /// Appends an event, and drops what is more than is kept.
    fn append(&mut self, entry: Entry, now_ms: u64) {
        if let Some(group) = &entry.collapse {
            self.groups.insert(group.clone(), entry.id);
            self.forget_groups();
        }
        self.events.push(entry);
        while self.events.len() as u64 > self.retention.events {
            self.events.drop_oldest();
        }
        self.events_until = now_ms.saturating_add(millis(self.retention.time));
        self.hold_position(now_ms);
    }

    /// Asserts a route and reads what is newer than `head`; without one, where the stream stands.
    pub fn sync(&mut self, route: &Route, head: Option<EventId>, now_ms: u64, step: u64) -> Page {
        self.touch(now_ms, step);
        // Followed streams keep their position: without this, one that is silent for longer than the
        // position's time would look flushed to devices that were connected all along.
        self.hold_position(now_ms);
        let until = now_ms.saturating_add(millis(route.ttl));
        let held = HeldRoute { node: route.node.clone(), registration: route.registration, until };
        match self.routes.iter_mut().find(|known| known.node == route.node) {
            Some(known) => *known = held,
            None => self.routes.push(held),
        }
        match head {
            Some(head) => self.page_after(head, PAGE_EVENTS, now_ms),
            None => self.blank(self.last(), now_ms),
        }
    }

    /// Finds out what became of a history; see [`EventLog::recover`](crate::store::EventLog::recover).
    pub fn recover(&mut self, head: EventId, epoch: EventId, seen: &[EventId], now_ms: u64, step: u64) -> Page {
        let position = self.touch(now_ms, step);
        if self.knows(head) {
            return self.page_after(head, PAGE_EVENTS, now_ms);
        }
        let newest_below = self.events.partition_point(|event| event.id <= head).checked_sub(1);
        let ancestor = if position.epoch != epoch {
            // Flushed and started again: the histories share nothing, so the new one counts from its epoch,
            // and every chain breaks there without a mark. Only ids have to go on above the head.
            if head >= position.last {
                self.record_fork(position.last, head, false, now_ms, step);
            }
            position.epoch
        } else if let Some(ancestor) = seen.iter().copied().find(|id| self.has(*id)) {
            self.record_fork(ancestor, head, true, now_ms, step);
            ancestor
        } else if position.last < head {
            // Nothing of `seen` is left to compare with, but ids that the store does not know were shown.
            self.record_fork(position.last, head, true, now_ms, step);
            position.last
        } else if let Some(at) = newest_below {
            // The log reaches back beyond `head` and does not know it. Where the histories part can't be
            // said, but not after the newest event below.
            let ancestor = self.events[at].id;
            self.record_fork(ancestor, head, true, now_ms, step);
            ancestor
        } else {
            // Ordinary trimming, or a fork that somebody else reported.
            return self.page_after(head, PAGE_EVENTS, now_ms);
        };
        self.page_from(ancestor, PAGE_EVENTS, now_ms)
    }

    /// The nodes whose routes hold.
    pub fn routed(&self, now_ms: u64) -> Vec<NodeId> {
        self.routes.iter().filter(|route| route.until > now_ms).map(|route| route.node.clone()).collect()
    }

    /// Whether a node has a route, lapsed or not.
    pub fn has_route(&self, node: &NodeId) -> bool {
        self.routes.iter().any(|route| route.node == *node)
    }

    /// The event with this id, if it is kept.
    pub fn event(&self, id: EventId) -> Option<Arc<Event>> {
        let at = self.events.binary_search_by_key(&id, |event| event.id).ok()?;
        self.events.get(at).map(Entry::event)
    }

    /// Removes the route of a node, if it is of this registration or none is named.
    pub fn detach(&mut self, node: &NodeId, registration: Option<u64>) {
        self.retain_routes(|route| {
            route.node != *node || registration.is_some_and(|wanted| wanted != route.registration)
        });
        if !self.has_route(node) {
            self.slots.forget(node);
        }
    }

    /// Gives a connection its place, see [`claim_slot`](crate::store::DeviceConnections::claim_slot). The second part
    /// of the answer are nodes that get the marks.
    pub fn claim_slot(&mut self, claim: &Claim, limit: DeviceLimit, now_ms: u64, step: u64) -> (Claimed, Vec<NodeId>) {
        self.touch(now_ms, step);
        self.hold_position(now_ms);
        let routes = &self.routes;
        self.slots.claim_slot(claim, limit, now_ms, |node| routes.iter().any(|route| route.node == *node))
    }

    /// Takes a connection's place away.
    pub fn release_slots(&mut self, connection: Uuid) {
        self.slots.release_slots(connection);
    }

    /// Has all connections close: how many there are, and the nodes that get the marks.
    pub fn kick(&mut self, now_ms: u64, step: u64) -> (u32, Vec<NodeId>) {
        self.expire(now_ms);
        if self.slots.len() == 0 && self.routes.is_empty() {
            return (0, Vec::new());
        }
        self.touch(now_ms, step);
        let routes = &self.routes;
        let count = self.slots.kick(now_ms, |node| routes.iter().any(|route| route.node == *node));
        (count, self.routes.iter().map(|route| route.node.clone()).collect())
    }

    /// The connections.
    pub fn device(&mut self, now_ms: u64) -> DeviceState {
        self.expire(now_ms);
        let connections = self.slots.holder(|node| self.has_route(node));
        DeviceState { connections, last: self.position.map(|position| position.last) }
    }

    /// Up to which stamp the connections of the device have to close.
    pub fn marks(&self) -> Marks {
        self.slots.marks()
    }

    /// Forgets all events. The position stays, so that ids go on above all that was shown.
    pub fn erase(&mut self, now_ms: u64) {
        self.expire(now_ms);
        self.forget_events();
        if let Some(position) = &mut self.position {
            position.erased = Some(position.last);
        }
    }

    /// Takes over a part of this stream from another store, see [`EventLog::import`](crate::store::EventLog::import).
    pub fn import(&mut self, part: &Part, now_ms: u64) -> Imported {
        self.expire(now_ms);
        let imported = Imported::judge(self.position.map(|position| (position.last, position.epoch)), part);
        if imported == Imported::Taken {
            let Part { epoch, last, acked, erased, .. } = *part;
            part.events.iter().for_each(|event| self.append(Entry::of(event), now_ms));
            self.position = Some(Position { last, epoch, fork: None, told: None, acked, erased, checkpoint: None });
            self.hold_position(now_ms);
        }
        imported
    }

    /// Moves the acknowledged position forward to `id`, unless that is above all that there is.
    pub fn acknowledge(&mut self, id: Option<EventId>, now_ms: u64) -> Standing {
        self.expire(now_ms);
        let followed = !self.routes.is_empty();
        let Some(position) = &mut self.position else {
            return Standing { last: EventId::ZERO, epoch: EventId::ZERO, told: None, acked: None };
        };
        if let Some(id) = id
            && id > position.acked.unwrap_or(position.epoch)
            && id <= position.last
        {
            position.acked = Some(id);
        }
        let Position { last, epoch, told, acked, .. } = *position;
        // Lapsed routes were removed by now: the others were there for all events so far.
        Standing { last, epoch, told: if followed { Some(last) } else { told }, acked }
    }

    /// The id with which the stream's history began; from here on it has one.
    pub fn epoch(&mut self, now_ms: u64, step: u64) -> EventId {
        self.touch(now_ms, step).epoch
    }

    /// What waits for the device.
    pub fn inbox(&mut self, now_ms: u64) -> Inbox {
        let standing = self.acknowledge(None, now_ms);
        let from = self.shared(standing.position());
        let after = self.events.iter().rev().take_while(|event| event.id > from);
        let pending = after
            .filter(|event| !event.is_expired(now_ms) && !self.is_superseded(event.id, event.collapse.as_ref()))
            .count() as u64;
        Inbox { standing, pending }
    }

    /// How far the events were handed over.
    pub fn checkpoint(&mut self, now_ms: u64) -> Option<Checkpoint> {
        self.expire(now_ms);
        self.position.and_then(|position| position.checkpoint)
    }

    /// Writes down that they were handed over further, unless somebody else did meanwhile.
    pub fn advance(&mut self, from: Option<Checkpoint>, to: Checkpoint, now_ms: u64) -> bool {
        self.expire(now_ms);
        let there = self.position.as_mut().filter(|position| position.checkpoint == from);
        there.map(|position| position.checkpoint = Some(to)).is_some()
    }

    /// The newest id ever shown, if the stream was used.
    pub fn position(&mut self, now_ms: u64) -> Option<EventId> {
        self.expire(now_ms);
        self.position.map(|position| position.last)
    }

    /// Drops what outlived its time, keys too: those are only looked through here, as there may be very many.
    pub fn sweep(&mut self, now_ms: u64) {
        self.expire(now_ms);
        self.once.retain(|_, once| once.until > now_ms);
    }

    /// Drops what outlived its time, but for keys.
    fn expire(&mut self, now_ms: u64) {
        if self.events_until <= now_ms {
            self.forget_events();
        }
        self.retain_routes(|route| route.until > now_ms);
        if self.position_until <= now_ms {
            self.position = None;
            self.slots = DeviceSlots::default();
        }
    }

    /// Whether the store may forget that this stream exists.
    pub fn is_blank(&self) -> bool {
        self.position.is_none()
            && self.slots.len() == 0
            && self.events.is_empty()
            && self.routes.is_empty()
            && self.once.is_empty()
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let others = self.once.len() + self.routes.len() + self.groups.len() + self.slots.len();
        // A map has up to twice the room of what is in it.
        2 * size_of::<StreamLog>() + OVERHEAD * (1 + others) + self.events.bytes()
    }

    fn touch(&mut self, now_ms: u64, step: u64) -> Position {
        self.expire(now_ms);
        *self.open(now_ms, step)
    }

    /// The stream's position; a birth if it has none.
    fn open(&mut self, now_ms: u64, step: u64) -> &mut Position {
        if self.position.is_none() {
            self.hold_position(now_ms);
        }
        self.position.get_or_insert_with(|| {
            let epoch = EventId::ZERO.next(now_ms, step);
            Position { last: epoch, epoch, fork: None, told: None, acked: None, erased: None, checkpoint: None }
        })
    }

    fn retain_routes(&mut self, keep: impl FnMut(&HeldRoute) -> bool) {
        let before = self.routes.len();
        self.routes.retain(keep);
        if self.routes.len() < before
            && let Some(position) = &mut self.position
        {
            // Its node was sent everything so far.
            position.told = Some(position.last);
        }
    }

    fn forget_groups(&mut self) {
        if self.groups.len() <= MAX_GROUPS {
            return;
        }
        let mut newest: Vec<EventId> = self.groups.values().copied().collect();
        newest.sort_unstable();
        let oldest_kept = newest[newest.len() - KEPT_GROUPS];
        self.groups.retain(|_, id| *id >= oldest_kept);
    }

    fn hold_position(&mut self, now_ms: u64) {
        self.position_until = self.position_until.max(now_ms.saturating_add(self.position_ms));
    }

    fn last(&self) -> EventId {
        self.position.map_or(EventId::ZERO, |position| position.last)
    }

    fn has(&self, id: EventId) -> bool {
        self.events.binary_search_by_key(&id, |event| event.id).is_ok()
    }

    /// Whether a reader at `id` stands in this history. It need not be an event: a log that expired left
    /// `last` behind, and a reader with the gap of a fork waits at its mark.
    fn knows(&self, id: EventId) -> bool {
        let next = self.events.get(self.events.partition_point(|event| event.id < id));
        let event = next.is_some_and(|event| event.id == id || event.prev == id);
        let raised = |fork: Fork| fork.mark == id || fork.before == id;
        event || self.position.is_some_and(|p| p.last == id || p.fork.is_some_and(raised))
    }

    /// Writes a fork down, so that ids go on above what was shown. A mark, if one is wanted, raises the stream
    /// there, and the first event after it breaks the chain for all readers that have not got the gap.
    fn record_fork(&mut self, ancestor: EventId, head: EventId, mark: bool, now_ms: u64, step: u64) {
        self.hold_position(now_ms);
        let Some(position) = &mut self.position else { return };
        let (before, shown) = (position.last, position.highest_shown().max(head));
        // A node reported this tail, or another that was lost before: a reader that missed it meets that mark.
        // Raising again would break the chain for those that got the gap: a false alarm.
        let marked = position.fork.filter(|fork| fork.mark > ancestor && fork.mark != fork.before);
        let mut fork = match marked {
            // With an ancestor that is too old, readers would be given again what they know: it is the newer of two.
            Some(fork) => Fork { ancestor: fork.ancestor.max(ancestor), head: fork.head.max(head), ..fork },
            None if mark => {
                position.last = shown.next(now_ms, step);
                Fork { ancestor, head, before, mark: position.last, next: position.last }
            }
            None => Fork { ancestor, head: shown, before, mark: before, next: before },
        };
        let first = self.events.get(self.events.partition_point(|event| event.id <= fork.ancestor));
        let follows = first.filter(|event| event.prev == fork.ancestor && event.id <= fork.before);
        fork.next = follows.map_or(fork.mark, |event| event.id);
        position.fork = Some(fork);
    }

    fn forget_events(&mut self) {
        self.events.clear();
        self.groups.clear();
    }
}

/// A digest that is the same in every version of the program.
fn digest(draft: &Draft) -> u64 {
    let mut context = Context::new(&SHA256);
    let (ttl, collapse) = (draft.ttl.map(millis), draft.collapse.as_deref());
    let ttl = ttl.map(u64::to_le_bytes);
    let parts = [Some(draft.kind.as_str().as_bytes()), ttl.as_ref().map(|ttl| &ttl[..]), collapse.map(str::as_bytes)];
    for part in parts.into_iter().chain([Some(&draft.data[..])]) {
        // With its length in front, no part can be taken for another.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        context.update(&length.to_le_bytes());
        context.update(part.unwrap_or_default());
    }
    let digest = context.finish();
    u64::from_le_bytes(*digest.as_ref().first_chunk().expect("it has 32 bytes"))
}
