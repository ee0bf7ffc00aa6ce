//! How often somebody may do something: token buckets, as many as there are somebodies, within a bound.
//!
//! A bucket holds what may be done at once, a second's worth, and fills at its rate. It is kept as the one instant at
//! which it will be full again (the generic cell rate algorithm), so one that is full is the same as none, and is
//! dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::RngExt as _;

/// Most buckets of one kind that are not full. Beyond, all that are new share one.
const MOST_BUCKETS: usize = 65_536;

/// How often full buckets are looked for when there is no room for another.
const SWEEP: Duration = Duration::from_millis(100);

/// It was more than the rate allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {rate} a second; the next is allowed in {} ms", .wait.as_millis())]
pub struct TooFast {
    /// What is allowed a second.
    pub rate: u32,
    /// When the next one is.
    pub wait: Duration,
}

impl TooFast {
    /// Whole seconds after which to try again, not all together.
    pub fn retry_seconds(&self) -> u64 {
        self.wait.as_secs() + 1 + rand::rng().random_range(0..=2)
    }
}

/// One bucket.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// When it is full again; it is when that is past.
    full: Option<Instant>,
}

impl Bucket {
    /// Takes `count` at once from a bucket that has anything left. What is missing is taken from its future, so
    /// that more than a second's worth at once is possible, and is waited for afterwards.
    pub fn take(&mut self, count: usize, rate: u32, now: Instant) -> Result<(), TooFast> {
        let each = Duration::from_secs(1) / rate.max(1);
        let full = self.full.map_or(now, |full| full.max(now));
        // With less than one left, the bucket will be full in more than a second less one.
        let wait = (full - now).saturating_sub(Duration::from_secs(1).saturating_sub(each));
        if !wait.is_zero() {
            return Err(TooFast { rate, wait });
        }
        self.full = Some(full + each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
        Ok(())
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

/// The buckets of many.
pub struct Rates<K> {
    buckets: Mutex<Buckets<K>>,
    most: usize,
}

struct Buckets<K> {
    by_key: HashMap<K, Bucket>,
    /// Shared by all keys for which there is no room.
    others: Bucket,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Default for Rates<K> {
    fn default() -> Self {
        Rates::bounded(MOST_BUCKETS)
    }
}

impl<K: Eq + Hash> Rates<K> {
    fn bounded(most: usize) -> Self {
        let buckets = Buckets { by_key: HashMap::new(), others: Bucket::default(), swept: None };
        Rates { buckets: Mutex::new(buckets), most }
    }

    /// Whether `key` may do it `count` times now.
    pub fn take(&self, key: K, count: usize, rate: u32) -> Result<(), TooFast> {
        self.take_at(key, count, rate, Instant::now())
    }

    fn take_at(&self, key: K, count: usize, rate: u32, now: Instant) -> Result<(), TooFast> {
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.by_key.get_mut(&key) {
            return bucket.take(count, rate, now);
        }
        if buckets.by_key.len() >= self.most {
            buckets.sweep(now);
        }
        if buckets.by_key.len() >= self.most {
            return buckets.others.take(count, rate, now);
        }
        buckets.by_key.entry(key).or_default().take(count, rate, now)
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now - swept >= SWEEP) {
            self.swept = Some(now);
            self.by_key.retain(|_, bucket| !bucket.is_full(now));
        }
    }
}

/// The client of an address: an IPv6 client has a whole network of addresses to itself.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, times: usize, rate: u32, now: Instant) -> usize {
        (0..times).filter(|_| bucket.take(1, rate, now).is_ok()).count()
    }

    #[test]
    fn a_seconds_worth_goes_at_once_and_then_the_rate_holds() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!(taken(&mut bucket, 100, 20, start), 20);
        let refusal = bucket.take(1, 20, start).unwrap_err();
        assert_eq!(refusal.wait, Duration::from_millis(50));
        assert_eq!(taken(&mut bucket, 100, 20, start + refusal.wait), 1);
        assert_eq!(taken(&mut bucket, 100, 20, start + Duration::from_millis(550)), 10);
        assert_eq!(taken(&mut bucket, 100, 20, start + Duration::from_secs(60)), 20);
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!(taken(&mut bucket, 5, 1, start), 1);
        assert_eq!(taken(&mut bucket, 5, 1, start + Duration::from_millis(990)), 0);
        assert_eq!(taken(&mut bucket, 5, 1, start + Duration::from_secs(1)), 1);
    }

    #[test]
    fn a_batch_larger_than_the_rate_is_taken_and_paid_for_afterwards() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert!(bucket.take(100, 10, start).is_ok());
        let refusal = bucket.take(1, 10, start).unwrap_err();
        assert_eq!(refusal.wait, Duration::from_millis(9_100));
        assert!(bucket.take(1, 10, start + Duration::from_millis(9_100)).is_ok());
    }

    #[test]
    fn each_key_has_its_own_bucket_and_those_beyond_the_bound_share_one() {
        let (rates, start) = (Rates::bounded(2), Instant::now());
        for key in ["a", "b", "c"] {
            assert_eq!(rates.take_at(key, 1, 1, start), Ok(()), "{key}");
            assert!(rates.take_at(key, 1, 1, start).is_err(), "{key}");
        }
        assert!(rates.take_at("d", 1, 1, start).is_err(), "c and d share a bucket");
        // The buckets of a and b are full again, and are forgotten.
        let later = start + Duration::from_secs(2);
        for key in ["c", "d"] {
            assert_eq!(rates.take_at(key, 1, 1, later), Ok(()), "{key}");
        }
        assert_eq!(rates.buckets.lock().by_key.len(), 2);
    }

    #[test]
    fn one_clients_ipv6_addresses_count_as_one() {
        let of = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:1.2.3.4"), of("1.2.3.4"));
        assert_ne!(of("1.2.3.4"), of("1.2.3.5"));
    }

    #[test]
    fn clients_that_were_too_fast_do_not_come_back_together() {
        let refusal = TooFast { rate: 1, wait: Duration::from_millis(1_500) };
        let seconds: std::collections::BTreeSet<u64> = (0..200).map(|_| refusal.retry_seconds()).collect();
        assert!(seconds.len() > 1 && seconds.iter().all(|seconds| (2..=4).contains(seconds)), "{seconds:?}");
    }
}
