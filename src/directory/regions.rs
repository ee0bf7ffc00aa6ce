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
use super::replica::{Home, Replica};
use super::rules::RegionRules;
use crate::backoff::Backoff;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::{Event, NodeId, Page, StreamName};
use crate::store::redis::{ConnectError, RedisDirectory, RedisStore, ServerConfig};
use crate::store::{RetentionRules, Store, StoreClock, StoreError};

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
    pub(super) directory: RedisDirectory,
    pub(super) replica: Replica,
    /// Those that are set, in that order; the number of a region is its place here.
    pub(super) configured: Vec<Arc<Region>>,
    /// All that have a number: also those which only the directory names.
    pub(super) names: RwLock<Vec<Arc<str>>>,
    pub(super) home: u8,
    pub(super) rules: RegionRules,
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
    pub(super) on_moved: OnceLock<OnMoved>,
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

    /// The number of a region that is set.
    pub fn number_of(&self, region: &Region) -> usize {
        self.configured.iter().position(|known| known.name() == region.name()).unwrap_or_default()
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
