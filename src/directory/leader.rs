//! Leaders of jobs of the node's own region, and of the webhook, which is one for all regions: it is elected where
//! the lifecycle stream has its home.

use std::time::Duration;

use async_trait::async_trait;

use super::RegionalStore;
use crate::model::StreamName;
use crate::store::redis::RedisStore;
use crate::store::{Checkpoint, JobKind, Leaders, NodeId, StoreError};

#[async_trait]
impl Leaders for RegionalStore {
    async fn acquire(&self, job: JobKind, node: &NodeId, ttl: Duration) -> Result<bool, StoreError> {
        match job {
            JobKind::Ingress | JobKind::Producers => self.own().acquire(job, node, ttl).await,
            JobKind::Webhook => {
                let acquire = |store: RedisStore| async move { store.acquire(job, node, ttl).await };
                self.at_home(&StreamName::lifecycle(), acquire).await
            }
        }
    }

    async fn resign(&self, job: JobKind, node: &NodeId) -> Result<(), StoreError> {
        match job {
            JobKind::Ingress | JobKind::Producers => self.own().resign(job, node).await,
            JobKind::Webhook => {
                let resign = |store: RedisStore| async move { store.resign(job, node).await };
                self.at_home(&StreamName::lifecycle(), resign).await
            }
        }
    }

    async fn checkpoint(&self, stream: &StreamName) -> Result<Option<Checkpoint>, StoreError> {
        self.at_home(stream, |store| async move { store.checkpoint(stream).await }).await
    }

    async fn advance(
        &self,
        stream: &StreamName,
        node: &NodeId,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<bool, StoreError> {
        self.at_home(stream, |store| async move { store.advance(stream, node, from, to).await }).await
    }
}
