//! Revocations hold in every region, wherever they are made: each region's store has all of them.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::RegionalStore;
use crate::store::StoreError;
use crate::store::revocations::{Revocation, RevocationList, Revocations};

#[async_trait]
impl Revocations for RegionalStore {
    /// The other regions get it at once as well; one that is away gets it by [`Revocations::exchange_revocations`]
    /// when it is back.
    async fn put_revocations(&self, entries: &[Revocation]) -> Result<bool, StoreError> {
        let there_is_room = self.own().put_revocations(entries).await?;
        if there_is_room {
            for region in self.others() {
                let entries = entries.to_vec();
                tokio::spawn(async move {
                    let put = async { region.store().await?.put_revocations(&entries).await };
                    if let Err(error) = put.await {
                        tracing::warn!(region = &**region.name(), %error, "a region learns of a revocation later");
                    }
                });
            }
        }
        Ok(there_is_room)
    }

    async fn list_revocations(&self, version: Option<&str>) -> Result<Option<RevocationList>, StoreError> {
        self.own().list_revocations(version).await
    }

    async fn exchange_revocations(&self, known: &[Revocation]) -> Vec<Revocation> {
        let exchanged = self.others().map(|region| async move {
            let store = region.store().await?;
            let theirs = store.list_revocations(None).await?.map(|list| list.entries).unwrap_or_default();
            let missing = Revocation::missing_from(known, &theirs);
            if !missing.is_empty() && !store.put_revocations(&missing).await? {
                tracing::warn!(region = &**region.name(), "a region has no room for more revocations");
            }
            Ok::<_, StoreError>(theirs)
        });
        join_all(exchanged).await.into_iter().flatten().flatten().collect()
    }
}
