//! How much went to which node, with what is long ago counting less.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::NodeId;

/// Counts by node that halve with time. At most so many nodes are kept; the least goes first.
#[derive(Debug, Clone)]
pub struct Counts {
    half_life: Duration,
    most: usize,
    counts: HashMap<NodeId, Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    amount: f64,
    at_ms: u64,
}

impl Count {
    /// What is left of it. Clocks that were set back don't make it grow.
    fn at(self, now_ms: u64, half_life: Duration) -> f64 {
        let age = Duration::from_millis(now_ms.saturating_sub(self.at_ms));
        self.amount * (-age.as_secs_f64() / half_life.as_secs_f64()).exp2()
    }
}

impl Counts {
    /// No counts yet.
    pub fn new(half_life: Duration, most: usize) -> Self {
        Counts { half_life, most: most.max(1), counts: HashMap::new() }
    }

    /// Something went to `node`. Times are milliseconds of any clock, always the same one.
    pub fn add(&mut self, node: &NodeId, amount: f64, now_ms: u64) {
        let half_life = self.half_life;
        if let Some(count) = self.counts.get_mut(node) {
            *count = Count { amount: count.at(now_ms, half_life) + amount, at_ms: now_ms };
            return;
        }
        if self.counts.len() >= self.most {
            let least =
                self.counts.iter().min_by(|(_, a), (_, b)| a.at(now_ms, half_life).total_cmp(&b.at(now_ms, half_life)));
            if let Some(node) = least.map(|(node, _)| node.clone()) {
                self.counts.remove(&node);
            }
        }
        self.counts.insert(node.clone(), Count { amount, at_ms: now_ms });
    }

    /// As if nothing had ever gone there.
    pub fn forget(&mut self, node: &NodeId) {
        self.counts.remove(node);
    }

    /// What counts for a node now.
    pub fn of(&self, node: &NodeId, now_ms: u64) -> f64 {
        self.counts.get(node).map_or(0.0, |count| count.at(now_ms, self.half_life))
    }

    /// All nodes with what counts for them now.
    pub fn all(&self, now_ms: u64) -> impl Iterator<Item = (&NodeId, f64)> {
        self.counts.iter().map(move |(node, count)| (node, count.at(now_ms, self.half_life)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF_LIFE: Duration = Duration::from_secs(10);

    fn node(number: usize) -> NodeId {
        NodeId::from(format!("n{number}"))
    }

    #[test]
    fn counts_halve_with_time_and_add_up() {
        let mut counts = Counts::new(HALF_LIFE, 4);
        counts.add(&node(1), 4.0, 0);
        assert_eq!(counts.of(&node(1), 10_000), 2.0);
        counts.add(&node(1), 1.0, 10_000);
        assert_eq!(counts.of(&node(1), 20_000), 1.5);
        assert_eq!(counts.of(&node(2), 20_000), 0.0);
        counts.forget(&node(1));
        assert_eq!(counts.of(&node(1), 20_000), 0.0);
    }

    #[test]
    fn the_least_gives_way_when_there_are_too_many() {
        let mut counts = Counts::new(HALF_LIFE, 2);
        counts.add(&node(1), 4.0, 0);
        counts.add(&node(2), 3.0, 10_000);
        counts.add(&node(3), 1.0, 10_000);
        assert_eq!(counts.of(&node(1), 10_000), 0.0, "four, long ago, are two");
        assert_eq!(counts.of(&node(2), 10_000), 3.0);
    }

    proptest! {
        #[test]
        fn counts_stay_bounded_finite_and_never_below_nought(
            adds in prop::collection::vec((0..20usize, 0.0..100.0f64, 0..u64::MAX), 0..200),
            now in 0..u64::MAX,
        ) {
            let mut counts = Counts::new(HALF_LIFE, 8);
            let mut sum = 0.0;
            for (number, amount, at) in adds {
                counts.add(&node(number), amount, at);
                sum += amount;
            }
            prop_assert!(counts.all(now).count() <= 8);
            for (_, count) in counts.all(now) {
                prop_assert!((0.0..=sum * 1.001).contains(&count), "{count} of {sum}");
            }
        }
    }
}
