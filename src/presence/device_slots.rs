//! The connections of this node that name a device, as a plain value.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use uuid::Uuid;

use super::by_region::{ByRegion, RegionOf};
use super::lifecycle::LifecycleQueue;
use super::{Eviction, Occupant};
use crate::model::{Info, Marks, StreamName};
use crate::store::lifecycle::ConnectionRef;
use crate::store::presence::{Claimed, Slot};

/// Most places that wait to be given back to the store of a region. Beyond, the oldest are left to lapse with the
/// node's route to the device.
const MAX_GONE: usize = 100_000;

/// The connections of devices, and what the store still has to learn of them.
#[derive(Default)]
pub struct DeviceSlots {
    pub(super) devices: HashMap<StreamName, Device>,
    next: u64,
    gone: ByRegion<Uuid>,
    pub(super) wanted: ByRegion<u64>,
    /// What waits to be published on the lifecycle topic.
    pub(super) lifecycle: LifecycleQueue,
}

#[derive(Default)]
pub(super) struct Device {
    /// The highest that arrived while any connection was here: a message may come before the store's answer to
    /// a claim that it is about.
    marks: Marks,
    pub(super) here: Vec<Here>,
}

pub(super) struct Here {
    pub(super) number: u64,
    pub(super) connection: Uuid,
    transport: &'static str,
    /// What is shown beside it.
    info: Option<Info>,
    /// Its place in the store; `None` before the store gave it one.
    slot: Option<Slot>,
    pub(super) occupant: Option<Weak<dyn Occupant>>,
    evicted: Option<Eviction>,
    /// Its connect was published, or is in the queue.
    pub(super) noted: bool,
}

impl Here {
    /// Its name on the lifecycle topic.
    pub(super) fn subject(&self, device: &StreamName) -> ConnectionRef {
        let Here { connection, transport, info, .. } = self;
        let transport = (*transport).into();
        ConnectionRef { connection: *connection, device: device.clone(), transport, info: info.clone() }
    }

    fn passed(&self, marks: Marks) -> Option<Eviction> {
        let stamp = self.slot?.stamp;
        if stamp <= marks.kicked {
            Some(Eviction::Kicked)
        } else {
            (stamp <= marks.replaced).then_some(Eviction::Replaced)
        }
    }

    /// Notes that it has to close. The occupant, if it is there already, has to be notified.
    fn evict(&mut self, why: Eviction) -> Option<(Arc<dyn Occupant>, Eviction)> {
        if self.evicted.is_some() {
            return None;
        }
        self.evicted = Some(why);
        Some((self.occupant.as_ref()?.upgrade()?, why))
    }
}

/// What a claim is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub connection: Uuid,
    pub transport: &'static str,
    pub info: Option<Info>,
    pub slot: Option<Slot>,
}

/// Connections that have to go, and why.
pub type Evicted = Vec<(Arc<dyn Occupant>, Eviction)>;

impl DeviceSlots {
    /// Nobody is here yet. What waits for the stores of so many regions is kept apart.
    pub fn over(regions: usize, region_of: &RegionOf) -> Self {
        DeviceSlots {
            gone: ByRegion::new(regions, region_of.clone()),
            wanted: ByRegion::new(regions, region_of.clone()),
            ..DeviceSlots::default()
        }
    }

    /// A connection is coming. It has no place in the store yet.
    pub fn enter(&mut self, device: &StreamName, connection: Uuid, transport: &'static str, info: Option<Info>) -> u64 {
        self.next += 1;
        let number = self.next;
        let here =
            Here { number, connection, transport, info, slot: None, occupant: None, evicted: None, noted: false };
        self.devices.entry(device.clone()).or_default().here.push(here);
        self.next
    }

    /// The connection is set up: it came. It has to close at once if it was evicted in the meantime.
    pub fn occupy(
        &mut self,
        device: &StreamName,
        number: u64,
        occupant: Weak<dyn Occupant>,
        now_ms: u64,
    ) -> Option<Eviction> {
        let here = self.devices.get_mut(device)?.here.iter_mut().find(|here| here.number == number)?;
        here.occupant = Some(occupant);
        here.noted = self.lifecycle.push_connected(here.subject(device), now_ms);
        here.evicted
    }

    /// Something else is shown beside the connection. False when it is the same, or the connection has left.
    pub fn inform(&mut self, device: &StreamName, number: u64, info: Option<&Info>, now_ms: u64) -> bool {
        let here =
            self.devices.get_mut(device).and_then(|known| known.here.iter_mut().find(|here| here.number == number));
        let Some(here) = here.filter(|here| here.info.as_ref() != info) else { return false };
        here.info = info.cloned();
        if here.noted {
            self.lifecycle.push_renewed(here.subject(device), now_ms);
        }
        self.wanted.push(device.clone(), number);
        true
    }

    /// The connection has left.
    pub fn leave(&mut self, device: &StreamName, number: u64, reason: &'static str, now_ms: u64) {
        let Some(known) = self.devices.get_mut(device) else { return };
        if let Some(at) = known.here.iter().position(|here| here.number == number) {
            let here = known.here.swap_remove(at);
            if known.here.is_empty() {
                self.devices.remove(device);
            }
            if here.noted {
                self.lifecycle.push_disconnected(here.subject(device), reason, now_ms);
            } else if here.occupant.is_some() {
                self.lifecycle.drop_unpublished();
            }
            self.give_back(device.clone(), here.connection);
        }
    }

    pub(super) fn give_back(&mut self, device: StreamName, connection: Uuid) {
        self.gone.push_bounded(device, connection, MAX_GONE);
    }

    /// What to claim for a connection; `None` when it has left, or has to go.
    pub fn wanted(&self, device: &StreamName, number: u64) -> Option<Wanted> {
        let here = self.devices.get(device)?.here.iter().find(|here| here.number == number)?;
        here.evicted.is_none().then_some(Wanted {
            connection: here.connection,
            transport: here.transport,
            info: here.info.clone(),
            slot: here.slot,
        })
    }

    /// The store answered a claim.
    pub fn answered(&mut self, device: &StreamName, number: u64, wanted: &Wanted, claimed: Claimed) -> Evicted {
        let Some(known) = self.devices.get_mut(device) else {
            self.give_back(device.clone(), wanted.connection);
            return Vec::new();
        };
        let marks = known.marks;
        let Some(here) = known.here.iter_mut().find(|here| here.number == number) else {
            self.give_back(device.clone(), wanted.connection);
            return Vec::new();
        };
        if here.connection != wanted.connection {
            // It goes on under another id, for which the place is claimed again.
            self.gone.push_bounded(device.clone(), wanted.connection, MAX_GONE);
            self.wanted.push(device.clone(), number);
        }
        let why = match claimed {
            Claimed::Granted(slot) => {
                here.slot = Some(slot);
                here.passed(marks)
            }
            Claimed::Full => Some(Eviction::Limit),
            Claimed::Passed(marks) => here.passed(marks).or(Some(Eviction::Replaced)),
        };
        why.and_then(|why| here.evict(why)).into_iter().collect()
    }

    /// Those of `connections` that are not here.
    pub fn missing(&self, device: &StreamName, connections: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
        let here = self.devices.get(device).map_or(&[][..], |known| &known.here);
        connections.filter(|connection| here.iter().all(|here| here.connection != *connection)).collect()
    }

    /// Whether a connection has to go.
    pub fn evicted(&self, device: &StreamName, number: u64) -> Option<Eviction> {
        self.devices.get(device)?.here.iter().find(|here| here.number == number)?.evicted
    }

    /// Up to where connections have to close. `at_once`: the mark is of this moment, so that a connection without a
    /// stamp, because the store was away, is meant by a kick too.
    pub fn mark(&mut self, device: &StreamName, marks: Marks, at_once: bool) -> Evicted {
        let Some(known) = self.devices.get_mut(device) else { return Vec::new() };
        let kicked = at_once && marks.kicked > known.marks.kicked;
        known.marks = known.marks.merged(marks);
        let evict = |here: &mut Here| {
            let settled = here.occupant.is_some() && here.slot.is_none();
            let why = here.passed(marks).or((kicked && settled).then_some(Eviction::Kicked))?;
            here.evict(why)
        };
        known.here.iter_mut().filter_map(evict).collect()
    }

    /// The places of all such devices are to be claimed again.
    pub fn want_where(&mut self, concerned: impl Fn(&StreamName) -> bool) {
        self.wanted.forget_where(&concerned);
        for (device, known) in self.devices.iter().filter(|(device, _)| concerned(device)) {
            known.here.iter().for_each(|here| self.wanted.push(device.clone(), here.number));
        }
    }

    /// The places of one device are to be claimed again. False when it has none here.
    pub fn want_all_of(&mut self, device: &StreamName) -> bool {
        let Some(known) = self.devices.get(device) else { return false };
        self.wanted.forget_where(|wanted| wanted == device);
        known.here.iter().for_each(|here| self.wanted.push(device.clone(), here.number));
        true
    }

    /// The place is to be claimed again.
    pub fn want(&mut self, device: &StreamName, number: u64) {
        self.wanted.push(device.clone(), number);
    }

    /// Takes places to give back to the store of a region, at most `limit`.
    pub fn take_gone(&mut self, region: usize, limit: usize) -> Vec<(StreamName, Uuid)> {
        self.gone.take(region, limit)
    }

    /// Puts back what the store did not take, behind the others.
    pub fn put_back_gone(&mut self, gone: Vec<(StreamName, Uuid)>) {
        gone.into_iter().for_each(|(device, connection)| self.give_back(device, connection));
    }

    /// Takes places that are to be claimed again in a region, at most `limit`.
    pub fn take_wanted(&mut self, region: usize, limit: usize) -> Vec<(StreamName, u64)> {
        self.wanted.take(region, limit)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Client(Mutex<Vec<Eviction>>);

    impl Occupant for Client {
        fn evict(&self, why: Eviction) {
            self.0.lock().push(why);
        }

        fn rename(&self, _id: Uuid) {}
    }

    fn device() -> StreamName {
        "device:42".parse().unwrap()
    }

    fn holder(stamp: u64) -> Claimed {
        Claimed::Granted(Slot { stamp, since_ms: 1 })
    }

    /// A connection that came with this stamp; `None`: the store is away.
    fn come(slots: &mut DeviceSlots, client: &Arc<Client>, stamp: Option<u64>) -> u64 {
        let number = slots.enter(&device(), Uuid::new_v4(), "sse", None);
        let wanted = slots.wanted(&device(), number).unwrap();
        if let Some(stamp) = stamp {
            slots.answered(&device(), number, &wanted, holder(stamp));
        }
        let occupant: Weak<dyn Occupant> = Arc::downgrade(client) as _;
        assert_eq!(slots.occupy(&device(), number, occupant, 1), None);
        number
    }

    fn reasons(evicted: Evicted) -> Vec<Eviction> {
        evicted.into_iter().map(|(_, why)| why).collect()
    }

    #[test]
    fn a_mark_reaches_who_came_before_and_nobody_who_came_after() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::default());
        for stamp in [5, 7, 9] {
            come(&mut slots, &client, Some(stamp));
        }
        let evicted = slots.mark(&device(), Marks { kicked: 5, replaced: 7 }, true);
        assert_eq!(reasons(evicted), [Eviction::Kicked, Eviction::Replaced]);
        let again = slots.mark(&device(), Marks { kicked: 5, replaced: 7 }, false);
        assert_eq!(reasons(again), [], "each is evicted once");
    }

    #[test]
    fn a_mark_that_overtakes_the_answer_to_a_claim_holds() {
        let mut slots = DeviceSlots::default();
        let number = slots.enter(&device(), Uuid::new_v4(), "sse", None);
        let wanted = slots.wanted(&device(), number).unwrap();
        slots.mark(&device(), Marks { kicked: 7, replaced: 0 }, true);
        assert_eq!(slots.evicted(&device(), number), None, "it may have come after the kick");
        slots.answered(&device(), number, &wanted, holder(6));
        assert_eq!(slots.evicted(&device(), number), Some(Eviction::Kicked));
        let client: Arc<Client> = Arc::default();
        let occupant: Weak<dyn Occupant> = Arc::downgrade(&client) as _;
        assert_eq!(slots.occupy(&device(), number, occupant, 1), Some(Eviction::Kicked));
    }

    #[test]
    fn a_kick_reaches_those_that_the_store_does_not_know_yet() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::default());
        come(&mut slots, &client, None);
        assert_eq!(reasons(slots.mark(&device(), Marks { kicked: 0, replaced: 9 }, true)), []);
        assert_eq!(reasons(slots.mark(&device(), Marks { kicked: 9, replaced: 9 }, true)), [Eviction::Kicked]);
    }

    #[test]
    fn a_connection_that_left_before_the_store_answered_gives_its_place_back() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::default());
        let number = come(&mut slots, &client, None);
        let wanted = slots.wanted(&device(), number).unwrap();
        let connection = wanted.connection;
        slots.leave(&device(), number, "client", 2);
        slots.answered(&device(), number, &wanted, holder(5));
        assert_eq!(slots.take_gone(0, 10), vec![(device(), connection); 2]);
        assert!(slots.devices.is_empty());
    }
}
