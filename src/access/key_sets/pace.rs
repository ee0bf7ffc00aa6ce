//! When a key set is fetched for whoever needs a key that is not in it: at once, but not more often than once a minute.

use std::time::{Duration, Instant};

/// Time between two fetches for keys that are not known.
pub const APART: Duration = Duration::from_secs(60);

/// What was fetched when.
#[derive(Debug, Default)]
pub struct Pace {
    /// The last fetch for an unknown key.
    granted: Option<Instant>,
    under_way: bool,
    wanted: bool,
    /// Fetches that are over, whatever came of them.
    pub rounds: u64,
}

impl Pace {
    /// Somebody needs a key that is not known. True when that is worth waiting for: a fetch is under way, or may begin.
    pub fn want(&mut self, now: Instant) -> bool {
        let is_late = self.granted.is_none_or(|granted| now.saturating_duration_since(granted) >= APART);
        if is_late && !self.under_way && !self.wanted {
            (self.granted, self.wanted) = (Some(now), true);
        }
        self.under_way || self.wanted
    }

    /// Somebody knows that there is something new.
    pub fn insist(&mut self) {
        self.wanted = true;
    }

    /// Whether a fetch is to begin at once.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// A fetch begins.
    pub fn begin(&mut self) {
        (self.under_way, self.wanted) = (true, false);
    }

    /// It is over.
    pub fn end(&mut self) {
        self.under_way = false;
        self.rounds += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_keys_are_unknown_a_set_is_fetched_once_a_minute() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.begin();
        assert!(pace.want(start) && !pace.is_wanted(), "all wait for the one under way");
        pace.end();
        assert!(pace.want(start) && pace.want(start) && pace.is_wanted(), "the first key may be a new one");
        pace.begin();
        pace.end();
        for second in 0..60 {
            assert!(!pace.want(start + Duration::from_secs(second)) && !pace.is_wanted());
        }
        assert!(pace.want(start + APART) && pace.want(start + APART) && pace.is_wanted());
        pace.begin();
        pace.insist();
        pace.end();
        assert!(pace.is_wanted() && pace.rounds == 3, "an operator need not wait");
    }
}
