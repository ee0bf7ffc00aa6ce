//! Listening: from what a client asks for to attached streams and positions in them.

use std::str::FromStr;

use futures_util::future::try_join_all;

use super::Hub;
use crate::dispatch::Attached;
use crate::model::{EventId, EventIdError, Page, Start, StreamName, Time, TimeError};
use crate::store::StoreError;
use crate::trouble::Work;

/// Most events that `last:N` may ask for: the store walks over them to find where they begin.
const MAX_LAST: u32 = 1000;

/// Where a client wants to begin in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// With what is published from now on.
    Now,
    /// With the oldest event that is kept.
    Earliest,
    /// With so many of the newest events.
    Last(u32),
    /// With the oldest event that was stored at this time, in milliseconds since 1970, or later.
    Since(u64),
    /// With what follows the newest event that was acknowledged; with the oldest of all when none was.
    Ack,
    /// With what follows this event.
    Id(EventId),
}

/// Why a text names no place to begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AfterError {
    /// It is none of the words, so it was read as an id.
    #[error("{0}; or 'now', 'earliest', 'last:N', 'since:TIME', 'ack'")]
    Id(#[from] EventIdError),
    /// `last:` with something else than a number that makes sense.
    #[error("'{0}' is not last:N with N from 1 to {MAX_LAST}")]
    Last(String),
    /// `since:` with something else than a time.
    #[error(transparent)]
    Since(#[from] TimeError),
}

impl FromStr for After {
    type Err = AfterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "now" => Ok(After::Now),
            "earliest" => Ok(After::Earliest),
            "ack" => Ok(After::Ack),
            _ => match text.split_once(':') {
                Some(("last", count)) => count
                    .parse()
                    .ok()
                    .filter(|count| (1..=MAX_LAST).contains(count))
                    .map(After::Last)
                    .ok_or_else(|| AfterError::Last(text.chars().take(64).collect())),
                Some(("since", time)) => Ok(After::Since(time.parse::<Time>()?.ms())),
                _ => Ok(After::Id(text.parse()?)),
            },
        }
    }
}

/// A stream that is attached for a connection, and the position from which the connection goes on.
pub struct Listening {
    /// Keeps the stream attached until the connection follows it.
    pub attached: Attached,
    /// The connection has seen everything up to here.
    pub position: EventId,
    /// False when the oldest events were asked for, and older ones than those that are kept had existed.
    pub complete: bool,
}

impl Listening {
    /// The stream.
    pub fn stream(&self) -> &StreamName {
        self.attached.dispatcher().stream()
    }
}

/// Why streams can't be listened to now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// The store can't be asked.
    #[error("{}", .0.for_client())]
    Store(#[from] StoreError),
    /// The node is being stopped.
    #[error("this node is being stopped")]
    Draining,
}

impl Hub {
    /// Attaches all streams and finds the positions to begin at.
    pub async fn listen(&self, streams: Vec<(StreamName, After)>) -> Result<Vec<Listening>, ListenError> {
        if self.is_draining() {
            return Err(ListenError::Draining);
        }
        Ok(try_join_all(streams.into_iter().map(|(stream, after)| self.listen_to(stream, after))).await?)
    }

    async fn listen_to(&self, stream: StreamName, after: After) -> Result<Listening, StoreError> {
        let listening = self.attach(stream.clone(), after).await;
        self.noted(Work::Listen, &stream, listening)
    }

    async fn attach(&self, stream: StreamName, after: After) -> Result<Listening, StoreError> {
        let attached = self.registry.attach(&stream).await?;
        let mut complete = true;
        let position = match after {
            After::Now => attached.head(),
            After::Earliest => {
                let oldest = self.store.read(&stream, Start::Earliest, 1).await?;
                complete = oldest.is_complete();
                oldest.before_first()
            }
            After::Id(EventId::ZERO) => {
                let oldest = self.store.read(&stream, Start::Earliest, 1).await?;
                // Otherwise the chain breaks right at the beginning, and the client gets the gap.
                if oldest.is_complete() { oldest.before_first() } else { EventId::ZERO }
            }
            After::Last(count) => self.store.read(&stream, Start::Last(count), 1).await?.before_first(),
            After::Since(ms) => since(ms, &self.store.read(&stream, Start::Since(ms), 1).await?),
            // Right after the epoch when nothing was acknowledged, so that what is no longer kept becomes a gap.
            After::Ack => self.store.acknowledge(&stream, None).await?.position(),
            After::Id(id) => id,
        };
        Ok(Listening { attached, position, complete })
    }
}

/// The position right before the events since a time, of which `page` holds the first. Where some of them are
/// not kept any more, it is one from which the chain breaks, so that they become a gap.
fn since(ms: u64, page: &Page) -> EventId {
    let before = page.before_first();
    let oldest_kept = page.events.first().map(|event| event.id) == page.first;
    let missing = oldest_kept && before.ms >= ms && before > page.epoch;
    if missing { EventId::new(ms, 0).max(page.epoch) } else { before }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Event, EventType, Marks};

    #[test]
    fn every_form_of_after_is_understood() {
        assert_eq!("now".parse(), Ok(After::Now));
        assert_eq!("earliest".parse(), Ok(After::Earliest));
        assert_eq!("last:5".parse(), Ok(After::Last(5)));
        assert_eq!("ack".parse(), Ok(After::Ack));
        assert_eq!("5-1".parse(), Ok(After::Id(EventId::new(5, 1))));
        assert_eq!("since:5".parse(), Ok(After::Since(5)));
        assert_eq!("since:1970-01-01T00:00:01Z".parse(), Ok(After::Since(1000)));
    }

    #[test]
    fn since_begins_right_before_its_first_event_or_reports_that_some_are_gone() {
        let id = |ms| EventId::new(ms, 1);
        let event = |ms, prev| Arc::new(Event::new(id(ms), id(prev), EventType::MESSAGE, "1".into()));
        let page = |events: Vec<Arc<Event>>, first: Option<u64>, last, epoch| Page {
            from: id(last),
            events,
            superseded: Vec::new(),
            more: false,
            last: id(last),
            first: first.map(id),
            erased: None,
            epoch: id(epoch),
            fork: None,
            marks: Marks::default(),
            now_ms: 100,
        };
        assert_eq!(since(7, &page(vec![event(8, 6)], Some(5), 8, 2)), id(6));
        assert_eq!(since(3, &page(vec![event(8, 2)], Some(8), 8, 2)), id(2), "it is the first that there was");
        assert_eq!(since(1, &page(vec![event(8, 2)], Some(8), 8, 2)), id(2));
        assert_eq!(since(50, &page(vec![], Some(5), 8, 2)), id(8), "there is nothing yet");
        assert_eq!(since(5, &page(vec![event(8, 7)], Some(8), 8, 2)), EventId::new(5, 0), "7 was trimmed");
        assert_eq!(since(1, &page(vec![event(8, 7)], Some(8), 8, 2)), id(2), "7 was trimmed, and perhaps more");
        assert_eq!(since(7, &page(vec![event(8, 6)], Some(8), 8, 2)), id(6), "what was trimmed was before");
        assert_eq!(since(5, &page(vec![], None, 8, 2)), EventId::new(5, 0), "the log expired");
        assert_eq!(since(5, &page(vec![], None, 2, 2)), id(2), "there never was any");
    }

    #[test]
    fn what_after_does_not_mean_is_refused_by_name() {
        for text in
            ["last:0", "last:x", "last:-1", "last:100000", "", "5", "since:", "since:now", "since:-5", "until:5"]
        {
            assert!(text.parse::<After>().is_err(), "{text:?}");
        }
    }
}
