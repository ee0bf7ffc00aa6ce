//! Publishing.

use std::time::Instant;

use super::{Hub, traces};
use crate::metrics::ByProblem;
use bytes::Bytes;

use crate::model::{Draft, Durability, JsonError, Published, Receipt, StreamName, json};
use crate::store::StoreError;
use crate::trouble::Work;

/// Longest idempotency key, in ASCII characters.
const MAX_KEY: usize = 128;

/// Longest collapse key, in ASCII characters.
const MAX_COLLAPSE: usize = 128;

/// Why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PublishError {
    /// Only the service itself publishes there.
    #[error("only the service itself publishes to {0}; it can be followed and read")]
    Reserved(StreamName),
    /// The data is no JSON that an event may carry.
    #[error("the data {0}")]
    Json(#[from] JsonError),
    /// The data is larger than an event may be.
    #[error("the event's data has {size} bytes; allowed are {limit}")]
    TooLarge { size: usize, limit: usize },
    /// The idempotency key is not one.
    #[error("the idempotency key must be 1 to {MAX_KEY} visible ASCII characters")]
    Key,
    /// The collapse key is not one.
    #[error("the collapse key must be 1 to {MAX_COLLAPSE} visible ASCII characters")]
    Collapse,
    /// What an event that is not stored can't have was given with it.
    #[error("an ephemeral event is not stored, so it can't have {0}")]
    Ephemeral(&'static str),
    /// It is stored, but not as durable as asked.
    #[error("the event is stored, but was not confirmed to be as durable as asked within the time for it")]
    NotDurable(Receipt),
    /// The store did not take it.
    #[error("{}", .0.for_client())]
    Store(#[from] StoreError),
}

impl PublishError {
    /// The problem's name in every answer.
    pub const fn slug(&self) -> &'static str {
        match self {
            PublishError::Reserved(_) => "reserved",
            PublishError::Json(_) => "invalid-json",
            PublishError::TooLarge { .. } => "too-large",
            PublishError::Key => "invalid-key",
            PublishError::Collapse => "invalid-collapse",
            PublishError::Ephemeral(_) => "invalid-ephemeral",
            PublishError::NotDurable(_) => "not-durable",
            PublishError::Store(error) => store_slug(error),
        }
    }
}

/// The name of a problem with the store.
pub(super) const fn store_slug(error: &StoreError) -> &'static str {
    match error {
        StoreError::KeyReused => "key-reused",
        StoreError::Unsupported(_) => "unsupported",
        StoreError::Unknown(_) | StoreError::Protocol(_) => "outcome-unknown",
        StoreError::Full(_) => "store-full",
        StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Misplaced(_) => "unavailable",
    }
}

/// Whether a text can be an idempotency key.
pub(super) fn is_key(text: &str) -> bool {
    is_visible(text, MAX_KEY)
}

/// Whether a text can be a collapse key.
pub(super) fn is_collapse_key(text: &str) -> bool {
    is_visible(text, MAX_COLLAPSE)
}

fn is_visible(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Hub {
    /// Publishes an event. When this returns an id, the store has it.
    pub async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, PublishError> {
        let (draft, spans) = self.traced(stream, draft, true);
        let published = match self.check(stream, &draft) {
            Ok(()) => {
                let published = self.timed(self.store.publish(stream, &draft)).await;
                self.noted(Work::Publish, stream, published).map_err(PublishError::from)
            }
            Err(error) => Err(error),
        };
        self.count(published.as_ref());
        traces::end(spans, published.as_ref());
        published
    }

    /// Publishes an event, and answers once it is as durable as asked.
    pub async fn publish_durably(
        &self,
        stream: &StreamName,
        draft: &Draft,
        durability: Durability,
    ) -> Result<Receipt, PublishError> {
        let (draft, spans) = self.traced(stream, draft, true);
        let receipt = match self.check(stream, &draft) {
            Ok(()) => {
                let receipt = self.timed(self.store.publish_durably(stream, &draft, durability)).await;
                self.noted(Work::Publish, stream, receipt).map_err(PublishError::from)
            }
            Err(error) => Err(error),
        };
        let receipt = receipt
            .and_then(|receipt| if receipt.enough { Ok(receipt) } else { Err(PublishError::NotDurable(receipt)) });
        self.count(receipt.as_ref());
        traces::end(spans, receipt.as_ref().map(|receipt| &receipt.published));
        receipt
    }

    /// Publishes a batch in order, each event for itself. The answers are in the same order.
    pub async fn publish_all(&self, mut batch: Vec<(StreamName, Draft)>) -> Vec<Result<Published, PublishError>> {
        let spans = self.trace_all(&mut batch);
        let refusals: Vec<_> = batch.iter().map(|(stream, draft)| self.check(stream, draft).err()).collect();
        let sound: Vec<_> =
            batch.into_iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none()).map(|(entry, _)| entry).collect();
        let stored = self.timed(self.store.publish_all(&sound)).await;
        for ((stream, _), answer) in sound.iter().zip(&stored) {
            self.troubles.note(Work::Publish, Some(stream), answer.as_ref());
        }
        let mut stored = stored.into_iter();
        let mut next_stored =
            || stored.next().unwrap_or_else(|| Err(StoreError::Protocol("fewer answers than events".into())));
        let answers: Vec<_> = refusals
            .into_iter()
            .map(|refusal| match refusal {
                Some(error) => Err(error),
                None => next_stored().map_err(PublishError::from),
            })
            .inspect(|answer| self.count(answer.as_ref()))
            .collect();
        spans.into_iter().zip(&answers).for_each(|(spans, answer)| traces::end(spans, answer.as_ref()));
        answers
    }

    /// Sends an event to the connections of this moment, at most once, and stores nothing. Returns the number of
    /// nodes that it was sent to.
    pub async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, PublishError> {
        self.check_data(stream, &draft.data)?;
        let (draft, spans) = self.traced(stream, draft, false);
        let sent = self.noted(Work::Publish, stream, self.store.publish_ephemeral(stream, &draft).await);
        let sent = sent.map_err(PublishError::from);
        traces::end_sent(spans, sent.as_ref());
        self.metrics.ephemeral.inc_by(u64::from(sent.is_ok()));
        sent
    }

    /// Whether an event may be published: for callers that publish past the hub.
    pub fn check(&self, stream: &StreamName, draft: &Draft) -> Result<(), PublishError> {
        self.check_data(stream, &draft.data)?;
        if draft.key.as_ref().is_some_and(|key| !is_key(key)) {
            return Err(PublishError::Key);
        }
        if draft.collapse.as_ref().is_some_and(|key| !is_collapse_key(key)) {
            return Err(PublishError::Collapse);
        }
        Ok(())
    }

    fn check_data(&self, stream: &StreamName, data: &Bytes) -> Result<(), PublishError> {
        if stream.is_reserved() {
            return Err(PublishError::Reserved(stream.clone()));
        }
        let (size, limit) = (data.len(), self.limits.event_bytes);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        json::check(data).map_err(PublishError::from)
    }

    /// Has the store publish, and notes how long that took.
    async fn timed<T>(&self, publishing: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let outcome = publishing.await;
        self.metrics.publish_seconds.observe(begun.elapsed().as_secs_f64());
        outcome
    }

    fn count<T>(&self, answer: Result<T, &PublishError>) {
        match answer {
            Ok(_) => {
                self.metrics.published.inc();
            }
            Err(error) => {
                self.metrics.publish_errors.get_or_create(&ByProblem { problem: error.slug() }).inc();
            }
        }
    }
}
