//! The records of a history, and their file: one JSON object a line.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::model::{Cursor, EventId, GapReason, StreamName};

/// Something that a producer or a client did or saw. Records stand in the order in which they happened,
/// as far as one observer sees it: a publish before its outcome, an outcome before what depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A producer is about to publish. Without an [`Record::Outcome`] afterwards the outcome is unknown.
    Publish {
        /// The producer.
        producer: String,
        /// Numbers the producer's publishes from one on.
        sequence: u64,
        /// Where it goes.
        stream: StreamName,
        /// Numbers the producer's publishes to this stream.
        stream_sequence: u64,
        /// The data as text, or a digest of it. Different in every publish of a history.
        payload: String,
    },
    /// The answer that the producer got.
    Outcome {
        /// The producer.
        producer: String,
        /// Which of its publishes.
        sequence: u64,
        /// The outcome.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A client connects.
    Session {
        /// Numbers the sessions of the history.
        session: u64,
        /// Whose session; a client's sessions go one after another.
        client: String,
        /// The node it is connected to, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
        /// What it follows.
        streams: Vec<StreamName>,
        /// Where it asked to go on; nothing for "from now on", or whatever else is not a position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Place>,
    },
    /// The client got its position. The first one is where the session begins.
    Position {
        /// Whose.
        session: u64,
        /// The position.
        at: Place,
    },
    /// The client got an event.
    Event {
        /// Whose.
        session: u64,
        /// The event's stream.
        stream: StreamName,
        /// The event's id.
        id: EventId,
        /// As in [`Record::Publish`].
        payload: String,
        /// The cursor afterwards, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// The client got a gap notice.
    Gap {
        /// Whose.
        session: u64,
        /// The stream.
        stream: StreamName,
        /// The last position before the hole.
        after: EventId,
        /// Where the stream goes on.
        next: EventId,
        /// Why.
        reason: GapReason,
    },
    /// The client got the reason for which the server ends the connection.
    Close {
        /// Whose.
        session: u64,
        /// Why.
        reason: String,
    },
    /// The connection is over.
    End {
        /// Whose.
        session: u64,
    },
    /// A node's memory is gone: it died, and with it what only it had seen.
    Died {
        /// The node, as the sessions call it.
        node: String,
    },
    /// The writer of the history makes the store lose something, from here on.
    Loss {
        /// What.
        kind: Loss,
    },
    /// The last [`Record::Loss`] is over: what is published from here on is not lost by it.
    LossOver,
    /// What the store keeps of a stream, read from its beginning to its end once things were quiet.
    Log {
        /// The stream.
        stream: StreamName,
        /// All ids, in order.
        ids: Vec<EventId>,
        /// The number of events that the store promised to keep, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention: Option<usize>,
    },
    /// Every session that is open here has read to the end.
    Quiet,
}

impl Record {
    /// The session that it is of.
    pub fn session(&self) -> Option<u64> {
        match self {
            Record::Session { session, .. }
            | Record::Position { session, .. }
            | Record::Event { session, .. }
            | Record::Gap { session, .. }
            | Record::Close { session, .. }
            | Record::End { session } => Some(*session),
            _ => None,
        }
    }
}

/// The answer that a producer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Stored, under this id.
    Ok {
        /// The event's id.
        id: EventId,
    },
    /// Not stored.
    Failed,
    /// Unknown: no answer, or one without an outcome.
    Unknown,
}

/// What a store lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The newest events, and whatever else it wrote last: a failover to a replica that lacked it.
    Tail,
    /// Everything.
    Flush,
}

/// A place in the streams that a session follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// As one string, the service's own.
    Cursor(String),
    /// Stream by stream.
    Positions(BTreeMap<StreamName, EventId>),
}

impl Place {
    /// The place in `stream`, if it has one.
    pub fn position(&self, stream: &StreamName) -> Option<EventId> {
        match self {
            Place::Cursor(text) => text.parse::<Cursor>().ok()?.position(stream),
            Place::Positions(positions) => positions.get(stream).copied(),
        }
    }
}

/// Why a history can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file itself.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line of it.
    #[error("line {line} is no record: {error}")]
    Line {
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// Reads a history, one record a line. Empty lines are nothing.
pub fn read(file: impl BufRead) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    for (number, line) in file.lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            records.push(serde_json::from_str(&line).map_err(|error| ReadError::Line { line: number + 1, error })?);
        }
    }
    Ok(records)
}
