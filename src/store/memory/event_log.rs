//! The streams' logs in memory: each operation is one step under the lock.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryStore, StreamLog};
use crate::model::{Draft, Durability, EventId, Inbox, Page, Published, Receipt, Standing, Start, StreamName};
use crate::store::{ChannelMessage, EventLog, NodeId, Route, StoreError, now_ms, random_step};

impl MemoryStore {
    fn publish_one(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError> {
        let now_ms = now_ms();
        let mut state = self.state.lock();
        state.sweep_if_due(now_ms);
        self.make_room(&mut state, draft.data.len(), now_ms)?;
        self.publish_in(&mut state, stream, draft, now_ms)
    }
}

#[async_trait]
impl EventLog for MemoryStore {
    async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError> {
        self.publish_one(stream, draft)
    }

    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>> {
        batch.iter().map(|(stream, draft)| self.publish_one(stream, draft)).collect()
    }

    async fn publish_durably(&self, _: &StreamName, _: &Draft, _: Durability) -> Result<Receipt, StoreError> {
        Err(StoreError::Unsupported("the embedded store has neither replicas nor a disk".to_owned()))
    }

    async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, StoreError> {
        let mut state = self.state.lock();
        let nodes = state.streams.get(stream).map(|log| log.routed(now_ms())).unwrap_or_default();
        let event = Arc::new(draft.ephemeral());
        for node in &nodes {
            state.notify(node, || ChannelMessage::Ephemeral(stream.clone(), event.clone()));
        }
        Ok(nodes.len() as u32)
    }

    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError> {
        self.with_log(stream, |log, now_ms| Ok(log.sync(route, head, now_ms, random_step())))
    }

    async fn recover(
        &self,
        stream: &StreamName,
        head: EventId,
        epoch: EventId,
        seen: &[EventId],
    ) -> Result<Page, StoreError> {
        self.with_log(stream, |log, now_ms| Ok(log.recover(head, epoch, seen, now_ms, random_step())))
    }

    async fn detach(&self, stream: &StreamName, node: &NodeId, registration: Option<u64>) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.streams.contains_key(stream) {
            let fresh = || StreamLog::new(self.rules.of(stream), self.position_time);
            state.with_log(stream, fresh, |log| log.detach(node, registration));
        }
        Ok(())
    }

    async fn read(&self, stream: &StreamName, start: Start, limit: usize) -> Result<Page, StoreError> {
        Ok(self.look(stream, |log, now_ms| log.read(start, limit, now_ms)))
    }

    async fn read_before(&self, stream: &StreamName, before: EventId, limit: usize) -> Result<Page, StoreError> {
        Ok(self.look(stream, |log, now_ms| log.read_before(before, limit, now_ms)))
    }

    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError> {
        Ok(self.state.lock().streams.get_mut(stream).and_then(|log| log.position(now_ms())))
    }

    async fn acknowledge(&self, stream: &StreamName, id: Option<EventId>) -> Result<Standing, StoreError> {
        Ok(self.look(stream, |log, now_ms| log.acknowledge(id, now_ms)))
    }

    async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError> {
        Ok(self.look(stream, |log, now_ms| log.inbox(now_ms)))
    }

    async fn erase(&self, stream: &StreamName) -> Result<(), StoreError> {
        let now_ms = now_ms();
        let mut state = self.state.lock();
        if !state.streams.contains_key(stream) {
            return Ok(());
        }
        let fresh = || StreamLog::new(self.rules.of(stream), self.position_time);
        let nodes = state.with_log(stream, fresh, |log| {
            log.erase(now_ms);
            log.routed(now_ms)
        });
        for node in &nodes {
            state.notify(node, || ChannelMessage::Erased(stream.clone()));
        }
        Ok(())
    }

    async fn relay(&self, node: &NodeId, stream: &StreamName, id: EventId) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let log = state.streams.get(stream).filter(|log| log.has_route(node));
        if let Some(event) = log.and_then(|log| log.event(id)) {
            state.notify(node, || ChannelMessage::Event(stream.clone(), event.clone()));
        }
        Ok(())
    }
}
