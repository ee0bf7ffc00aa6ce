//! What processes of this machine cost, as Linux measures it.

use std::fs;
use std::iter::Sum;
use std::ops::Sub;
use std::time::Duration;

/// Clock ticks a second in `/proc`: fixed at 100 on every Linux that matters.
const TICKS: u64 = 100;

/// CPU and memory of one process, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since the start.
    pub cpu: Duration,
    /// Resident memory that is not backed by a file. What several processes share, each counts in part.
    pub memory_bytes: u64,
}

/// Looks at a process; `None` when it is not there, may not be looked at, or this is no Linux.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let memory_bytes = kib(&format!("/proc/{pid}/smaps_rollup"), &["Pss_Anon:", "Pss_Shmem:"])
        .or_else(|| kib(&format!("/proc/{pid}/status"), &["RssAnon:", "RssShmem:"]))?
        * 1024;
    Some(Usage { cpu: Duration::from_millis(ticks * 1000 / TICKS), memory_bytes })
}

/// The sum of these lines of a file; `None` unless all are there.
fn kib(path: &str, names: &[&str]) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = |name: &&str| {
        text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    names.iter().map(line).sum()
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Usage::default(), |sum, one| Usage {
            cpu: sum.cpu + one.cpu,
            memory_bytes: sum.memory_bytes + one.memory_bytes,
        })
    }
}

impl Sub for Usage {
    type Output = Usage;

    /// What came in between. Memory that became less counts as none.
    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            memory_bytes: self.memory_bytes.saturating_sub(before.memory_bytes),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_a_process_takes_shows() {
        let before = usage(std::process::id()).unwrap();
        let taken = vec![1u8; 32 << 20];
        let after = usage(std::process::id()).unwrap();
        assert!((after - before).memory_bytes >= 24 << 20, "{before:?} {after:?} {}", taken.len());
        assert_eq!(usage(u32::MAX), None);
    }
}
