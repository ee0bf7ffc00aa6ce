//! Gap notices: what a connection receives where "every event, once, in order" can't be kept.

use serde::{Deserialize, Serialize};

use super::{EventId, StreamName};

/// Why events between two positions can't be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// The stream kept its newest events only, and these were older.
    Trimmed,
    /// The stream's history, or its position, outlived its retention time.
    Expired,
    /// The store lost them: a flush, or a failover to a replica that lacked its tail.
    Lost,
}

impl GapReason {
    /// As notices and metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::Expired => "expired",
            GapReason::Lost => "lost",
        }
    }
}

/// A hole in one stream, reported before the next event of that stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The last position before the hole.
    pub after: EventId,
    /// Where the stream goes on: the next event's id or, when nothing is left, the stream's newest id.
    pub next: EventId,
    /// What made the hole.
    pub reason: GapReason,
}

impl Gap {
    /// The notice as JSON, the same over SSE and WebSocket but for what `op` puts in front.
    pub fn to_json(&self, stream: &StreamName, op: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Notice<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            op: Option<&'a str>,
            stream: &'a StreamName,
            #[serde(flatten)]
            gap: &'a Gap,
        }
        serde_json::to_string(&Notice { op, stream, gap: self }).expect("a notice holds only strings")
    }
}
