//! Parts of a stream on their way from one store to another.

use super::{Event, EventId};

/// A part of a stream, with all that its subscribers' positions rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The position behind which it belongs; none where it begins.
    pub after: Option<EventId>,
    /// The id with which the stream's history began.
    pub epoch: EventId,
    /// Where the stream stands after this part.
    pub last: EventId,
    /// Up to where a device acknowledged.
    pub acked: Option<EventId>,
    /// Up to where events were erased.
    pub erased: Option<EventId>,
    /// Oldest first, with their ids and the chain.
    pub events: Vec<Event>,
    /// Whether another part follows.
    pub more: bool,
}

/// Why a part can't be one of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Ids have to ascend, from the position before to where the stream stands.
    #[error("{0} is out of order: ids ascend from 'after' to 'last', and each 'prev' is below its id")]
    Order(EventId),
    /// The stream can't stand so far ahead of the clock.
    #[error("{0} is more than a day ahead of this node's clock")]
    Ahead(EventId),
}

impl Part {
    /// Checks that it may be a part of a stream, where no id has more than so many milliseconds.
    pub fn check(&self, most_ms: u64) -> Result<(), PartError> {
        let mut before = self.after.unwrap_or(EventId::ZERO);
        for event in &self.events {
            if event.id <= before || event.prev >= event.id {
                return Err(PartError::Order(event.id));
            }
            before = event.id;
        }
        if self.last < before || self.epoch > self.last {
            return Err(PartError::Order(self.last));
        }
        if self.last.ms > most_ms {
            return Err(PartError::Ahead(self.last));
        }
        Ok(())
    }
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is there.
    Taken,
    /// It was there: a part of the same history, up to there or beyond.
    Known,
    /// The stream is in use and stands there, which is not where this part belongs. Nothing was changed.
    InUse(EventId),
}

impl Imported {
    /// What a stream that stands at `last`, with a history that began with `epoch`, makes of a part.
    pub fn judge(known: Option<(EventId, EventId)>, part: &Part) -> Self {
        match known {
            None if part.after.is_none() => Imported::Taken,
            None => Imported::InUse(EventId::ZERO),
            Some((last, epoch)) if epoch == part.epoch && last >= part.last => Imported::Known,
            Some((last, epoch)) if epoch == part.epoch && part.after == Some(last) => Imported::Taken,
            Some((last, _)) => Imported::InUse(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventType;

    fn id(ms: u64) -> EventId {
        EventId::new(ms, 1)
    }

    fn part(after: Option<u64>, events: &[(u64, u64)], last: u64) -> Part {
        let event = |(prev, of): &(u64, u64)| Event::new(id(*of), id(*prev), EventType::MESSAGE, "1".into());
        let events = events.iter().map(event).collect();
        Part { after: after.map(id), epoch: id(1), last: id(last), acked: None, erased: None, events, more: false }
    }

    #[test]
    fn ids_ascend_from_the_part_before_to_where_the_stream_stands() {
        assert_eq!(part(None, &[(1, 2), (2, 5)], 7).check(10), Ok(()));
        for (after, events, last) in [
            (None, &[(1, 5), (5, 4)][..], 7),
            (Some(5), &[(4, 5)][..], 7),
            (None, &[(5, 5)][..], 7),
            (None, &[(1, 8)][..], 7),
        ] {
            assert!(matches!(part(after, events, last).check(10), Err(PartError::Order(_))), "{events:?}");
        }
        assert_eq!(part(None, &[], 11).check(10), Err(PartError::Ahead(id(11))));
    }

    #[test]
    fn a_part_is_taken_where_it_belongs_and_nowhere_else() {
        let (first, second) = (part(None, &[(1, 2)], 2), part(Some(2), &[(2, 3)], 3));
        let judge =
            |known: Option<(u64, u64)>, part| Imported::judge(known.map(|(last, epoch)| (id(last), id(epoch))), part);
        assert_eq!(judge(None, &first), Imported::Taken);
        assert_eq!(judge(None, &second), Imported::InUse(EventId::ZERO));
        assert_eq!(judge(Some((2, 1)), &second), Imported::Taken);
        assert_eq!(judge(Some((2, 1)), &first), Imported::Known);
        assert_eq!(judge(Some((9, 1)), &second), Imported::Known);
        for known in [(2, 9), (1, 1)] {
            assert_eq!(judge(Some(known), &second), Imported::InUse(id(known.0)));
        }
    }
}
