//! Taking turns at works that one node of a region does at a time.
//!
//! A turn is a lease in the store. Whoever has it works until the node stops, the store fails, or the turn turns
//! out to be another's; the others ask now and then whether it is theirs. A turn only keeps nodes
//! out of each other's way: a node that was stopped in the middle goes on for a moment when it wakes. So each work
//! has a fence of its own, in what it writes down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::dispatch::Registry;
use crate::store::{self, NodeId, Store, StoreError, Work};

/// Longest wait for what is on its way when the node stops. Then it is left to whoever has the next turn.
const STOP_TIME: Duration = Duration::from_secs(5);

/// The part of a node that takes its turns at a work.
pub struct Turns {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Turns {
    /// Begins a task that is to end soon after the value it is given becomes true.
    pub fn begin<F>(task: impl FnOnce(watch::Receiver<bool>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Turns { stop, task: tokio::spawn(task(stopped)) }
    }

    /// Ends with what is on its way, and leaves the rest to the next node.
    pub async fn end(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(STOP_TIME, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// What is done at a turn.
#[async_trait]
pub trait Shift: Send {
    /// Works until the turn is over.
    async fn work(&mut self, turn: Turn<'_>, stop: &mut watch::Receiver<bool>) -> End;

    /// How often a node asks for the turn while another has it.
    fn wait(&self, lease: Duration) -> Duration {
        lease / 3
    }

    /// Whether the store could be asked for the turn just now, or failed in it.
    fn asked(&mut self, _reached: bool) {}
}

/// Why a turn ended.
#[derive(Debug)]
pub enum End {
    /// The node stops.
    Stopped,
    /// Another node has the turn, or nobody.
    Lost,
    /// The store failed; `progress` says whether anything was done before.
    Failed { error: StoreError, progress: bool },
}

/// This node's turn, while it lasts.
pub struct Turn<'a> {
    turns: &'a dyn store::Turns,
    work: Work,
    node: Arc<NodeId>,
    lease: Duration,
    renewal: Instant,
}

impl Turn<'_> {
    /// Under which id the node has it.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// When [`Turn::keep`] is to be called next, at the latest.
    pub fn renewal(&self) -> Instant {
        self.renewal
    }

    /// Keeps the turn, if it is time to. False: it is lost.
    pub async fn keep(&mut self) -> Result<bool, StoreError> {
        if Instant::now() < self.renewal {
            return Ok(true);
        }
        let held = self.turns.hold(self.work, &self.node, self.lease).await?;
        self.renewal = Instant::now() + self.lease / 3;
        Ok(held)
    }
}

/// Works whenever it is this node's turn, until it is told to stop.
pub async fn take(
    store: &dyn Store,
    registry: &Registry,
    work: Work,
    lease: Duration,
    shift: &mut dyn Shift,
    mut stop: watch::Receiver<bool>,
) {
    let turns = store.turns();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        let node = registry.node();
        let held = turns.hold(work, &node, lease).await;
        shift.asked(held.is_ok());
        let wait = match held {
            Ok(true) => {
                tracing::debug!(%node, "{work}: it is this node's turn");
                let turn = Turn { turns, work, node: node.clone(), lease, renewal: Instant::now() + lease / 3 };
                match shift.work(turn, &mut stop).await {
                    End::Stopped => {
                        if let Err(error) = turns.let_go(work, &node).await {
                            tracing::debug!(%error, "{work}: the turn ends by itself");
                        }
                        return;
                    }
                    End::Lost => {
                        tracing::warn!("{work}: the turn was lost, as this node was away for too long");
                        shift.wait(lease)
                    }
                    End::Failed { error, progress } => {
                        shift.asked(false);
                        if progress {
                            backoff.reset();
                        }
                        tracing::debug!(%error, "{work} begins anew");
                        backoff.next_wait()
                    }
                }
            }
            Ok(false) => {
                backoff.reset();
                shift.wait(lease)
            }
            Err(error) => {
                tracing::debug!(%error, "{work}: whose turn it is can't be found out");
                backoff.next_wait()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
