//! Streams on their way from one store to another, a part at a time.

use super::Hub;
use super::publish::store_slug;
use crate::model::{EventId, Imported, Part, PartError, Start, StreamKind, StreamName};
use crate::store::{MAX_AHEAD_MS, PAGE_EVENTS, StoreError, now_ms};
use crate::trouble::Work;

/// Why a part was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It can't be a part of a stream.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The stream has another history, or is not where the part belongs.
    #[error(
        "{stream} is in use and stands at {last}: events are imported into a stream that nobody used, and each part \
         right behind the one before"
    )]
    InUse {
        /// The stream.
        stream: StreamName,
        /// Where it stands.
        last: EventId,
    },
    /// The store did not do it, or did not say.
    #[error("{}", .0.for_client())]
    Store(#[from] StoreError),
}

impl ImportError {
    /// The problem's name, stable for programs.
    pub fn slug(&self) -> &'static str {
        match self {
            ImportError::Part(_) => "bad-part",
            ImportError::InUse { .. } => "stream-in-use",
            ImportError::Store(error) => store_slug(error),
        }
    }
}

impl Hub {
    /// The part of a stream that comes after a position; nothing of a stream that nobody used.
    pub async fn export(&self, stream: &StreamName, after: Option<EventId>) -> Result<Option<Part>, StoreError> {
        let start = after.map_or(Start::Earliest, Start::After);
        let page = self.noted(Work::Read, stream, self.store.read(stream, start, PAGE_EVENTS).await)?;
        if page.epoch == EventId::ZERO {
            return Ok(None);
        }
        let last = page.events.last().filter(|_| page.more).map_or(page.last, |event| event.id);
        let acked = match stream.kind() {
            StreamKind::Device if !page.more => self.store.acknowledge(stream, None).await?.acked,
            _ => None,
        };
        let events = page.events.iter().map(|event| (**event).clone()).collect();
        Ok(Some(Part { after, epoch: page.epoch, last, acked, erased: page.erased, events, more: page.more }))
    }

    /// Takes over a part of a stream. One that is there already is left as it is.
    pub async fn import(&self, stream: &StreamName, part: &Part) -> Result<(), ImportError> {
        part.check(now_ms() + MAX_AHEAD_MS)?;
        match self.noted(Work::Publish, stream, self.store.import(stream, part).await)? {
            Imported::Taken | Imported::Known => Ok(()),
            Imported::InUse(last) => Err(ImportError::InUse { stream: stream.clone(), last }),
        }
    }
}
