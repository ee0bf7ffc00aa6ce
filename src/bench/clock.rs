//! One clock for all processes of a run.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// The wall clock is read once; from then on the steady clock counts, which nobody sets.
static BASE: LazyLock<(Duration, Instant)> =
    LazyLock::new(|| (SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(), Instant::now()));

/// Microseconds since 1970. On one machine all processes of a run agree on it to a few microseconds, unless
/// somebody sets the clock while they start.
pub fn now() -> u64 {
    (BASE.0 + BASE.1.elapsed()).as_micros() as u64
}
