//! Connects and disconnects in all regions: one stream, with a home as any, and beside it the sessions of all nodes.

use async_trait::async_trait;

use super::RegionalStore;
use crate::model::StreamName;
use crate::store::lifecycle::{Begun, Change, ConnectionRef, Lifecycle, Told};
use crate::store::{NodeId, StoreError};

#[async_trait]
impl Lifecycle for RegionalStore {
    async fn begin_session(&self, node: &NodeId, region: &str, before: Option<&NodeId>) -> Result<Begun, StoreError> {
        let stream = StreamName::lifecycle();
        self.at_home(&stream, |store| async move { store.begin_session(node, region, before).await }).await
    }

    async fn tell_changes(&self, node: &NodeId, number: u64, changes: &[Change]) -> Result<Told, StoreError> {
        let stream = StreamName::lifecycle();
        self.at_home(&stream, |store| async move { store.tell_changes(node, number, changes).await }).await
    }

    async fn open(&self, node: &NodeId) -> Result<Vec<ConnectionRef>, StoreError> {
        let stream = StreamName::lifecycle();
        self.at_home(&stream, |store| async move { store.open(node).await }).await
    }

    async fn end_session(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<ConnectionRef>, StoreError> {
        let stream = StreamName::lifecycle();
        if self.regions().home_of(&stream).is_none() {
            return Ok(Vec::new());
        }
        self.at_home(&stream, |store| async move { store.end_session(node, region, limit).await }).await
    }

    async fn close(&self, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        let stream = StreamName::lifecycle();
        self.at_home(&stream, |store| async move { store.close(node, changes).await }).await
    }

    async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        let stream = StreamName::lifecycle();
        // Nothing was published so far. To look for its home would give it one.
        if self.regions().home_of(&stream).is_none() {
            return Ok(Vec::new());
        }
        self.at_home(&stream, |store| async move { store.sessions(region).await }).await
    }
}
