//! What the server's process costs, as Linux tells it.

use std::fs;
use std::time::Duration;

/// Clock ticks a second in `/proc`: fixed at 100 on every Linux that matters.
const TICKS: u64 = 100;

/// CPU and memory of a process.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system time since it started.
    pub cpu: Duration,
    /// Memory that is its own: resident and not backed by a file.
    pub rss_bytes: u64,
}

/// Looks at a process; `None` when it is not there, or this is no Linux.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = rss.trim().trim_end_matches(" kB").parse().ok()?;
    Some(Usage { cpu: Duration::from_millis(ticks * 1000 / TICKS), rss_bytes: kib * 1024 })
}
