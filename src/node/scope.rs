//! What a membership is for: all streams of the node, or those whose home is one region.
//!
//! Each region has a membership of its own, so that what happens to one region's store concerns the streams of
//! that region alone.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::directory::{Region, Regions};
use crate::dispatch::Registry;
use crate::model::{Event, NodeId, StreamName};
use crate::presence::Presence;

/// Which of the node's streams a membership is for.
#[derive(Clone)]
pub struct Scope {
    registry: Arc<Registry>,
    region: Option<(Arc<Regions>, Arc<Region>)>,
}

impl Scope {
    /// All streams: there is one region.
    pub fn everything(registry: Arc<Registry>) -> Self {
        Scope { registry, region: None }
    }

    /// The streams whose home is `region`.
    pub fn region(registry: Arc<Registry>, regions: Arc<Regions>, region: Arc<Region>) -> Self {
        Scope { registry, region: Some((regions, region)) }
    }

    /// The dispatchers of all streams.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What the node is called there.
    pub fn node(&self) -> Arc<NodeId> {
        match &self.region {
            None => self.registry.node(),
            Some((_, region)) => region.node(),
        }
    }

    /// An event as it came over the channel, with its times on the clock that the node goes by.
    pub fn event(&self, event: Arc<Event>) -> Arc<Event> {
        match &self.region {
            None => event,
            Some((regions, region)) => regions.event_from(region, event),
        }
    }

    /// The node goes on under another id there.
    pub fn rename(&self, node: NodeId) {
        if let Some((_, region)) = &self.region {
            region.joined(node.clone());
        }
        if self.is_home() {
            self.registry.rename(node);
        }
    }

    /// So many nodes share the store.
    pub fn set_nodes(&self, nodes: u32) {
        self.registry.set_nodes(self.number(), nodes);
    }

    /// The node's lease holds for another lease time.
    pub fn lease_renewed(&self) {
        if self.is_home() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.registry.metrics().lease_renewed_timestamp_seconds.set(now.as_secs_f64());
        }
    }

    /// Something may have been missed: all its streams are marked for a sync.
    pub fn mark_all(&self) {
        self.registry.mark_region(self.number());
    }

    /// Something may have been missed on some of its streams: they are synced in turn.
    pub fn mark_where(&self, wanted: impl Fn(&StreamName) -> bool + Send + 'static) {
        tokio::spawn(self.registry.clone().mark_where(self.number(), wanted));
    }

    /// The store may have lost its connections: all its devices' places are claimed again.
    pub fn claim_all(&self, presence: &Presence) {
        match &self.region {
            None => presence.claim_where(|_| true),
            Some((regions, region)) => presence.claim_where(|device| regions.is_home_of(region, device)),
        }
    }

    /// Takes back all its routes.
    pub async fn detach_all(&self) {
        match &self.region {
            None => self.registry.detach_where(|_| true).await,
            Some((regions, region)) => self.registry.detach_where(|stream| regions.is_home_of(region, stream)).await,
        }
    }

    /// What the region is called, where there are several; otherwise nothing.
    pub fn region_name(&self) -> &str {
        self.region.as_ref().map_or("", |(_, region)| region.name())
    }

    /// The region's number; 0 where there is one.
    fn number(&self) -> usize {
        self.region.as_ref().map_or(0, |(regions, region)| regions.number_of(region))
    }

    /// Whether it is the node's own region.
    pub fn is_home(&self) -> bool {
        self.region.as_ref().is_none_or(|(regions, region)| regions.home().name() == region.name())
    }
}
