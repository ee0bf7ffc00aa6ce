//! Event ids: where an event stands in its stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Redis Stream id, written `<ms>-<seq>`: the store's clock in milliseconds since 1970, then a number
/// that orders events of one millisecond. Compared first by time, then by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// Store time in milliseconds since 1970.
    pub ms: u64,
    /// Order within the millisecond.
    pub seq: u64,
}

impl EventId {
    /// Below every id that a store ever makes: reading after it starts at the oldest event kept.
    pub const ZERO: EventId = EventId { ms: 0, seq: 0 };

    /// At or above every id that a store ever makes.
    pub const MAX: EventId = EventId { ms: u64::MAX, seq: u64::MAX };

    /// An id of the two numbers.
    pub const fn new(ms: u64, seq: u64) -> Self {
        EventId { ms, seq }
    }

    /// The id that a store gives next: the clock's millisecond, but never at or below `self`.
    ///
    /// `step` is random and at least 1: two masters that both continue after `self` (a split that a
    /// failover left behind) must not give one id to two events.
    pub fn next(self, now_ms: u64, step: u64) -> EventId {
        if now_ms > self.ms {
            EventId::new(now_ms, step)
        } else {
            EventId::new(self.ms, self.seq.saturating_add(step.max(1)))
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an event id: expected MILLISECONDS-NUMBER, such as 1763795000000-2731")]
pub struct EventIdError(String);

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |part: &str| {
            // u64::from_str also takes a leading '+', and leading zeroes would give one id two spellings.
            let plain =
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            plain.then(|| part.parse::<u64>().ok()).flatten()
        };
        text.split_once('-')
            .and_then(|(ms, seq)| Some(EventId::new(digits(ms)?, digits(seq)?)))
            .ok_or_else(|| EventIdError(text.chars().take(64).collect()))
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        let id = EventId::new(1_763_795_000_000, 2731);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "5", "-", "1-", "-1", "+1-2", "1-2-3", "a-b", "01-2", "1-02", "1- 2"] {
            assert!(text.parse::<EventId>().is_err(), "{text:?}");
        }
        assert!("99999999999999999999-1".parse::<EventId>().is_err());
    }

    #[test]
    fn the_next_id_is_above_even_when_the_clock_is_behind() {
        let last = EventId::new(100, 7);
        assert_eq!(last.next(101, 3), EventId::new(101, 3));
        assert_eq!(last.next(100, 3), EventId::new(100, 10));
        assert_eq!(last.next(40, 3), EventId::new(100, 10));
    }
}
