//! Who is connected: as a device, to a topic, to which nodes.

use super::Hub;
use crate::model::StreamName;
use crate::presence::{Reports, Wanted};
use crate::store::StoreError;
use crate::store::members::MemberPage;
use crate::store::presence::DeviceState;
use crate::trouble::Work;

impl Hub {
    /// Ends all connections that a device has now, on whichever nodes. Returns how many there were.
    pub async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        let kicked = self.noted(Work::Read, device, self.store.kick(device).await)?;
        tracing::info!(%device, connections = kicked, "a device was kicked");
        Ok(kicked)
    }

    /// Who is connected as a device, on whichever nodes.
    pub async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        self.noted(Work::Read, device, self.store.device(device).await)
    }

    /// Who is present in a topic, from right after a device's name on.
    pub async fn members(
        &self,
        topic: &StreamName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<MemberPage, StoreError> {
        self.store.members(topic, after, limit).await
    }

    /// What every node says of itself and, if that is wanted, of a topic's followers.
    pub async fn reports(&self, wanted: Option<&Wanted>) -> Result<Reports, StoreError> {
        self.presence.census().ask(wanted).await
    }

    /// The region that this node calls home.
    pub fn region(&self) -> &str {
        &self.presence.census().info().region
    }
}
