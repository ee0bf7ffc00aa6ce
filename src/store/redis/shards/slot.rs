//! Slots of a Redis Cluster: each key belongs to one of them, and each slot to one master.

use crate::model::StreamName;

/// How many there are.
pub(in crate::store::redis) const SLOTS: u16 = 16_384;

/// The slot of a key: of what stands between its first braces, or of all of it.
pub(in crate::store::redis) fn slot_of(key: &[u8]) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(tag(key).unwrap_or(key)) % SLOTS
}

/// Some of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[bool]>);

impl SlotSet {
    /// Those for which this is true.
    pub(super) fn of(has: impl FnMut(u16) -> bool) -> Self {
        SlotSet((0..SLOTS).map(has).collect())
    }

    /// Whether the keys of a stream are in one of them.
    pub fn has_stream(&self, stream: &StreamName) -> bool {
        self.0[usize::from(slot_of(stream.as_str().as_bytes()))]
    }

    /// Whether a key, or a channel, is in one of them.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.0[usize::from(slot_of(key.as_bytes()))]
    }

    /// Those of both.
    pub(super) fn union(&self, other: &Self) -> Self {
        SlotSet(self.0.iter().zip(&other.0).map(|(one, other)| one | other).collect())
    }
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|byte| *byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_redis_computes() {
        // By CLUSTER KEYSLOT.
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"whimbrel:{foo}:events"), 12182);
        assert_eq!(slot_of(b"foo{}{bar}"), 8363);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"123456789"), 12739);
    }

    #[test]
    fn a_set_of_slots_has_the_streams_whose_keys_are_there() {
        let slot = slot_of(b"whimbrel:{topic:news}:events");
        let (its, others) = (SlotSet::of(|known| known == slot), SlotSet::of(|known| known != slot));
        let stream = "topic:news".parse().unwrap();
        assert_eq!((its.has_stream(&stream), others.has_stream(&stream)), (true, false));
        assert!(its.has_key("whimbrel:node:{topic:news}:a") && !its.has_key("topic:sport"));
        assert_eq!(its.union(&others), SlotSet::of(|_| true));
    }
}
