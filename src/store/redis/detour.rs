//! Publishes that leave nodes out, because this one reaches them by itself.
//!
//! What is left out has to be reached, whatever becomes of the publish. So a [`Detour`] that ends without the
//! store's answer, because none came or because nobody waited for it any more, has the nodes look into the
//! stream. A script that is held up on its way to the store would come after that look; therefore each
//! carries a time, on the store's clock, after which it leaves nobody out.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::Value;

use super::scripts::{self, LeftOut};
use crate::model::{Draft, Event, Published, StreamName};
use crate::store::{Bypass, DETOUR_TIME, Reach, StoreError, millis};

/// What publishes go through, if there is a way around the channels at all.
#[derive(Default)]
pub(super) struct Detours {
    bypass: Option<Arc<dyn Bypass>>,
    clock: Clock,
}

/// What the store's clock shows at the least: what its last answer said, and the time since.
#[derive(Default)]
struct Clock(Mutex<Option<(u64, Instant)>>);

impl Clock {
    fn now_ms(&self) -> Option<u64> {
        self.0.lock().map(|(told_ms, heard)| told_ms + millis(heard.elapsed()))
    }

    fn told(&self, now_ms: u64) {
        *self.0.lock() = Some((now_ms, Instant::now()));
    }
}

/// One publish that leaves nodes out.
pub(super) struct Detour {
    reach: Arc<dyn Reach>,
    stream: StreamName,
    until_ms: u64,
    /// Whether it is known what became of it.
    over: bool,
}

impl Detours {
    pub(super) fn through(bypass: Arc<dyn Bypass>) -> Self {
        Detours { bypass: Some(bypass), clock: Clock::default() }
    }

    /// The store's clock showed this just now.
    pub(super) fn told_clock(&self, now_ms: u64) {
        if self.bypass.is_some() {
            self.clock.told(now_ms);
        }
    }

    /// Begins a publish, if anybody can be reached.
    pub(super) fn begin(&self, stream: &StreamName, draft: &Draft) -> Option<Detour> {
        let reach = self.bypass.as_ref()?.reach(draft.data.len())?;
        // Until the store has told its clock, nobody is left out; the first publish or sync tells it.
        let until_ms = self.clock.now_ms().map_or(0, |now_ms| now_ms + millis(DETOUR_TIME));
        Some(Detour { reach, stream: stream.clone(), until_ms, over: false })
    }

    /// The store has answered, or failed to: the event goes to whoever was left out.
    pub(super) fn end(
        &self,
        detour: Option<Detour>,
        stream: &StreamName,
        draft: &Draft,
        answer: Result<Value, StoreError>,
    ) -> Result<Published, StoreError> {
        let outcome = answer.and_then(|answer| scripts::published(stream, answer));
        let Some(mut detour) = detour else { return outcome.map(|(published, _)| published) };
        detour.over = !matches!(outcome, Err(StoreError::Unknown(_) | StoreError::Protocol(_)));
        let (published, left_out) = outcome?;
        if let Some(LeftOut { prev, now_ms, by_caller, by_channel }) = left_out {
            self.clock.told(now_ms);
            // A copy: the draft's data may be a small slice of a large request body.
            let data = Bytes::copy_from_slice(&draft.data);
            let mut event = Event::new(published.id, prev, draft.kind.clone(), data);
            event.expires_ms = draft.ttl.map(|ttl| now_ms.saturating_add(millis(ttl)));
            event.collapse = draft.collapse.as_deref().map(Arc::from);
            detour.reach.carry(stream, Arc::new(event), draft.from.as_ref(), &by_caller, &by_channel);
        }
        Ok(published)
    }
}

impl Detour {
    /// When it ends, in milliseconds on the store's clock.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Whom it leaves out, for the script.
    pub(super) fn nodes(&self) -> &str {
        self.reach.nodes()
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        if !self.over {
            self.reach.have_them_look(&self.stream);
        }
    }
}
