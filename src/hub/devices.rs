//! Devices and who is connected as them.

use super::Hub;
use crate::model::StreamName;
use crate::store::StoreError;

impl Hub {
    /// Ends all connections that a device has now, on whichever nodes. Returns how many there were.
    pub async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        let kicked = self.store.kick(device).await?;
        tracing::info!(%device, connections = kicked, "a device was kicked");
        Ok(kicked)
    }
}
