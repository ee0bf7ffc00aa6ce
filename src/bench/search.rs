//! The search for the highest rate that is kept.

/// The answer is known well enough when what was kept and what was not lie this close together.
const EXACT: f64 = 1.06;

/// Most trials.
const TRIALS: usize = 24;

/// Doubles the rate until it is not kept, then halves the interval, in logarithms. A rate that is not kept gets a
/// second trial before it counts as too high: one hiccup of the machine would otherwise end the search far below
/// what the server can do.
pub struct Search {
    rate: f64,
    kept: Option<f64>,
    broken: Option<f64>,
    /// Whether this rate was tried before, and was not kept.
    doubted: bool,
    trials: usize,
}

impl Search {
    /// A search that begins at this rate.
    pub fn new(rate: f64) -> Self {
        Search { rate, kept: None, broken: None, doubted: false, trials: 0 }
    }

    /// The rate to try next; `None` when enough is known.
    pub fn next_rate(&mut self) -> Option<f64> {
        let close = self.kept.zip(self.broken).is_some_and(|(kept, broken)| broken / kept <= EXACT);
        self.trials += 1;
        (!close && self.trials <= TRIALS).then_some(self.rate)
    }

    /// What became of it.
    pub fn learn(&mut self, kept: bool) {
        self.doubted = !kept && !self.doubted;
        if self.doubted {
            return;
        }
        *(if kept { &mut self.kept } else { &mut self.broken }) = Some(self.rate);
        self.rate = match (self.kept, self.broken) {
            (Some(kept), Some(broken)) => (kept * broken).sqrt(),
            (Some(kept), None) => kept * 2.0,
            (None, Some(broken)) => broken / 4.0,
            (None, None) => self.rate,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_is_found_from_below_and_from_above() {
        for (first, limit) in [(10.0, 777.0), (10_000.0, 777.0), (777.0, 777.0), (100.0, 20_000.0)] {
            let (mut search, mut best, mut trials) = (Search::new(first), 0.0_f64, 0);
            while let Some(rate) = search.next_rate() {
                trials += 1;
                let kept = rate <= limit;
                search.learn(kept);
                if kept {
                    best = best.max(rate);
                }
            }
            assert!(best <= limit && best >= limit / (EXACT + 0.001), "{first} {limit}: {best} after {trials}");
        }
    }

    #[test]
    fn one_trial_that_fails_by_chance_does_not_end_the_search() {
        let (mut search, mut tried, mut best) = (Search::new(10.0), std::collections::HashSet::new(), 0.0_f64);
        while let Some(rate) = search.next_rate() {
            // Every rate fails when it is tried for the first time.
            let kept = !tried.insert(rate.to_bits()) && rate <= 300.0;
            search.learn(kept);
            if kept {
                best = best.max(rate);
            }
        }
        assert!(best >= 300.0 / (EXACT + 0.001), "{best}");
    }

    #[test]
    fn a_search_that_nothing_satisfies_ends() {
        let mut search = Search::new(10.0);
        let mut trials = 0;
        while search.next_rate().is_some() {
            trials += 1;
            search.learn(false);
        }
        assert_eq!(trials, TRIALS);
    }
}
