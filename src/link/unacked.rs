//! What was sent over a link and is not acknowledged yet, as a value.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{EventId, StreamName};

/// What is not acknowledged within this time goes over the channel.
pub const ACK_TIME: Duration = Duration::from_millis(200);

/// An event on its way: enough to have the store relay it.
pub type Underway = (StreamName, EventId);

/// Frames on their way, in order.
#[derive(Debug, Default)]
pub struct Unacked {
    sent: u64,
    frames: VecDeque<(u64, Instant, Option<Underway>)>,
}

impl Unacked {
    /// A frame goes out. The answer is its number.
    pub fn sent(&mut self, event: Option<Underway>, now: Instant) -> u64 {
        self.sent += 1;
        self.frames.push_back((self.sent, now + ACK_TIME, event));
        self.sent
    }

    /// Everything up to this number arrived. False when so many were never sent.
    pub fn acked(&mut self, number: u64) -> bool {
        while self.frames.front().is_some_and(|(first, ..)| *first <= number) {
            self.frames.pop_front();
        }
        number <= self.sent
    }

    /// When the oldest is late.
    pub fn late_at(&self) -> Option<Instant> {
        self.frames.front().map(|(_, late_at, _)| *late_at)
    }

    /// How many frames are on their way.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether everything arrived.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The events of which it is not known that they arrived, in order.
    pub fn into_events(self) -> impl Iterator<Item = Underway> {
        self.frames.into_iter().filter_map(|(_, _, event)| event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Option<Underway> {
        Some(("topic:news".parse().unwrap(), EventId::new(1, seq)))
    }

    #[test]
    fn what_is_not_acknowledged_is_left_in_order() {
        let (mut unacked, begun) = (Unacked::default(), Instant::now());
        let numbers: Vec<_> = (0..4).map(|seq| unacked.sent(event(seq), begun + Duration::from_millis(seq))).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(unacked.late_at(), Some(begun + ACK_TIME));
        assert!(unacked.acked(2));
        assert_eq!((unacked.late_at(), unacked.len()), (Some(begun + Duration::from_millis(2) + ACK_TIME), 2));
        unacked.sent(None, begun);
        assert!(unacked.acked(1), "an old one changes nothing");
        assert_eq!(unacked.into_events().collect::<Vec<_>>(), [event(2).unwrap(), event(3).unwrap()]);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_noticed() {
        let mut unacked = Unacked::default();
        unacked.sent(None, Instant::now());
        assert!(!unacked.acked(2));
        assert!(unacked.is_empty());
    }
}
