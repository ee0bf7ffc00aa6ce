use serde::Serialize;

use super::EventId;

/// How far the events of a stream got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The newest id ever shown of the stream.
    pub last: EventId,
    /// The id with which the stream began.
    pub epoch: EventId,
    /// Up to where events were sent to nodes with subscribers; `None` when no node ever had one.
    pub told: Option<EventId>,
    /// Up to where everything was acknowledged; `None` when nothing was.
    pub acked: Option<EventId>,
}

impl Standing {
    /// The position of a device that has seen what it acknowledged, and nothing else.
    pub fn position(&self) -> EventId {
        self.acked.unwrap_or(self.epoch)
    }

    /// How far this event got.
    pub fn progress(&self, id: EventId) -> Progress {
        if self.acked.is_some_and(|acked| id <= acked) {
            Progress::Acknowledged
        } else if self.told.is_some_and(|told| id <= told) {
            Progress::Told
        } else {
            Progress::Stored
        }
    }
}

/// How far an event got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// The store has it; no node has had a subscriber since.
    Stored,
    /// It was sent to a node with subscribers, then or since.
    Told,
    /// The device has acknowledged it.
    Acknowledged,
}

/// What waits for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inbox {
    /// How far its events got.
    pub standing: Standing,
    /// Events after what was acknowledged which are kept and are to be delivered: neither expired nor superseded.
    pub pending: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_got_as_far_as_the_furthest_mark_at_or_above_it() {
        let id = |ms| EventId::new(ms, 1);
        let standing = Standing { last: id(9), epoch: id(1), told: Some(id(6)), acked: Some(id(4)) };
        let progress: Vec<_> = [4, 5, 6, 7].into_iter().map(|ms| standing.progress(id(ms))).collect();
        assert_eq!(progress, [Progress::Acknowledged, Progress::Told, Progress::Told, Progress::Stored]);
        let nothing = Standing { told: None, acked: None, ..standing };
        assert_eq!((nothing.progress(id(1)), nothing.position()), (Progress::Stored, id(1)));
    }
}
