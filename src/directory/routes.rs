//! Where each operation goes: to the home of its stream, or to the node's own region.
//!
//! What is forwarded as it is stands in a table, a line an operation; what differs from region to region, or concerns
//! several homes at once, is written out below its table. Batches are in [`store`](super::store).

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use uuid::Uuid;

use super::RegionalStore;
use crate::model::{
    Draft, Durability, EventId, Imported, Inbox, LeaseId, LeaseTime, NodeId, Page, Part, Published, Receipt, Route,
    Standing, Start, StreamName,
};
use crate::store::lifecycle::{BatchOutcome, Begun, Change, ConnectionRef, Lifecycle};
use crate::store::members::{LocalMember, MemberPage, TopicMembers};
use crate::store::presence::{Claim, Claimed, DeviceConnections, DeviceLimit, DeviceState};
use crate::store::producers::{Lapsed, LeaseList, Look, Producers, Taking};
use crate::store::redis::RedisStore;
use crate::store::{Checkpoint, DueSync, EventLog, JobKind, Leaders, OnAnswer, SendHistory, StoreError};

/// Implements a trait of stores: `home(STREAM)` runs an operation in the stream's home, `page(STREAM)` also puts the
/// page's times on the clock that this node goes by, and `own` runs it in the node's own region.
macro_rules! routed {
    (impl $trait:ident {
        $($route:ident $(($stream:expr))? fn $name:ident($($arg:ident: $type:ty),*) -> $reply:ty;)*
        $(; $($rest:tt)*)?
    }) => {
        #[async_trait]
        impl $trait for RegionalStore {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$reply, StoreError> {
                routed!(@$route self, $($stream,)? |store| $trait::$name(store, $($arg),*))
            })*
            $($($rest)*)?
        }
    };
    (@home $self:ident, $stream:expr, |$store:ident| $call:expr) => {
        $self.at_home($stream, |$store| async move { let $store = &$store; $call.await }).await
    };
    (@page $self:ident, $stream:expr, |$store:ident| $call:expr) => {
        $self.page($stream, |$store| async move { let $store = &$store; $call.await }).await
    };
    (@own $self:ident, |$store:ident| $call:expr) => {{
        let $store = $self.own();
        $call.await
    }};
}

routed! { impl EventLog {
    home(stream) fn publish(stream: &StreamName, draft: &Draft) -> Published;
    home(stream) fn publish_durably(stream: &StreamName, draft: &Draft, durability: Durability) -> Receipt;
    home(stream) fn publish_ephemeral(stream: &StreamName, draft: &Draft) -> u32;
    home(stream) fn relay(node: &NodeId, stream: &StreamName, id: EventId) -> ();
    page(stream) fn recover(stream: &StreamName, head: EventId, epoch: EventId, seen: &[EventId]) -> Page;
    page(stream) fn read(stream: &StreamName, start: Start, limit: usize) -> Page;
    page(stream) fn read_before(stream: &StreamName, before: EventId, limit: usize) -> Page;
    home(stream) fn acknowledge(stream: &StreamName, id: Option<EventId>) -> Standing;
    home(stream) fn inbox(stream: &StreamName) -> Inbox;
    home(stream) fn erase(stream: &StreamName) -> ();
    home(stream) fn import(stream: &StreamName, part: &Part) -> Imported;
    ;
    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>> {
        self.publish_by_home(batch).await
    }

    /// Under the name that the node has in the home region.
    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError> {
        let sync = self.as_member(stream, |store, node| async move {
            store.sync(stream, &Route { node, ..route.clone() }, head).await
        });
        let (region, page) = sync.await?;
        Ok(self.regions().page_from(&region, page))
    }

    async fn sync_each(&self, due: &[DueSync], answered: &OnAnswer<'_>) {
        self.sync_by_home(due, answered).await;
    }

    /// The node is always this one here: others are cleaned up after region by region.
    async fn detach(&self, stream: &StreamName, _node: &NodeId, registration: Option<u64>) -> Result<(), StoreError> {
        let region = self.regions().region(self.regions().find(stream).await?)?;
        let detached = region.store().await?.detach(stream, &region.node(), registration).await;
        detached.map_err(|error| region.named(error))
    }

    /// A stream without a home is one that nobody used, and gets none by this.
    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError> {
        if !self.regions().has_home(stream).await? {
            return Ok(None);
        }
        self.at_home(stream, |store| async move { store.position(stream).await }).await
    }
} }

routed! { impl DeviceConnections {
    home(device) fn kick(device: &StreamName) -> u32;
    home(device) fn device(device: &StreamName) -> DeviceState;
    ;
    /// Under the name that the node has in the home region, as its route there.
    async fn claim_slot(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Claimed, StoreError> {
        let holder = self.as_member(device, |store, node| async move {
            store.claim_slot(device, &Claim { node, ..claim.clone() }, limit).await
        });
        let (_, claimed) = holder.await?;
        if claim.slot.is_none() && matches!(claimed, Claimed::Granted(_)) {
            self.connected_here(device);
        }
        Ok(claimed)
    }

    async fn release_slots(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError> {
        let releasing = places.iter().map(|place| {
            self.at_home(&place.0, move |store| async move { store.release_slots(std::slice::from_ref(place)).await })
        });
        join_all(releasing).await.into_iter().collect()
    }
} }

routed! { impl TopicMembers {
    // Others are cleaned up after region by region.
    own fn drop_members(topic: &StreamName, dead: &NodeId, after: Option<&str>) -> Option<String>;
    ;
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

    /// A topic without a home is one that nobody used, and gets none by this.
    async fn members(&self, topic: &StreamName, after: Option<&str>, limit: usize) -> Result<MemberPage, StoreError> {
        if !self.regions().has_home(topic).await? {
            return Ok(MemberPage::default());
        }
        self.at_home(topic, |store| async move { store.members(topic, after, limit).await }).await
    }
} }

// One stream for all regions, with a home as any, and beside it the sessions of all nodes.
routed! { impl Lifecycle {
    home(&StreamName::lifecycle()) fn begin_session(node: &NodeId, region: &str, before: Option<&NodeId>) -> Begun;
    home(&StreamName::lifecycle()) fn publish_changes(node: &NodeId, number: u64, changes: &[Change]) -> BatchOutcome;
    home(&StreamName::lifecycle()) fn open(node: &NodeId) -> Vec<ConnectionRef>;
    home(&StreamName::lifecycle()) fn close(node: &NodeId, changes: &[Change]) -> ();
    ;
    // To look for the home of a stream that nobody used would give it one.
    async fn end_session(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<ConnectionRef>, StoreError> {
        let stream = StreamName::lifecycle();
        if self.regions().home_of(&stream).is_none() {
            return Ok(Vec::new());
        }
        self.at_home(&stream, |store| async move { store.end_session(node, region, limit).await }).await
    }

    async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        let stream = StreamName::lifecycle();
        if self.regions().home_of(&stream).is_none() {
            return Ok(Vec::new());
        }
        self.at_home(&stream, |store| async move { store.sessions(region).await }).await
    }
} }

routed! { impl SendHistory {
    home(device) fn send_history(device: &StreamName, sent: &[(NodeId, f64)]) -> Vec<(NodeId, f64)>;
} }

// A lease is kept in the region that is its stream's home when it is taken, and that region's nodes look at it.
routed! { impl Producers {
    home(stream) fn take_lease(stream: &StreamName, id: LeaseId, time: LeaseTime, key: Option<&str>) -> Taking;
    home(stream) fn renew_lease(stream: &StreamName, id: LeaseId, time: LeaseTime) -> bool;
    home(stream) fn end_lease(stream: &StreamName, id: LeaseId) -> bool;
    own fn lapsed(most: usize, reached: Duration, looked_ms: u64) -> Look;
    own fn leases(most: usize) -> LeaseList;
    own fn forget_lease(lapsed: &Lapsed) -> ();
} }

// Each region has leaders of its own, but for the webhook, which is one for all regions: its leader is elected where the
// lifecycle stream has its home.
routed! { impl Leaders {
    home(stream) fn checkpoint(stream: &StreamName) -> Option<Checkpoint>;
    home(stream) fn advance(stream: &StreamName, node: &NodeId, from: Option<Checkpoint>, to: Checkpoint) -> bool;
    ;
    async fn acquire(&self, job: JobKind, node: &NodeId, ttl: Duration) -> Result<bool, StoreError> {
        match job {
            JobKind::Ingress | JobKind::Producers | JobKind::Directory => self.own().acquire(job, node, ttl).await,
            JobKind::Webhook => {
                let acquire = |store: RedisStore| async move { store.acquire(job, node, ttl).await };
                self.at_home(&StreamName::lifecycle(), acquire).await
            }
        }
    }

    async fn resign(&self, job: JobKind, node: &NodeId) -> Result<(), StoreError> {
        match job {
            JobKind::Ingress | JobKind::Producers | JobKind::Directory => self.own().resign(job, node).await,
            JobKind::Webhook => {
                let resign = |store: RedisStore| async move { store.resign(job, node).await };
                self.at_home(&StreamName::lifecycle(), resign).await
            }
        }
    }
} }
