//! Why the server ends a connection, in every form in which that is told.

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The node is being stopped.
    Drain,
    /// The node has as many connections as it may.
    Overload,
    /// The store can't be reached, so the streams can't be attached.
    Unavailable,
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
            CloseReason::Slow => "slow",
            CloseReason::Protocol(_) => "protocol",
        }
    }

    /// The WebSocket close code.
    pub const fn code(self) -> u16 {
        match self {
            CloseReason::Drain => 1012,
            CloseReason::Overload | CloseReason::Unavailable => 1013,
            CloseReason::Slow => 4004,
            CloseReason::Protocol(code) => code,
        }
    }
}
