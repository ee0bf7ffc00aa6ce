//! Connections of devices, as a store keeps them.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use crate::model::{EventId, Info, Marks, NodeId, StreamName};

/// An entry of a connection whose node has no route to the device any more counts for nothing. It is thrown
/// away when it was not asserted for this long: until then its node may be about to assert its routes again,
/// after an outage.
pub const STALE: Duration = Duration::from_secs(60);

/// How many connections a device may have, and which one goes when there are more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLimit {
    /// Most connections of one device, on all nodes together.
    pub most: usize,
    /// What happens over it.
    pub overflow: Overflow,
}

/// Which connection of a device goes when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The newest is refused.
    Newest,
    /// The oldest gives way.
    Oldest,
}

impl Overflow {
    /// As the setting has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Overflow::Newest => "newest",
            Overflow::Oldest => "oldest",
        }
    }
}

/// A connection that wants a place among those of its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The connection.
    pub connection: Uuid,
    /// Where it is. The node has a route to the device, and the entry counts for as long as that route holds.
    pub node: NodeId,
    /// How it is connected.
    pub transport: &'static str,
    /// What is shown beside it.
    pub info: Option<Info>,
    /// The place it had before, which is asserted again.
    pub slot: Option<Slot>,
}

/// A connection's place among those of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Above those of all connections that claimed a slot before.
    pub stamp: u64,
    /// When it first claimed its slot, on the store's clock in milliseconds since 1970.
    pub since_ms: u64,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It has its place.
    Granted(Slot),
    /// The device has as many connections as it may.
    Full,
    /// It has to close: the device was kicked, or it was replaced, before it asserted its place again.
    Passed(Marks),
}

/// A connection of a device, as it is known to all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotHolder {
    /// The connection.
    pub connection: Uuid,
    /// Where it is.
    pub node: NodeId,
    /// How it is connected.
    pub transport: String,
    /// What is shown beside it.
    pub info: Option<Info>,
    /// Its place.
    pub slot: Slot,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    /// Its connections, oldest first.
    pub connections: Vec<SlotHolder>,
    /// Where its inbox stands; `None` when nobody ever used it.
    pub last: Option<EventId>,
}

/// Connections of devices. Entries of a device lie beside its routes, and hold for as long as its node's route
/// does: an idle connection costs the store nothing beyond the sync of its stream.
#[async_trait]
pub trait DeviceConnections: Send + Sync {
    /// Gives a connection its place among those of its device, or asserts the one it has. Over the limit, the
    /// nodes of those that give way are notified with a `!kick` message.
    async fn claim_slot(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Claimed, StoreError>;

    /// Takes connections' places away.
    async fn release_slots(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError>;

    /// Closes all connections that a device has now: their nodes get a `!kick` message, and nodes that it does not
    /// reach learn of it with the next sync. Returns how many there are.
    async fn kick(&self, device: &StreamName) -> Result<u32, StoreError>;

    /// The connections of a device.
    async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError>;
}

/// The word of the control message that asks a node to look whether its connections of a device are all still
/// there: `!look device:42`.
pub const LOOK: &str = "look";

/// The word of the control message with a device's marks: `!kick device:42 KICKED REPLACED`.
pub const KICK: &str = "kick";
