//! A node's sharded channels in a Redis Cluster: one at each master, for events, besides the channel of the node's own.
//!
//! What is published with PUBLISH goes over the bus of the Cluster to every server, replicas included. What is published
//! with SPUBLISH stays at one master and its replicas. So a node subscribes at each master to a channel in one of its
//! slots, and the routes of the streams there name the channel by its tag. Scripts publish there if the node listens, and
//! with PUBLISH otherwise: while a channel is away nothing is lost, it just costs more.
//!
//! Each channel is kept by a task of its own: a master that can't be reached has nothing to do with the others. It ends
//! with its connection, when the server says that its slot was given away, and when its own beat does not come back, which
//! also finds a subscription that was ended silently. What was on its way then may be lost, so the streams of that master
//! are named to be read again.

use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Redirect, SLOTS, Shard, Shards, SlotSet};
use crate::backoff::Backoff;
use crate::log_limit::LogLimit;
use crate::model::NodeId;
use crate::store::mailbox::Mailbox;
use crate::store::redis::call::Call;
use crate::store::redis::server::Connection;
use crate::store::redis::subscription::{BEAT, deliver};
use crate::store::{ChannelMessage, StoreError};

/// How often a beat is sent over each channel, and for how long it may be on its way.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);
const BEAT_TIME: Duration = Duration::from_secs(5);

/// The wait before a channel is subscribed to again, at first and at the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// A channel that lasted this long was a good one: the next break begins with a short wait again.
const GOOD_AGE: Duration = Duration::from_secs(5);

/// How long the first try may take at all masters, before the node goes on without those that are missing.
const FIRST_TRY: Duration = Duration::from_millis(500);

/// Numbers that are tried as tags. Nearly every slot has one among them.
const TAGS: u32 = 8 * SLOTS as u32;

/// Channels that can't be subscribed to.
static MISSING: LogLimit = LogLimit::new();

/// The channel at one master, for as long as the node is subscribed to it.
pub(super) struct Subscribed {
    node: NodeId,
    tag: u32,
}

impl Subscribed {
    /// The tag, if it is this node's.
    pub(super) fn tag_of(&self, node: &NodeId) -> Option<u32> {
        (self.node == *node).then_some(self.tag)
    }
}

/// The sharded channels of a node, kept until this is dropped.
pub(in crate::store::redis) struct ShardChannels {
    _following: AbortOnDropHandle<()>,
}

/// What all channels of a node share.
struct Node {
    shards: Shards,
    /// What every node's channel begins with.
    channels: String,
    id: NodeId,
    mailbox: Arc<Mailbox>,
    /// Gets a permit for each master at which was tried.
    tried: Semaphore,
}

impl ShardChannels {
    /// Subscribes at each master, and follows them from then on. Returns soon, also where a master gives no answer.
    pub(in crate::store::redis) async fn open(
        shards: &Shards,
        channels: &str,
        id: &NodeId,
        mailbox: &Arc<Mailbox>,
    ) -> Self {
        let masters = u32::try_from(shards.now().shards.len()).unwrap_or(u32::MAX);
        let node = Arc::new(Node {
            shards: shards.clone(),
            channels: channels.to_owned(),
            id: id.clone(),
            mailbox: mailbox.clone(),
            tried: Semaphore::new(0),
        });
        let following = AbortOnDropHandle::new(tokio::spawn(follow(node.clone())));
        let _ = timeout(FIRST_TRY, node.tried.acquire_many(masters)).await;
        ShardChannels { _following: following }
    }
}

/// Keeps a channel at each master that there is.
async fn follow(node: Arc<Node>) {
    let mut changes = node.shards.changes();
    let mut kept: Vec<(Arc<Shard>, AbortOnDropHandle<()>)> = Vec::new();
    loop {
        let map = node.shards.now();
        kept.retain(|(shard, _)| map.shards.iter().any(|known| Arc::ptr_eq(known, shard)));
        for shard in &map.shards {
            if !kept.iter().any(|(known, _)| Arc::ptr_eq(known, shard)) {
                let keeping = tokio::spawn(keep(node.clone(), shard.clone()));
                kept.push((shard.clone(), AbortOnDropHandle::new(keeping)));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps the channel at one master.
async fn keep(node: Arc<Node>, shard: Arc<Shard>) {
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    // Streams of which something may be lost, from when a channel ended.
    let mut missed: Option<SlotSet> = None;
    let (mut first, mut read) = (true, false);
    loop {
        let subscribed = Channel::subscribe(&node, &shard).await;
        // First of all: syncs write it down in the routes.
        let listed = subscribed.as_ref().ok().map(Channel::listed);
        if std::mem::take(&mut first) {
            node.tried.add_permits(1);
        }
        match &subscribed {
            Ok(channel) => {
                let (since, before) = (Instant::now(), node.shards.slots_of(&shard));
                if let Some(missed) = missed.take() {
                    node.interrupted(missed.union(&before));
                }
                let reason = channel.ended().await;
                drop(listed);
                tracing::warn!(server = %shard.server, reason, "a sharded channel ended; subscribing again");
                (missed, read) = (Some(before), false);
                if since.elapsed() >= GOOD_AGE {
                    backoff.reset();
                }
            }
            Err(error) => {
                // They are read now, and again once it is back: a server that did not notice yet goes on to send there.
                if let Some(missed) = &missed
                    && !std::mem::replace(&mut read, true)
                {
                    node.interrupted(missed.clone());
                }
                if let Some(left_out) = MISSING.admit() {
                    tracing::warn!(server = %shard.server, %error, left_out,
                        "no sharded channel: events of this master take the channel of all servers");
                }
            }
        }
        sleep(backoff.next_wait()).await;
    }
}

impl Node {
    /// Streams may have missed something.
    fn interrupted(&self, slots: SlotSet) {
        self.mailbox.push(ChannelMessage::Interrupted(Arc::new(slots)));
    }
}

/// A channel that is subscribed to.
struct Channel<'a> {
    node: &'a Node,
    shard: &'a Shard,
    tag: u32,
    name: String,
    connection: Connection,
    /// The server ended the subscription.
    left: CancellationToken,
    beat: Arc<Notify>,
}

impl<'a> Channel<'a> {
    async fn subscribe(node: &'a Node, shard: &'a Shard) -> Result<Self, StoreError> {
        let (tag, name) = node.name_at(shard)?;
        let (left, beat) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (leaving, beats, mailbox) = (left.clone(), beat.clone(), node.mailbox.clone());
        let on_push = move |push: PushInfo| match push.kind {
            PushKind::SMessage if is_beat(&push) => beats.notify_one(),
            PushKind::SMessage => deliver(&mailbox, push.data),
            PushKind::SUnsubscribe => leaving.cancel(),
            _ => {}
        };
        let connection = shard.server.open(on_push).await?;
        let answer = connection.run(&Call::command("SSUBSCRIBE", &name)).await;
        node.look_at(&answer);
        answer?;
        Ok(Channel { node, shard, tag, name, connection, left, beat })
    }

    /// Has the routes of the master's streams name this channel, until that is dropped.
    fn listed(&self) -> Listed<'a> {
        let subscribed = Arc::new(Subscribed { node: self.node.id.clone(), tag: self.tag });
        *self.shard.subscribed.lock() = Some(subscribed.clone());
        Listed { shard: self.shard, subscribed }
    }

    /// Resolves, with the reason, when nothing comes over it any more.
    async fn ended(&self) -> &'static str {
        tokio::select! {
            () = self.connection.broken() => "its connection broke",
            () = self.left.cancelled() => "its slot has moved",
            reason = self.deaf() => reason,
        }
    }

    /// Sends beats, and resolves when one does not come back.
    async fn deaf(&self) -> &'static str {
        loop {
            sleep(BEAT_INTERVAL).await;
            let beat = Call::command("SPUBLISH", &self.name).arg(BEAT);
            // Over another connection: this one may look well and lead nowhere.
            let answer = self.shard.membership.run(&beat).await;
            self.node.look_at(&answer);
            match answer {
                Ok(Value::Int(0)) => return "the server has no such subscription any more",
                Ok(_) if timeout(BEAT_TIME, self.beat.notified()).await.is_err() => return "no beat arrived",
                Ok(_) => {}
                Err(error) if Redirect::of(&error).is_some() => return "its slot has moved",
                // A server that is away shows that by its connections.
                Err(error) => tracing::debug!(server = %self.shard.server, %error, "no beat could be sent"),
            }
        }
    }
}

impl Node {
    /// A name in one of the master's slots. Any will do: were it the same for all nodes, they would all have to leave at
    /// once when that slot moves.
    fn name_at(&self, shard: &Shard) -> Result<(u32, String), StoreError> {
        let slots = self.shards.slots_of(shard);
        let first = rand::random_range(0..TAGS);
        let names =
            (0..TAGS).map(|n| (first + n) % TAGS).map(|tag| (tag, format!("{}{{{tag}}}:{}", self.channels, self.id)));
        let mut fitting = names.filter(|(_, name)| slots.has_key(name));
        fitting.next().ok_or_else(|| StoreError::Unavailable("no slot of this master has a tag".to_owned()))
    }

    /// A server that redirects knows better where slots are.
    fn look_at(&self, answer: &Result<Value, StoreError>) {
        if let Some(Redirect::Moved(slot, address)) = self.shards.redirect(answer) {
            self.shards.moved(slot, address.as_ref());
        }
    }
}

/// A channel that routes name.
struct Listed<'a> {
    shard: &'a Shard,
    subscribed: Arc<Subscribed>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut subscribed = self.shard.subscribed.lock();
        // The node may have begun anew meanwhile.
        if subscribed.as_ref().is_some_and(|known| Arc::ptr_eq(known, &self.subscribed)) {
            *subscribed = None;
        }
    }
}

fn is_beat(push: &PushInfo) -> bool {
    matches!(push.data.last(), Some(Value::BulkString(payload)) if payload == BEAT.as_bytes())
}
