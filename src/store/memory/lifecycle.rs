//! The lifecycle stream, in this process.

use async_trait::async_trait;

use super::{MemoryStore, State, now_ms};
use crate::model::{Draft, StreamName};
use crate::store::lifecycle::{Begun, Change, ConnectionRef, Lifecycle, Told};
use crate::store::{NodeId, StoreError, random_step};

impl MemoryStore {
    /// Publishes each of the changes that is not published yet: all or none.
    fn publish_changes_of(&self, state: &mut State, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        let (stream, now_ms) = (StreamName::lifecycle(), now_ms());
        state.sweep_if_due(now_ms);
        self.make_room(state, changes.iter().map(|change| change.data.len()).sum(), now_ms)?;
        for change in changes {
            if state.sessions.take(node, change) {
                let kind = change.kind.as_str().parse().unwrap_or_default();
                self.publish_in(state, &stream, &Draft::new(kind, change.data.clone()), now_ms)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Lifecycle for MemoryStore {
    async fn begin_session(&self, node: &NodeId, region: &str, before: Option<&NodeId>) -> Result<Begun, StoreError> {
        let epoch = self.with_log(&StreamName::lifecycle(), |log, now_ms| Ok(log.epoch(now_ms, random_step())))?;
        Ok(Begun { before: self.state.lock().sessions.begin(node, region, before, now_ms()), epoch })
    }

    async fn tell_changes(&self, node: &NodeId, number: u64, changes: &[Change]) -> Result<Told, StoreError> {
        let mut state = self.state.lock();
        if let Err(answer) = state.sessions.is_next(node, number) {
            return Ok(answer);
        }
        if changes.is_empty() {
            return Ok(Told::UpTo(number - 1));
        }
        self.publish_changes_of(&mut state, node, changes)?;
        state.sessions.told(node, number);
        Ok(Told::UpTo(number))
    }

    async fn open(&self, node: &NodeId) -> Result<Vec<ConnectionRef>, StoreError> {
        Ok(self.state.lock().sessions.open(node, usize::MAX))
    }

    async fn end_session(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<ConnectionRef>, StoreError> {
        let mut state = self.state.lock();
        let ended = state.sessions.end(node, region, now_ms());
        Ok(if ended { state.sessions.open(node, limit) } else { Vec::new() })
    }

    async fn close(&self, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        self.publish_changes_of(&mut state, node, changes)
    }

    async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        Ok(self.state.lock().sessions.nodes(region))
    }
}
