//! Connects and disconnects, published once each on a topic of the service itself.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::StoreError;
use crate::model::{EventId, Info, NodeId, StreamKind, StreamName, Time};

/// For how long it is remembered that a node's session ended. A node that slept longer assumes that others published
/// that its connections were lost.
pub const REMEMBERED: Duration = Duration::from_secs(86_400);

/// The reason for connections whose node is gone.
pub const LOST: &str = "lost";

/// A connection of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRef {
    /// The connection.
    pub connection: Uuid,
    /// The device's inbox.
    pub device: StreamName,
    /// How it is connected.
    pub transport: Cow<'static, str>,
    /// What is shown beside it.
    pub info: Option<Info>,
}

impl ConnectionRef {
    /// What the store keeps about it, beside its id. Neither a transport nor a name contains a space.
    pub fn remembered(&self) -> String {
        let mut remembered = format!("{} {}", self.transport, self.device.name());
        if let Some(info) = &self.info {
            remembered.extend([" ", info.as_str()]);
        }
        remembered
    }

    /// Reads what the store kept.
    pub fn recall(connection: Uuid, remembered: &str) -> Option<Self> {
        let (transport, rest) = remembered.split_once(' ')?;
        let (name, info) = rest.split_once(' ').map_or((rest, None), |(name, info)| (name, Info::recall(info)));
        let device = StreamName::new(StreamKind::Device, name).ok()?;
        Some(ConnectionRef { connection, device, transport: transport.to_owned().into(), info })
    }
}

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleKind {
    /// It connected.
    Connected,
    /// It disconnected, and why.
    Disconnected(&'static str),
    /// What is shown beside it is something else. This is not published, only kept for its end.
    Renewed,
}

impl LifecycleKind {
    /// The type of the event.
    pub const fn as_str(self) -> &'static str {
        match self {
            LifecycleKind::Connected => "connected",
            LifecycleKind::Disconnected(_) => "disconnected",
            LifecycleKind::Renewed => "renewed",
        }
    }
}

/// A connect or disconnect that is to be published on the lifecycle stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The connection that it is about.
    pub subject: ConnectionRef,
    /// What happened.
    pub kind: LifecycleKind,
    /// The event's data.
    pub data: Bytes,
}

#[derive(Serialize)]
struct Data<'a> {
    device: &'a str,
    connection: Uuid,
    node: &'a str,
    region: &'a str,
    transport: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a Info>,
}

impl Change {
    /// What happened at that time on that node of that region.
    pub fn new(subject: ConnectionRef, kind: LifecycleKind, node: &NodeId, region: &str, time: Time) -> Self {
        let data = Data {
            device: subject.device.name(),
            connection: subject.connection,
            node: node.as_str(),
            region,
            transport: &subject.transport,
            time: time.to_string(),
            reason: match kind {
                LifecycleKind::Connected | LifecycleKind::Renewed => None,
                LifecycleKind::Disconnected(reason) => Some(reason),
            },
            info: subject.info.as_ref(),
        };
        let data = serde_json::to_vec(&data).expect("it holds only strings and JSON").into();
        Change { subject, kind, data }
    }
}

/// What became of the session before, when one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// It goes on under the new id, and so do the numbers of its batches: this one was published last.
    Held(u64),
    /// Others ended it after this batch, and publish that its connections were lost.
    Lost(u64),
    /// It went on under this id already. The new one did not begin: ask again with this.
    Moved(NodeId),
    /// There was none, or nothing is known of it any more.
    Unknown,
    /// Others ended the session that was to begin.
    Over,
}

/// The store's answer when a session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// What became of the one before.
    pub before: Before,
    /// The id with which the stream began: another than before when the store has forgotten everything.
    pub epoch: EventId,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// All up to the one of this number are published, now or before.
    Published(u64),
    /// The node's session is over, or unknown. Nothing was published.
    Over,
    /// The store lost what came after the batch of this number. Nothing was published.
    Behind(u64),
}

/// The lifecycle stream, and beside it what each node has open there: connections of which it has that they
/// came, and not that they left.
///
/// A node publishes in numbered batches during its session, and others end that when they clean up after the node. An
/// event, what is open and the batch's number change in one step, so when a batch is repeated, by the node
/// itself, a survivor or a node that slept, nothing is published twice.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// A node's session begins, under a lease that it holds in `region` (empty where there is one only); its connections
    /// had `before` for their node until now.
    async fn begin_session(&self, node: &NodeId, region: &str, before: Option<&NodeId>) -> Result<Begun, StoreError>;

    /// Publishes changes of a node's connections, in order: all or none of them. Batches are numbered from 1 on, and
    /// one whose answer did not come is repeated under its number before the next. Without any changes this only
    /// finds out how things stand.
    async fn publish_changes(&self, node: &NodeId, number: u64, changes: &[Change])
    -> Result<BatchOutcome, StoreError>;

    /// All that a node has open.
    async fn open(&self, node: &NodeId) -> Result<Vec<ConnectionRef>, StoreError>;

    /// Ends the session of a node of this region, if it began there. Returns some of what it left open, at most `limit`;
    /// more is never opened.
    async fn end_session(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<ConnectionRef>, StoreError>;

    /// Publishes that connections were lost which a node left open, unless that was done.
    async fn close(&self, node: &NodeId, changes: &[Change]) -> Result<(), StoreError>;

    /// Nodes of this region whose sessions were not ended.
    async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_connection_is_enough_to_tell_that_it_was_lost() {
        let connection = Uuid::new_v4();
        let device = "device:a@b.c".parse().unwrap();
        let plain = ConnectionRef { connection, device, transport: "sse".into(), info: None };
        assert_eq!(ConnectionRef::recall(connection, &plain.remembered()), Some(plain.clone()));
        let subject = ConnectionRef { info: Info::recall(r#"{"name": "Ann"}"#), ..plain };
        assert_eq!(ConnectionRef::recall(connection, &subject.remembered()), Some(subject.clone()));
        let node = NodeId::from("n1".to_owned());
        let change = Change::new(subject, LifecycleKind::Disconnected(LOST), &node, "eu", Time::from_ms(1000));
        let expected = serde_json::json!({
            "device": "a@b.c", "connection": connection, "node": "n1", "region": "eu", "transport": "sse",
            "time": "1970-01-01T00:00:01.000Z", "reason": "lost", "info": {"name": "Ann"},
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&change.data).unwrap(), expected);
        assert_eq!(ConnectionRef::recall(connection, "sse"), None);
    }
}
