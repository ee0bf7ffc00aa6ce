//! All regions, and the way to each stream's home.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::conflicts::Conflicts;
use super::feed;
use super::follow::{Counting, FollowRule, MOST_AT_ONCE};
use super::migration::Busy;
use super::region::{Opening, Region};
use super::replica::{Home, MAX_REGIONS, Replica};
use super::rules::RegionRules;
use crate::backoff::Backoff;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::{Event, NodeId, Page, StreamName};
use crate::store::redis::{Assignment, ConnectError, Plan, RedisDirectory, RedisStore, ServerConfig};
use crate::store::{Misplaced, RetentionRules, Store, StoreClock, StoreError};

/// How long a call looks for the home of its stream before it gives up.
const LONGEST_SEARCH: Duration = Duration::from_secs(5);

/// What regions are set up with.
#[derive(Debug, Clone)]
pub struct RegionsSettings {
    /// The region that this node calls home.
    pub home: String,
    /// All regions, with where their stores are.
    pub all: Vec<(String, ServerConfig)>,
    /// Where the directory is.
    pub directory: ServerConfig,
    /// Where streams begin that nobody assigned.
    pub rules: RegionRules,
    /// When devices are moved to where they connect, if ever.
    pub follow: Option<FollowRule>,
    /// What all keys begin with.
    pub prefix: String,
    /// How much history streams keep.
    pub retention: RetentionRules,
    /// How long positions live.
    pub position_time: Duration,
}

/// Why regions can't be worked with.
#[derive(Debug, thiserror::Error)]
pub enum RegionsError {
    /// The directory's Redis.
    #[error("WHIMBREL_DIRECTORY_URL (--directory-url): {0}")]
    Directory(ConnectError),
}

/// All regions.
pub struct Regions {
    directory: RedisDirectory,
    replica: Replica,
    /// Those that are set, in that order; the number of a region is its place here.
    configured: Vec<Arc<Region>>,
    /// All that have a number: also those which only the directory names.
    names: RwLock<Vec<Arc<str>>>,
    home: u8,
    rules: RegionRules,
    follow: Option<FollowRule>,
    /// For each device that is being moved to where it connects.
    pub(super) following: Semaphore,
    /// For each region that is set, by its number.
    pub(super) counting: Vec<Counting>,
    /// When the replica last held all that the directory does.
    fresh: Mutex<Instant>,
    /// The clock that all times of events are put on: those of the regions' stores may be minutes apart.
    time: StoreClock,
    pub(super) metrics: Arc<Metrics>,
    /// Streams that are being moved by this node.
    pub(super) moving: Busy,
    /// Streams whose moves this node is to look after once more.
    pub(super) finishing: Busy,
    /// Streams that two regions have as their home.
    pub(super) conflicts: Conflicts,
    /// Called when a stream turns out to have another home than this node knew.
    on_moved: OnceLock<OnMoved>,
}

type OnMoved = Box<dyn Fn(&StreamName) + Send + Sync>;

/// How many regions a store is made of.
pub fn count_of(store: &dyn Store) -> usize {
    store.regions().map_or(1, |regions| regions.all().len())
}

/// The number of the region that is the stream's home, if this node knows it.
pub fn known_region_of(store: &dyn Store, stream: &StreamName) -> Option<usize> {
    let Some(regions) = store.regions() else { return Some(0) };
    let home = regions.replica.get(stream.fingerprint())?;
    Some(usize::from(home.region)).filter(|region| *region < regions.configured.len())
}

/// The number of the region that is the stream's home, or of the node's own while that is not known; 0 where there is
/// one region.
pub fn region_of(store: &dyn Store, stream: &StreamName) -> usize {
    store.regions().map_or(0, |regions| regions.number_of_home(stream))
}

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
    /// Opens the directory and reads all of it, however long that takes. The answer's second part is the position
    /// from which its changes are to be followed. `health` shows what keeps it.
    pub async fn open(
        settings: RegionsSettings,
        node: NodeId,
        metrics: Arc<Metrics>,
        health: &Health,
    ) -> Result<(Arc<Self>, String), RegionsError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut wait = async |error: &StoreError| {
            let wait = backoff.next_wait();
            health.store_is_down(&format!("the directory: {error}"));
            tracing::warn!(%error, wait_ms = wait.as_millis(), "the directory can't be used yet; trying again");
            tokio::time::sleep(wait).await;
        };
        let (directory, id) = loop {
            let directory = match RedisDirectory::connect(&settings.directory, &settings.prefix).await {
                Ok(directory) => directory,
                Err(ConnectError::Unreachable(error)) => {
                    wait(&error).await;
                    continue;
                }
                Err(error) => return Err(RegionsError::Directory(error)),
            };
            match directory.id().await {
                Ok(id) => break (directory, id),
                Err(error) => wait(&error).await,
            }
        };
        let opening = Opening {
            prefix: settings.prefix,
            rules: settings.retention,
            position_time: settings.position_time,
            directory: id,
        };
        let open = |(name, server): (String, ServerConfig)| Region::new(&name, server, node.clone(), opening.clone());
        let configured: Vec<_> = settings.all.into_iter().map(open).collect();
        let home = configured.iter().position(|region| **region.name() == *settings.home).unwrap_or_default();
        let counting = configured.iter().map(|_| Counting::default()).collect();
        let regions = Regions {
            directory,
            replica: Replica::default(),
            names: RwLock::new(configured.iter().map(|region| region.name().clone()).collect()),
            configured,
            home: home as u8,
            rules: settings.rules,
            follow: settings.follow,
            following: Semaphore::new(MOST_AT_ONCE),
            counting,
            fresh: Mutex::new(Instant::now()),
            time: StoreClock::default(),
            metrics,
            moving: Busy::default(),
            finishing: Busy::default(),
            conflicts: Conflicts::default(),
            on_moved: OnceLock::new(),
        };
        loop {
            match feed::load(&regions).await {
                Ok(position) => {
                    tracing::info!(streams = regions.replica.len(), "the directory is read");
                    regions.is_fresh(Instant::now());
                    return Ok((Arc::new(regions), position));
                }
                Err(error) => wait(&error).await,
            }
        }
    }

    /// The directory itself.
    pub fn directory(&self) -> &RedisDirectory {
        &self.directory
    }

    /// The directory as this node knows it.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The region that this node calls home.
    pub fn home(&self) -> &Arc<Region> {
        &self.configured[usize::from(self.home)]
    }

    /// All that are set.
    pub fn all(&self) -> &[Arc<Region>] {
        &self.configured
    }

    /// The region of this name, if it is set.
    pub fn named(&self, name: &str) -> Option<&Arc<Region>> {
        self.configured.iter().find(|region| **region.name() == *name)
    }

    /// When the device is moved to where it connects. Not where a rule names its region.
    pub(super) fn follow_rule(&self, device: &StreamName) -> Option<FollowRule> {
        self.follow.filter(|_| self.rules.of(device).is_none())
    }

    /// The replica holds all that the directory held at `now`.
    pub fn is_fresh(&self, now: Instant) {
        *self.fresh.lock() = now;
    }

    /// For how long the replica may lack changes.
    pub fn lag(&self) -> Duration {
        self.fresh.lock().elapsed()
    }

    /// An event that came over a region's channel, with its times on the clock that this node goes by.
    pub fn event_from(&self, region: &Region, event: Arc<Event>) -> Arc<Event> {
        region.event_at(&self.time, event)
    }

    /// The same for a page of the region's store.
    pub(super) fn page_from(&self, region: &Region, page: Page) -> Page {
        region.page_at(&self.time, page)
    }

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

    /// The number of a region that is set.
    pub fn number_of(&self, region: &Region) -> usize {
        self.configured.iter().position(|known| known.name() == region.name()).unwrap_or_default()
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

    /// The store of a stream's home, for messages to its nodes, and what this node, as a member, is
    /// called there.
    pub async fn channel(&self, stream: &StreamName) -> Result<(Arc<dyn Store>, Arc<NodeId>), StoreError> {
        let region = self.region(self.find(stream).await?)?;
        let store = region.store_as_member().await?;
        Ok((store, region.node()))
    }

    /// The stores of all regions that can be reached, for what concerns the nodes of every one.
    pub async fn reachable(&self) -> Vec<Arc<dyn Store>> {
        let stores = self.configured.iter().map(|region| async move { region.store().await.ok() });
        let stores = futures_util::future::join_all(stores).await.into_iter().flatten();
        stores.map(|store| store as Arc<dyn Store>).collect()
    }

    /// The store of the region of this name.
    pub async fn store_named(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        match self.named(name) {
            Some(region) => Ok(region.store().await?),
            None => Err(StoreError::Unavailable(format!("there is no region '{name}'"))),
        }
    }

    /// The store of a home, for calls that mean its version.
    pub(super) async fn store(&self, home: Home) -> Result<RedisStore, StoreError> {
        Ok(self.region(home)?.store().await?.as_of(home.version))
    }
}
