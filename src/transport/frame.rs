//! What waits in an outbox.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::dispatch::Slot;
use crate::model::{EventId, Observer};

/// The time of expiry of a frame that never does.
pub const NEVER: u64 = u64::MAX;

/// Something to be written.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Bytes that need nothing added and move no position: pings, notices, answers.
    Bare(Bytes),
    /// A frame that moves a stream's position and carries its own cursor, if it has one. Once the store's clock
    /// shows `expires_ms`, it moves the position alone.
    Event { slot: Slot, id: EventId, expires_ms: u64, body: Bytes },
    /// The same, but the body is a chunk, and the connection's cursor has to be put into it in front.
    WithCursor { slot: Slot, id: EventId, expires_ms: u64, body: Bytes },
    /// The last frame of a client that is not to come back by itself, as a chunk: the connection's cursor with
    /// the stop mark is put into it in front.
    Stop(Bytes),
    /// Moves the position and writes nothing: an event that the client is not given.
    Silent { slot: Slot, id: EventId },
    /// Writes nothing: what is in front of it, up to an event, is to be recorded as written. Boxed, as few have one.
    Mark(Box<WriteMark>),
}

/// What to notify once an event is written.
#[derive(Clone)]
pub struct WriteMark {
    pub observer: Arc<dyn Observer>,
    pub transport: &'static str,
    /// When the connection was given the event.
    pub begun: SystemTime,
    /// The event's own: one that expired is not written.
    pub expires_ms: u64,
}

impl fmt::Debug for WriteMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteMark")
    }
}

impl Frame {
    /// Bytes that it will be written in.
    pub fn len(&self) -> usize {
        match self {
            Frame::Bare(body) | Frame::Stop(body) | Frame::Event { body, .. } | Frame::WithCursor { body, .. } => {
                body.len()
            }
            Frame::Silent { .. } | Frame::Mark(_) => 0,
        }
    }
}
