//! Connections of devices, on nodes of all regions: kept in the device's home, beside its routes.

use async_trait::async_trait;
use futures_util::future::join_all;
use uuid::Uuid;

use super::RegionalStore;
use crate::model::StreamName;
use crate::store::StoreError;
use crate::store::presence::{Claim, Claimed, DeviceLimit, DeviceState, Presence};

#[async_trait]
impl Presence for RegionalStore {
    /// Under the name that the node has in the home region, as its route there.
    async fn claim_slot(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Claimed, StoreError> {
        let holder = self.as_member(device, |store, node| async move {
            store.claim_slot(device, &Claim { node, ..claim.clone() }, limit).await
        });
        let (_, claimed) = holder.await?;
        if claim.slot.is_none() && matches!(claimed, Claimed::Granted(_)) {
            self.connected_here(device);
        }
        Ok(claimed)
    }

    async fn release_slots(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError> {
        let releasing = places.iter().map(|place| {
            self.at_home(&place.0, move |store| async move { store.release_slots(std::slice::from_ref(place)).await })
        });
        join_all(releasing).await.into_iter().collect()
    }

    async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        self.at_home(device, |store| async move { store.kick(device).await }).await
    }

    async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        self.at_home(device, |store| async move { store.device(device).await }).await
    }
}
