//! Publishes that are recorded as spans.

use std::borrow::Cow;
use std::time::SystemTime;

use super::{Hub, PublishError};
use crate::model::{Draft, Published, StreamName};
use crate::spans::{Outcome, PublishSpans};

impl Hub {
    /// Now, where it is recorded when requests came.
    pub fn received(&self) -> Option<SystemTime> {
        self.registry.tracer().map(|_| SystemTime::now())
    }

    /// The spans of a publish that goes past the hub, if it is recorded: what follows is a part of them.
    pub fn trace(&self, stream: &StreamName, draft: &mut Draft) -> Option<PublishSpans> {
        let spans = self.registry.tracer()?.publish(stream, draft, true)?;
        draft.trace = Some(spans.trace());
        Some(spans)
    }

    /// A draft as it is published, and the spans of that if it is recorded.
    pub(super) fn traced<'a>(
        &self,
        stream: &StreamName,
        draft: &'a Draft,
        is_stored: bool,
    ) -> (Cow<'a, Draft>, Option<PublishSpans>) {
        let spans = self.registry.tracer().and_then(|tracer| tracer.publish(stream, draft, is_stored));
        let draft = match &spans {
            None => Cow::Borrowed(draft),
            Some(spans) => Cow::Owned(Draft { trace: Some(spans.trace()), ..draft.clone() }),
        };
        (draft, spans)
    }

    /// The spans of each of a batch. None at all where nothing is recorded.
    pub(super) fn trace_all(&self, batch: &mut [(StreamName, Draft)]) -> Vec<Option<PublishSpans>> {
        if self.registry.tracer().is_none() {
            return Vec::new();
        }
        batch.iter_mut().map(|(stream, draft)| self.trace(stream, draft)).collect()
    }
}

/// A publish was answered.
pub(super) fn end(spans: Option<PublishSpans>, answer: Result<&Published, &PublishError>) {
    let Some(spans) = spans else { return };
    spans.end(match answer {
        Ok(published) => Outcome::Stored { id: Some(published.id), duplicate: published.duplicate },
        Err(error) => failed(error),
    });
}

/// The publish of an event that is not stored was answered.
pub(super) fn end_sent(spans: Option<PublishSpans>, answer: Result<&u32, &PublishError>) {
    let Some(spans) = spans else { return };
    spans.end(answer.map_or_else(failed, |_| Outcome::Sent));
}

fn failed(error: &PublishError) -> Outcome {
    match error {
        PublishError::Store(_) | PublishError::NotDurable(_) => Outcome::Failed(error.slug()),
        _ => Outcome::Refused(error.slug()),
    }
}
