//! Connections of devices, in this process.

use async_trait::async_trait;
use uuid::Uuid;

use super::{MemoryStore, State, StreamLog, now_ms};
use crate::model::{Marks, NodeId, StreamName};
use crate::store::presence::{Claim, Claimed, DeviceConnections, DeviceLimit, DeviceState, KICK};
use crate::store::{ChannelMessage, Control, StoreError, random_step};

impl MemoryStore {
    /// Runs an operation on a device's log, and sends nodes its marks, in one step.
    async fn with_device<T: Send>(
        &self,
        device: &StreamName,
        operation: impl FnOnce(&mut StreamLog, u64) -> (T, Vec<NodeId>) + Send,
    ) -> Result<T, StoreError> {
        let now_ms = now_ms();
        self.try_step(|state| {
            let (answer, evicting, marks) = self.with_log(state, device, now_ms, |log| {
                let (answer, evicting) = operation(log, now_ms);
                Ok((answer, evicting, log.marks()))
            })?;
            for node in evicting {
                state.send_marks(&node, device, marks);
            }
            Ok(answer)
        })
        .await
    }
}

impl State {
    fn send_marks(&mut self, node: &NodeId, device: &StreamName, marks: Marks) {
        let control = Control::new(KICK, format!("{device} {marks}"));
        self.notify(node, || ChannelMessage::Control(control.clone()));
    }
}

#[async_trait]
impl DeviceConnections for MemoryStore {
    async fn claim_slot(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Claimed, StoreError> {
        self.with_device(device, |log, now_ms| log.claim_slot(claim, limit, now_ms, random_step())).await
    }

    async fn release_slots(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError> {
        self.step(|state| {
            for (device, connection) in places {
                state.with_known(device, |log| log.release_slots(*connection));
            }
        })
        .await
    }

    async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        // Nobody is to come to be by being kicked.
        if !self.state.lock().streams.contains_key(device) {
            return Ok(0);
        }
        self.with_device(device, |log, now_ms| log.kick(now_ms, random_step())).await
    }

    async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        let known = self.step(|state| state.with_known(device, |log| log.device(now_ms()))).await?;
        Ok(known.unwrap_or(DeviceState { connections: Vec::new(), last: None }))
    }
}
