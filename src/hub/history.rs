//! Reading history.

use std::str::FromStr;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::Hub;
use crate::dispatch::{Delivery, chain::Chain};
use crate::model::{Event, EventId, EventIdError, Gap, Page, Start, StreamName};
use crate::store::StoreError;
use crate::trouble::Work;

/// A part of a stream's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub events: Vec<Arc<Event>>,
    /// What is missing between the id that was asked for and the first of `events`.
    pub gap: Option<Gap>,
    /// The newest id ever shown of the stream.
    pub last: EventId,
}

/// Where a part of history ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// With the newest event.
    Now,
    /// Right before this one.
    Id(EventId),
}

/// Why a text names no end of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; or 'now'")]
pub struct BeforeError(#[from] EventIdError);

impl FromStr for Before {
    type Err = BeforeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "now" { Ok(Before::Now) } else { Ok(Before::Id(text.parse()?)) }
    }
}

impl Before {
    /// The id that is above those of all events that are meant.
    fn id(self) -> EventId {
        match self {
            Before::Now => EventId::MAX,
            Before::Id(id) => id,
        }
    }
}

impl Hub {
    /// Events after `after` (from the oldest kept on when `None`) and before `before`, at most `limit`:
    /// the ones next to `after` or, with `before` alone, the ones next to `before`.
    pub async fn history(
        &self,
        stream: &StreamName,
        after: Option<EventId>,
        before: Option<Before>,
        limit: usize,
    ) -> Result<History, StoreError> {
        let read = self.read_history(stream, after, before, limit).await;
        self.noted(Work::Read, stream, read)
    }

    async fn read_history(
        &self,
        stream: &StreamName,
        after: Option<EventId>,
        before: Option<Before>,
        limit: usize,
    ) -> Result<History, StoreError> {
        let before = before.map(Before::id);
        if let (None, Some(before)) = (after, before) {
            let mut page = self.store.read_before(stream, before, limit).await?;
            // What has expired is passed over: an answer without events means that there are no more.
            while let Some(passed) = page.events.first().map(|event| event.id).filter(|_| page.more)
                && page.unexpired().next().is_none()
            {
                page = self.store.read_before(stream, passed, limit).await?;
            }
            return Ok(History { events: page.unexpired().cloned().collect(), gap: None, last: page.last });
        }
        let mut page = self.store.read(stream, after.map_or(Start::Earliest, Start::After), limit).await?;
        let gap = after.and_then(|id| gap_after(id, &page));
        while let Some(passed) = page.events.last().map(|event| event.id).filter(|_| page.more)
            && page.unexpired().next().is_none()
        {
            page = self.store.read(stream, Start::After(passed), limit).await?;
        }
        let mut history = History { events: page.unexpired().cloned().collect(), gap, last: page.last };
        if let Some(before) = before {
            history.events.retain(|event| event.id < before);
        }
        Ok(history)
    }

    /// Where streams stand now. Nothing is written: of a stream that nobody used, that is before its first event.
    pub async fn positions(&self, streams: &[StreamName]) -> Result<Vec<EventId>, StoreError> {
        let known = try_join_all(streams.iter().map(|stream| self.store.position(stream))).await?;
        Ok(known.into_iter().map(|position| position.unwrap_or(EventId::ZERO)).collect())
    }

    /// One event, if it is kept.
    pub(super) async fn kept(&self, stream: &StreamName, id: EventId) -> Result<Option<Arc<Event>>, StoreError> {
        let next = EventId::new(id.ms, id.seq.saturating_add(1));
        let page = self.noted(Work::Read, stream, self.store.read_before(stream, next, 1).await)?;
        Ok(page.unexpired().find(|event| event.id == id).cloned())
    }
}

/// What is missing right after `id`, or further on in the page.
fn gap_after(id: EventId, page: &Page) -> Option<Gap> {
    Chain::at(id).read(page).into_iter().find_map(|step| match step.delivery {
        Delivery::Gap(gap) => Some(gap),
        _ => None,
    })
}
