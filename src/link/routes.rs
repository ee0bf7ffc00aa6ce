//! ConnectionRef this node reaches by itself at one moment, and how events get there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::LOOK_AGAIN;
use super::counts::Counts;
use super::fallback::Fallback;
use super::peer::Peer;
use super::senders::Senders;
use crate::metrics::Metrics;
use crate::model::{Event, NodeId, StreamName};
use crate::store::DirectRoutes;

/// Streams that wait for their second look. What is more than that gets only the first, and otherwise the
/// next sync.
const MAX_DOUBTS: usize = 16_384;

/// What the links of a node have in common.
pub(super) struct Common {
    pub(super) metrics: Arc<Metrics>,
    pub(super) fallback: Fallback,
    /// What went from this node to which other, over links and channels.
    pub(super) traffic: Mutex<Counts>,
    /// What devices that are connected are expected to send before long.
    pub(super) expected: Mutex<Counts>,
    /// What devices sent.
    pub(super) senders: Mutex<Senders>,
    /// Notified when a link might be worth opening.
    pub(super) wanting: Notify,
    /// Streams to look into a second time, the earliest first.
    pub(super) doubts: Mutex<VecDeque<Doubt>>,
    pub(super) begun: Instant,
    /// Whether there are links at all.
    pub(super) linking: bool,
}

impl Common {
    /// The keeper's clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// So much is expected to go to these nodes before long.
    pub(super) fn expect<'a>(&self, prediction: impl Iterator<Item = (&'a NodeId, f64)>) {
        let now_ms = self.now_ms();
        let mut expected = self.expected.lock();
        prediction.for_each(|(node, amount)| expected.add(node, amount, now_ms));
        drop(expected);
        self.wanting.notify_one();
    }
}

/// A stream to look into.
pub(super) struct Doubt {
    pub(super) due: Instant,
    /// Keeps the links open that were counted on.
    pub(super) peers: Arc<Peers>,
    pub(super) stream: StreamName,
}

/// The peers of one moment. A publish holds them until it is settled.
pub(super) struct Peers {
    names: String,
    by_node: HashMap<NodeId, Arc<Peer>>,
}

impl Peers {
    pub(super) fn of(peers: impl Iterator<Item = Arc<Peer>>) -> Self {
        let by_node: HashMap<_, _> = peers.map(|peer| (peer.node().clone(), peer)).collect();
        let names = by_node.keys().map(|node| format!(" {node} ")).collect();
        Peers { names, by_node }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    pub(super) fn look(&self, stream: &StreamName) {
        self.by_node.values().for_each(|peer| peer.look(stream));
    }
}

/// The peers that one publish counts on.
pub(super) struct Reached {
    pub(super) peers: Arc<Peers>,
    pub(super) common: Arc<Common>,
}

impl DirectRoutes for Reached {
    fn nodes(&self) -> &str {
        &self.peers.names
    }

    fn carry(
        &self,
        stream: &StreamName,
        event: Arc<Event>,
        from: Option<&StreamName>,
        left_out: &[NodeId],
        by_channel: &[NodeId],
    ) {
        let (common, now_ms) = (&self.common, self.common.now_ms());
        if let Some(device) = from.filter(|_| common.linking) {
            // This node too: the device may come to another one next time.
            common.senders.lock().sent(device, left_out.iter().chain(by_channel), Instant::now());
        }
        let metrics = &common.metrics.links;
        for node in left_out {
            let Some(peer) = self.peers.by_node.get(node) else { continue };
            if !peer.carry(stream, &event, now_ms) {
                metrics.fallbacks.inc();
                common.fallback.publish(node, (stream.clone(), event.id));
            } else if peer.is_own() {
                metrics.own_events.inc();
            } else {
                metrics.hits.inc();
                if peer.begin_use() {
                    metrics.opened_ahead_used.inc();
                }
                common.traffic.lock().add(node, 1.0, now_ms);
            }
        }
        for node in by_channel.iter().filter(|node| common.linking && !self.peers.by_node.contains_key(*node)) {
            metrics.misses.inc();
            common.traffic.lock().add(node, 1.0, now_ms);
            common.wanting.notify_one();
        }
    }

    fn request_sync(&self, stream: &StreamName) {
        self.peers.look(stream);
        let mut doubts = self.common.doubts.lock();
        if doubts.len() < MAX_DOUBTS {
            doubts.push_back(Doubt {
                due: Instant::now() + LOOK_AGAIN,
                peers: self.peers.clone(),
                stream: stream.clone(),
            });
        }
    }
}
