//! Streams whose rows wait, as the server does not take them for now.
//!
//! A region or a master of a Cluster may be away, or the key may not cover a stream, while all others are taken. Later
//! rows of such a stream wait behind the one that was not taken, so that its order stays.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Streams that are remembered. At the bound no rows are taken until one of them is tried again.
const MOST: usize = 1024;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Streams that wait, each for itself.
#[derive(Debug, Default)]
pub struct Held(HashMap<String, Hold>);

#[derive(Debug)]
struct Hold {
    until: Instant,
    backoff: Backoff,
}

impl Held {
    /// A stream was not taken: it waits, longer each time, and for as long as the server asked at least.
    pub fn hold(&mut self, stream: &str, asked: Option<Duration>, now: Instant) {
        let fresh = || Hold { until: now, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) };
        let hold = self.0.entry(stream.to_owned()).or_insert_with(fresh);
        hold.until = now + hold.backoff.next_wait().max(asked.unwrap_or_default());
    }

    /// A stream was taken.
    pub fn release(&mut self, stream: &str) {
        self.0.remove(stream);
    }

    /// The streams that wait.
    pub fn waiting(&self, now: Instant) -> Vec<&str> {
        self.0.iter().filter(|(_, hold)| hold.until > now).map(|(stream, _)| stream.as_str()).collect()
    }

    /// When the first of them is tried again, where there are so many that nothing else is.
    pub fn full_until(&mut self, now: Instant) -> Option<Instant> {
        if self.0.len() >= MOST {
            // Those that are not waiting are only remembered for how long they will wait the next time.
            self.0.retain(|_, hold| hold.until > now);
        }
        if self.0.len() < MOST { None } else { self.0.values().map(|hold| hold.until).min() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_waits_longer_each_time_and_begins_anew_once_it_was_taken() {
        let (mut held, mut now) = (Held::default(), Instant::now());
        held.hold("topic:a", None, now);
        assert_eq!(held.waiting(now), ["topic:a"]);
        now += FIRST_WAIT * 2;
        assert!(held.waiting(now).is_empty());
        for _ in 0..8 {
            held.hold("topic:a", None, now);
        }
        assert_eq!(held.waiting(now + FIRST_WAIT * 2), ["topic:a"]);
        held.release("topic:a");
        held.hold("topic:a", None, now);
        assert!(held.waiting(now + FIRST_WAIT * 2).is_empty());
        held.hold("topic:a", Some(LONGEST_WAIT * 2), now);
        assert_eq!(held.waiting(now + LONGEST_WAIT), ["topic:a"], "as the server asked");
    }

    #[test]
    fn with_very_many_that_wait_nothing_is_tried_until_the_first_is() {
        let (mut held, now) = (Held::default(), Instant::now());
        for n in 0..MOST {
            assert_eq!(held.full_until(now), None);
            held.hold(&format!("topic:{n}"), None, now);
        }
        let first = held.full_until(now).unwrap();
        assert!(first > now && first <= now + FIRST_WAIT * 2);
        assert_eq!(held.full_until(first), None);
    }
}
