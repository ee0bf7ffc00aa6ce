//! The event types that listeners want.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Event, EventType, EventTypeError};

/// Most types that a listener may ask for.
pub const MAX_TYPES: usize = 64;

/// The event types that a listener wants. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeFilter(Arc<[EventType]>);

/// Why texts are no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeFilterError {
    /// One of them is no type.
    #[error(transparent)]
    Type(#[from] EventTypeError),
    /// There are too many.
    #[error("there are more than {MAX_TYPES} types; leave the parameter out to get events of all types")]
    TooMany,
}

impl TypeFilter {
    /// Whether the listener wants this event.
    pub fn matches(&self, event: &Event) -> bool {
        self.0.binary_search(&event.kind).is_ok()
    }
}

/// The filters of all listeners of a node. Listeners that want the same share one.
#[derive(Debug, Default)]
pub struct TypeFilters(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    filters: HashSet<Arc<[EventType]>>,
    /// At this number of them, those that nobody has any more are dropped.
    tidy_at: usize,
}

/// Looking through so few takes no time worth sparing.
const FEW: usize = 64;

impl TypeFilters {
    /// The filter of these types: `None`, which is all of them, without any.
    pub fn of<'a>(&self, types: impl Iterator<Item = &'a str>) -> Result<Option<TypeFilter>, TypeFilterError> {
        let mut wanted = BTreeSet::new();
        for text in types {
            wanted.insert(EventType::wanted(text)?);
            if wanted.len() > MAX_TYPES {
                return Err(TypeFilterError::TooMany);
            }
        }
        let wanted: Arc<[EventType]> = wanted.into_iter().collect();
        Ok((!wanted.is_empty()).then(|| self.shared(wanted)))
    }

    fn shared(&self, wanted: Arc<[EventType]>) -> TypeFilter {
        let mut known = self.0.lock();
        if let Some(known) = known.filters.get(&wanted) {
            return TypeFilter(known.clone());
        }
        if known.filters.len() >= known.tidy_at.max(FEW) {
            known.filters.retain(|filter| Arc::strong_count(filter) > 1);
            known.tidy_at = known.filters.len() * 2;
        }
        known.filters.insert(wanted.clone());
        TypeFilter(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventId;

    fn event(kind: &str) -> Event {
        Event::new(EventId::new(1, 0), EventId::ZERO, kind.parse().unwrap(), "1".into())
    }

    #[test]
    fn a_filter_takes_its_types_and_no_others() {
        let filters = TypeFilters::default();
        let filter = filters.of(["price", "message", "b", "price"].into_iter()).unwrap().unwrap();
        for (kind, wanted) in [("price", true), ("message", true), ("b", true), ("a", false), ("pric", false)] {
            assert_eq!(filter.matches(&event(kind)), wanted, "{kind}");
        }
        assert_eq!(filters.of(std::iter::empty()), Ok(None));
    }

    #[test]
    fn repeated_types_count_once_and_more_than_the_most_are_refused() {
        let filters = TypeFilters::default();
        assert!(filters.of(std::iter::repeat_n("a", 10_000)).is_ok());
        let names: Vec<String> = (0..=MAX_TYPES).map(|n| format!("t{n}")).collect();
        assert!(filters.of(names[1..].iter().map(String::as_str)).is_ok());
        assert_eq!(filters.of(names.iter().map(String::as_str)), Err(TypeFilterError::TooMany));
    }

    #[test]
    fn listeners_that_want_the_same_share_a_filter_and_unused_ones_go() {
        let filters = TypeFilters::default();
        let first = filters.of(["a", "b"].into_iter()).unwrap().unwrap();
        let second = filters.of(["b", "a", "b"].into_iter()).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first.0, &second.0));
        for n in 0..10 * FEW {
            filters.of(std::iter::once(&*format!("t{n}"))).unwrap();
        }
        let known = filters.0.lock();
        assert!(known.filters.len() <= FEW && known.filters.contains(&first.0), "{}", known.filters.len());
    }
}
