//! Connections of devices, as the server's scripts keep them.

use async_trait::async_trait;
use redis::Value;
use uuid::Uuid;

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields, nonsense};
use crate::model::{Info, Marks, NodeId, StreamName};
use crate::store::presence::{Claim, Claimed, DeviceConnections, DeviceLimit, DeviceState, STALE, Slot, SlotHolder};
use crate::store::{StoreError, millis, random_step};

#[async_trait]
impl DeviceConnections for RedisStore {
    async fn claim_slot(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Claimed, StoreError> {
        let keys = self.keys.of(device);
        let (stamp, since) = claim.slot.map_or((String::new(), 0), |slot| (slot.stamp.to_string(), slot.since_ms));
        let call = Call::script(&scripts::CLAIM_SLOT, &[&keys.connections, &keys.nodes, &keys.events, &keys.meta])
            .arg(claim.connection.to_string())
            .arg(claim.node.as_str())
            .arg(claim.transport)
            .arg(stamp)
            .arg(since)
            .arg(limit.most)
            .arg(limit.overflow.as_str())
            .arg(millis(STALE))
            .arg(random_step())
            .arg(self.position_ms(device))
            .arg(device.as_str())
            .arg(self.keys.channels())
            .arg(self.home())
            .arg(claim.info.as_ref().map_or("", Info::as_str));
        let mut answer = Fields::of(self.lanes.run(device, call).await?)?;
        let (outcome, first, second) = (answer.text()?, answer.numeral()?, answer.numeral()?);
        match outcome.as_str() {
            "granted" => Ok(Claimed::Granted(Slot { stamp: first, since_ms: second })),
            "full" => Ok(Claimed::Full),
            "passed" => Ok(Claimed::Passed(Marks { kicked: first, replaced: second })),
            _ => Err(nonsense("an outcome")),
        }
    }

    async fn release_slots(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError> {
        let remove = |(device, connection): &(StreamName, Uuid)| {
            Call::command("HDEL", &self.keys.of(device).connections).arg(connection.to_string())
        };
        let answers = self.lanes.run_by_stream(places, |(device, _)| device, remove).await;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }

    async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        let keys = self.keys.of(device);
        let call = Call::script(&scripts::KICK, &[&keys.connections, &keys.nodes, &keys.events, &keys.meta])
            .arg(device.as_str())
            .arg(self.keys.channels())
            .arg(random_step())
            .arg(self.position_ms(device))
            .arg(self.home());
        scripts::count(self.lanes.run(device, call).await?)
    }

    async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        let keys = self.keys.of(device);
        let call = Call::script(&scripts::DEVICE, &[&keys.connections, &keys.nodes, &keys.meta]).arg(self.home());
        let mut answer = Fields::of(self.lanes.run(device, call).await?)?;
        let last = answer.optional_id()?;
        // What makes no sense was written by nobody here, and does not hide the others.
        let mut connections: Vec<_> = answer.rest().filter_map(|entry| holder(entry).ok()).collect();
        connections.sort_by_key(|holder| holder.slot.stamp);
        Ok(DeviceState { connections, last })
    }
}

fn holder(entry: Value) -> Result<SlotHolder, StoreError> {
    let mut entry = Fields::of(entry)?;
    Ok(SlotHolder {
        connection: entry.text()?.parse().map_err(|_| nonsense("a connection's id"))?,
        slot: Slot { stamp: entry.numeral()?, since_ms: entry.numeral()? },
        node: NodeId::from(entry.text()?),
        transport: entry.text()?,
        info: Info::recall(&entry.text()?),
    })
}
