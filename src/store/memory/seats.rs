//! Who is connected as one device, as a plain value.

use uuid::Uuid;

use crate::model::Marks;
use crate::store::presence::{Claim, DeviceLimit, Overflow, STALE, Seat, Seated, Seating};
use crate::store::{NodeId, millis};

/// The connections of a device, and up to where they were told to go. The Redis store's `seat.lua` and
/// `kick.lua` do the same.
#[derive(Debug, Clone, Default)]
pub struct Seats {
    entries: Vec<Entry>,
    marks: Marks,
}

#[derive(Debug, Clone)]
struct Entry {
    seated: Seated,
    asserted_ms: u64,
}

impl Seats {
    /// Up to where connections were told to go.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// How many entries there are, counted or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives a connection its place, or asserts the one it has. The second part of the answer are nodes that
    /// are to be told of the marks. `live` says whether a node has a route.
    pub fn seat(
        &mut self,
        claim: &Claim,
        limit: DeviceLimit,
        now_ms: u64,
        live: impl Fn(&NodeId) -> bool,
    ) -> (Seating, Vec<NodeId>) {
        let Marks { kicked, replaced } = self.marks;
        let own = self.entries.iter().position(|entry| entry.seated.connection == claim.connection);
        let known = own.map(|at| self.entries.swap_remove(at).seated.seat);
        if claim.seat.is_some_and(|seat| seat.stamp <= kicked.max(replaced)) {
            return (Seating::Passed(self.marks), Vec::new());
        }
        let newest = self.entries.iter().map(|entry| entry.seated.seat.stamp).chain(known.map(|seat| seat.stamp));
        let newest = newest.max().unwrap_or(0).max(kicked).max(replaced);
        let stale = millis(STALE);
        self.entries.retain(|entry| live(&entry.seated.node) || now_ms.saturating_sub(entry.asserted_ms) <= stale);
        let mut others: Vec<Seated> =
            self.entries.iter().map(|entry| entry.seated.clone()).filter(|seated| live(&seated.node)).collect();
        let surplus = (others.len() + 1).saturating_sub(limit.most);
        // Asked again because the first answer was lost: it has its place.
        let held = claim.seat.or(known);
        // Who has a place keeps it: the newest is whoever has none yet.
        if surplus > 0 && limit.overflow == Overflow::Newest && held.is_none() {
            return (Seating::Full, Vec::new());
        }
        let seat = held.unwrap_or_else(|| {
            let stamp = now_ms.saturating_mul(1000).max(newest + 1);
            Seat { stamp, since_ms: now_ms }
        });
        let seated = Seated {
            connection: claim.connection,
            node: claim.node.clone(),
            transport: claim.transport.to_owned(),
            seat,
        };
        let mut told = Vec::new();
        if surplus > 0 && limit.overflow == Overflow::Oldest {
            others.push(seated.clone());
            others.sort_by_key(|other| other.seat.stamp);
            for gone in &others[..surplus] {
                self.marks.replaced = gone.seat.stamp;
                self.entries.retain(|entry| entry.seated.connection != gone.connection);
                if gone.connection != claim.connection && !told.contains(&gone.node) {
                    told.push(gone.node.clone());
                }
            }
            if seat.stamp <= self.marks.replaced {
                return (Seating::Passed(self.marks), told);
            }
        }
        self.entries.push(Entry { seated, asserted_ms: now_ms });
        (Seating::Seated(seat), told)
    }

    /// Takes a connection's place away.
    pub fn unseat(&mut self, connection: Uuid) {
        self.entries.retain(|entry| entry.seated.connection != connection);
    }

    /// Takes away what a node left.
    pub fn forget(&mut self, node: &NodeId) {
        self.entries.retain(|entry| entry.seated.node != *node);
    }

    /// Tells all to go, and says how many there are.
    pub fn kick(&mut self, now_ms: u64, live: impl Fn(&NodeId) -> bool) -> u32 {
        let newest = self.entries.iter().map(|entry| entry.seated.seat.stamp).max().unwrap_or(0);
        let count = self.entries.iter().filter(|entry| live(&entry.seated.node)).count();
        self.entries.clear();
        self.marks.kicked = now_ms.saturating_mul(1000).max(newest).max(self.marks.kicked);
        count as u32
    }

    /// Those that count, oldest first.
    pub fn seated(&self, live: impl Fn(&NodeId) -> bool) -> Vec<Seated> {
        let counted = self.entries.iter().filter(|entry| live(&entry.seated.node));
        let mut seated: Vec<_> = counted.map(|entry| entry.seated.clone()).collect();
        seated.sort_by_key(|seated| seated.seat.stamp);
        seated
    }
}
