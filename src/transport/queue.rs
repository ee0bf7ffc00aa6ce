//! A queue whose first element needs no allocation: most connections have at most one frame waiting, and
//! most of the time none.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug)]
pub struct Queue<T> {
    /// Before everything in `rest`; there whenever anything is.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Queue<T> {
    pub const fn new() -> Self {
        Queue { first: None, rest: VecDeque::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub fn push(&mut self, element: T) {
        match self.first {
            None => self.first = Some(element),
            Some(_) => self.rest.push_back(element),
        }
    }

    /// Takes the oldest. An empty queue holds no memory.
    pub fn pop(&mut self) -> Option<T> {
        let taken = self.first.take();
        if self.rest.capacity() > 0 {
            self.first = self.rest.pop_front();
            if self.first.is_none() {
                self.rest = VecDeque::new();
            }
        }
        taken
    }

    /// Puts back what was taken last.
    pub fn put_back(&mut self, element: T) {
        if let Some(next) = self.first.replace(element) {
            self.rest.push_front(next);
        }
    }

    pub fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    /// From the newest to the oldest.
    pub fn newest_first(&mut self) -> impl Iterator<Item = &mut T> {
        self.rest.iter_mut().rev().chain(&mut self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_an_empty_queue_holds_no_memory() {
        let mut queue = Queue::new();
        for round in 1..5 {
            for number in 0..round {
                queue.push(number);
            }
            assert_eq!((queue.len(), queue.front()), (round, Some(&0)));
            assert!(queue.iter().copied().eq(0..round));
            assert!(queue.newest_first().map(|number| *number).eq((0..round).rev()));
            let first = queue.pop().unwrap();
            queue.put_back(first);
            assert!(std::iter::from_fn(|| queue.pop()).eq(0..round));
            assert!(queue.is_empty() && queue.rest.capacity() == 0);
        }
    }
}
