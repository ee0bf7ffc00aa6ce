//! Publishes connects and disconnects on the lifecycle stream: [`LifecycleQueue`](super::queue::LifecycleQueue) is
//! what waits, and here are the store and the node's session.
//!
//! No connection waits for this: it adds an entry to the queue, and one task publishes them in batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::queue::Entry;
use crate::backoff::Backoff;
use crate::model::{NodeId, Time};
use crate::presence::{GATHER, Presence};
use crate::store::StoreError;
use crate::store::lifecycle::{BatchOutcome, Before, Change, LOST, LifecycleKind};

/// Entries in one call of the store: on a busy machine Redis takes about 30 µs for each, and does nothing else
/// meanwhile.
const BATCH: usize = 32;

/// The node's publishing session, as far as the node knows.
#[derive(Default)]
pub(in crate::presence) struct Session {
    /// The id under which it started.
    node: Option<NodeId>,
    /// The store has not ended it.
    lasts: bool,
}

impl Presence {
    /// Publishes what is queued, until it is dropped.
    pub async fn publish_lifecycle(self: Arc<Self>) {
        loop {
            self.lifecycle_work.notified().await;
            tokio::time::sleep(GATHER).await;
            self.publish_until_empty().await;
        }
    }

    async fn publish_until_empty(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            match self.publish_all().await {
                Ok(true) => return,
                // A node whose session others ended continues once it has a new id.
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "lifecycle events can't be published yet"),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Publishes everything that waits. False when that can't be done under this node's id.
    async fn publish_all(&self) -> Result<bool, StoreError> {
        let mut session = self.session.lock().await;
        loop {
            self.slots.lock().publish_missed(self.now_ms());
            self.show_queue();
            let waits = self.slots.lock().lifecycle.len() > 0;
            let node = (*self.registry.node()).clone();
            let begun = session.lasts && session.node.as_ref() == Some(&node);
            // No session is needed before the first connection. After that it has to follow the node's id, or
            // connections that are open under the old id would be taken for lost.
            if !begun && (waits || session.node.is_some()) {
                if !self.begin_session(&mut session, &node).await? {
                    return Ok(false);
                }
                continue;
            }
            let doubtful = self.doubtful.swap(false, Ordering::Relaxed) && begun;
            if !waits && !doubtful {
                return Ok(true);
            }
            if let Err(error) = self.publish_batch(&mut session, &node).await {
                self.doubtful.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    /// Publishes one batch; an empty one only finds out where the session stands.
    async fn publish_batch(&self, session: &mut Session, node: &NodeId) -> Result<(), StoreError> {
        let region = &self.census.info().region;
        let (number, changes): (u64, Vec<Change>) = {
            let mut slots = self.slots.lock();
            let (number, entries) = slots.lifecycle.next(BATCH);
            let change = |entry: &Entry| {
                Change::new(entry.subject.clone(), entry.kind, node, region, Time::from_ms(entry.time_ms))
            };
            (number, entries.iter().map(change).collect())
        };
        match self.store.publish_changes(node, number, &changes).await? {
            BatchOutcome::Published(number) => {
                self.slots.lock().lifecycle.acknowledge(number);
                let published = changes.iter().filter(|change| change.kind != LifecycleKind::Renewed).count();
                self.registry.metrics().lifecycle_published.inc_by(published as u64);
            }
            BatchOutcome::Over => session.lasts = false,
            BatchOutcome::Behind(number) => self.fall_back(node, number).await?,
        }
        Ok(())
    }

    /// Starts a session under the node's id, which continues the one before. False when others have ended it already.
    async fn begin_session(&self, session: &mut Session, node: &NodeId) -> Result<bool, StoreError> {
        let mut before = session.node.clone();
        loop {
            let begun = self.store.begin_session(node, self.own_region(), before.as_ref()).await?;
            let now_ms = self.now_ms();
            match begun.before {
                Before::Over => return Ok(false),
                // An id that this node had for a moment.
                Before::Moved(to) => {
                    before = Some(to);
                    continue;
                }
                Before::Held(number) => {
                    self.slots.lock().lifecycle.is_same_epoch(begun.epoch);
                    if !self.slots.lock().lifecycle.resume(number) {
                        self.fall_back(node, number).await?;
                    }
                }
                Before::Lost(number) => {
                    self.slots.lock().lifecycle.is_same_epoch(begun.epoch);
                    self.lost(Some(number), now_ms);
                }
                Before::Unknown => {
                    // A store with another epoch for the stream has lost everything, the connects too. One with the
                    // same epoch only no longer remembers that the session ended.
                    let same_epoch = self.slots.lock().lifecycle.is_same_epoch(begun.epoch);
                    if same_epoch && session.node.is_some() {
                        self.lost(None, now_ms);
                    } else {
                        self.slots.lock().forgotten(now_ms);
                    }
                }
            }
            *session = Session { node: Some(node.clone()), lasts: true };
            return Ok(true);
        }
    }

    fn lost(&self, number: Option<u64>, now_ms: u64) {
        let renamed = self.slots.lock().lost(number, now_ms);
        if !renamed.is_empty() {
            tracing::warn!(
                connections = renamed.len(),
                "other nodes declared this node dead: its devices' connections get new ids"
            );
        }
        for (occupant, id) in renamed {
            occupant.rename(id);
        }
        self.work.send_replace(());
    }

    async fn fall_back(&self, node: &NodeId, number: u64) -> Result<(), StoreError> {
        let open = self.store.open(node).await?;
        tracing::warn!(open = open.len(), "the store lost lifecycle events: they are published again");
        self.slots.lock().fallen_back(number, open, self.now_ms());
        Ok(())
    }

    /// Publishes the disconnects of connections that a dead node left open. False when none is left.
    /// `region` is the one whose nodes are cleaned up after: a node of another region that is silent here may well
    /// be alive.
    pub async fn publish_lost(&self, dead: &NodeId, region: &str) -> Result<bool, StoreError> {
        let left = self.store.end_session(dead, region, BATCH).await?;
        if left.is_empty() {
            return Ok(false);
        }
        let (region, time) = (&self.census.info().region, Time::from_ms(self.now_ms()));
        let lost = |subject| Change::new(subject, LifecycleKind::Disconnected(LOST), dead, region, time);
        let changes: Vec<Change> = left.into_iter().map(lost).collect();
        self.store.close(dead, &changes).await?;
        self.registry.metrics().lifecycle_published.inc_by(changes.len() as u64);
        Ok(true)
    }

    /// The process ends: publishes the disconnect of every remaining connection, however long that takes. False when
    /// something is left for other nodes to publish.
    pub async fn end(&self, reason: &'static str) -> bool {
        self.slots.lock().abandon(reason, self.now_ms());
        let members_updated = self.members.update_all().await;
        self.publish_until_empty().await;
        let session = self.session.lock().await;
        let lifecycle_published = match &session.node {
            Some(node) => {
                matches!(self.store.end_session(node, self.own_region(), 1).await, Ok(left) if left.is_empty())
            }
            None => true,
        };
        members_updated && lifecycle_published
    }

    /// Nodes of a region whose sessions have not ended.
    pub async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        self.store.sessions(region).await
    }

    /// The name of this node's region; empty if there is only one region.
    fn own_region(&self) -> &str {
        self.store.regions().map_or("", |regions| regions.home().name())
    }

    pub(in crate::presence) fn now_ms(&self) -> u64 {
        self.registry.clock().now_ms()
    }

    fn show_queue(&self) {
        let (waiting, unpublished) = {
            let mut slots = self.slots.lock();
            (slots.lifecycle.len(), slots.lifecycle.take_unpublished())
        };
        self.registry.metrics().lifecycle_waiting.set(waiting as i64);
        self.registry.metrics().lifecycle_dropped.inc_by(unpublished);
    }
}
