//! The lifecycle stream, in this process.

use async_trait::async_trait;

use super::{MemoryStore, State, now_ms};
use crate::model::{Draft, StreamName};
use crate::store::lifecycle::{Begun, Change, Lifecycle, Told, Whom};
use crate::store::{NodeId, StoreError, random_step};

impl MemoryStore {
    /// Tells each of the changes that was not told before: all or none.
    fn tell_all(&self, state: &mut State, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        let (stream, now_ms) = (StreamName::lifecycle(), now_ms());
        state.sweep_if_due(now_ms);
        self.make_room(state, changes.iter().map(|change| change.data.len()).sum(), now_ms)?;
        for change in changes {
            if state.terms.take(node, change) {
                let kind = change.happening.as_str().parse().unwrap_or_default();
                self.publish_in(state, &stream, &Draft::new(kind, change.data.clone()), now_ms)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Lifecycle for MemoryStore {
    async fn begin_term(&self, node: &NodeId, region: &str, before: Option<&NodeId>) -> Result<Begun, StoreError> {
        let born = self
            .with_log(&StreamName::lifecycle(), |log, now_ms| Ok(log.acknowledge(None, now_ms, random_step()).born))?;
        Ok(Begun { before: self.state.lock().terms.begin(node, region, before, now_ms()), born })
    }

    async fn tell_changes(&self, node: &NodeId, number: u64, changes: &[Change]) -> Result<Told, StoreError> {
        let mut state = self.state.lock();
        if let Err(told) = state.terms.is_next(node, number) {
            return Ok(told);
        }
        if changes.is_empty() {
            return Ok(Told::UpTo(number - 1));
        }
        self.tell_all(&mut state, node, changes)?;
        state.terms.told(node, number);
        Ok(Told::UpTo(number))
    }

    async fn open(&self, node: &NodeId) -> Result<Vec<Whom>, StoreError> {
        Ok(self.state.lock().terms.open(node, usize::MAX))
    }

    async fn end_term(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<Whom>, StoreError> {
        let mut state = self.state.lock();
        let ended = state.terms.end(node, region, now_ms());
        Ok(if ended { state.terms.open(node, limit) } else { Vec::new() })
    }

    async fn close(&self, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        self.tell_all(&mut state, node, changes)
    }

    async fn terms(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        Ok(self.state.lock().terms.nodes(region))
    }
}
