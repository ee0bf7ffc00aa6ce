//! What a connection is to others: an occupant of a device's slots, a watcher of members, a sink of dispatchers.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Connection, Phase};
use crate::dispatch::{Delivery, Offer, Sink, Slot};
use crate::model::{Info, MemberNotice, StreamName};
use crate::presence::{Eviction, Occupant, PresenceGuard, Watcher};
use crate::transport::connections::retry_ms;
use crate::transport::frame::Frame;

impl Connection {
    /// It has its place, and can be evicted from there from now on.
    pub(in crate::transport) fn occupy(self: &Arc<Self>, place: PresenceGuard) {
        let occupant = Arc::downgrade(self);
        place.occupy(occupant);
        *self.place.lock() = Some(place);
    }

    /// Gives its place back, and says why.
    pub(in crate::transport) fn vacate(&self, reason: &'static str) {
        if let Some(place) = self.place.lock().take() {
            place.leave(reason);
        }
    }

    /// This is shown beside it from now on.
    pub(super) fn inform(&self, info: Option<&Info>) {
        if let Some(place) = &*self.place.lock() {
            place.inform(info);
        }
        if let Some(members) = self.members() {
            members.inform(info);
        }
    }

    /// Writes a notice of members, if there is room. If there was none, the client is notified once there is.
    fn notify_of_members(&self, frame: Frame) {
        let mut inner = self.inner.lock();
        if inner.phase != Phase::Open {
            return;
        }
        if !inner.outbox.has_room_for(&frame) {
            self.write_out(&mut inner);
        }
        if inner.outbox.offer(frame) {
            self.write_out(&mut inner);
        } else {
            inner.missed_members = true;
        }
    }
}

impl Occupant for Connection {
    fn evict(&self, why: Eviction) {
        self.close(why.into(), retry_ms());
    }

    fn rename(&self, id: Uuid) {
        self.inner.lock().id = id;
    }
}

impl Watcher for Connection {
    fn member(&self, notice: &MemberNotice) {
        // Its own coming and going is no news to a device.
        if self.members().is_some_and(|members| members.is_of(&notice.device)) {
            return;
        }
        self.notify_of_members(self.protocol.member(notice));
    }

    fn missed_members(&self) {
        self.notify_of_members(self.protocol.missed_members());
    }
}

#[async_trait]
impl Sink for Connection {
    fn number(&self) -> u64 {
        self.number
    }

    fn wants(&self, slot: Slot) -> bool {
        let inner = self.inner.lock();
        inner.phase == Phase::Open && inner.outbox.follows(slot)
    }

    fn offer(&self, slot: Slot, stream: &StreamName, delivery: &Delivery) -> Offer {
        let mut inner = self.inner.lock();
        if inner.phase != Phase::Open || !inner.outbox.follows(slot) {
            return Offer::Closed;
        }
        if matches!(delivery, Delivery::Ephemeral(event) if !self.wants(event, inner.id)) {
            return Offer::Taken { flush: false };
        }
        let frame = self.frame(inner.id, slot, stream, delivery);
        let mark = self.mark(delivery, &frame);
        if !inner.outbox.has_room_for(&frame) {
            // Perhaps only because more came at once than the outbox holds, and nobody has flushed so far.
            self.write_out(&mut inner);
            if inner.phase != Phase::Open {
                return Offer::Closed;
            }
        }
        if !inner.outbox.offer(frame) {
            return Offer::Full;
        }
        if let Some(mark) = mark {
            inner.outbox.push(mark);
        }
        if inner.blocked {
            self.count_waiting(&mut inner);
        }
        let flush = !inner.dirty && !inner.blocked;
        inner.dirty |= flush;
        Offer::Taken { flush }
    }

    fn flush(&self) {
        let mut inner = self.inner.lock();
        inner.dirty = false;
        self.write_out(&mut inner);
    }

    async fn room(&self) {
        self.until(|inner| inner.phase != Phase::Open || inner.outbox.has_room()).await;
    }

    async fn left(&self, slot: Slot) {
        self.until(|inner| inner.phase != Phase::Open || !inner.outbox.follows(slot)).await;
    }
}
