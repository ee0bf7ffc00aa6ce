//! Presence: the connections of devices on this node, here and in the store.
//!
//! A connection that names a device takes a place among those of the device before it is let in ([`PresenceGuard`]),
//! and gives it back when it ends. [`device_slots`] holds them as a plain value; around it stand the store and the
//! tasks around it. Places are given back, and claimed again after an outage, in pipelines and off the way of
//! any socket.
//!
//! Each connect and each disconnect is published on the lifecycle topic once: `lifecycle` has the queue and the task
//! that publishes it, `reconcile` corrects the queue where the store or other nodes have something else.
//!
//! What goes to the stores of several regions waits in queues of their own ([`by_region`]).
//!
//!
//! The followers of a topic, and the load of other nodes, come from the nodes themselves: [`Census`].
//!
//! Whether a connection has to close is a matter of marks ([`Marks`]): a message brings them at once, and every
//! sync of the device's stream repeats them.

mod by_region;
mod census;
mod control_channel;
mod device_slots;
mod lifecycle;
mod members;
mod questions;
mod reconcile;
mod renewal;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::directory;
use crate::dispatch::Registry;
use crate::model::{Info, Marks, NodeId, StreamName};
use crate::store::presence::{Claim, Claimed, DeviceLimit, KICK, LOOK, SlotHolder};
use crate::store::{Control, NodeInfo, Store, StoreError};

pub use census::{Census, ConnectionIndex, Follower, Followers, MAX_FOLLOWERS, Report, Reports, Wanted};

use by_region::RegionOf;
pub use control_channel::ControlChannel;
use device_slots::{DeviceSlots, Evicted};
use lifecycle::Session;
pub use members::{Members, TopicPresence, Watcher};
pub use renewal::{RenewError, Renewals, Renewed};

/// What happens within this time shares a pipeline, or a batch.
const GATHER: Duration = Duration::from_millis(20);

/// Full devices that are looked through at a time.
const LOOKS: usize = 32;

/// Other nodes have this long to look after the places of a full device.
const LOOK_TIME: Duration = Duration::from_millis(300);

/// Places given back, or claimed again, at a time.
const BATCH: usize = 256;

/// Why a connection of a device has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// Somebody ended all connections of the device.
    Kicked,
    /// A newer connection of the device took its place.
    Replaced,
    /// The device has as many as it may.
    Limit,
}

/// What presence sees of a connection.
pub trait Occupant: Send + Sync + 'static {
    /// Closes it, and sends the client the reason.
    fn evict(&self, why: Eviction);

    /// It goes on under another id: under the one before, another node published it as lost.
    fn rename(&self, id: Uuid);
}

/// The connections of devices on this node.
pub struct Presence {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    limit: DeviceLimit,
    census: Arc<Census>,
    members: Arc<Members>,
    renewals: Arc<Renewals>,
    slots: Mutex<DeviceSlots>,
    regions: usize,
    /// There are places to give back, or to claim.
    work: watch::Sender<()>,
    /// There is something to publish on the lifecycle topic.
    lifecycle_work: Notify,
    /// Locked while it is published.
    session: tokio::sync::Mutex<Session>,
    /// The store may have lost something that was published.
    doubtful: AtomicBool,
    /// Full devices that are being looked through.
    looks: Semaphore,
}

/// A connection's presence; it ends when this is dropped.
pub struct PresenceGuard {
    presence: Arc<Presence>,
    connection: Uuid,
    /// The device, and the number among those here.
    slot: Option<(StreamName, u64)>,
    /// Why it left, once it has.
    reason: &'static str,
}

impl Presence {
    /// Without connections. `info` is what the node registers about itself, and `index` are to be its connections.
    pub fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        limit: DeviceLimit,
        info: NodeInfo,
        index: Arc<dyn ConnectionIndex>,
    ) -> Arc<Self> {
        let regions = directory::count_of(&*store);
        let region_of: RegionOf = {
            let store = store.clone();
            Arc::new(move |device| directory::region_of(&*store, device))
        };
        let renewals = Renewals::new(store.clone(), registry.clone(), info.region.clone(), index.clone());
        let census = Census::new(store.clone(), registry.clone(), info, index);
        let members = Members::new(store.clone(), registry.clone());
        let presence = Arc::new(Presence {
            store,
            registry,
            limit,
            census,
            members,
            renewals: Arc::new(renewals),
            slots: Mutex::new(DeviceSlots::over(regions, &region_of)),
            regions,
            work: watch::Sender::new(()),
            lifecycle_work: Notify::new(),
            session: tokio::sync::Mutex::default(),
            doubtful: AtomicBool::new(false),
            looks: Semaphore::new(LOOKS),
        });
        let weak = Arc::downgrade(&presence);
        presence.registry.on_marks(move |device, marks| {
            if let Some(presence) = weak.upgrade() {
                presence.mark(device, marks, false);
            }
        });
        presence
    }

    /// Gives a connection its place. The streams that it follows are attached: the node's route to the device
    /// is what makes the place count.
    pub async fn enter(
        self: &Arc<Self>,
        device: Option<StreamName>,
        connection: Uuid,
        transport: &'static str,
        info: Option<&Info>,
    ) -> Result<PresenceGuard, Eviction> {
        let slot = device.map(|device| {
            let number = self.slots.lock().enter(&device, connection, transport, info.cloned());
            (device, number)
        });
        // Made before the claim: a connection that ends meanwhile gives the place back.
        let place = PresenceGuard { presence: self.clone(), connection, slot, reason: "client" };
        if let Some((device, number)) = &place.slot {
            if let Err(error) = self.claim(device, *number).await {
                // Its streams are followed here already, or it would not have come so far: it is let in, as
                // sockets are kept without a store, and gets its place when the store is back.
                tracing::debug!(%device, %error, "a connection has no place yet");
                self.slots.lock().want(device, *number);
                self.work.send_replace(());
            }
            let evicted = self.slots.lock().evicted(device, *number);
            if let Some(why) = evicted {
                return Err(why);
            }
        }
        Ok(place)
    }

    async fn claim(&self, device: &StreamName, number: u64) -> Result<(), StoreError> {
        let Some(wanted) = self.slots.lock().wanted(device, number) else { return Ok(()) };
        let claim = Claim {
            connection: wanted.connection,
            node: (*self.registry.node()).clone(),
            transport: wanted.transport,
            info: wanted.info.clone(),
            slot: wanted.slot,
        };
        let mut claimed = self.store.claim_slot(device, &claim, self.limit).await?;
        if claimed == Claimed::Full && self.look_through(device).await? {
            claimed = self.store.claim_slot(device, &claim, self.limit).await?;
        }
        let evicted = self.slots.lock().answered(device, number, &wanted, claimed);
        self.work.send_replace(());
        notify(evicted);
        Ok(())
    }

    /// A device seems full. Places may have outlived their connections, as when a failover brought back what was
    /// given back already, and a client that is refused does not come again; so first all nodes look after theirs.
    /// False when so many devices are being looked through that this one is taken to be full.
    async fn look_through(&self, device: &StreamName) -> Result<bool, StoreError> {
        let Ok(_permit) = self.looks.try_acquire() else { return Ok(false) };
        let ControlChannel { store, node: own } = ControlChannel::of(Some(device), &self.store, &self.registry).await?;
        let held = self.store.device(device).await?.connections;
        let others: HashSet<&NodeId> = held.iter().map(|holder| &holder.node).filter(|node| **node != *own).collect();
        let look = Control::new(LOOK, device.as_str().to_owned());
        for node in &others {
            store.coordination().signal(node, &look).await?;
        }
        self.give_back_missing(device, &held, &own).await?;
        if !others.is_empty() {
            tokio::time::sleep(LOOK_TIME).await;
        }
        Ok(true)
    }

    /// Gives back the places of this node that nobody here has.
    async fn give_back_missing(
        &self,
        device: &StreamName,
        held: &[SlotHolder],
        own: &NodeId,
    ) -> Result<(), StoreError> {
        let ours = held.iter().filter(|holder| holder.node == *own).map(|holder| holder.connection);
        let missing = self.slots.lock().missing(device, ours);
        if missing.is_empty() {
            return Ok(());
        }
        tracing::debug!(%device, count = missing.len(), "places outlived their connections");
        let missing: Vec<_> = missing.into_iter().map(|connection| (device.clone(), connection)).collect();
        self.store.release_slots(&missing).await
    }

    async fn look(&self, device: &StreamName, own: &NodeId) {
        let Ok(_permit) = self.looks.try_acquire() else { return };
        let looked = async { self.give_back_missing(device, &self.store.device(device).await?.connections, own).await };
        if let Err(error) = looked.await {
            tracing::debug!(%device, %error, "places can't be looked after");
        }
    }

    /// The members of topics.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The reports of all nodes.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// Gives connections of whichever node another grant.
    pub fn renewals(&self) -> &Renewals {
        &self.renewals
    }

    /// A control message came in that is about presence. False when it is about something else.
    pub fn on_control(self: &Arc<Self>, control: &Control, channel: ControlChannel) -> bool {
        match control.word.as_str() {
            KICK => self.on_kick(control),
            LOOK => match control.text().and_then(|text| text.parse::<StreamName>().ok()) {
                Some(device) => {
                    let presence = self.clone();
                    tokio::spawn(async move { presence.look(&device, &channel.node).await });
                }
                None => tracing::warn!("a request on the node's channel to look makes no sense"),
            },
            _ => {
                return self.members.receive(control)
                    || self.renewals.on_control(control, &channel)
                    || self.census.on_control(control, channel);
            }
        }
        true
    }

    fn on_kick(&self, control: &Control) {
        let kick = control.text().and_then(|text| {
            let (device, marks) = text.split_once(' ')?;
            Some((device.parse::<StreamName>().ok()?, marks.parse::<Marks>().ok()?))
        });
        match kick {
            Some((device, marks)) => self.mark(&device, marks, true),
            None => tracing::warn!("a kick on the node's channel makes no sense"),
        }
    }

    fn mark(&self, device: &StreamName, marks: Marks, at_once: bool) {
        let evicted = self.slots.lock().mark(device, marks, at_once);
        notify(evicted);
    }

    /// The store may have lost connections, or the node has a new id: the places of all such devices are
    /// claimed again, and so are their memberships of such topics.
    pub fn claim_where(&self, concerned: impl Fn(&StreamName) -> bool) {
        self.members.refresh_where(&concerned);
        self.slots.lock().want_where(concerned);
        self.work.send_replace(());
        self.doubtful.store(true, Ordering::Relaxed);
        self.lifecycle_work.notify_one();
    }

    /// The store with a device's places, or a topic's members, is no longer the stream's home: they are
    /// claimed in the new one.
    pub fn claim_all_of(&self, stream: &StreamName) {
        self.members.refresh_where(|topic| topic == stream);
        if self.slots.lock().want_all_of(stream) {
            self.work.send_replace(());
        }
    }

    /// Gives places back to the store, and claims again what has to be; runs until it is dropped.
    pub async fn keep_for_ever(self: Arc<Self>) {
        join_all((0..self.regions).map(|region| self.keep_region(region))).await;
    }

    async fn keep_region(&self, region: usize) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut work = self.work.subscribe();
        work.mark_changed();
        while work.changed().await.is_ok() {
            tokio::time::sleep(GATHER).await;
            loop {
                match self.settle(region).await {
                    Ok(true) => backoff.reset(),
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(%error, "places can't be given back or claimed in the store");
                        tokio::time::sleep(backoff.next_wait()).await;
                    }
                }
            }
        }
    }

    /// One step for a region; false when nothing was left to do.
    async fn settle(&self, region: usize) -> Result<bool, StoreError> {
        let gone = self.slots.lock().take_gone(region, BATCH);
        let mut failure = None;
        let released = self.store.release_slots(&gone).await;
        let any_gone = !gone.is_empty();
        if let Err(error) = released {
            self.slots.lock().put_back_gone(gone);
            failure = Some(error);
        }
        let wanted = self.slots.lock().take_wanted(region, BATCH);
        let claims = wanted.iter().map(|(device, number)| self.claim(device, *number));
        for (answer, (device, number)) in join_all(claims).await.into_iter().zip(&wanted) {
            if let Err(error) = answer {
                self.slots.lock().want(device, *number);
                failure = Some(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(any_gone || !wanted.is_empty()),
        }
    }
}

fn notify(evicted: Evicted) {
    for (occupant, why) in evicted {
        occupant.evict(why);
    }
}

impl PresenceGuard {
    /// The connection's public id.
    pub fn connection(&self) -> Uuid {
        self.connection
    }

    /// The connection is set up: it can be evicted from now on.
    pub fn occupy(&self, occupant: Weak<dyn Occupant>) {
        let Some((device, number)) = &self.slot else { return };
        let now_ms = self.presence.now_ms();
        let evicted = self.presence.slots.lock().occupy(device, *number, occupant.clone(), now_ms);
        self.presence.lifecycle_work.notify_one();
        if let (Some(why), Some(occupant)) = (evicted, occupant.upgrade()) {
            occupant.evict(why);
        }
    }

    /// This is shown beside the connection from now on.
    pub fn inform(&self, info: Option<&Info>) {
        let Some((device, number)) = &self.slot else { return };
        let now_ms = self.presence.now_ms();
        if self.presence.slots.lock().inform(device, *number, info, now_ms) {
            self.presence.work.send_replace(());
            self.presence.lifecycle_work.notify_one();
        }
    }

    /// The connection left, and why.
    pub fn leave(mut self, reason: &'static str) {
        self.reason = reason;
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        if let Some((device, number)) = &self.slot {
            let now_ms = self.presence.now_ms();
            self.presence.slots.lock().leave(device, *number, self.reason, now_ms);
            self.presence.work.send_replace(());
            self.presence.lifecycle_work.notify_one();
        }
    }
}
