//! Another region as this node sees it: the way to its store, and whether the node is a member there.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::health::Health;
use crate::model::{Event, NodeId, Page};
use crate::store::redis::{RedisStore, ServerConfig};
use crate::store::{Liveness as _, RetentionRules, StoreClock, StoreError};

/// How long the first use of a region waits for its store, and the first attach for the membership there.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// How long the list of a region's nodes is waited for.
const NODES_WAIT: Duration = Duration::from_secs(1);

/// How a region's store is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What all keys begin with.
    pub prefix: String,
    /// How much history streams keep.
    pub rules: RetentionRules,
    /// How long positions live.
    pub position_time: Duration,
    /// Which directory the regions belong to.
    pub directory: String,
}

/// A region.
pub struct Region {
    name: Arc<str>,
    server: ServerConfig,
    opening: Opening,
    store: ArcSwapOption<RedisStore>,
    /// Why it can't be used, once an attempt to open it was made; and nothing again when it can.
    refusal: watch::Sender<Option<String>>,
    /// Whether somebody is at opening it.
    opener: Mutex<bool>,
    /// Whether the membership is wanted.
    wanted: watch::Sender<bool>,
    /// Whether the node is a member: it is subscribed, and has a lease.
    member: watch::Sender<bool>,
    /// What the node is called there.
    node: ArcSwap<NodeId>,
    health: Arc<Health>,
    clock: StoreClock,
}

/// A look at a region.
#[derive(Debug, Clone)]
pub struct RegionReport {
    /// Its name.
    pub name: Arc<str>,
    /// Where its store is, without a password.
    pub store: String,
    /// Whether this node has opened it: it does so when it first needs it.
    pub open: bool,
    /// Whether the node follows streams there.
    pub member: bool,
    /// Why it does not answer, if it does not.
    pub error: Option<String>,
    /// For how long it has not.
    pub down_for: Option<Duration>,
}

impl Region {
    pub(super) fn new(name: &str, server: ServerConfig, node: NodeId, opening: Opening) -> Arc<Self> {
        Arc::new(Region {
            name: name.into(),
            health: Arc::new(Health::new(server.to_string())),
            server,
            opening,
            store: ArcSwapOption::empty(),
            refusal: watch::Sender::new(None),
            opener: Mutex::new(false),
            wanted: watch::Sender::new(false),
            member: watch::Sender::new(false),
            node: ArcSwap::from_pointee(node),
            clock: StoreClock::default(),
        })
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether its store answers.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// A page of the region's store, with its times as `time` would show them.
    pub(super) fn page_at(&self, time: &StoreClock, mut page: Page) -> Page {
        self.clock.read(page.now_ms);
        let shift = self.shift(time);
        page.now_ms = page.now_ms.saturating_add_signed(shift);
        for event in &mut page.events {
            shift_expiry(event, shift);
        }
        page
    }

    /// An event that came over the region's channel, with its times as `time` would show them.
    pub(super) fn event_at(&self, time: &StoreClock, mut event: Arc<Event>) -> Arc<Event> {
        shift_expiry(&mut event, self.shift(time));
        event
    }

    /// By how many milliseconds `time` is ahead of the region's clock.
    fn shift(&self, time: &StoreClock) -> i64 {
        time.now_ms().cast_signed().saturating_sub(self.clock.now_ms().cast_signed())
    }

    /// This node's id in the region.
    pub fn node(&self) -> Arc<NodeId> {
        self.node.load_full()
    }

    /// The node is a member under this id from now on.
    pub fn joined(&self, node: NodeId) {
        self.node.store(Arc::new(node));
        self.member.send_replace(true);
    }

    /// Resolves when the node has to be a member.
    pub async fn wanted(&self) {
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// The store, opened if it is not. While it can't be opened, that is known at once.
    pub(super) async fn store(self: &Arc<Self>) -> Result<Arc<RedisStore>, StoreError> {
        if let Some(store) = self.store.load_full() {
            return Ok(store);
        }
        let mut refusal = self.refusal.subscribe();
        if !std::mem::replace(&mut *self.opener.lock(), true) {
            tokio::spawn(self.clone().open_for_ever());
        }
        // The first time, for a while; afterwards a reason is there.
        let _ = tokio::time::timeout(FIRST_WAIT, async {
            while self.store.load().is_none() && refusal.borrow_and_update().is_none() {
                if refusal.changed().await.is_err() {
                    break;
                }
            }
        })
        .await;
        self.store.load_full().ok_or_else(|| {
            let reason = self.refusal.borrow().clone();
            self.unavailable(&reason.unwrap_or_else(|| "it has not answered yet".to_owned()))
        })
    }

    /// The store, once the node is a member of the region.
    pub(super) async fn store_as_member(self: &Arc<Self>) -> Result<Arc<RedisStore>, StoreError> {
        let store = self.store().await?;
        self.wanted.send_replace(true);
        let mut member = self.member.subscribe();
        match tokio::time::timeout(FIRST_WAIT, member.wait_for(|member| *member)).await {
            Ok(Ok(_)) => Ok(store),
            _ => Err(self.unavailable("this node could not join it")),
        }
    }

    /// The store once it is there, however long that takes; `hindered` is called with the reason why it is not there yet.
    pub async fn opened(self: &Arc<Self>, hindered: impl Fn(&str)) -> Arc<RedisStore> {
        loop {
            match self.store().await {
                Ok(store) => return store,
                Err(error) => {
                    hindered(&error.to_string());
                    _ = self.refusal.subscribe().changed().await;
                }
            }
        }
    }

    async fn open_for_ever(self: Arc<Self>) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        loop {
            match self.try_open().await {
                Ok(store) => {
                    self.store.store(Some(Arc::new(store)));
                    self.health.store_is_up();
                    self.refusal.send_replace(None);
                    tracing::info!(region = &*self.name, "opened the region's store");
                    return;
                }
                Err(reason) => {
                    tracing::warn!(region = &*self.name, reason, "the region's store can't be opened; trying again");
                    self.health.store_is_down(&reason);
                    self.refusal.send_replace(Some(reason));
                }
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn try_open(&self) -> Result<RedisStore, String> {
        let Opening { prefix, rules, position_time, directory } = &self.opening;
        let store = RedisStore::connect(&self.server, prefix, rules.clone(), *position_time)
            .await
            .map_err(|error| error.to_string())?;
        let store = store.of_region(&self.name);
        let (name, known) = store.identify(&self.name, directory).await.map_err(|error| error.to_string())?;
        // A mix-up of addresses, or of directories, would give one stream two homes.
        if name != *self.name {
            return Err(format!("the server at {} is region '{name}', not '{}'", self.server, self.name));
        }
        if known != *directory {
            return Err(format!(
                "the region belongs to another directory; WHIMBREL_DIRECTORY_URL has to be the same on all nodes \
                 ({known} is not {directory})"
            ));
        }
        Ok(store)
    }

    /// An error of the region's store, with its name.
    pub(super) fn named(&self, error: StoreError) -> StoreError {
        named(&self.name, error)
    }

    pub(super) fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable(format!("region '{}': {reason}", self.name))
    }

    /// How many nodes have a lease in it; `None` while that is not known at once.
    pub async fn nodes(&self) -> Option<usize> {
        let store = self.store.load_full()?;
        let nodes = tokio::time::timeout(NODES_WAIT, store.nodes()).await.ok()?.ok()?;
        Some(nodes.iter().filter(|lease| !lease.lapsed).count())
    }

    /// A look at it.
    pub fn report(&self) -> RegionReport {
        let health = self.health.report();
        let store = self.store.load_full();
        RegionReport {
            name: self.name.clone(),
            store: self.server.to_string(),
            open: store.is_some(),
            member: *self.member.borrow(),
            error: health.store_error,
            down_for: health.down_for,
        }
    }
}

/// An error of the store of a region, with the region's name.
pub(super) fn named(region: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(reason) => StoreError::Unavailable(format!("region '{region}': {reason}")),
        StoreError::Unknown(reason) => StoreError::Unknown(format!("region '{region}': {reason}")),
        error => error,
    }
}

/// An expiry of 0 is no time: the event is passed over at any.
fn shift_expiry(event: &mut Arc<Event>, shift: i64) {
    if let Some(expires_ms) = event.expires_ms.filter(|expires_ms| *expires_ms > 0) {
        let mut shifted = (**event).clone();
        shifted.expires_ms = Some(expires_ms.saturating_add_signed(shift));
        *event = Arc::new(shifted);
    }
}
