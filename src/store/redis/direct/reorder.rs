//! Things that are settled in any order, and handed on in the order in which they were begun.

use std::collections::VecDeque;

/// A row of places. What is settled waits in its place until all before it are settled too.
#[derive(Debug)]
pub(super) struct Reorder<T> {
    /// The number of the first place.
    first: u64,
    places: VecDeque<Entry<T>>,
}

#[derive(Debug)]
enum Entry<T> {
    Begun,
    Settled(Option<T>),
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Reorder { first: 0, places: VecDeque::new() }
    }
}

impl<T> Reorder<T> {
    /// Takes the next place, and gives its number. It has to be settled, as all behind it wait for that.
    pub(super) fn begin(&mut self) -> u64 {
        self.places.push_back(Entry::Begun);
        self.first + self.places.len() as u64 - 1
    }

    /// Whether nothing before the place is left to be settled.
    pub(super) fn is_next(&self, number: u64) -> bool {
        number == self.first
    }

    /// Settles a place, once, with what is to be handed on for it; hands on all whose turn has come.
    pub(super) fn settle(&mut self, number: u64, outcome: Option<T>, mut hand_on: impl FnMut(T)) {
        if let Some(place) = self.places.get_mut((number - self.first) as usize) {
            *place = Entry::Settled(outcome);
        }
        while let Some(Entry::Settled(outcome)) = self.places.pop_front_if(|place| matches!(place, Entry::Settled(_))) {
            self.first += 1;
            outcome.into_iter().for_each(&mut hand_on);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_settled_early_waits_for_those_before_it() {
        let mut reorder = Reorder::default();
        let [a, b, c] = [(); 3].map(|()| reorder.begin());
        let mut settled = Vec::new();
        reorder.settle(c, Some("c"), |value| settled.push(value));
        reorder.settle(b, Some("b"), |value| settled.push(value));
        assert!(settled.is_empty());
        reorder.settle(a, Some("a"), |value| settled.push(value));
        assert_eq!(settled, ["a", "b", "c"]);
    }

    #[test]
    fn what_comes_to_nothing_holds_up_nobody() {
        let mut reorder = Reorder::default();
        let [a, b] = [(); 2].map(|()| reorder.begin());
        let mut settled = Vec::new();
        reorder.settle(b, Some("b"), |value| settled.push(value));
        reorder.settle(a, None, |value| settled.push(value));
        assert_eq!(settled, ["b"]);
    }

    proptest! {
        #[test]
        fn all_is_handed_on_once_in_the_order_of_beginning(moves in prop::collection::vec(any::<(bool, usize, bool)>(), 0..200)) {
            let (mut reorder, mut open, mut expected, mut settled) = (Reorder::default(), Vec::new(), Vec::new(), Vec::new());
            for (begin, which, wanted) in moves {
                if begin || open.is_empty() {
                    open.push(reorder.begin());
                } else {
                    let number = open.remove(which % open.len());
                    expected.extend(wanted.then_some(number));
                    reorder.settle(number, wanted.then_some(number), |value| settled.push(value));
                }
            }
            for number in open {
                expected.push(number);
                reorder.settle(number, Some(number), |value| settled.push(value));
            }
            expected.sort_unstable();
            prop_assert_eq!(settled, expected);
            prop_assert!(reorder.places.is_empty());
        }
    }
}
