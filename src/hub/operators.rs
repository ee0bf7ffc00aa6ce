//! What operators look at: producers' leases, and what was refused of the ingress stream.

use super::Hub;
use crate::model::EventId;
use crate::store::producers::LeaseList;
use crate::store::{Rejected, StoreError};

impl Hub {
    /// The leases of this region's producers, at most so many, those in front that lapse first.
    pub async fn leases(&self, most: usize) -> Result<LeaseList, StoreError> {
        self.store.producers().leases(most).await
    }

    /// Rejected entries of this region's ingress stream, newest first: those before an id, at most so many. A store
    /// without an ingress stream has none.
    pub async fn rejected(&self, before: Option<EventId>, most: usize) -> Result<Vec<Rejected>, StoreError> {
        match self.store.ingress() {
            Some(ingress) => ingress.rejected(before, most).await,
            None => Ok(Vec::new()),
        }
    }
}
