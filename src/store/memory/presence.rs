//! Connections of devices, in this process.

use async_trait::async_trait;
use uuid::Uuid;

use super::{MemoryStore, State, StreamLog, now_ms};
use crate::model::{Marks, StreamName};
use crate::store::presence::{Claim, Claimed, DeviceLimit, DeviceState, KICK, Presence};
use crate::store::{ChannelMessage, Control, NodeId, StoreError, random_step};

impl MemoryStore {
    /// Runs an operation on a device's log, and sends nodes its marks, in one step.
    fn with_device<T>(
        &self,
        device: &StreamName,
        operation: impl FnOnce(&mut StreamLog, u64) -> (T, Vec<NodeId>),
    ) -> Result<T, StoreError> {
        let (answer, evicting, marks) = self.with_log(device, |log, now_ms| {
            let (answer, evicting) = operation(log, now_ms);
            Ok((answer, evicting, log.marks()))
        })?;
        let mut state = self.state.lock();
        for node in evicting {
            state.send_marks(&node, device, marks);
        }
        Ok(answer)
    }
}

impl State {
    fn send_marks(&mut self, node: &NodeId, device: &StreamName, marks: Marks) {
        let control = Control::new(KICK, format!("{device} {marks}"));
        self.notify(node, || ChannelMessage::Control(control.clone()));
    }
}

#[async_trait]
impl Presence for MemoryStore {
    async fn claim_slot(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Claimed, StoreError> {
        self.with_device(device, |log, now_ms| log.claim_slot(claim, limit, now_ms, random_step()))
    }

    async fn release_slots(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for (device, connection) in places {
            if state.streams.contains_key(device) {
                let fresh = || StreamLog::new(self.rules.of(device), self.position_time);
                state.with_log(device, fresh, |log| log.release_slots(*connection));
            }
        }
        Ok(())
    }

    async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        // Nobody is to come to be by being kicked.
        if !self.state.lock().streams.contains_key(device) {
            return Ok(0);
        }
        self.with_device(device, |log, now_ms| log.kick(now_ms, random_step()))
    }

    async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        let mut state = self.state.lock();
        let now_ms = now_ms();
        Ok(match state.streams.get_mut(device) {
            Some(log) => log.device(now_ms),
            None => DeviceState { connections: Vec::new(), last: None },
        })
    }
}
