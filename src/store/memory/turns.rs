//! Works of the one node that there is.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use crate::model::StreamName;
use crate::store::{Handover, NodeId, StoreError, Turns, Work};

#[async_trait]
impl Turns for MemoryStore {
    async fn hold(&self, _work: Work, _node: &NodeId, _ttl: Duration) -> Result<bool, StoreError> {
        // There is only this node.
        Ok(true)
    }

    async fn let_go(&self, _work: Work, _node: &NodeId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn handover(&self, stream: &StreamName) -> Result<Option<Handover>, StoreError> {
        self.with_log(stream, |log, now_ms| Ok(log.handover(now_ms)))
    }

    async fn hand_over(
        &self,
        stream: &StreamName,
        _node: &NodeId,
        from: Option<Handover>,
        to: Handover,
    ) -> Result<bool, StoreError> {
        self.with_log(stream, |log, now_ms| Ok(log.hand_over(from, to, now_ms)))
    }
}
