//! Telling the lifecycle stream who came and who left: [`LifecycleQueue`](super::queue::LifecycleQueue) is what is to be told,
//! and here stand the store and the node's sessions.
//!
//! Nothing of this is on the way of a connection: it leaves a note in the queue, and one task tells the store in
//! batches, one after another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::queue::Entry;
use crate::backoff::Backoff;
use crate::model::Time;
use crate::presence::{GATHER, Presence};
use crate::store::lifecycle::{Before, Change, LOST, LifecycleKind, Told};
use crate::store::{NodeId, StoreError};

/// Connects and disconnects in one call of the store: on a busy machine Redis takes some 30 µs for each, and does
/// nothing else meanwhile.
const BATCH: usize = 64;

/// A node's session at telling, as far as it knows.
#[derive(Default)]
pub(in crate::presence) struct Session {
    /// Under which id it began.
    node: Option<NodeId>,
    /// The store has not said that it is over.
    lasts: bool,
}

impl Presence {
    /// Tells the store who came and left; runs until it is dropped.
    pub async fn tell_for_ever(self: Arc<Self>) {
        loop {
            self.to_tell.notified().await;
            tokio::time::sleep(GATHER).await;
            self.tell_until_done().await;
        }
    }

    async fn tell_until_done(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            match self.tell_all().await {
                Ok(true) => return,
                // A node whose session others ended goes on when it has a new id.
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "the store is not told who came and left"),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Tells all that waits. False when that can't be done under this node's id.
    async fn tell_all(&self) -> Result<bool, StoreError> {
        let mut session = self.session.lock().await;
        loop {
            self.slots.lock().publish_missed(self.now_ms());
            self.show_queue();
            let waits = self.slots.lock().lifecycle.len() > 0;
            let node = (*self.registry.node()).clone();
            let begun = session.lasts && session.node.as_ref() == Some(&node);
            // Before anybody came there is no need for a session; after that it has to follow the node's id, or what
            // is open under the old one would be taken for lost.
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

    /// Tells one batch; an empty one only finds out how things stand.
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
        match self.store.tell_changes(node, number, &changes).await? {
            Told::UpTo(number) => {
                self.slots.lock().lifecycle.acknowledge(number);
                self.registry.metrics().lifecycle_told.inc_by(changes.len() as u64);
            }
            Told::Over => session.lasts = false,
            Told::Behind(number) => self.fall_back(node, number).await?,
        }
        Ok(())
    }

    /// Begins a session under the node's id, which goes on from the one before. False when others ended this one
    /// already.
    async fn begin_session(&self, session: &mut Session, node: &NodeId) -> Result<bool, StoreError> {
        let mut before = session.node.clone();
        loop {
            let begun = self.store.begin_session(node, self.own_region(), before.as_ref()).await?;
            let now_ms = self.now_ms();
            match begun.before {
                Before::Over => return Ok(false),
                // Under an id that this node had for a moment.
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
                    // A store that has another birth for the stream has forgotten all, the connects too. One that
                    // has the same has only forgotten that the session ended.
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
                "others took this node for dead: its devices' connections go on under new ids"
            );
        }
        for (occupant, id) in renamed {
            occupant.rename(id);
        }
        self.work.notify_one();
    }

    async fn fall_back(&self, node: &NodeId, number: u64) -> Result<(), StoreError> {
        let open = self.store.open(node).await?;
        tracing::warn!(open = open.len(), "the store lost something of who came and left: it is told again");
        self.slots.lock().fallen_back(number, open, self.now_ms());
        Ok(())
    }

    /// Tells that connections were lost which a dead node left open. False when none is left.
    /// `region` is the one whose nodes are cleaned up after: that a node of another is not heard there any more
    /// says nothing of its connections.
    pub async fn tell_lost(&self, dead: &NodeId, region: &str) -> Result<bool, StoreError> {
        let left = self.store.end_session(dead, region, BATCH).await?;
        if left.is_empty() {
            return Ok(false);
        }
        let (region, time) = (&self.census.info().region, Time::from_ms(self.now_ms()));
        let lost = |subject| Change::new(subject, LifecycleKind::Disconnected(LOST), dead, region, time);
        let changes: Vec<Change> = left.into_iter().map(lost).collect();
        self.store.close(dead, &changes).await?;
        self.registry.metrics().lifecycle_told.inc_by(changes.len() as u64);
        Ok(true)
    }

    /// The process ends: tells that all who are still here leave, however long that takes. False when something is
    /// left for others to tell.
    pub async fn end(&self, reason: &'static str) -> bool {
        self.slots.lock().abandon(reason, self.now_ms());
        self.tell_until_done().await;
        let session = self.session.lock().await;
        match &session.node {
            Some(node) => {
                matches!(self.store.end_session(node, self.own_region(), 1).await, Ok(left) if left.is_empty())
            }
            None => true,
        }
    }

    /// Nodes of a region whose sessions were not ended.
    pub async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        self.store.sessions(region).await
    }

    /// What this node's region is called, where there are several; otherwise nothing.
    fn own_region(&self) -> &str {
        self.store.regions().map_or("", |regions| regions.home().name())
    }

    pub(in crate::presence) fn now_ms(&self) -> u64 {
        self.registry.clock().now_ms()
    }

    fn show_queue(&self) {
        let (waiting, untold) = {
            let mut slots = self.slots.lock();
            (slots.lifecycle.len(), slots.lifecycle.take_unpublished())
        };
        self.registry.metrics().lifecycle_waiting.set(waiting as i64);
        self.registry.metrics().lifecycle_untold.inc_by(untold);
    }
}
