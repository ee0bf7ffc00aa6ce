//! What a history can break.

use crate::model::{EventId, Gap, StreamName};

/// A broken promise. Where an array holds two ids, something lies between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Violation {
    /// The history itself contradicts what a history is.
    #[error("the history makes no sense at record {record}: {why}")]
    Unusable { record: usize, why: String },
    /// An event that is in no producer's book.
    #[error("{stream} {id}: nobody published {payload}")]
    NobodyPublished { stream: StreamName, id: EventId, payload: String },
    /// An event on another stream than it was meant for.
    #[error("{stream} {id}: {publish} was meant for another stream")]
    WrongStream { stream: StreamName, id: EventId, publish: String },
    /// It was answered as not stored.
    #[error("{stream} {id}: {publish} was answered as failed, yet it appeared")]
    FailedAppeared { stream: StreamName, id: EventId, publish: String },
    /// One publish under two ids.
    #[error("{stream}: {publish} is stored twice, as {} and {}", ids[0], ids[1])]
    StoredTwice { stream: StreamName, publish: String, ids: [EventId; 2] },
    /// Two publishes under one id.
    #[error("{stream} {id} is two events, {} and {}", publishes[0], publishes[1])]
    OneIdForTwo { stream: StreamName, id: EventId, publishes: [String; 2] },
    /// A producer's later publish has the lower id.
    #[error("{stream}: {} came after the answer to {}, but is stored before it, as {} and {}",
        publishes[1], publishes[0], ids[1], ids[0])]
    StoredOutOfOrder { stream: StreamName, publishes: [String; 2], ids: [EventId; 2] },
    /// The store does not have what it acknowledged, and nothing happened that would explain it.
    #[error("{stream} {id}: {publish} was stored and is gone, though the store lost nothing")]
    Gone { stream: StreamName, id: EventId, publish: String },
    /// Fewer events than promised were kept.
    #[error("{stream}: trimmed to {kept} events, though {promised} were to be kept")]
    TrimmedEarly { stream: StreamName, kept: usize, promised: usize },
    /// A session begins elsewhere than it asked for.
    #[error("{client}, session {session}: asked to go on in {stream} at {asked}, but was placed at {placed}")]
    Misplaced { client: String, session: u64, stream: StreamName, asked: EventId, placed: EventId },
    /// Seen twice.
    #[error("{client}, session {session}: got {stream} {id} again")]
    Again { client: String, session: u64, stream: StreamName, id: EventId },
    /// Out of order.
    #[error("{client}, session {session}: {stream} went backwards, from {} to {}", ids[0], ids[1])]
    Backwards { client: String, session: u64, stream: StreamName, ids: [EventId; 2] },
    /// Events left out without a word.
    #[error("{client}, session {session}: {stream} went from {} to {} without a word of {}",
        at[0], at[1], some(missing))]
    Hole { client: String, session: u64, stream: StreamName, at: [EventId; 2], missing: Vec<EventId> },
    /// A gap notice that does not match the hole.
    #[error("{client}, session {session}: {stream} was notified to miss {}..{}, but went from {} to {}",
        gap.after, gap.next, at[0], at[1])]
    InexactGap { client: String, session: u64, stream: StreamName, gap: Gap, at: [EventId; 2] },
    /// A gap notice in place of events that could have been delivered.
    #[error("{client}, session {session}: {stream} was notified to miss {}..{}, but the store keeps {}",
        gap.after, gap.next, some(kept))]
    GapOverKept { client: String, session: u64, stream: StreamName, gap: Gap, kept: Vec<EventId> },
    /// A gap notice where nothing is missing.
    #[error("{client}, session {session}: {stream} was notified to miss {}..{}, but nothing is missing",
        gap.after, gap.next)]
    FalseAlarm { client: String, session: u64, stream: StreamName, gap: Gap },
    /// A cursor that does not say where the session stands.
    #[error("{client}, session {session}: the cursor {cursor} after an event of {stream} is elsewhere")]
    Cursor { client: String, session: u64, stream: StreamName, cursor: String },
    /// Never seen, though everything was read to the end.
    #[error("{client}: read {stream} to the end, but never saw {}", some(missing))]
    Missed { client: String, stream: StreamName, missing: Vec<EventId> },
    /// Lost by the store, and known to be, but not reported.
    #[error("{client}: never got the notice that {stream} lost {}", some(missing))]
    LossNotReported { client: String, stream: StreamName, missing: Vec<EventId> },
}

/// A list of ids, for a line of text.
fn some(ids: &[EventId]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = ids.iter().take(SHOWN).map(EventId::to_string).collect();
    let more = ids.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
