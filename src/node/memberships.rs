//! The memberships of a node: one in its own region, and one in each other region where it follows streams.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Opened;
use super::cleanup::clean_up_for_ever;
use super::membership::{Leaving, Membership};
use super::scope::Scope;
use crate::directory::{Region, Regions, feed};
use crate::dispatch::Registry;
use crate::health::Health;
use crate::model::NodeId;
use crate::presence::Presence;
use crate::store::{NodeInfo, Store};
use crate::transport::CloseReason;

/// Longest wait, when the node stops, until the lifecycle topic has the disconnects of its connections.
const PUBLISH_TIME: Duration = Duration::from_secs(2);

/// What memberships are begun with, and ended by.
#[derive(Clone)]
pub struct Memberships {
    pub registry: Arc<Registry>,
    pub presence: Arc<Presence>,
    /// Where there is one region, that of its store.
    pub health: Arc<Health>,
    /// What the node registers about itself.
    pub info: NodeInfo,
    pub lease: Duration,
    pub leavings: Arc<Mutex<Vec<Leaving>>>,
}

impl Memberships {
    /// Joins the node's own region, and has others joined when they are needed.
    pub async fn begin(&self, opened: Opened, node: NodeId) {
        let Some((regions, position)) = opened.regions else {
            let scope = Scope::everything(self.registry.clone());
            self.join(opened.store, scope, self.health.clone(), node).await;
            return;
        };
        for region in regions.all() {
            let (this, regions, region) = (self.clone(), regions.clone(), region.clone());
            if region.name() == regions.home().name() {
                this.join_region(regions, region, node.clone()).await;
            } else {
                tokio::spawn(async move {
                    region.wanted().await;
                    let node = (*this.registry.node()).clone();
                    this.join_region(regions, region, node).await;
                });
            }
        }
        let (registry, presence) = (self.registry.clone(), self.presence.clone());
        regions.on_moved(move |stream| {
            registry.sync_followed(stream);
            presence.claim_all_of(stream);
        });
        tokio::spawn(regions.clone().settle_conflicts_for_ever());
        tokio::spawn(async move { feed::follow_for_ever(&regions, position).await });
    }

    async fn join_region(&self, regions: Arc<Regions>, region: Arc<Region>, node: NodeId) {
        let store = region.opened(|_| {}).await;
        let scope = Scope::region(self.registry.clone(), regions, region.clone());
        self.join(store, scope, region.health().clone(), node.clone()).await;
        region.joined(node);
    }

    async fn join(&self, store: Arc<dyn Store>, scope: Scope, health: Arc<Health>, node: NodeId) {
        let info = self.info.clone();
        let membership = Membership::new(store.clone(), scope.clone(), self.presence.clone(), health, info, self.lease);
        let (joined, leaving) = membership.join(node).await;
        self.leavings.lock().push(leaving);
        tokio::spawn(joined.stay());
        tokio::spawn(clean_up_for_ever(store, scope, self.presence.clone(), self.lease));
    }

    /// Ends them all, once the disconnects of all connections are published, or that has taken too long.
    pub async fn leave(&self) {
        let published = tokio::time::timeout(PUBLISH_TIME, self.presence.end(CloseReason::Drain.as_str())).await;
        // Otherwise the node that cleans up after this one publishes the rest.
        let all_published = published.unwrap_or(false);
        let leavings = std::mem::take(&mut *self.leavings.lock());
        futures_util::future::join_all(leavings.into_iter().map(|leaving| leaving.leave(all_published))).await;
    }
}
