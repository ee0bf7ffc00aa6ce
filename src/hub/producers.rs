//! Producers that want to be missed: a lease of a stream, which they renew while they are at work on it.

use std::time::Duration;

use super::Hub;
use super::publish::{PublishError, is_key, store_slug};
use crate::model::{LeaseId, LeaseTime, StreamName};
use crate::store::StoreError;
use crate::store::producers::{MOST_LEASES, Taking};

/// Why a lease was not taken, renewed or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Another producer has it.
    #[error(
        "{stream} has a lease, and only one at a time: it can be taken when its holder has ended it, or when it \
         has lapsed, which it does in {} s unless it is renewed", left.as_secs_f64().ceil()
    )]
    Held {
        /// The stream.
        stream: StreamName,
        /// How long it still holds.
        left: Duration,
    },
    /// It is no longer, or never was.
    #[error(
        "{stream} has no such lease: it lapsed, and its readers were notified, or it was ended; take a new one to \
         begin anew"
    )]
    Lost {
        /// The stream.
        stream: StreamName,
    },
    /// There are as many as there may be.
    #[error("there are {MOST_LEASES} leases, as many as there may be")]
    TooMany,
    /// The idempotency key is not one.
    #[error("{}", PublishError::Key)]
    Key,
    /// Nobody but the service itself publishes there.
    #[error("{}", PublishError::Reserved(.0.clone()))]
    Reserved(StreamName),
    /// The store did not do it, or did not say.
    #[error("{}", .0.for_client())]
    Store(#[from] StoreError),
}

impl LeaseError {
    /// The problem's name, stable for programs.
    pub fn slug(&self) -> &'static str {
        match self {
            LeaseError::Held { .. } => "lease-held",
            LeaseError::Lost { .. } => "lease-lost",
            LeaseError::TooMany => "too-many-leases",
            LeaseError::Key => PublishError::Key.slug(),
            LeaseError::Reserved(stream) => PublishError::Reserved(stream.clone()).slug(),
            LeaseError::Store(error) => store_slug(error),
        }
    }
}

impl Hub {
    /// Takes the lease of a stream. Gives its id, and whether it was taken before under this idempotency key.
    pub async fn take_lease(
        &self,
        stream: &StreamName,
        time: LeaseTime,
        key: Option<&str>,
    ) -> Result<(LeaseId, bool), LeaseError> {
        if key.is_some_and(|key| !is_key(key)) {
            return Err(LeaseError::Key);
        }
        if stream.is_reserved() {
            return Err(LeaseError::Reserved(stream.clone()));
        }
        let id = LeaseId::random();
        match self.store.producers().take_lease(stream, id, time, key).await? {
            Taking::Taken => {
                self.metrics.producer_leases_taken.inc();
                Ok((id, false))
            }
            Taking::Again(id) => Ok((id, true)),
            Taking::Held(left) => Err(LeaseError::Held { stream: stream.clone(), left }),
            Taking::Full => Err(LeaseError::TooMany),
        }
    }

    /// Renews a lease.
    pub async fn renew_lease(&self, stream: &StreamName, id: LeaseId, time: LeaseTime) -> Result<(), LeaseError> {
        let in_force = self.store.producers().renew_lease(stream, id, time).await?;
        if in_force { Ok(()) } else { Err(LeaseError::Lost { stream: stream.clone() }) }
    }

    /// Ends a lease: its producer is done, and nothing is published.
    pub async fn end_lease(&self, stream: &StreamName, id: LeaseId) -> Result<(), LeaseError> {
        let in_force = self.store.producers().end_lease(stream, id).await?;
        if in_force { Ok(()) } else { Err(LeaseError::Lost { stream: stream.clone() }) }
    }
}
