//! What the journal records: effects, not requests, so that a replay decides nothing.
//!
//! Records are written with postcard, which numbers the variants of an enum in the order in which they stand: new ones
//! go to the end, none is changed, and each raises the version that files begin with, so that an older program refuses
//! them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::EventId;

/// An effect on the store's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// Nothing that was recorded of the stream before this counts any more: the records that follow in the same frame
    /// are all that there is of it.
    Reset {
        #[serde(borrow)]
        stream: Cow<'a, str>,
    },
    /// Where the stream stands, but for the events that follow.
    Position {
        #[serde(borrow)]
        stream: Cow<'a, str>,
        position: PositionRecord,
    },
    /// An event was appended.
    Event {
        #[serde(borrow)]
        stream: Cow<'a, str>,
        #[serde(borrow)]
        event: EventRecord<'a>,
    },
    /// An idempotency key is remembered.
    Key {
        #[serde(borrow)]
        stream: Cow<'a, str>,
        key: Cow<'a, str>,
        id: Id,
        digest: u64,
        until_ms: u64,
    },
    /// Revocations were added or lifted, as JSON: the form in which every store keeps them.
    Revocations { json: Cow<'a, str> },
    /// What is known of a node's lifecycle session, but for its connections.
    Session { node: Cow<'a, str>, session: SessionRecord },
    /// A node's connection was published as connected (how, and whose), or as disconnected.
    Connection { node: Cow<'a, str>, connection: Uuid, open: Option<Cow<'a, str>> },
    /// A producer holds a lease on the stream.
    Lease {
        #[serde(borrow)]
        stream: Cow<'a, str>,
        lease: LeaseRecord,
    },
    /// Nobody holds a lease on the stream.
    LeaseGone {
        #[serde(borrow)]
        stream: Cow<'a, str>,
    },
    /// Files before this one are not needed any more.
    Compacted { from: u64 },
    /// An event was appended that has fields for which [`EventRecord`] has no place.
    EventWith {
        #[serde(borrow)]
        stream: Cow<'a, str>,
        #[serde(borrow)]
        event: EventRecord<'a>,
        #[serde(borrow)]
        fields: Vec<Field<'a>>,
    },
}

/// A field of an event, by the name that it has in Redis. One that is not known is passed over.
pub type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

/// An event id, as two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id(u64, u64);

impl From<EventId> for Id {
    fn from(id: EventId) -> Self {
        Id(id.ms, id.seq)
    }
}

impl From<Id> for EventId {
    fn from(Id(ms, seq): Id) -> Self {
        EventId::new(ms, seq)
    }
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionRecord {
    pub until_ms: u64,
    pub last: Id,
    pub epoch: Id,
    /// Ancestor, head, before, mark, next.
    pub fork: Option<[Id; 5]>,
    pub told: Option<Id>,
    pub acked: Option<Id>,
    pub erased: Option<Id>,
    /// Position, and up to where more was sent.
    pub checkpoint: Option<(Id, Option<Id>)>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord<'a> {
    /// When it was appended, on the store's clock: the log's retention counts from there.
    pub at_ms: u64,
    pub id: Id,
    pub prev: Id,
    /// Empty for `message`.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow, with = "serde_bytes")]
    pub data: Cow<'a, [u8]>,
    pub expires_ms: Option<u64>,
    pub collapse: Option<Cow<'a, str>>,
    pub exclude: Option<Uuid>,
}

/// A node's lifecycle session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub state: SessionState,
    pub number: u64,
    pub since_ms: u64,
    pub region: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    Open,
    Over,
    /// It goes on under this node's id, and so do its connections.
    Moved(String),
}

/// A producer's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub id: String,
    pub time_ms: u64,
    pub key: Option<String>,
    pub renewed_ms: u64,
    pub deadline_ms: u64,
    pub lapsed: bool,
}

impl Record<'_> {
    /// Appends it to a frame.
    pub fn write(&self, frame: Vec<u8>) -> Vec<u8> {
        postcard::to_extend(self, frame).expect("a record is made of numbers, texts and bytes, which can be written")
    }
}

/// The records of a frame; an error ends them.
pub fn read(frame: &[u8]) -> impl Iterator<Item = Result<Record<'_>, postcard::Error>> {
    let mut rest = frame;
    std::iter::from_fn(move || {
        (!rest.is_empty()).then(|| {
            let (record, after) = postcard::take_from_bytes(rest).inspect_err(|_| rest = &[])?;
            rest = after;
            Ok(record)
        })
    })
}
