//! Publishes that leave nodes out, because this one reaches them by itself.
//!
//! What is left out has to be reached, whatever becomes of the publish. So a [`DirectPublish`] that ends without the
//! store's answer, because none came or because nobody waited for it any more, has the nodes look into the
//! stream. A script that is held up on its way to the store would come after that look; therefore each
//! carries a time, on the store's clock, after which it leaves nobody out.
//!
//! A connection answers in order, but the tasks that wait for its answers wake in any. So events are handed over in the
//! order in which their publishes were begun: subscribers of a stream would have to wait for the earlier one.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use redis::Value;

use super::super::scripts::{self, LeftOut};
use super::reorder::Reorder;
use crate::model::{Draft, Event, NodeId, Published, StreamName};
use crate::store::{DIRECT_TIME, DirectPath, DirectRoutes, StoreError, millis};

/// Most data of a connection's events that wait for those before them.
const MOST_WAITING: usize = 8 * 1024 * 1024;

/// What publishes go through, if there is a way around the channels at all.
#[derive(Default)]
pub(in crate::store::redis) struct DirectPublishing {
    path: Option<Arc<dyn DirectPath>>,
}

/// The publishes of one connection that leave nodes out, in the order in which they began.
#[derive(Default)]
pub(in crate::store::redis) struct SendOrder(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    order: Reorder<DirectSend>,
    /// Data of events that wait for those before them.
    bytes: usize,
}

impl SendOrder {
    fn begin(&self) -> u64 {
        self.0.lock().order.begin()
    }

    /// Sends what is next. An event for which there is no room goes to nobody: the nodes read it.
    fn settle(&self, number: u64, send: Option<DirectSend>) {
        let mut waiting = self.0.lock();
        let Waiting { order, bytes } = &mut *waiting;
        let size = send.as_ref().map_or(0, |send| send.event.payload_bytes());
        let full = *bytes + size > MOST_WAITING && !order.is_next(number);
        let (send, dropped) = if full { (None, send) } else { (send, None) };
        *bytes += if full { 0 } else { size };
        order.settle(number, send, |send| {
            *bytes -= send.event.payload_bytes();
            send.go();
        });
        drop(waiting);
        dropped.iter().for_each(|send| send.reach.request_sync(&send.stream));
    }
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

/// What a server's clock shows at the least: that of its last answer, and the time since.
#[derive(Default)]
pub(in crate::store::redis) struct Clock(Mutex<Option<(u64, Instant)>>);

impl Clock {
    fn now_ms(&self) -> Option<u64> {
        self.0.lock().map(|(read_ms, read_at)| read_ms + millis(read_at.elapsed()))
    }

    /// It showed this just now.
    pub(in crate::store::redis) fn set(&self, now_ms: u64) {
        *self.0.lock() = Some((now_ms, Instant::now()));
    }
}

/// One publish that leaves nodes out.
pub(in crate::store::redis) struct DirectPublish {
    reach: Arc<dyn DirectRoutes>,
    stream: StreamName,
    clock: Arc<Clock>,
    until_ms: u64,
    /// Its place among those of its connection, if others use that too.
    place: Option<(Arc<SendOrder>, u64)>,
    /// Whether it is known what became of it.
    over: bool,
}

impl DirectPublishing {
    /// Publishes that go through `path`.
    pub(in crate::store::redis) fn through(path: Arc<dyn DirectPath>) -> Self {
        DirectPublishing { path: Some(path) }
    }

    /// Begins a publish, in the order of a lane's connection or on one for itself, if anybody can be reached.
    pub(in crate::store::redis) fn begin(
        &self,
        stream: &StreamName,
        draft: &Draft,
        clock: &Arc<Clock>,
        order: Option<&Arc<SendOrder>>,
    ) -> Option<DirectPublish> {
        let reach = self.path.as_ref()?.reach(draft.data.len())?;
        // Until the store's clock is known, no node is left out; the first publish or sync brings it.
        let until_ms = clock.now_ms().map_or(0, |now_ms| now_ms + millis(DIRECT_TIME));
        let place = order.map(|order| (order.clone(), order.begin()));
        Some(DirectPublish { reach, stream: stream.clone(), clock: clock.clone(), until_ms, place, over: false })
    }

    /// The store has answered, or failed to: the event goes to the nodes that were left out.
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
            direct_publish.clock.set(now_ms);
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

    /// It is not carried out.
    pub(in crate::store::redis) fn withdraw(mut self) {
        self.over = true;
    }

    /// Its event, if there is one, goes when it has its turn.
    fn settle(&mut self, send: Option<DirectSend>) {
        match self.place.take() {
            Some((order, number)) => order.settle(number, send),
            None => send.into_iter().for_each(DirectSend::go),
        }
    }

    /// The connection that it leaves out, for the script.
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{EventId, EventType};

    /// Writes down what was carried, and for which streams a sync was requested.
    #[derive(Default)]
    struct Recorded {
        carried: Mutex<Vec<u64>>,
        syncs: Mutex<usize>,
    }

    impl DirectRoutes for Recorded {
        fn nodes(&self) -> &str {
            ""
        }

        fn carry(&self, _: &StreamName, event: Arc<Event>, _: Option<&StreamName>, _: &[NodeId], _: &[NodeId]) {
            self.carried.lock().push(event.id.ms);
        }

        fn request_sync(&self, _: &StreamName) {
            *self.syncs.lock() += 1;
        }
    }

    fn send(reach: &Arc<Recorded>, number: u64, bytes: usize) -> Option<DirectSend> {
        let id = EventId::new(number, 1);
        let event = Arc::new(Event::new(id, id, EventType::MESSAGE, Bytes::from(vec![b'1'; bytes])));
        let stream = "topic:news".parse().unwrap();
        Some(DirectSend { reach: reach.clone(), stream, event, from: None, by_caller: vec![], by_channel: vec![] })
    }

    #[test]
    fn events_that_wait_for_an_earlier_one_are_bounded_and_what_is_left_out_is_read() {
        let (order, reach) = (SendOrder::default(), Arc::new(Recorded::default()));
        let first = order.begin();
        let others: Vec<_> = (0..5).map(|_| order.begin()).collect();
        for number in others {
            order.settle(number, send(&reach, number, MOST_WAITING / 4));
        }
        assert_eq!((reach.carried.lock().len(), *reach.syncs.lock()), (0, 1), "four fit");
        // What is next waits for nobody, so it always goes.
        order.settle(first, send(&reach, 0, MOST_WAITING));
        assert_eq!(*reach.carried.lock(), [0, 1, 2, 3, 4]);
        assert_eq!(order.0.lock().bytes, 0);
    }
}
