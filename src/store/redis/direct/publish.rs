//! Publishes that leave nodes out, because this one reaches them by itself.
//!
//! What is left out has to be reached, whatever becomes of the publish. So a [`DirectPublish`] that ends without the
//! store's answer, because none came or because nobody waited for it any more, has the nodes look into the
//! stream. A script that is held up on its way to the store would come after that look; therefore each
//! carries a time, on the store's clock, after which it leaves nobody out.
//!
//! A lane answers in order, but those who wait for its answers wake in any. So events are handed over in the
//! order in which their publishes were begun: whoever follows a stream would have to wait for the earlier one.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use redis::Value;

use super::super::scripts::{self, LeftOut};
use super::reorder::Reorder;
use crate::model::{Draft, Event, Published, StreamName};
use crate::store::{DIRECT_TIME, DirectPath, DirectRoutes, NodeId, StoreError, millis};

/// What publishes go through, if there is a way around the channels at all.
#[derive(Default)]
pub(in crate::store::redis) struct DirectPublishing {
    path: Option<Arc<dyn DirectPath>>,
    clock: Clock,
    /// What was begun on each lane.
    lanes: Vec<Arc<Mutex<Reorder<DirectSend>>>>,
}

/// An event on its way to the nodes that its publish left out.
struct DirectSend {
    reach: Arc<dyn DirectRoutes>,
    stream: StreamName,
    event: Arc<Event>,
    from: Option<StreamName>,
    by_caller: Vec<NodeId>,
    by_channel: Vec<NodeId>,
}

impl DirectSend {
    fn go(self) {
        self.reach.carry(&self.stream, self.event, self.from.as_ref(), &self.by_caller, &self.by_channel);
    }
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
pub(in crate::store::redis) struct DirectPublish {
    reach: Arc<dyn DirectRoutes>,
    stream: StreamName,
    until_ms: u64,
    /// Its place among those of its lane, if it goes over one.
    place: Option<(Arc<Mutex<Reorder<DirectSend>>>, u64)>,
    /// Whether it is known what became of it.
    over: bool,
}

impl DirectPublishing {
    /// Publishes that go through `path`, over so many lanes.
    pub(in crate::store::redis) fn through(path: Arc<dyn DirectPath>, lanes: usize) -> Self {
        let lanes = (0..lanes).map(|_| Arc::default()).collect();
        DirectPublishing { path: Some(path), clock: Clock::default(), lanes }
    }

    /// The store's clock showed this just now.
    pub(in crate::store::redis) fn told_clock(&self, now_ms: u64) {
        if self.path.is_some() {
            self.clock.told(now_ms);
        }
    }

    /// Begins a publish, over a lane or a connection for itself, if anybody can be reached.
    pub(in crate::store::redis) fn begin(
        &self,
        stream: &StreamName,
        draft: &Draft,
        lane: Option<usize>,
    ) -> Option<DirectPublish> {
        let reach = self.path.as_ref()?.reach(draft.data.len())?;
        // Until the store has told its clock, nobody is left out; the first publish or sync tells it.
        let until_ms = self.clock.now_ms().map_or(0, |now_ms| now_ms + millis(DIRECT_TIME));
        let place = lane.map(|lane| (self.lanes[lane].clone(), self.lanes[lane].lock().begin()));
        Some(DirectPublish { reach, stream: stream.clone(), until_ms, place, over: false })
    }

    /// The store has answered, or failed to: the event goes to whoever was left out.
    pub(in crate::store::redis) fn end(
        &self,
        direct_publish: Option<DirectPublish>,
        stream: &StreamName,
        draft: &Draft,
        answer: Result<Value, StoreError>,
    ) -> Result<Published, StoreError> {
        let outcome = answer.and_then(|answer| scripts::published(stream, answer));
        let Some(mut direct_publish) = direct_publish else { return outcome.map(|(published, _)| published) };
        direct_publish.over = !matches!(outcome, Err(StoreError::Unknown(_) | StoreError::Protocol(_)));
        let (published, left_out) = outcome?;
        if let Some(LeftOut { prev, now_ms, by_caller, by_channel }) = left_out {
            self.clock.told(now_ms);
            let event = draft.event(published.id, prev, now_ms);
            let (reach, stream, from) = (direct_publish.reach.clone(), stream.clone(), draft.from.clone());
            direct_publish.settle(Some(DirectSend {
                reach,
                stream,
                event: Arc::new(event),
                from,
                by_caller,
                by_channel,
            }));
        }
        Ok(published)
    }
}

impl DirectPublish {
    /// When it ends, in milliseconds on the store's clock.
    pub(in crate::store::redis) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Its event, if there is one, goes when it has its turn.
    fn settle(&mut self, send: Option<DirectSend>) {
        match self.place.take() {
            Some((lane, number)) => lane.lock().settle(number, send, DirectSend::go),
            None => send.into_iter().for_each(DirectSend::go),
        }
    }

    /// Whom it leaves out, for the script.
    pub(in crate::store::redis) fn nodes(&self) -> &str {
        self.reach.nodes()
    }
}

impl Drop for DirectPublish {
    fn drop(&mut self) {
        self.settle(None);
        if !self.over {
            self.reach.request_sync(&self.stream);
        }
    }
}
