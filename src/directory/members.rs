//! Members of topics, on nodes of all regions: kept in the topic's home, beside its routes.

use async_trait::async_trait;

use super::RegionalStore;
use crate::model::StreamName;
use crate::store::members::{LocalMember, MemberPage, Members};
use crate::store::{NodeId, StoreError};

#[async_trait]
impl Members for RegionalStore {
    /// Under the name that the node has in the home region, as its route there.
    async fn set_members(
        &self,
        topic: &StreamName,
        _node: &NodeId,
        members: &[LocalMember],
    ) -> Result<bool, StoreError> {
        let set = self.as_member(topic, |store, node| async move { store.set_members(topic, &node, members).await });
        Ok(set.await?.1)
    }

    /// Others are cleaned up after region by region.
    async fn drop_members(
        &self,
        topic: &StreamName,
        dead: &NodeId,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        self.own().drop_members(topic, dead, after).await
    }

    /// A topic without a home is one that nobody used, and gets none by this.
    async fn members(&self, topic: &StreamName, after: Option<&str>, limit: usize) -> Result<MemberPage, StoreError> {
        if !self.regions().has_home(topic).await? {
            return Ok(MemberPage::default());
        }
        self.at_home(topic, |store| async move { store.members(topic, after, limit).await }).await
    }
}
