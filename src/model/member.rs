//! Devices that come into a topic and leave it, as its members are notified.

use std::sync::OnceLock;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{StreamName, Time};

/// A device joined a topic, or left it.
#[derive(Debug)]
pub struct MemberNotice {
    /// The topic.
    pub topic: StreamName,
    /// The device's name.
    pub device: String,
    /// Whether it joined.
    pub joined: bool,
    /// The `info` of its token, in JSON.
    pub info: Option<Box<RawValue>>,
    /// When, on the store's clock.
    pub time: Time,
    sse: OnceLock<Bytes>,
    websocket: OnceLock<Bytes>,
}

impl MemberNotice {
    /// A notice.
    pub fn new(topic: StreamName, device: String, joined: bool, info: Option<Box<RawValue>>, time: Time) -> Self {
        MemberNotice { topic, device, joined, info, time, sse: OnceLock::new(), websocket: OnceLock::new() }
    }

    /// What it is called.
    pub const fn kind(&self) -> &'static str {
        if self.joined { "joined" } else { "left" }
    }

    /// The notice as JSON; over WebSocket its kind is in front as `op`.
    pub fn to_json(&self, op: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            op: Option<&'a str>,
            stream: &'a StreamName,
            device: &'a str,
            info: Option<&'a RawValue>,
            time: String,
        }
        let Self { topic, device, info, time, .. } = self;
        let shown = Shown { op, stream: topic, device, info: info.as_deref(), time: time.to_string() };
        serde_json::to_string(&shown).expect("a notice holds only strings and JSON")
    }

    /// The notice as it goes out over SSE, made once for all connections.
    pub fn sse(&self, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.sse.get_or_init(|| make(self)).clone()
    }

    /// The same over WebSocket.
    pub fn websocket(&self, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.websocket.get_or_init(|| make(self)).clone()
    }
}
