use super::EventId;

/// What was acknowledged of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The newest id ever shown of the stream.
    pub last: EventId,
    /// The id with which the stream began.
    pub born: EventId,
    /// Up to where everything was acknowledged; `None` when nothing was.
    pub acked: Option<EventId>,
}

impl Acknowledged {
    /// The position of a device that has seen what it acknowledged, and nothing else.
    pub fn position(&self) -> EventId {
        self.acked.unwrap_or(self.born)
    }
}

/// What waits for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inbox {
    /// What it acknowledged.
    pub acknowledged: Acknowledged,
    /// Events after that which are kept and are to be delivered: neither expired nor superseded.
    pub pending: u64,
}
