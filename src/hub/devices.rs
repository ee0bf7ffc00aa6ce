//! Presence: connections of a device, members of a topic, what each node reports.

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

    /// The connections of a device on all nodes, and its inbox.
    pub async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        self.noted(Work::Read, device, self.store.device(device).await)
    }

    /// A page of a topic's members, beginning right after a device's name.
    pub async fn members(
        &self,
        topic: &StreamName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<MemberPage, StoreError> {
        self.store.members(topic, after, limit).await
    }

    /// What every node reports about itself and, if that is wanted, about a topic's followers.
    pub async fn reports(&self, wanted: Option<&Wanted>) -> Result<Reports, StoreError> {
        self.presence.census().ask(wanted).await
    }

    /// The region that this node calls home.
    pub fn region(&self) -> &str {
        &self.presence.census().info().region
    }
}
