//! The end of a home: nothing is left of its stream.
//!
//! The region ends it first, from where on it takes the stream as of a newer version only. Then the directory removes its
//! entry, if it still is of the version that was ended. Who comes in between finds the region without the stream,
//! asks the directory, and has it record the home as of a newer version; who comes afterwards finds no entry, and gives
//! the stream a home as if it had never been used. So there is one home at any time.

use super::Regions;
use super::replica::Home;
use crate::model::StreamName;
use crate::store::StoreError;
use crate::store::redis::Assignment;

impl Regions {
    /// Ends the homes of those of these streams of which nothing is left; their home is this node's own region.
    pub async fn end_homes(&self, streams: &[(StreamName, Assignment)]) -> Result<(), StoreError> {
        let asked: Vec<_> = streams.iter().map(|(stream, home)| (stream, home.version)).collect();
        let ended = self.home().store().await?.end_homes(&asked).await?;
        let ended = streams.iter().zip(ended).filter(|(_, ended)| *ended);
        let ended: Vec<_> = ended.map(|((stream, home), _)| (stream, home)).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let removed = self.directory().end(&ended).await?.into_iter().filter(|removed| *removed).count();
        self.metrics.directory_ended.inc_by(removed as u64);
        tracing::debug!(removed, "entries of the directory ended with their streams");
        Ok(())
    }

    /// Writes down in a region that it is the stream's home, as the directory says. The answer is a newer home, if that
    /// one was ended.
    pub(super) async fn claim(&self, stream: &StreamName, home: Home) -> Result<Home, StoreError> {
        let region = self.region(home)?;
        let store = region.store().await?;
        let claim = async |version| store.claim(stream, version).await.map_err(|error| region.named(error));
        let Some(ended) = claim(home.version).await? else { return Ok(home) };
        let before = Assignment { region: region.name().to_string(), version: home.version };
        let now = self.directory().renew(stream, &before, ended).await?;
        if now.region == before.region {
            claim(now.version).await?;
        }
        self.has_home_in(stream, &now);
        Ok(self.replica().get(stream.fingerprint()).unwrap_or(home))
    }
}
