//! Turns at works of the node's own region, and at the webhook, which is one for all regions: it is taken where
//! the lifecycle stream has its home.

use std::time::Duration;

use async_trait::async_trait;

use super::RegionalStore;
use crate::model::StreamName;
use crate::store::redis::RedisStore;
use crate::store::{Handover, NodeId, StoreError, Turns, Work};

#[async_trait]
impl Turns for RegionalStore {
    async fn hold(&self, work: Work, node: &NodeId, ttl: Duration) -> Result<bool, StoreError> {
        match work {
            Work::Ingress | Work::Producers => self.own().hold(work, node, ttl).await,
            Work::Webhook => {
                let hold = |store: RedisStore| async move { store.hold(work, node, ttl).await };
                self.at_home(&StreamName::lifecycle(), hold).await
            }
        }
    }

    async fn let_go(&self, work: Work, node: &NodeId) -> Result<(), StoreError> {
        match work {
            Work::Ingress | Work::Producers => self.own().let_go(work, node).await,
            Work::Webhook => {
                let let_go = |store: RedisStore| async move { store.let_go(work, node).await };
                self.at_home(&StreamName::lifecycle(), let_go).await
            }
        }
    }

    async fn handover(&self, stream: &StreamName) -> Result<Option<Handover>, StoreError> {
        self.at_home(stream, |store| async move { store.handover(stream).await }).await
    }

    async fn hand_over(
        &self,
        stream: &StreamName,
        node: &NodeId,
        from: Option<Handover>,
        to: Handover,
    ) -> Result<bool, StoreError> {
        self.at_home(stream, |store| async move { store.hand_over(stream, node, from, to).await }).await
    }
}
