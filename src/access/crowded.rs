//! Devices with more connections than they may have: those that are refused come back later and later, as the
//! places may stay taken for long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::RngExt as _;

use crate::model::StreamName;

/// The first wait, and what the waits grow to: each is twice the one before.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// A device that was not refused for so long after its wait begins anew.
const FORGET: Duration = Duration::from_secs(60);

/// Most devices that are remembered. Those beyond always wait for the shortest time.
const MOST: usize = 16_384;

/// The devices that were refused lately.
#[derive(Default)]
pub struct Crowded(Mutex<HashMap<StreamName, Refusals>>);

struct Refusals {
    count: u32,
    forget: Instant,
}

impl Crowded {
    /// One more connection of the device was refused: after how many milliseconds it had better come back.
    pub fn refused(&self, device: &StreamName) -> u64 {
        let wait = self.wait(device, Instant::now());
        // Waits of several tabs must not end in one instant. Twice the shortest is still above the longest.
        let jittered = wait.mul_f64(rand::rng().random_range(0.8..1.2)).min(LONGEST);
        jittered.as_millis() as u64
    }

    /// A connection of the device was let in: there was room.
    pub fn admitted(&self, device: &StreamName) {
        self.0.lock().remove(device);
    }

    fn wait(&self, device: &StreamName, now: Instant) -> Duration {
        let mut devices = self.0.lock();
        if devices.len() >= MOST && !devices.contains_key(device) {
            devices.retain(|_, refusals| refusals.forget > now);
            if devices.len() >= MOST {
                return FIRST;
            }
        }
        let refusals = devices.entry(device.clone()).or_insert(Refusals { count: 0, forget: now });
        if refusals.forget < now {
            refusals.count = 0;
        }
        let wait = FIRST.saturating_mul(1 << refusals.count.min(10)).min(LONGEST);
        refusals.count += 1;
        refusals.forget = now + wait + FORGET;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_begin_anew_once_there_was_room() {
        let (crowded, device, now) = (Crowded::default(), "device:42".parse().unwrap(), Instant::now());
        let waits: Vec<u64> = (0..8).map(|_| crowded.wait(&device, now).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(crowded.wait(&"device:43".parse().unwrap(), now), FIRST);
        crowded.admitted(&device);
        assert_eq!(crowded.wait(&device, now), FIRST);
        assert_eq!(crowded.wait(&device, now), 2 * FIRST);
        assert_eq!(crowded.wait(&device, now + Duration::from_secs(300)), FIRST);
    }

    #[test]
    fn each_wait_is_longer_than_the_one_before_and_none_is_longer_than_a_minute() {
        let (crowded, device) = (Crowded::default(), "device:42".parse().unwrap());
        let waits: Vec<u64> = (0..20).map(|_| crowded.refused(&device)).collect();
        assert!(waits[..6].is_sorted(), "{waits:?}");
        assert!(waits.iter().all(|wait| (800..=60_000).contains(wait)), "{waits:?}");
    }

    #[test]
    fn beyond_the_bound_waits_are_short_until_others_are_forgotten() {
        let (crowded, now) = (Crowded::default(), Instant::now());
        for number in 0..MOST {
            crowded.wait(&format!("device:{number}").parse().unwrap(), now);
        }
        let one_more = "device:more".parse().unwrap();
        assert_eq!((crowded.wait(&one_more, now), crowded.wait(&one_more, now)), (FIRST, FIRST));
        let later = now + Duration::from_secs(300);
        assert_eq!((crowded.wait(&one_more, later), crowded.wait(&one_more, later)), (FIRST, 2 * FIRST));
    }
}
