//! Reconciles the lifecycle queue with the store, after other nodes ended this node's session or the store lost data.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::Occupant;
use super::device_slots::DeviceSlots;
use crate::store::lifecycle::{ConnectionRef, LOST};

/// Connections that continue under another id.
pub type Renamed = Vec<(Arc<dyn Occupant>, Uuid)>;

impl DeviceSlots {
    /// Others ended the node's session after this batch (`None`: everything that was sent is published), and publish
    /// that its connections were lost. They are still here, so each connects again under another id: no connection
    /// is published twice.
    pub fn lost(&mut self, number: Option<u64>, now_ms: u64) -> Renamed {
        let unpublished = self.lifecycle.restart(number);
        let (mut renamed, mut gone) = (Vec::new(), Vec::new());
        for (device, known) in &mut self.devices {
            for here in known.here.iter_mut().filter(|here| here.noted && !unpublished.contains(&here.connection)) {
                gone.push((device.clone(), here.connection));
                here.connection = Uuid::new_v4();
                here.noted = self.lifecycle.push_connected(here.subject(device), now_ms);
                self.wanted.push(device.clone(), here.number);
                renamed.extend(here.occupant.as_ref().and_then(std::sync::Weak::upgrade).map(|o| (o, here.connection)));
            }
        }
        gone.into_iter().for_each(|(device, connection)| self.give_back(device, connection));
        renamed
    }

    /// The store has lost everything, the stream included.
    pub fn forgotten(&mut self, now_ms: u64) {
        let unpublished = self.lifecycle.restart(Some(0));
        self.queue_missing(&unpublished, &HashSet::new(), now_ms);
    }

    /// The store lost what was published after this batch, and has these connections open.
    pub fn fallen_back(&mut self, number: u64, open: Vec<ConnectionRef>, now_ms: u64) {
        let known: HashSet<Uuid> = open.iter().map(|subject| subject.connection).collect();
        let unpublished = self.lifecycle.fall_back(number, &known);
        self.queue_missing(&unpublished, &known, now_ms);
        let noted = self.devices.values().flat_map(|known| &known.here).filter(|here| here.noted);
        let noted: HashSet<Uuid> = noted.map(|here| here.connection).collect();
        for subject in open.into_iter().filter(|subject| !noted.contains(&subject.connection)) {
            if !self.lifecycle.has_disconnect_of(subject.connection) {
                self.lifecycle.push_disconnected(subject, LOST, now_ms);
            }
        }
    }

    /// Queues the connect of each connection that is here, but neither open in the store nor queued.
    fn queue_missing(&mut self, unpublished: &HashSet<Uuid>, open: &HashSet<Uuid>, now_ms: u64) {
        for (device, known) in &mut self.devices {
            for here in known.here.iter_mut().filter(|here| here.noted) {
                if !unpublished.contains(&here.connection) && !open.contains(&here.connection) {
                    here.noted = self.lifecycle.push_connected(here.subject(device), now_ms);
                }
            }
        }
    }

    /// Queues connects that had found no room, now that there is some.
    pub fn publish_missed(&mut self, now_ms: u64) {
        if !self.lifecycle.take_missed() {
            return;
        }
        for (device, known) in &mut self.devices {
            for here in known.here.iter_mut().filter(|here| here.occupant.is_some() && !here.noted) {
                here.noted = self.lifecycle.push_connected(here.subject(device), now_ms);
            }
        }
    }

    /// The process ends: queues the disconnect of every connection.
    pub fn abandon(&mut self, reason: &'static str, now_ms: u64) {
        for (device, known) in &mut self.devices {
            for here in &mut known.here {
                here.occupant = None;
                if std::mem::take(&mut here.noted) {
                    self.lifecycle.push_disconnected(here.subject(device), reason, now_ms);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use parking_lot::Mutex;

    use super::*;
    use crate::model::StreamName;
    use crate::presence::Eviction;

    #[derive(Default)]
    struct Client(Mutex<Option<Uuid>>);

    impl Occupant for Client {
        fn evict(&self, _why: Eviction) {}

        fn rename(&self, id: Uuid) {
            *self.0.lock() = Some(id);
        }
    }

    fn device() -> StreamName {
        "device:42".parse().unwrap()
    }

    fn come(slots: &mut DeviceSlots, client: &Arc<Client>) -> (Uuid, u64) {
        let connection = Uuid::new_v4();
        let number = slots.enter(&device(), connection, "sse", None);
        let occupant: Weak<dyn Occupant> = Arc::downgrade(client) as _;
        slots.occupy(&device(), number, occupant, 1);
        (connection, number)
    }

    fn drain(slots: &mut DeviceSlots) -> Vec<(Uuid, &'static str)> {
        let (number, batch) = slots.lifecycle.next(100);
        let changes = batch.iter().map(|entry| (entry.subject.connection, entry.kind.as_str())).collect();
        slots.lifecycle.acknowledge(number);
        changes
    }

    #[test]
    fn a_connection_published_as_lost_comes_anew_under_another_id() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::<Client>::default());
        let (connection, number) = come(&mut slots, &client);
        assert_eq!(drain(&mut slots), [(connection, "connected")]);
        for (occupant, id) in slots.lost(Some(1), 2) {
            occupant.rename(id);
        }
        let anew = client.0.lock().unwrap();
        assert_ne!(anew, connection);
        assert_eq!(drain(&mut slots), [(anew, "connected")]);
        assert_eq!(slots.take_gone(0, 10), [(device(), connection)], "its place is the other's");
        assert_eq!(slots.take_wanted(0, 10), [(device(), number)]);
        slots.leave(&device(), number, "client", 3);
        assert_eq!(drain(&mut slots), [(anew, "disconnected")]);
    }

    #[test]
    fn a_connection_not_published_yet_keeps_its_id() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::<Client>::default());
        let (connection, _) = come(&mut slots, &client);
        assert!(slots.lost(None, 2).is_empty());
        assert_eq!(drain(&mut slots), [(connection, "connected")]);
    }

    #[test]
    fn a_store_that_forgot_is_notified_of_everybody_who_is_here() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::<Client>::default());
        let (stays, _) = come(&mut slots, &client);
        let (_, leaves) = come(&mut slots, &client);
        drain(&mut slots);
        slots.leave(&device(), leaves, "client", 2);
        slots.forgotten(3);
        assert_eq!(drain(&mut slots), [(stays, "connected")]);
    }

    #[test]
    fn what_a_store_lost_is_published_again_and_what_is_open_and_gone_is_closed() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::<Client>::default());
        let ((kept, _), (forgotten, _)) = (come(&mut slots, &client), come(&mut slots, &client));
        drain(&mut slots);
        let stray = ConnectionRef { connection: Uuid::new_v4(), device: device(), transport: "sse".into(), info: None };
        let open = ConnectionRef { connection: kept, ..stray.clone() };
        slots.fallen_back(0, vec![open, stray.clone()], 2);
        assert_eq!(drain(&mut slots), [(forgotten, "connected"), (stray.connection, "disconnected")]);
    }

    #[test]
    fn a_node_that_stops_leaves_nobody_behind() {
        let (mut slots, client) = (DeviceSlots::default(), Arc::<Client>::default());
        let (connection, number) = come(&mut slots, &client);
        slots.abandon("drain", 2);
        slots.leave(&device(), number, "client", 3);
        assert_eq!(drain(&mut slots), [(connection, "connected"), (connection, "disconnected")]);
        assert_eq!(slots.lifecycle.take_unpublished(), 0);
    }
}
