//! The replica: the whole directory in memory, so that a publish finds its region without asking anyone.
//!
//! Names are not kept, only 64-bit fingerprints, 12 bytes an entry in open addressing. Tables are filled to
//! between 53% and 80%, so a stream takes 15 to 22.5 bytes. Two streams with one fingerprint share an entry,
//! which is then wrong for one of them: the home check inside the stores refuses what goes to a wrong region,
//! so that costs a question to the directory and never delivers anything to the wrong place.

use parking_lot::RwLock;

/// Tables, each with a lock and a growth of its own: growing all at once would double the memory for a while.
const TABLES: usize = 256;

/// Versions are kept in 24 bits: how often a stream can move.
pub const MAX_VERSION: u32 = (1 << 24) - 1;

/// Most regions.
pub const MAX_REGIONS: usize = 255;

/// A stream's home: the number of a region, and the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// Which region, as the node numbers them.
    pub region: u8,
    /// 1 for the first home, and one more with each move.
    pub version: u32,
}

/// Homes by the fingerprints of streams.
pub struct Replica(Vec<RwLock<Table>>);

impl Default for Replica {
    fn default() -> Self {
        Replica((0..TABLES).map(|_| RwLock::default()).collect())
    }
}

impl Replica {
    /// The home of the stream with this fingerprint.
    pub fn get(&self, fingerprint: u64) -> Option<Home> {
        let mixed = mix(fingerprint);
        self.table(mixed).read().get(mixed)
    }

    /// Puts a home in, whatever was there. True when that changed something.
    pub fn set(&self, fingerprint: u64, home: Home) -> bool {
        let mixed = mix(fingerprint);
        self.table(mixed).write().set(mixed, home)
    }

    /// Puts a home in unless one of the same or a newer version is there. True when that changed something.
    pub fn raise(&self, fingerprint: u64, home: Home) -> bool {
        let mixed = mix(fingerprint);
        let mut table = self.table(mixed).write();
        let newer = table.get(mixed).is_none_or(|known| known.version < home.version);
        newer && table.set(mixed, home)
    }

    /// Takes a home out, if it is this one. True when it was.
    pub fn remove(&self, fingerprint: u64, home: Home) -> bool {
        let mixed = mix(fingerprint);
        self.table(mixed).write().remove(mixed, home)
    }

    /// Takes out all that `other` does not have.
    pub fn keep_only(&self, other: &Replica) {
        for (table, other) in self.0.iter().zip(&other.0) {
            table.write().keep_only(&other.read());
        }
    }

    /// Streams known.
    pub fn len(&self) -> usize {
        self.0.iter().map(|table| table.read().len).sum()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the tables take.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|table| table.read().slots.capacity() * size_of::<Slot>()).sum()
    }

    fn table(&self, mixed: u64) -> &RwLock<Table> {
        &self.0[mixed as usize % TABLES]
    }
}

/// Spreads what names differ in over all bits (the finalizer of MurmurHash3). No two fingerprints become one.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Fingerprint in two halves, then region and version. Version 0 is an empty slot.
type Slot = [u32; 3];

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    len: usize,
}

impl Table {
    fn get(&self, mixed: u64) -> Option<Home> {
        self.find(mixed).ok().map(|at| unpack(self.slots[at]))
    }

    fn set(&mut self, mixed: u64, home: Home) -> bool {
        // At most four in five slots are taken, so that there always is an empty one.
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.grow();
        }
        let slot = pack(mixed, home);
        match self.find(mixed) {
            Ok(at) => std::mem::replace(&mut self.slots[at], slot) != slot,
            Err(at) => {
                self.slots[at] = slot;
                self.len += 1;
                true
            }
        }
    }

    /// Where it is, or where it would go.
    fn find(&self, mixed: u64) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let (high, low) = halves(mixed);
        let mut at = ((u64::from(high) * self.slots.len() as u64) >> 32) as usize;
        loop {
            let slot = self.slots[at];
            if is_empty(slot) {
                return Err(at);
            }
            if (slot[0], slot[1]) == (high, low) {
                return Ok(at);
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
    }

    fn remove(&mut self, mixed: u64, home: Home) -> bool {
        let Ok(mut at) = self.find(mixed) else { return false };
        if self.slots[at] != pack(mixed, home) {
            return false;
        }
        self.slots[at] = [0; 3];
        self.len -= 1;
        // A search ends at the first empty slot: all up to the next one are put in again.
        loop {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
            let slot = std::mem::take(&mut self.slots[at]);
            if is_empty(slot) {
                return true;
            }
            self.put_all([slot]);
        }
    }

    fn keep_only(&mut self, other: &Table) {
        let kept = self.slots.iter().filter(|slot| !is_empty(**slot) && other.find(key(**slot)).is_ok());
        let kept: Vec<Slot> = kept.copied().collect();
        self.len = kept.len();
        self.slots.fill([0; 3]);
        self.put_all(kept);
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 3 / 2).max(8);
        let before = std::mem::replace(&mut self.slots, vec![[0; 3]; size]);
        self.put_all(before.into_iter().filter(|slot| !is_empty(*slot)));
    }

    fn put_all(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            if let Err(at) = self.find(key(slot)) {
                self.slots[at] = slot;
            }
        }
    }
}

fn is_empty(slot: Slot) -> bool {
    slot[2] & MAX_VERSION == 0
}

/// The mixed fingerprint of what is in a slot.
fn key(slot: Slot) -> u64 {
    u64::from(slot[0]) << 32 | u64::from(slot[1])
}

fn halves(mixed: u64) -> (u32, u32) {
    ((mixed >> 32) as u32, mixed as u32)
}

fn pack(mixed: u64, home: Home) -> Slot {
    let (high, low) = halves(mixed);
    [high, low, u32::from(home.region) << 24 | home.version.clamp(1, MAX_VERSION)]
}

fn unpack(slot: Slot) -> Home {
    Home { region: (slot[2] >> 24) as u8, version: slot[2] & MAX_VERSION }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StreamName;

    fn fingerprint(n: u32) -> u64 {
        format!("device:{n}").parse::<StreamName>().unwrap().fingerprint()
    }

    #[test]
    fn what_is_put_in_is_found_through_all_growth_and_nothing_else_is() {
        let replica = Replica::default();
        let home = |n: u32| Home { region: (n % 255) as u8, version: n + 1 };
        for n in 0..50_000 {
            assert!(replica.raise(fingerprint(n), home(n)));
        }
        assert_eq!(replica.len(), 50_000);
        for n in 0..50_000 {
            assert_eq!(replica.get(fingerprint(n)), Some(home(n)));
        }
        assert!((50_000..60_000).all(|n| replica.get(fingerprint(n)).is_none()));
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one_unless_it_is_forced() {
        let replica = Replica::default();
        let home = |region, version| Home { region, version };
        assert!(replica.raise(7, home(1, 5)));
        assert!(!replica.raise(7, home(2, 4)) && !replica.raise(7, home(2, 5)));
        assert_eq!(replica.get(7), Some(home(1, 5)));
        assert!(replica.set(7, home(2, 4)));
        assert!(!replica.set(7, home(2, 4)), "that changes nothing");
        assert_eq!((replica.get(7), replica.len()), (Some(home(2, 4)), 1));
    }

    #[test]
    fn what_is_taken_out_is_gone_and_everything_else_is_still_found() {
        let replica = Replica::default();
        let home = |n: u32| Home { region: 1, version: n + 1 };
        for n in 0..20_000 {
            replica.set(fingerprint(n), home(n));
        }
        assert!(!replica.remove(fingerprint(0), home(1)), "it has another home by now");
        for n in (0..20_000).step_by(3) {
            assert!(replica.remove(fingerprint(n), home(n)));
            assert!(!replica.remove(fingerprint(n), home(n)));
        }
        let kept = Replica::default();
        for n in 0..20_000 {
            assert_eq!(replica.get(fingerprint(n)), (n % 3 != 0).then(|| home(n)));
            if n % 2 == 0 {
                kept.set(fingerprint(n), home(0));
            }
        }
        replica.keep_only(&kept);
        for n in 0..20_000 {
            assert_eq!(replica.get(fingerprint(n)), (n % 3 != 0 && n % 2 == 0).then(|| home(n)));
        }
        assert_eq!(replica.len(), (0..20_000).filter(|n| n % 3 != 0 && n % 2 == 0).count());
    }

    #[test]
    fn a_stream_takes_at_most_24_bytes() {
        let replica = Replica::default();
        for n in 1..=200_000 {
            replica.set(fingerprint(n), Home { region: 0, version: 1 });
            if n % 10_000 == 0 {
                assert!(replica.bytes() / n as usize <= 24, "{} bytes for {n}", replica.bytes());
            }
        }
    }

    /// `cargo test --release --lib directory::replica -- --ignored --nocapture` prints what is in docs/regions.md.
    #[test]
    #[ignore = "a measurement"]
    fn measure_a_million() {
        let replica = Replica::default();
        let names: Vec<StreamName> = (0..1_000_000).map(|n| format!("device:user-{n:08}").parse().unwrap()).collect();
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
            line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
        };
        let (before, begun) = (resident(), std::time::Instant::now());
        for name in &names {
            replica.raise(name.fingerprint(), Home { region: 1, version: 1 });
        }
        let (filled, grown) = (begun.elapsed(), resident() - before);
        let begun = std::time::Instant::now();
        assert!(names.iter().all(|name| replica.get(name.fingerprint()).is_some()));
        let found = begun.elapsed();
        println!(
            "1,000,000 streams: {:.1} bytes each in tables, {:.1} of resident memory; put in {:?} each, found in {:?} each",
            replica.bytes() as f64 / 1e6,
            grown as f64 / 1e6,
            filled / 1_000_000,
            found / 1_000_000,
        );
    }
}
