//! Why the server ends a connection, and every form in which the client learns it.

use crate::hub::ListenError;
use crate::presence::Eviction;

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The node is being stopped.
    Drain,
    /// The node has as many connections as it may.
    Overload,
    /// The store can't be reached, so the streams can't be attached.
    Unavailable,
    /// The device has as many connections as it may.
    Limit,
    /// A newer connection of the device took this one's place.
    Replaced,
    /// Somebody ended all connections of the device.
    Kicked,
    /// What the client may do was so until now.
    Expired,
    /// Somebody revoked the client's token.
    Revoked,
    /// The client took nothing, or sent no pong, for two ping intervals.
    Slow,
    /// The client sent what it may not, or what makes no sense.
    Protocol(u16),
}

impl CloseReason {
    /// What the close notice, the metric and the log call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            CloseReason::Drain => "drain",
            CloseReason::Overload => "overload",
            CloseReason::Unavailable => "unavailable",
            CloseReason::Limit => "limit",
            CloseReason::Replaced => "replaced",
            CloseReason::Kicked => "kicked",
            CloseReason::Expired => "expired",
            CloseReason::Revoked => "revoked",
            CloseReason::Slow => "slow",
            CloseReason::Protocol(_) => "protocol",
        }
    }

    /// Whether the client is not to come back by itself: its last id then carries the stop mark.
    pub const fn is_final(self) -> bool {
        matches!(self, CloseReason::Replaced | CloseReason::Kicked | CloseReason::Revoked)
    }

    /// The WebSocket close code.
    pub const fn code(self) -> u16 {
        match self {
            CloseReason::Drain => 1012,
            CloseReason::Overload | CloseReason::Unavailable => 1013,
            CloseReason::Replaced => 4001,
            CloseReason::Expired => 4002,
            CloseReason::Kicked => 4003,
            CloseReason::Revoked => 4005,
            CloseReason::Slow => 4004,
            CloseReason::Limit => 4006,
            CloseReason::Protocol(code) => code,
        }
    }
}

impl From<&ListenError> for CloseReason {
    fn from(error: &ListenError) -> Self {
        match error {
            ListenError::Draining => CloseReason::Drain,
            ListenError::Store(error) => {
                tracing::debug!(%error, "a listener is turned away");
                CloseReason::Unavailable
            }
        }
    }
}

impl From<Eviction> for CloseReason {
    fn from(why: Eviction) -> Self {
        match why {
            Eviction::Kicked => CloseReason::Kicked,
            Eviction::Replaced => CloseReason::Replaced,
            Eviction::Limit => CloseReason::Limit,
        }
    }
}
