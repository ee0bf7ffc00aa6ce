//! Keeps one fault, met very often, from filling the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long after a line the next of the same kind is written.
const APART: Duration = Duration::from_secs(10);

/// Lines of one kind.
pub struct LogLimit(Mutex<State>);

struct State {
    written: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// Of which none was written yet.
    pub const fn new() -> Self {
        LogLimit(Mutex::new(State { written: None, left_out: 0 }))
    }

    /// Whether a line may be written now; then, how many were left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.written.is_some_and(|written| now.saturating_duration_since(written) < APART) {
            state.left_out += 1;
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_many_were_left_out_before_it() {
        let (limit, start) = (LogLimit::new(), Instant::now());
        assert_eq!(limit.admit_at(start), Some(0));
        assert_eq!([limit.admit_at(start), limit.admit_at(start + APART / 2)], [None, None]);
        assert_eq!(limit.admit_at(start + APART), Some(2));
    }
}
