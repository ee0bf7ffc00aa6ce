//! Acknowledging what a device has seen, and erasing what a stream holds.

use super::Hub;
use super::publish::store_slug;
use crate::model::{EventId, Inbox, Standing, StreamKind, StreamName};
use crate::store::StoreError;
use crate::trouble::Work;

/// Why nothing was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// A topic has many readers, and no position that is theirs together.
    #[error("{0} is a topic; a device's own stream can be acknowledged")]
    Topic(StreamName),
    /// Nothing with that id was published.
    #[error("{id} can't be acknowledged: the newest event of the device is {last}")]
    Ahead {
        /// What was to be acknowledged.
        id: EventId,
        /// The newest id there is.
        last: EventId,
    },
    /// The store did not do it, or did not say.
    #[error("{}", .0.for_client())]
    Store(#[from] StoreError),
}

impl AckError {
    /// The problem's name, stable for programs.
    pub fn slug(&self) -> &'static str {
        match self {
            AckError::Topic(_) => "bad-request",
            AckError::Ahead { .. } => "not-published",
            AckError::Store(error) => store_slug(error),
        }
    }
}

impl Hub {
    /// Moves a device's acknowledged position forward to `id`; an older one changes nothing.
    pub async fn acknowledge(&self, stream: &StreamName, id: EventId) -> Result<Standing, AckError> {
        if stream.kind() == StreamKind::Topic {
            return Err(AckError::Topic(stream.clone()));
        }
        let standing = self.noted(Work::Read, stream, self.store.acknowledge(stream, Some(id)).await)?;
        if id > standing.last {
            return Err(AckError::Ahead { id, last: standing.last });
        }
        self.metrics.acknowledged.inc();
        Ok(standing)
    }

    /// What waits for a device.
    pub async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError> {
        self.noted(Work::Read, stream, self.store.inbox(stream).await)
    }

    /// Erases the events of a stream.
    pub async fn erase(&self, stream: &StreamName) -> Result<(), StoreError> {
        self.noted(Work::Read, stream, self.store.erase(stream).await)?;
        self.troubles.erased(stream);
        Ok(())
    }
}
