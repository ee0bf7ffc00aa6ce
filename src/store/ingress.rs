//! What producers add to a region's store by themselves, past every node.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreError;
use crate::model::{Draft, EventId, StreamName};

/// The ingress stream of a region, which one node at a time drains into the streams that its entries name.
///
/// An entry stays until it is settled, so the next leader finds what the last one left. What was placed
/// but not settled is placed a second time then: the target stream keeps the highest entry that it took, and
/// refuses the rest, for as long as it has entries that are not settled.
#[async_trait]
pub trait Ingress: Send + Sync {
    /// Reads entries after an id, oldest first, as many as make a page. One of more than `largest` bytes
    /// comes without its fields.
    async fn entries(&self, after: EventId, largest: usize) -> Result<IngressPage, StoreError>;

    /// Waits until there is an entry after an id, at most for a time.
    async fn wait(&self, after: EventId, most: Duration) -> Result<(), StoreError>;

    /// Publishes entries, each at most once, however often this is called. Those of one stream have to be in
    /// order. The answers are in the order of the batch.
    async fn place(&self, batch: &[Placement]) -> Vec<Result<Placed, StoreError>>;

    /// Removes entries that were placed. `streams` are the streams they were for.
    async fn settle(&self, done: &[EventId], streams: &[StreamName]) -> Result<(), StoreError>;

    /// Moves entries that can't be events to where the rejected ones are kept, each once.
    async fn reject(&self, rejections: &[Rejection]) -> Result<(), StoreError>;

    /// What was rejected before an id, or lately, newest first, at most `most`.
    async fn rejected(&self, before: Option<EventId>, most: usize) -> Result<Vec<Rejected>, StoreError>;

    /// Makes sure that the stream gives ids above `mark`. If it began anew below, or lost its end, `done` are
    /// removed from it and all others get new ids, in order; then this is true, and it has to be read again
    /// from the beginning. Without a mark, goes on with what somebody else began.
    async fn lift(&self, mark: Option<EventId>, done: &[EventId]) -> Result<bool, StoreError>;

    /// Gives the store the functions that producers call, unless it has them in this version or a newer one.
    /// `starting` also replaces those of this version with other settings. True if the store took them now.
    async fn offer_functions(&self, event_bytes: usize, starting: bool) -> Result<bool, StoreError>;
}

/// Entries of an ingress stream, and how much waits there.
#[derive(Debug, Clone)]
pub struct IngressPage {
    /// The newest id that the stream ever gave.
    pub last: EventId,
    /// Entries that wait, those of this page among them.
    pub waiting: u64,
    /// The oldest of them.
    pub oldest: Option<EventId>,
    /// The store's clock, milliseconds since 1970.
    pub now_ms: u64,
    /// The entries read.
    pub entries: Vec<IngressEntry>,
    /// Whether somebody began to give the entries new ids, and did not end it: see [`Ingress::lift`].
    pub lifting: bool,
}

/// What a producer added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressEntry {
    /// Its id in the ingress stream.
    pub id: EventId,
    /// Bytes of all names and values.
    pub bytes: u64,
    /// Names and values; none when it is too large.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// An entry on its way to its stream.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The entry.
    pub id: EventId,
    /// The entry before it for the same stream, if that is on its way too: without it, this one is not taken,
    /// or the two would change places.
    pub after: Option<EventId>,
    /// Where it is to be published.
    pub stream: StreamName,
    /// The event.
    pub draft: Draft,
}

/// What became of a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// The stream has it, now or from before under its idempotency key.
    Now,
    /// The stream had taken an entry as new as this one before: this.
    Before(EventId),
    /// The entry before it was not taken, so this one was not.
    NotInTurn,
}

/// An entry that can't be an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The entry.
    pub id: EventId,
    /// What is wrong with it.
    pub reason: String,
    /// What is shown of it.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// A rejected entry where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its id there.
    pub id: EventId,
    /// The id that it had in the ingress stream.
    pub entry: String,
    /// What is wrong with it.
    pub reason: String,
    /// What is shown of it.
    pub fields: Vec<(Bytes, Bytes)>,
}
