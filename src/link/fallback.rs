//! Events whose link failed: the store publishes them on the node's channel after all.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::unacked::Underway;
use crate::backoff::Backoff;
use crate::model::NodeId;
use crate::store::Store;

/// Most events that wait. What is more than that, the nodes find with their next sync.
const MAX_WAITING: usize = 16_384;

/// Events that are relayed at once.
const BATCH: usize = 256;

/// How often one is tried while the store is away. A store that is away for longer is synced with anyway
/// by every node that loses it too.
const TRIES: usize = 8;

type Pending = (NodeId, Underway);

/// The way to the channels.
pub struct Fallback(mpsc::Sender<Pending>);

/// The events that wait.
pub struct Waiting(mpsc::Receiver<Pending>);

impl Fallback {
    /// The two ends.
    pub fn new() -> (Fallback, Waiting) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Fallback(sender), Waiting(receiver))
    }

    /// Has an event relayed to `node` over its channel, soon.
    pub fn publish(&self, node: &NodeId, event: Underway) {
        if self.0.try_send((node.clone(), event)).is_err() {
            tracing::warn!(%node, "too many events wait for the channel; the node finds this one with its next sync");
        }
    }
}

impl Waiting {
    /// Relays what comes in; runs until it is dropped.
    pub async fn publish_forever(mut self, store: Arc<dyn Store>) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.0.recv_many(&mut batch, BATCH).await > 0 {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
            for _ in 0..TRIES {
                let relayed = join_all(batch.iter().map(|(node, (stream, id))| store.relay(node, stream, *id))).await;
                let mut relayed = relayed.into_iter();
                batch.retain(|_| relayed.next().is_some_and(|relayed| relayed.is_err()));
                if batch.is_empty() {
                    break;
                }
                tokio::time::sleep(backoff.next_wait()).await;
            }
            batch.clear();
        }
    }
}
