//! Leadership of the one node that there is.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use crate::model::{NodeId, StreamName};
use crate::store::{Checkpoint, JobKind, Leaders, StoreError};

#[async_trait]
impl Leaders for MemoryStore {
    async fn acquire(&self, _job: JobKind, _node: &NodeId, _ttl: Duration) -> Result<bool, StoreError> {
        // There is only this node.
        Ok(true)
    }

    async fn resign(&self, _job: JobKind, _node: &NodeId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn checkpoint(&self, stream: &StreamName) -> Result<Option<Checkpoint>, StoreError> {
        self.work(stream, |log, now_ms| log.checkpoint(now_ms)).await
    }

    async fn advance(
        &self,
        stream: &StreamName,
        _node: &NodeId,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<bool, StoreError> {
        self.work(stream, |log, now_ms| log.advance(from, to, now_ms)).await
    }
}
