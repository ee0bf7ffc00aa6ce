//! The streams' logs in memory: each operation is one step under the lock.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryStore, State};
use crate::model::{
    Draft, Durability, EventId, Imported, Inbox, NodeId, Page, Part, Published, Reached, Receipt, Route, Standing,
    Start, StreamName,
};
use crate::store::{ChannelMessage, EventLog, StoreError, now_ms, random_step};

/// What the record of an event has beside its data, at most.
const PART_OVERHEAD: usize = 512;

impl MemoryStore {
    fn publish_one(&self, state: &mut State, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError> {
        let now_ms = now_ms();
        state.sweep_if_due(now_ms);
        self.make_room(state, draft.payload_bytes(), now_ms)?;
        self.publish_in(state, stream, draft, now_ms)
    }
}

#[async_trait]
impl EventLog for MemoryStore {
    async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError> {
        self.try_step(|state| self.publish_one(state, stream, draft)).await
    }

    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>> {
        // Each is a step of its own, so that other callers come in between; the wait is for all.
        let (mut answers, mut due) = (Vec::with_capacity(batch.len()), None);
        for (stream, draft) in batch {
            let (answer, upto) = self.take_step(|state| self.publish_one(state, stream, draft));
            answers.push(answer);
            due = due.max(upto);
        }
        match self.settled(due).await {
            Ok(()) => answers,
            Err(error) => answers.into_iter().map(|answer| answer.and(Err(error.clone()))).collect(),
        }
    }

    async fn publish_durably(
        &self,
        stream: &StreamName,
        draft: &Draft,
        durability: Durability,
    ) -> Result<Receipt, StoreError> {
        let settling = match (&self.settling, durability) {
            (Some(settling), Durability::Disk) => settling,
            (Some(_), Durability::Replicas(_)) => {
                return Err(StoreError::Unsupported("the embedded store has no replicas".to_owned()));
            }
            (None, _) => {
                return Err(StoreError::Unsupported(
                    "the embedded store has no replicas, and without WHIMBREL_DATA_DIR no disk".to_owned(),
                ));
            }
        };
        let (published, due) = self.take_step(|state| self.publish_one(state, stream, draft));
        let published = published?;
        let on_disk = settling.synced(due.unwrap_or_default()).await.is_ok();
        let reached = Reached { replicas: None, disk: Some(on_disk) };
        Ok(Receipt { published, reached, enough: on_disk })
    }

    async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, StoreError> {
        let mut state = self.state.lock();
        let nodes = state.streams.get(stream).map(|log| log.routed(now_ms())).unwrap_or_default();
        let event = Arc::new(draft.ephemeral());
        for node in &nodes {
            state.notify_now(node, || ChannelMessage::Ephemeral(stream.clone(), event.clone()));
        }
        Ok(nodes.len() as u32)
    }

    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError> {
        self.work(stream, |log, now_ms| log.sync(route, head, now_ms, random_step())).await
    }

    async fn recover(
        &self,
        stream: &StreamName,
        head: EventId,
        epoch: EventId,
        seen: &[EventId],
    ) -> Result<Page, StoreError> {
        self.work(stream, |log, now_ms| log.recover(head, epoch, seen, now_ms, random_step())).await
    }

    async fn detach(&self, stream: &StreamName, node: &NodeId, registration: Option<u64>) -> Result<(), StoreError> {
        self.step(|state| state.with_known(stream, |log| log.detach(node, registration))).await.map(drop)
    }

    async fn read(&self, stream: &StreamName, start: Start, limit: usize) -> Result<Page, StoreError> {
        self.look(stream, |log, now_ms| log.read(start, limit, now_ms)).await
    }

    async fn read_before(&self, stream: &StreamName, before: EventId, limit: usize) -> Result<Page, StoreError> {
        self.look(stream, |log, now_ms| log.read_before(before, limit, now_ms)).await
    }

    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError> {
        let known = self.step(|state| state.with_known(stream, |log| log.position(now_ms()))).await?;
        Ok(known.flatten())
    }

    async fn acknowledge(&self, stream: &StreamName, id: Option<EventId>) -> Result<Standing, StoreError> {
        if id.is_some() {
            self.state.lock().reserve(0)?;
        }
        self.look(stream, |log, now_ms| log.acknowledge(id, now_ms)).await
    }

    async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError> {
        self.look(stream, |log, now_ms| log.inbox(now_ms)).await
    }

    async fn erase(&self, stream: &StreamName) -> Result<(), StoreError> {
        let now_ms = now_ms();
        self.step(|state| {
            let erased = state.with_known(stream, |log| {
                log.erase(now_ms);
                log.routed(now_ms)
            });
            for node in erased.iter().flatten() {
                state.notify(node, || ChannelMessage::Erased(stream.clone()));
            }
        })
        .await
    }

    async fn import(&self, stream: &StreamName, part: &Part) -> Result<Imported, StoreError> {
        let now_ms = now_ms();
        let bytes = part.events.iter().map(|event| event.payload_bytes() + PART_OVERHEAD).sum();
        self.try_step(|state| {
            self.make_room(state, bytes, now_ms)?;
            let imported = self.with_log(state, stream, now_ms, |log| Ok(log.import(part, now_ms)))?;
            if imported == Imported::Taken {
                state.record_part(stream, part, now_ms);
            }
            Ok(imported)
        })
        .await
    }

    async fn relay(&self, node: &NodeId, stream: &StreamName, id: EventId) -> Result<(), StoreError> {
        self.step(|state| {
            let log = state.streams.get(stream).filter(|log| log.has_route(node));
            if let Some(event) = log.and_then(|log| log.event(id)) {
                state.notify(node, || ChannelMessage::Event(stream.clone(), event.clone()));
            }
        })
        .await
    }
}
