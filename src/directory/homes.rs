//! The way to each stream's home: finding it, learning it, and correcting what turns out to be wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Regions;
use super::region::Region;
use super::replica::{Home, MAX_REGIONS};
use crate::backoff::Backoff;
use crate::model::StreamName;
use crate::store::redis::{Assignment, Plan};
use crate::store::{Misplaced, StoreError};

/// How long a call looks for the home of its stream before it gives up.
const LONGEST_SEARCH: Duration = Duration::from_secs(5);

/// One search for a stream's home.
pub(super) struct Search {
    begun: Instant,
    backoff: Backoff,
    /// A move of the stream of which not all was done when the search came by.
    unfinished: Option<Plan>,
}

impl Search {
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(50));
        Search { begun: Instant::now(), backoff, unfinished: None }
    }

    /// The home was found. What is left of the move that brought the stream there is this node's to look after.
    pub(super) fn found(self, regions: &Arc<Regions>) {
        if let Some(plan) = self.unfinished {
            regions.finish(plan);
        }
    }
}

impl Regions {
    /// Has `moved` called with each stream whose home turns out to be another than this node knew.
    pub fn on_moved(&self, moved: impl Fn(&StreamName) + Send + Sync + 'static) {
        let _ = self.on_moved.set(Box::new(moved));
    }

    fn has_moved(&self, stream: &StreamName) {
        if let Some(moved) = self.on_moved.get() {
            moved(stream);
        }
    }

    /// The name of the region that is the stream's home, as far as this node knows.
    pub fn home_of(&self, stream: &StreamName) -> Option<Arc<str>> {
        let home = self.replica.get(stream.fingerprint())?;
        self.names.read().get(usize::from(home.region)).cloned()
    }

    /// The number of the region that is the stream's home, or of this node's own while that is not known.
    pub fn number_of_home(&self, stream: &StreamName) -> usize {
        let home = self.replica.get(stream.fingerprint()).map_or(self.home, |home| home.region);
        if usize::from(home) < self.configured.len() { usize::from(home) } else { usize::from(self.home) }
    }

    /// Whether the stream's home is this region, as far as this node knows.
    pub fn is_home_of(&self, region: &Region, stream: &StreamName) -> bool {
        self.home_of(stream).is_some_and(|home| home == *region.name())
    }

    /// Takes the directory's entry.
    pub fn learn(&self, stream: &StreamName, home: &Assignment) {
        let Some(region) = self.number(&home.region) else { return };
        let known = self.replica.get(stream.fingerprint());
        if let Some(known) = known.filter(|known| known.version == home.version && known.region != region) {
            return self.conflict(stream, known);
        }
        let news = self.replica.raise(stream.fingerprint(), Home { region, version: home.version });
        // Before its first home it was nowhere, so nobody has to come from there.
        if news && home.version > 1 {
            self.has_moved(stream);
        }
    }

    /// The home ended with its stream.
    pub fn forget(&self, stream: &StreamName, home: &Assignment) {
        if let Some(region) = self.number(&home.region) {
            self.replica.remove(stream.fingerprint(), Home { region, version: home.version });
        }
    }

    /// The stream's home is this one, whatever this node knew.
    pub(super) fn has_home_in(&self, stream: &StreamName, home: &Assignment) {
        let Some(region) = self.number(&home.region) else { return };
        if self.replica.set(stream.fingerprint(), Home { region, version: home.version }) {
            self.has_moved(stream);
        }
    }

    /// The number of a region, given to it if it has none. `None` when there are too many.
    fn number(&self, name: &str) -> Option<u8> {
        let find = |names: &[Arc<str>]| names.iter().position(|known| **known == *name);
        if let Some(at) = find(&self.names.read()) {
            return Some(at as u8);
        }
        let mut names = self.names.write();
        let at = match find(&names) {
            Some(at) => at,
            None if names.len() >= MAX_REGIONS => {
                tracing::error!(region = name, "the directory names too many regions");
                return None;
            }
            None => {
                tracing::warn!(region = name, "the directory names a region that WHIMBREL_REGIONS does not");
                names.push(name.into());
                names.len() - 1
            }
        };
        Some(at as u8)
    }

    /// Whether a stream was given a home.
    pub(super) async fn has_home(&self, stream: &StreamName) -> Result<bool, StoreError> {
        Ok(self.replica.get(stream.fingerprint()).is_some() || self.directory.has_home(stream).await?)
    }

    /// The home of a stream; an unknown stream is given its first home.
    pub(super) async fn find(&self, stream: &StreamName) -> Result<Home, StoreError> {
        if let Some(home) = self.replica.get(stream.fingerprint()) {
            return Ok(home);
        }
        let region = self.rules.of(stream).unwrap_or(self.home().name());
        let first = Assignment { region: region.to_owned(), version: 1 };
        let home = self.ask(stream, &first).await?;
        self.replica.raise(stream.fingerprint(), home);
        // The first call is marked as the first, so that the home does not refuse it for that.
        self.claim(stream, home).await
    }

    /// Asks the directory; a stream that has no home there gets `first`.
    async fn ask(&self, stream: &StreamName, first: &Assignment) -> Result<Home, StoreError> {
        let home = self.assigned(stream, first).await?;
        let region = self.number(&home.region);
        let region = region.ok_or_else(|| StoreError::Protocol("the directory names too many regions".to_owned()))?;
        Ok(Home { region, version: home.version })
    }

    /// The home that a stream has in the directory; `first`, if it has none.
    pub(super) async fn assigned(&self, stream: &StreamName, first: &Assignment) -> Result<Assignment, StoreError> {
        self.directory.assign(stream, first).await.map_err(|error| {
            StoreError::Unavailable(format!("the directory could not be asked for the home of {stream}: {error}"))
        })
    }

    /// The region of a home.
    pub(super) fn region(&self, home: Home) -> Result<&Arc<Region>, StoreError> {
        self.configured.get(usize::from(home.region)).ok_or_else(|| {
            let name = self.names.read().get(usize::from(home.region)).cloned().unwrap_or_default();
            StoreError::Unavailable(format!(
                "the stream's home is region '{name}', which WHIMBREL_REGIONS does not name"
            ))
        })
    }

    /// A region's store refused a call for `home`, as the stream's home is elsewhere, or is not known there.
    /// When this returns, the call is to be tried again; an error is the call's.
    pub(super) async fn settle(
        &self,
        stream: &StreamName,
        home: Home,
        refusal: Misplaced,
        search: &mut Search,
    ) -> Result<(), StoreError> {
        if search.begun.elapsed() > LONGEST_SEARCH {
            return Err(StoreError::Unavailable(format!("the home of {stream} is not to be found now: {refusal}")));
        }
        self.metrics.region_corrections.inc();
        let at = self.region(home)?.name().to_string();
        match refusal {
            Misplaced::Moved { region, version, unfinished } => {
                if let (true, Some(to)) = (unfinished, &region) {
                    let (stream, to) = (stream.clone(), to.clone());
                    search.unfinished = Some(Plan { stream, from: at, to, version });
                }
                let region = match region {
                    None => home.region,
                    Some(name) => self
                        .number(&name)
                        .ok_or_else(|| StoreError::Protocol("a store names too many regions".to_owned()))?,
                };
                if self.replica.set(stream.fingerprint(), Home { region, version }) {
                    self.has_moved(stream);
                }
            }
            Misplaced::Arriving { from, version, stalled } => {
                if stalled {
                    let stream = stream.clone();
                    Box::pin(self.complete(Plan { stream, from, to: at, version })).await;
                }
                tokio::time::sleep(search.backoff.next_wait()).await;
                return Ok(());
            }
            Misplaced::Leaving { to, version } => {
                let stream = stream.clone();
                Box::pin(self.complete(Plan { stream, from: at, to, version: version + 1 })).await;
            }
            Misplaced::Homeless => {
                // What was copied there is lost, or has lapsed, and the old home still has it.
                if let Some(plan) = search.unfinished.take_if(|plan| plan.to == at && plan.version == home.version) {
                    Box::pin(self.complete(plan)).await;
                    return Ok(());
                }
                let region = self.region(home)?;
                let belief = Assignment { region: region.name().to_string(), version: home.version };
                let truth = self.ask(stream, &belief).await?;
                if truth == home {
                    self.claim(stream, home).await?;
                } else {
                    // Older than what was believed, perhaps: another stream with the same fingerprint.
                    self.replica.set(stream.fingerprint(), truth);
                }
            }
        }
        // A call that is sent in circles waits for the move that is under way.
        if search.begun.elapsed() > Duration::from_millis(20) {
            tokio::time::sleep(search.backoff.next_wait()).await;
        }
        Ok(())
    }
}
