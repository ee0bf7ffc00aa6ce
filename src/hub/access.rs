//! Access, as far as the store has a part in it.

use super::Hub;
use crate::access::{Access, Revocation};
use crate::store::StoreError;

impl Hub {
    /// Judges callers.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Has all nodes know a revocation. False: there are as many as there may be.
    pub async fn store_revocation(&self, revocation: &Revocation) -> Result<bool, StoreError> {
        self.store.revocations().put_revocations(std::slice::from_ref(revocation)).await
    }

    /// Learns the revocations that this node has not seen yet.
    pub async fn read_revocations(&self) -> Result<(), StoreError> {
        if let Some(list) = self.store.revocations().list_revocations(None).await? {
            self.access.learn(list.entries);
        }
        Ok(())
    }
}
