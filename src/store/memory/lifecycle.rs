//! The lifecycle stream, in this process.

use async_trait::async_trait;

use super::sessions::connection_record;
use super::{MemoryStore, State, now_ms};
use crate::model::{Draft, NodeId, StreamName};
use crate::store::lifecycle::{BatchOutcome, Begun, Change, ConnectionRef, Lifecycle, LifecycleKind};
use crate::store::{StoreError, random_step};

impl MemoryStore {
    /// Publishes each of the changes that is not published yet: all or none.
    fn publish_changes_of(&self, state: &mut State, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        let (stream, now_ms) = (StreamName::lifecycle(), now_ms());
        state.sweep_if_due(now_ms);
        self.make_room(state, changes.iter().map(|change| change.data.len()).sum(), now_ms)?;
        for change in changes {
            if state.sessions.take(node, change) {
                if let Some(journal) = &mut state.journal {
                    let open = !matches!(change.kind, LifecycleKind::Disconnected(_));
                    journal.record(&connection_record(node, &change.subject, open));
                }
                if change.kind == LifecycleKind::Renewed {
                    continue;
                }
                let kind = change.kind.as_str().parse().unwrap_or_default();
                self.publish_in(state, &stream, &Draft::new(kind, change.data.clone()), now_ms)?;
            }
        }
        Ok(())
    }
}

impl State {
    fn record_session(&mut self, node: &NodeId) {
        if let Some(journal) = &mut self.journal {
            self.sessions.record(node).iter().for_each(|record| journal.record(record));
        }
    }
}

#[async_trait]
impl Lifecycle for MemoryStore {
    async fn begin_session(&self, node: &NodeId, region: &str, before: Option<&NodeId>) -> Result<Begun, StoreError> {
        let (stream, now_ms) = (StreamName::lifecycle(), now_ms());
        self.try_step(|state| {
            let epoch = self.with_log(state, &stream, now_ms, |log| Ok(log.epoch(now_ms, random_step())))?;
            let became = state.sessions.begin(node, region, before, now_ms);
            // In this order: connections of a session that moved go to one that is there.
            [Some(node), before].into_iter().flatten().for_each(|node| state.record_session(node));
            Ok(Begun { before: became, epoch })
        })
        .await
    }

    async fn publish_changes(
        &self,
        node: &NodeId,
        number: u64,
        changes: &[Change],
    ) -> Result<BatchOutcome, StoreError> {
        self.try_step(|state| {
            if let Err(answer) = state.sessions.is_next(node, number) {
                return Ok(answer);
            }
            if changes.is_empty() {
                return Ok(BatchOutcome::Published(number - 1));
            }
            self.publish_changes_of(state, node, changes)?;
            state.sessions.published(node, number);
            state.record_session(node);
            Ok(BatchOutcome::Published(number))
        })
        .await
    }

    async fn open(&self, node: &NodeId) -> Result<Vec<ConnectionRef>, StoreError> {
        self.step(|state| state.sessions.open(node, usize::MAX)).await
    }

    async fn end_session(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<ConnectionRef>, StoreError> {
        self.step(|state| {
            let ended = state.sessions.end(node, region, now_ms());
            state.record_session(node);
            if ended { state.sessions.open(node, limit) } else { Vec::new() }
        })
        .await
    }

    async fn close(&self, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        self.try_step(|state| self.publish_changes_of(state, node, changes)).await
    }

    async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        self.step(|state| state.sessions.nodes(region)).await
    }
}
