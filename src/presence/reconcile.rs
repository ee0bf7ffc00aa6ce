//! What becomes of the journal when a term ends otherwise than by its node, or the store lost something.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::Occupant;
use super::seats::Seats;
use crate::store::lifecycle::{LOST, Whom};

/// Connections that go on under another id.
pub type Renamed = Vec<(Arc<dyn Occupant>, Uuid)>;

impl Seats {
    /// Others ended the node's term after this batch (`None`: whatever was sent was told), and tell that its
    /// connections were lost. Those are still here, so they come anew, each under another id: nobody is told of
    /// twice.
    pub fn lost(&mut self, number: Option<u64>, now_ms: u64) -> Renamed {
        let untold = self.journal.begin_anew(number);
        let (mut renamed, mut gone) = (Vec::new(), Vec::new());
        for (device, known) in &mut self.devices {
            for here in known.here.iter_mut().filter(|here| here.noted && !untold.contains(&here.connection)) {
                gone.push((device.clone(), here.connection));
                here.connection = Uuid::new_v4();
                here.noted = self.journal.came(here.whom(device), now_ms);
                self.wanted.push_back((device.clone(), here.number));
                renamed.extend(here.occupant.as_ref().and_then(std::sync::Weak::upgrade).map(|o| (o, here.connection)));
            }
        }
        gone.into_iter().for_each(|(device, connection)| self.give_back(device, connection));
        renamed
    }

    /// The store has forgotten everything, the stream included.
    pub fn forgotten(&mut self, now_ms: u64) {
        let untold = self.journal.begin_anew(Some(0));
        self.tell_those_missing(&untold, &HashSet::new(), now_ms);
    }

    /// The store lost what was told after this batch, and has these open.
    pub fn fallen_back(&mut self, number: u64, open: Vec<Whom>, now_ms: u64) {
        let known: HashSet<Uuid> = open.iter().map(|whom| whom.connection).collect();
        let untold = self.journal.fall_back(number, &known);
        self.tell_those_missing(&untold, &known, now_ms);
        let noted = self.devices.values().flat_map(|known| &known.here).filter(|here| here.noted);
        let noted: HashSet<Uuid> = noted.map(|here| here.connection).collect();
        for whom in open.into_iter().filter(|whom| !noted.contains(&whom.connection)) {
            if !self.journal.leaves(whom.connection) {
                self.journal.left(whom, LOST, now_ms);
            }
        }
    }

    /// Who is here, and neither open nor about to be told of, comes again: of its coming nobody knows any more.
    fn tell_those_missing(&mut self, untold: &HashSet<Uuid>, open: &HashSet<Uuid>, now_ms: u64) {
        for (device, known) in &mut self.devices {
            for here in known.here.iter_mut().filter(|here| here.noted) {
                if !untold.contains(&here.connection) && !open.contains(&here.connection) {
                    here.noted = self.journal.came(here.whom(device), now_ms);
                }
            }
        }
    }

    /// There is room again for those whose coming found none.
    pub fn tell_those_missed(&mut self, now_ms: u64) {
        if !self.journal.take_missed() {
            return;
        }
        for (device, known) in &mut self.devices {
            for here in known.here.iter_mut().filter(|here| here.occupant.is_some() && !here.noted) {
                here.noted = self.journal.came(here.whom(device), now_ms);
            }
        }
    }

    /// The process ends: whoever is here leaves.
    pub fn abandon(&mut self, reason: &'static str, now_ms: u64) {
        for (device, known) in &mut self.devices {
            for here in &mut known.here {
                here.occupant = None;
                if std::mem::take(&mut here.noted) {
                    self.journal.left(here.whom(device), reason, now_ms);
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

    fn come(seats: &mut Seats, client: &Arc<Client>) -> (Uuid, u64) {
        let connection = Uuid::new_v4();
        let number = seats.enter(&device(), connection, "sse");
        let occupant: Weak<dyn Occupant> = Arc::downgrade(client) as _;
        seats.occupy(&device(), number, occupant, 1);
        (connection, number)
    }

    fn told(seats: &mut Seats) -> Vec<(Uuid, &'static str)> {
        let (number, batch) = seats.journal.next(100);
        let told = batch.iter().map(|entry| (entry.whom.connection, entry.happening.as_str())).collect();
        seats.journal.told(number);
        told
    }

    #[test]
    fn who_was_told_to_be_lost_comes_anew_under_another_id() {
        let (mut seats, client) = (Seats::default(), Arc::<Client>::default());
        let (connection, number) = come(&mut seats, &client);
        assert_eq!(told(&mut seats), [(connection, "connected")]);
        for (occupant, id) in seats.lost(Some(1), 2) {
            occupant.rename(id);
        }
        let anew = client.0.lock().unwrap();
        assert_ne!(anew, connection);
        assert_eq!(told(&mut seats), [(anew, "connected")]);
        assert_eq!(seats.take_gone(10), [(device(), connection)], "its place is the other's");
        assert_eq!(seats.take_wanted(10), [(device(), number)]);
        seats.leave(&device(), number, "client", 3);
        assert_eq!(told(&mut seats), [(anew, "disconnected")]);
    }

    #[test]
    fn who_was_not_told_of_yet_keeps_its_id() {
        let (mut seats, client) = (Seats::default(), Arc::<Client>::default());
        let (connection, _) = come(&mut seats, &client);
        assert!(seats.lost(None, 2).is_empty());
        assert_eq!(told(&mut seats), [(connection, "connected")]);
    }

    #[test]
    fn a_store_that_forgot_is_told_of_everybody_who_is_here() {
        let (mut seats, client) = (Seats::default(), Arc::<Client>::default());
        let (stays, _) = come(&mut seats, &client);
        let (_, leaves) = come(&mut seats, &client);
        told(&mut seats);
        seats.leave(&device(), leaves, "client", 2);
        seats.forgotten(3);
        assert_eq!(told(&mut seats), [(stays, "connected")]);
    }

    #[test]
    fn what_a_store_lost_is_told_again_and_who_is_open_and_gone_is_closed() {
        let (mut seats, client) = (Seats::default(), Arc::<Client>::default());
        let ((kept, _), (forgotten, _)) = (come(&mut seats, &client), come(&mut seats, &client));
        told(&mut seats);
        let stray = Whom { connection: Uuid::new_v4(), device: device(), transport: "sse".into() };
        let open = Whom { connection: kept, ..stray.clone() };
        seats.fallen_back(0, vec![open, stray.clone()], 2);
        assert_eq!(told(&mut seats), [(forgotten, "connected"), (stray.connection, "disconnected")]);
    }

    #[test]
    fn a_node_that_stops_leaves_nobody_behind() {
        let (mut seats, client) = (Seats::default(), Arc::<Client>::default());
        let (connection, number) = come(&mut seats, &client);
        seats.abandon("drain", 2);
        seats.leave(&device(), number, "client", 3);
        assert_eq!(told(&mut seats), [(connection, "connected"), (connection, "disconnected")]);
        assert_eq!(seats.journal.take_untold(), 0);
    }
}
