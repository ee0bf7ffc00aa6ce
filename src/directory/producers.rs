//! The leases of producers: each is kept in the region that is its stream's home when it is taken, and looked at by
//! the nodes of that region.

use std::time::Duration;

use async_trait::async_trait;

use super::RegionalStore;
use crate::model::{LeaseId, LeaseTime, StreamName};
use crate::store::StoreError;
use crate::store::producers::{Lapsed, LeaseList, Look, Producers, Taking};

#[async_trait]
impl Producers for RegionalStore {
    async fn take_lease(
        &self,
        stream: &StreamName,
        id: LeaseId,
        time: LeaseTime,
        key: Option<&str>,
    ) -> Result<Taking, StoreError> {
        self.at_home(stream, |store| async move { store.take_lease(stream, id, time, key).await }).await
    }

    async fn renew_lease(&self, stream: &StreamName, id: LeaseId, time: LeaseTime) -> Result<bool, StoreError> {
        self.at_home(stream, |store| async move { store.renew_lease(stream, id, time).await }).await
    }

    async fn end_lease(&self, stream: &StreamName, id: LeaseId) -> Result<bool, StoreError> {
        self.at_home(stream, |store| async move { store.end_lease(stream, id).await }).await
    }

    async fn lapsed(&self, most: usize, reached: Duration, looked_ms: u64) -> Result<Look, StoreError> {
        self.own().lapsed(most, reached, looked_ms).await
    }

    async fn leases(&self, most: usize) -> Result<LeaseList, StoreError> {
        self.own().leases(most).await
    }

    async fn forget_lease(&self, lapsed: &Lapsed) -> Result<(), StoreError> {
        self.own().forget_lease(lapsed).await
    }
}
