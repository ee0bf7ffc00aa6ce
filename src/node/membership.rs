//! Membership: the node's id, its lease and its channel.
//!
//! A term is the time under one id. It begins with a confirmed subscription to the id's channel, then the
//! lease, then the routes; nothing is sent to an id before the node listens. It ends when the lease turns
//! out to be gone (the node slept, or the store forgot): whatever was written under the old id is then
//! others' to clean up, and the node begins a new term under a new id.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::scope::Scope;
use crate::backoff::Backoff;
use crate::dispatch::{Flush, Path};
use crate::health::{Health, StorePart};
use crate::log_limit::LogLimit;
use crate::model::NodeId;
use crate::presence::{ControlChannel, Presence};
use crate::store::{ChannelMessage, Control, MAX_AHEAD_MS, Missed, NodeInfo, Renewal, Store, StoreError, Subscription};

/// Messages that are dispatched before what they wrote is flushed: under load, they share writes.
const BATCH: usize = 256;

/// Beats are sent with each renewal, three a lease time. When none has arrived for this share of the lease
/// time, two are missing: the subscription is deaf, even if its socket shows no error.
const DEAF_AFTER: f64 = 0.9;

/// Messages that name events further ahead of the clock than any has an id.
static AHEAD: LogLimit = LogLimit::new();

/// When the channel is back, lanes may take so much longer, and are looked at so often.
const LANES_WAIT: Duration = Duration::from_secs(1);
const LANES_LOOK: Duration = Duration::from_millis(20);

/// Longest wait for the routes of a node that stops; they lapse by themselves.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// What membership is kept with.
#[derive(Clone)]
pub struct Membership {
    store: Arc<dyn Store>,
    scope: Scope,
    presence: Arc<Presence>,
    health: Arc<Health>,
    info: NodeInfo,
    lease: Duration,
}

/// A node that has joined: its subscription, and the signal to leave.
pub struct Joined {
    membership: Membership,
    node: NodeId,
    subscription: Box<dyn Subscription>,
    leaving: watch::Receiver<bool>,
    gone: Arc<Notify>,
}

/// Ends the membership.
pub struct Leaving {
    store: Arc<dyn Store>,
    scope: Scope,
    leaving: watch::Sender<bool>,
    gone: Arc<Notify>,
}

/// Why a subscription is not listened to any longer.
enum Interruption {
    Channel,
    Lease,
    Leaving,
}

impl Membership {
    pub fn new(
        store: Arc<dyn Store>,
        scope: Scope,
        presence: Arc<Presence>,
        health: Arc<Health>,
        info: NodeInfo,
        lease: Duration,
    ) -> Self {
        Membership { store, scope, presence, health, info, lease }
    }

    /// Begins the first term. Waits until the store can be used.
    pub async fn join(self, node: NodeId) -> (Joined, Leaving) {
        let subscription = self.begin_term(&node).await;
        let (leaving, left) = watch::channel(false);
        let gone = Arc::new(Notify::new());
        let leave = Leaving { store: self.store.clone(), scope: self.scope.clone(), leaving, gone: gone.clone() };
        (Joined { membership: self, node, subscription, leaving: left, gone }, leave)
    }

    /// Subscribes and takes the lease, however long it takes.
    async fn begin_term(&self, node: &NodeId) -> Box<dyn Subscription> {
        let mut backoff = backoff();
        loop {
            match self.try_begin_term(node).await {
                Ok(subscription) => {
                    self.health.store_is_up();
                    return subscription;
                }
                Err(error) => {
                    self.health.store_is_down(&error.to_string());
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn try_begin_term(&self, node: &NodeId) -> Result<Box<dyn Subscription>, StoreError> {
        let subscription = self.store.coordination().subscribe(node).await?;
        self.store.coordination().register(node, &self.info, self.lease).await?;
        Ok(subscription)
    }

    /// Messages of the meantime are lost, and so may be the store's keys: everything is asserted and read again.
    fn assert_all(&self) {
        self.scope.mark_all();
        self.scope.claim_all(&self.presence);
    }

    /// Renews the lease and sends beats until the lease is gone. Nothing else may keep it from that.
    async fn keep_lease(self, node: NodeId) {
        let mut backoff = backoff();
        loop {
            let sound = match self.renew(&node).await {
                Ok(true) => self.look_at_lanes().await,
                Ok(false) => return,
                Err(error) => {
                    self.health.store_is_down(&error.to_string());
                    false
                }
            };
            let wait = if sound { self.lease / 3 } else { backoff.next_wait().min(self.lease / 3) };
            if sound {
                backoff.reset();
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Whether all streams can be worked with, which only health depends on.
    async fn look_at_lanes(&self) -> bool {
        let open = self.store.coordination().lanes_open().await;
        match &open {
            Ok(()) => self.health.is_up(StorePart::Lanes),
            Err(error) => self.health.is_down(StorePart::Lanes, &error.to_string()),
        }
        open.is_ok()
    }

    /// Waits a moment for the lanes, over which streams are synced.
    async fn wait_for_lanes(&self) {
        let open = async {
            while self.store.coordination().lanes_open().await.is_err() {
                tokio::time::sleep(LANES_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(LANES_WAIT, open).await;
    }

    /// False when the lease is gone.
    async fn renew(&self, node: &NodeId) -> Result<bool, StoreError> {
        self.store.coordination().beat(node).await?;
        match self.store.coordination().renew(node, self.lease).await? {
            Renewal::Held { nodes } => {
                self.scope.set_nodes(nodes);
                self.scope.lease_renewed();
                self.health.store_is_up();
                Ok(true)
            }
            Renewal::Gone => Ok(false),
        }
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
}

impl Joined {
    /// Keeps the membership, term after term, until it is left.
    pub async fn stay(mut self) {
        loop {
            let mut lease = tokio::spawn(self.membership.clone().keep_lease(self.node.clone()));
            let ended = self.term(&mut lease).await;
            lease.abort();
            if matches!(ended, Interruption::Leaving) {
                self.gone.notify_one();
                return;
            }
            let node = NodeId::random();
            tracing::warn!(old = %self.node, new = %node, "the lease is gone; going on under a new id");
            self.membership.scope.registry().metrics().leases_lost.inc();
            self.subscription = self.membership.begin_term(&node).await;
            self.node = node.clone();
            self.membership.scope.rename(node);
            self.membership.assert_all();
        }
    }

    /// Listens under one id, over as many subscriptions as it takes, until the lease is gone or the node
    /// leaves.
    async fn term(&mut self, lease: &mut tokio::task::JoinHandle<()>) -> Interruption {
        loop {
            match self.listen(lease).await {
                Interruption::Channel => {
                    self.membership.health.is_down(StorePart::Channel, "the node's channel is interrupted");
                    self.membership.scope.registry().metrics().channel_interruptions.inc();
                    tracing::warn!(node = %self.node, "the channel was interrupted; subscribing again");
                }
                ended => return ended,
            }
            if let Some(ended) = self.subscribe_again(lease).await {
                return ended;
            }
        }
    }

    /// Subscribes again, makes sure of the lease, then syncs every stream.
    async fn subscribe_again(&mut self, lease: &mut tokio::task::JoinHandle<()>) -> Option<Interruption> {
        let mut backoff = backoff();
        loop {
            if lease.is_finished() {
                return Some(Interruption::Lease);
            }
            if *self.leaving.borrow() {
                return Some(Interruption::Leaving);
            }
            let again = async {
                let subscription = self.membership.store.coordination().subscribe(&self.node).await?;
                self.membership.renew(&self.node).await.map(|held| (subscription, held))
            };
            match again.await {
                Ok((_, false)) => return Some(Interruption::Lease),
                Ok((subscription, true)) => {
                    self.subscription = subscription;
                    self.membership.wait_for_lanes().await;
                    self.membership.assert_all();
                    return None;
                }
                Err(error) => {
                    self.membership.health.store_is_down(&error.to_string());
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Dispatches what one subscription brings, until it ends or goes deaf.
    async fn listen(&mut self, lease: &mut tokio::task::JoinHandle<()>) -> Interruption {
        let deaf_after = self.membership.lease.mul_f64(DEAF_AFTER);
        let mut deaf_at = Instant::now() + deaf_after;
        let mut flush = Flush::default();
        loop {
            let batch = tokio::select! {
                batch = self.subscription.next(BATCH) => batch,
                () = tokio::time::sleep_until(deaf_at) => {
                    tracing::warn!(node = %self.node, "no beat arrived: the channel is deaf");
                    return if lease.is_finished() { Interruption::Lease } else { Interruption::Channel };
                }
                // Without a lease nobody sends beats any more: to wait for one would cost most of a lease time.
                _ = &mut *lease => return Interruption::Lease,
                _ = self.leaving.wait_for(|leaving| *leaving) => return Interruption::Leaving,
            };
            let Some(batch) = batch else { return Interruption::Channel };
            if self.dispatch(batch, &mut flush) {
                self.membership.health.is_up(StorePart::Channel);
                deaf_at = Instant::now() + deaf_after;
            }
            if lease.is_finished() {
                return Interruption::Lease;
            }
        }
    }

    /// True when a beat was among the messages.
    fn dispatch(&self, batch: Vec<ChannelMessage>, flush: &mut Flush) -> bool {
        let registry = self.membership.scope.registry();
        let mut beat = false;
        registry.metrics().channel_messages.inc_by(batch.len() as u64);
        for message in batch {
            match message {
                // Were it dispatched, the stream could not go on until its time comes.
                ChannelMessage::Event(stream, event) if event.id.ms > registry.clock().now_ms() + MAX_AHEAD_MS => {
                    if let Some(left_out) = AHEAD.admit() {
                        tracing::warn!(%stream, id = %event.id, left_out, "a message names an event ahead of the store's clock");
                    }
                }
                ChannelMessage::Event(stream, event) => {
                    registry.message(&stream, self.membership.scope.event(event), Path::Channel, flush);
                }
                ChannelMessage::Ephemeral(stream, event) => registry.dispatch_ephemeral(&stream, event, flush),
                ChannelMessage::Erased(stream) => registry.sync(&stream),
                ChannelMessage::Moved(stream) => {
                    registry.sync_followed(&stream);
                    self.membership.presence.claim_all_of(&stream);
                }
                ChannelMessage::Missed(missed) => self.catch_up_on(missed),
                ChannelMessage::Interrupted(slots) => {
                    registry.metrics().channel_interruptions.inc();
                    self.membership.scope.mark_where(move |stream| slots.has_stream(stream));
                }
                ChannelMessage::Beat => beat = true,
                ChannelMessage::Control(control) => self.on_control(&control),
            }
        }
        registry.flush(flush);
        beat
    }

    /// Events were dropped: their streams are read again.
    fn catch_up_on(&self, missed: Missed) {
        let scope = &self.membership.scope;
        let registry = scope.registry();
        registry.metrics().channel_dropped.inc_by(missed.messages);
        tracing::warn!(events = missed.messages, "the channel brought more than had room; reading it from the store");
        match missed.streams {
            Some(streams) => streams.iter().for_each(|stream| registry.sync_followed(stream)),
            None => scope.mark_all(),
        }
    }

    fn on_control(&self, control: &Control) {
        let channel = ControlChannel { store: self.membership.store.clone(), node: self.membership.scope.node() };
        if !self.membership.presence.on_control(control, channel) {
            // A node of a newer version sends more than this one understands.
            tracing::debug!(?control, "a message that is not understood");
        }
    }
}

impl Leaving {
    /// Takes back the routes and the lease, unless others have to find something here to clean up after.
    pub async fn leave(self, release: bool) {
        let _ = self.leaving.send(true);
        let leave = async {
            self.gone.notified().await;
            self.scope.detach_all().await;
            if !release && self.scope.is_home() {
                return;
            }
            if let Err(error) = self.store.coordination().release(&self.scope.node()).await {
                tracing::debug!(%error, "the lease ends by itself");
            }
        };
        let _ = tokio::time::timeout(LEAVE_TIME, leave).await;
    }
}
