//! Members of topics, as a store keeps them.
//!
//! A node sets how many connections of a device it has in a topic; a device is a member while any node whose route to
//! the topic holds has one. A device that becomes a member or ceases to be one is published to the nodes of the topic in the
//! same step, with a control message: `!member TOPIC MS`, then a line `joined DEVICE INFO` or `left DEVICE INFO` each.

use async_trait::async_trait;
use serde_json::value::RawValue;

use super::{Control, StoreError};
use crate::model::{MemberNotice, NodeId, StreamName, Time};

/// The word of the control message with joins and leaves of a topic.
pub const MEMBER: &str = "member";

/// Members that are looked through in one call after a node's death.
pub const DROPPED_AT_ONCE: usize = 500;

/// How many connections of a device a node has in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalMember {
    /// The device's name.
    pub device: String,
    /// Its connections on the node; 0 when the last has left.
    pub connections: u32,
    /// The `info` of its token, in JSON.
    pub info: Option<String>,
}

/// A device that is present in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The device's name.
    pub device: String,
    /// The `info` of its token, in JSON.
    pub info: Option<String>,
    /// Its connections in the topic, on all nodes.
    pub connections: u64,
    /// Since when it is a member, on the store's clock in milliseconds since 1970.
    pub since_ms: u64,
}

/// Some of the members of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberPage {
    /// By device name. Fewer than asked for are no sign of the end.
    pub members: Vec<Member>,
    /// The name after which the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// Members of topics.
#[async_trait]
pub trait TopicMembers: Send + Sync {
    /// Sets what a node has in a topic. False when the node has no route to the topic: then nobody joins through it.
    async fn set_members(&self, topic: &StreamName, node: &NodeId, members: &[LocalMember])
    -> Result<bool, StoreError>;

    /// Takes away what a dead node had in a topic, among the next [`DROPPED_AT_ONCE`] members after a name. Gives the
    /// name to go on after; `None` at the end.
    async fn drop_members(
        &self,
        topic: &StreamName,
        dead: &NodeId,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError>;

    /// The members of a topic after a name, at most `limit`.
    async fn members(&self, topic: &StreamName, after: Option<&str>, limit: usize) -> Result<MemberPage, StoreError>;
}

/// The notices of a control message about a topic's members; `None` if it is not valid.
pub fn read_notices(control: &Control) -> Option<Vec<MemberNotice>> {
    let mut lines = control.text()?.lines();
    let (topic, ms) = lines.next()?.split_once(' ')?;
    let (topic, time): (StreamName, Time) = (topic.parse().ok()?, Time::from_ms(ms.parse().ok()?));
    let notice = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let joined = match words.next()? {
            "joined" => true,
            "left" => false,
            _ => return None,
        };
        let (device, info) = (words.next()?.to_owned(), words.next().unwrap_or_default());
        let info = if info.is_empty() { None } else { Some(RawValue::from_string(info.to_owned()).ok()?) };
        Some(MemberNotice::new(topic.clone(), device, joined, info, time))
    };
    lines.map(notice).collect()
}

/// The control message of these notices.
pub fn write_notices(topic: &StreamName, now_ms: u64, changes: &[(bool, String, Option<String>)]) -> Control {
    let mut text = format!("{topic} {now_ms}");
    for (joined, device, info) in changes {
        let kind = if *joined { "joined" } else { "left" };
        text.push_str(&format!("\n{kind} {device} {}", info.as_deref().unwrap_or_default()));
    }
    Control::new(MEMBER, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_read_as_they_were_written() {
        let changes =
            [(true, "ann".to_owned(), Some(r#"{"name": "Ann B"}"#.to_owned())), (false, "bob".to_owned(), None)];
        let read = read_notices(&write_notices(&"topic:a".parse().unwrap(), 1000, &changes)).unwrap();
        assert_eq!(
            read[0].to_json(None),
            r#"{"stream":"topic:a","device":"ann","info":{"name": "Ann B"},"time":"1970-01-01T00:00:01.000Z"}"#
        );
        assert_eq!(
            read[1].to_json(Some("left")),
            r#"{"op":"left","stream":"topic:a","device":"bob","info":null,"time":"1970-01-01T00:00:01.000Z"}"#
        );
        assert_eq!((read.len(), read[0].kind(), read[1].kind()), (2, "joined", "left"));
    }

    #[test]
    fn what_makes_no_sense_is_no_notice() {
        for text in ["", "topic:a", "topic:a now", "queue:a 5", "topic:a 5\ncame ann ", "topic:a 5\njoined ann {"] {
            assert!(read_notices(&Control::new(MEMBER, text)).is_none(), "{text:?}");
        }
    }
}
