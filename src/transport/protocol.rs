//! How a client is spoken to: the frames of everything that it can be sent, over SSE and over WebSocket.

use bytes::Bytes;
use uuid::Uuid;

use super::frame::{Frame, NEVER};
use super::framing::chunk;
use super::{CloseReason, Framing, sse, websocket};
use crate::dispatch::{Delivery, Slot};
use crate::model::{Cursor, Encoding, Event, EventId, MemberNotice, StreamName};

/// How a client is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Server-Sent Events.
    Sse {
        /// How its events are written; fixed when it connects.
        encoding: Encoding,
        /// Events name their traces.
        trace: bool,
        /// Pings are events, not comments.
        heartbeat: bool,
        /// How the body of the answer is delimited.
        framing: Framing,
    },
    /// WebSocket.
    WebSocket {
        /// How its events are written; fixed when it connects.
        encoding: Encoding,
        /// Events name their traces.
        trace: bool,
    },
}

impl Protocol {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Sse { .. } => "sse",
            Protocol::WebSocket { .. } => "websocket",
        }
    }

    /// Whether it is WebSocket.
    pub(super) const fn is_websocket(self) -> bool {
        matches!(self, Protocol::WebSocket { .. })
    }

    /// How its frames are delimited.
    pub(super) const fn framing(self) -> Framing {
        match self {
            Protocol::Sse { framing, .. } => framing,
            Protocol::WebSocket { .. } => Framing::Plain,
        }
    }

    /// The first block of an event stream. `complete`: each stream has all that was asked for.
    pub(super) fn welcome(self, retry_ms: u64, cursor: &Cursor, connection: Uuid, complete: bool) -> Frame {
        Frame::Bare(self.framing().block(sse::welcome(retry_ms, cursor, connection, complete)))
    }

    /// What is dispatched, for one of the streams that the connection follows.
    pub(super) fn delivery(self, slot: Slot, stream: &StreamName, delivery: &Delivery) -> Frame {
        match delivery {
            Delivery::Event(event) => self.event(slot, stream, event),
            Delivery::Ephemeral(event) => Frame::Bare(match self {
                Protocol::Sse { framing, .. } => framing.shared(self.encoded(stream, event)),
                Protocol::WebSocket { .. } => self.encoded(stream, event),
            }),
            Delivery::Passed(id) => Frame::Silent { slot, id: *id },
            Delivery::Gap(gap) => Frame::Bare(match self {
                Protocol::Sse { framing, .. } => framing.block(sse::gap(stream, gap)),
                Protocol::WebSocket { .. } => websocket::gap(stream, gap),
            }),
            Delivery::Position(id) => match self {
                Protocol::Sse { .. } => {
                    Frame::WithCursor { slot, id: *id, expires_ms: NEVER, body: sse::POSITION.clone() }
                }
                Protocol::WebSocket { .. } => {
                    Frame::Event { slot, id: *id, expires_ms: NEVER, body: websocket::position(stream, *id) }
                }
            },
        }
    }

    fn event(self, slot: Slot, stream: &StreamName, event: &Event) -> Frame {
        let (id, expires_ms, body) = (event.id, event.expires_ms.unwrap_or(NEVER), self.encoded(stream, event));
        match self {
            Protocol::WebSocket { .. } => Frame::Event { slot, id, expires_ms, body },
            Protocol::Sse { encoding, .. } if encoding.is_shared() => Frame::WithCursor { slot, id, expires_ms, body },
            Protocol::Sse { framing, .. } => Frame::Event { slot, id, expires_ms, body: framing.shared(body) },
        }
    }

    /// Built once for all connections of one encoding.
    fn encoded(self, stream: &StreamName, event: &Event) -> Bytes {
        match self {
            Protocol::WebSocket { encoding, trace } => {
                event.encoded(encoding, trace, |event, trace| websocket::event(stream, event, trace, encoding))
            }
            Protocol::Sse { encoding, trace, .. } => {
                event.encoded(encoding, trace, |event, trace| sse::event(stream, event, trace, encoding))
            }
        }
    }

    /// The positions of streams that moved without a frame; `cursor` has those of all.
    pub(super) fn positions(self, moved: Vec<(StreamName, EventId)>, cursor: impl FnOnce() -> Cursor) -> Vec<Frame> {
        match self {
            Protocol::Sse { framing, .. } if !moved.is_empty() => {
                vec![Frame::Bare(framing.block(sse::position(&cursor())))]
            }
            Protocol::Sse { .. } => Vec::new(),
            Protocol::WebSocket { .. } => {
                moved.iter().map(|(stream, position)| Frame::Bare(websocket::position(stream, *position))).collect()
            }
        }
    }

    /// A ping.
    pub(super) fn ping(self) -> Frame {
        Frame::Bare(match self {
            Protocol::Sse { heartbeat: true, framing, .. } => framing.shared(sse::HEARTBEAT.clone()),
            Protocol::Sse { framing, .. } => framing.shared(sse::PING.clone()),
            Protocol::WebSocket { .. } => websocket::ping(),
        })
    }

    /// The last frames: why the connection ends, and when to come back.
    pub(super) fn close(self, reason: CloseReason, retry_ms: u64) -> Vec<Frame> {
        match self {
            Protocol::Sse { framing, .. } => {
                let notice = sse::close(reason, retry_ms);
                let notice = if reason.is_final() {
                    Frame::Stop(chunk(notice.as_bytes()))
                } else {
                    Frame::Bare(framing.block(notice))
                };
                std::iter::once(notice).chain(framing.end().map(Frame::Bare)).collect()
            }
            Protocol::WebSocket { .. } => websocket::close(reason, retry_ms).into_iter().map(Frame::Bare).collect(),
        }
    }

    /// A device joined a topic, or left it.
    pub(super) fn member(self, notice: &MemberNotice) -> Frame {
        Frame::Bare(match self {
            Protocol::Sse { framing, .. } => framing.shared(notice.sse(sse::member)),
            Protocol::WebSocket { .. } => notice.websocket(websocket::member),
        })
    }

    /// Notices of members may have been missed.
    pub(super) fn missed_members(self) -> Frame {
        Frame::Bare(match self {
            Protocol::Sse { framing, .. } => framing.block(sse::MISSED_MEMBERS),
            Protocol::WebSocket { .. } => websocket::missed_members(),
        })
    }
}
