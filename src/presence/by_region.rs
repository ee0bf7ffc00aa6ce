//! What waits for the stores of regions, in a queue for each: one that does not answer holds up its own alone.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::StreamName;

/// The number of the region that is a stream's home. A stream that moves meanwhile is still sent to where it is.
pub type RegionOf = Arc<dyn Fn(&StreamName) -> usize + Send + Sync>;

/// Queues of what concerns streams.
pub struct ByRegion<T> {
    queues: Vec<VecDeque<(StreamName, T)>>,
    region_of: RegionOf,
}

impl<T> Default for ByRegion<T> {
    fn default() -> Self {
        ByRegion::new(1, Arc::new(|_| 0))
    }
}

impl<T> ByRegion<T> {
    pub fn new(regions: usize, region_of: RegionOf) -> Self {
        ByRegion { queues: (0..regions.max(1)).map(|_| VecDeque::new()).collect(), region_of }
    }

    fn queue(&mut self, stream: &StreamName) -> &mut VecDeque<(StreamName, T)> {
        let region = (self.region_of)(stream).min(self.queues.len() - 1);
        &mut self.queues[region]
    }

    /// Puts something behind all others of its region.
    pub fn push(&mut self, stream: StreamName, what: T) {
        self.queue(&stream).push_back((stream, what));
    }

    /// The same; beyond `most` in the region's queue, the oldest is forgotten.
    pub fn push_bounded(&mut self, stream: StreamName, what: T, most: usize) {
        let queue = self.queue(&stream);
        queue.push_back((stream, what));
        if queue.len() > most {
            queue.pop_front();
        }
    }

    /// Takes the oldest of a region, at most `limit`.
    pub fn take(&mut self, region: usize, limit: usize) -> Vec<(StreamName, T)> {
        let queue = &mut self.queues[region];
        let count = limit.min(queue.len());
        queue.drain(..count).collect()
    }

    /// Forgets what concerns such streams.
    pub fn forget_where(&mut self, concerned: impl Fn(&StreamName) -> bool) {
        self.queues.iter_mut().for_each(|queue| queue.retain(|(stream, _)| !concerned(stream)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_has_a_queue_of_its_own() {
        let mut queues = ByRegion::new(2, Arc::new(|stream: &StreamName| usize::from(stream.as_str().contains("far"))));
        for n in 0..5 {
            queues.push_bounded("device:far".parse().unwrap(), n, 3);
        }
        queues.push("device:near".parse().unwrap(), 9);
        let numbers = |taken: Vec<(StreamName, i32)>| taken.into_iter().map(|(_, n)| n).collect::<Vec<_>>();
        assert_eq!(numbers(queues.take(0, 10)), [9]);
        assert_eq!(numbers(queues.take(1, 2)), [2, 3]);
        queues.forget_where(|stream| stream.as_str().contains("far"));
        assert!(queues.take(1, 10).is_empty());
    }
}
