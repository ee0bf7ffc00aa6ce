//! The connections of one device, as a plain value.

use uuid::Uuid;

use crate::model::{Marks, NodeId};
use crate::store::millis;
use crate::store::presence::{Claim, Claimed, DeviceLimit, Overflow, STALE, Slot, SlotHolder};

/// The connections of a device, and up to where they have to close. The Redis store's `claim_slot.lua` and
/// `kick.lua` do the same.
#[derive(Debug, Clone, Default)]
pub struct DeviceSlots {
    entries: Vec<Entry>,
    marks: Marks,
}

#[derive(Debug, Clone)]
struct Entry {
    holder: SlotHolder,
    asserted_ms: u64,
}

impl DeviceSlots {
    /// Up to where connections have to close.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// How many entries there are, counted or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives a connection its place, or asserts the one it has. The second part of the answer are nodes that
    /// get the marks. `live`: whether a node has a route.
    pub fn claim_slot(
        &mut self,
        claim: &Claim,
        limit: DeviceLimit,
        now_ms: u64,
        live: impl Fn(&NodeId) -> bool,
    ) -> (Claimed, Vec<NodeId>) {
        let Marks { kicked, replaced } = self.marks;
        let own = self.entries.iter().position(|entry| entry.holder.connection == claim.connection);
        let known = own.map(|at| self.entries.swap_remove(at).holder.slot);
        if claim.slot.is_some_and(|slot| slot.stamp <= kicked.max(replaced)) {
            return (Claimed::Passed(self.marks), Vec::new());
        }
        let newest = self.entries.iter().map(|entry| entry.holder.slot.stamp).chain(known.map(|slot| slot.stamp));
        let newest = newest.max().unwrap_or(0).max(kicked).max(replaced);
        let stale = millis(STALE);
        self.entries.retain(|entry| live(&entry.holder.node) || now_ms.saturating_sub(entry.asserted_ms) <= stale);
        let mut others: Vec<SlotHolder> =
            self.entries.iter().map(|entry| entry.holder.clone()).filter(|holder| live(&holder.node)).collect();
        let surplus = (others.len() + 1).saturating_sub(limit.most);
        // Asked again because the first answer was lost: it has its place.
        let held = claim.slot.or(known);
        // A connection with a place keeps it: the newest is the one without.
        if surplus > 0 && limit.overflow == Overflow::Newest && held.is_none() {
            return (Claimed::Full, Vec::new());
        }
        let slot = held.unwrap_or_else(|| {
            let stamp = now_ms.saturating_mul(1000).max(newest + 1);
            Slot { stamp, since_ms: now_ms }
        });
        let holder = SlotHolder {
            connection: claim.connection,
            node: claim.node.clone(),
            transport: claim.transport.to_owned(),
            info: claim.info.clone(),
            slot,
        };
        let mut evicting = Vec::new();
        if surplus > 0 && limit.overflow == Overflow::Oldest {
            others.push(holder.clone());
            others.sort_by_key(|other| other.slot.stamp);
            for gone in &others[..surplus] {
                self.marks.replaced = gone.slot.stamp;
                self.entries.retain(|entry| entry.holder.connection != gone.connection);
                if gone.connection != claim.connection && !evicting.contains(&gone.node) {
                    evicting.push(gone.node.clone());
                }
            }
            if slot.stamp <= self.marks.replaced {
                return (Claimed::Passed(self.marks), evicting);
            }
        }
        self.entries.push(Entry { holder, asserted_ms: now_ms });
        (Claimed::Granted(slot), evicting)
    }

    /// Takes a connection's place away.
    pub fn release_slots(&mut self, connection: Uuid) {
        self.entries.retain(|entry| entry.holder.connection != connection);
    }

    /// Takes away what a node left.
    pub fn forget(&mut self, node: &NodeId) {
        self.entries.retain(|entry| entry.holder.node != *node);
    }

    /// Has all of them close, and returns how many there are.
    pub fn kick(&mut self, now_ms: u64, live: impl Fn(&NodeId) -> bool) -> u32 {
        let newest = self.entries.iter().map(|entry| entry.holder.slot.stamp).max().unwrap_or(0);
        let count = self.entries.iter().filter(|entry| live(&entry.holder.node)).count();
        self.entries.clear();
        self.marks.kicked = now_ms.saturating_mul(1000).max(newest).max(self.marks.kicked);
        count as u32
    }

    /// Those that count, oldest first.
    pub fn holder(&self, live: impl Fn(&NodeId) -> bool) -> Vec<SlotHolder> {
        let counted = self.entries.iter().filter(|entry| live(&entry.holder.node));
        let mut holder: Vec<_> = counted.map(|entry| entry.holder.clone()).collect();
        holder.sort_by_key(|holder| holder.slot.stamp);
        holder
    }
}
