//! Who is connected as a device, on nodes of whatever region: kept in the device's home, beside its routes.

use async_trait::async_trait;
use futures_util::future::join_all;
use uuid::Uuid;

use super::RegionalStore;
use crate::model::StreamName;
use crate::store::StoreError;
use crate::store::presence::{Claim, DeviceLimit, DeviceState, Presence, Seating};

#[async_trait]
impl Presence for RegionalStore {
    /// Under the name that the node has in the home region, as its route there.
    async fn seat(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Seating, StoreError> {
        let seated = self.as_member(device, |store, node| async move {
            store.seat(device, &Claim { node, ..claim.clone() }, limit).await
        });
        let (_, seating) = seated.await?;
        if claim.seat.is_none() && matches!(seating, Seating::Seated(_)) {
            self.connected_here(device);
        }
        Ok(seating)
    }

    async fn unseat(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError> {
        let unseating = places.iter().map(|place| {
            self.at_home(&place.0, move |store| async move { store.unseat(std::slice::from_ref(place)).await })
        });
        join_all(unseating).await.into_iter().collect()
    }

    async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        self.at_home(device, |store| async move { store.kick(device).await }).await
    }

    async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        self.at_home(device, |store| async move { store.device(device).await }).await
    }
}
