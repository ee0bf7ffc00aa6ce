//! Leader election for jobs that one node of a region does at a time.
//!
//! Leadership is a lease in the store. The leader runs the job until the node stops, the store fails, or another
//! node has become the leader; the others ask for the lease now and then. The lease only keeps nodes out of each
//! other's way: a node that was stopped in the middle goes on for a moment when it wakes. So each job has a fence
//! of its own in what it writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::dispatch::Registry;
use crate::metrics::{ByTask, InGauge};
use crate::model::NodeId;
use crate::store::{self, JobKind, Store, StoreError};

/// Longest wait for what is under way when the node stops. Then the next leader does it.
const STOP_TIME: Duration = Duration::from_secs(5);

/// A node's candidacy for one job, as a task.
pub struct Election {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Election {
    /// Starts a task that must end soon after the value it is given becomes true.
    pub fn start<F>(task: impl FnOnce(watch::Receiver<bool>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Election { stop, task: tokio::spawn(task(stopped)) }
    }

    /// Completes what is under way, and leaves the rest to the next leader.
    pub async fn end(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(STOP_TIME, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// What a leader does.
#[async_trait]
pub trait Job: Send {
    /// Runs until the leadership ends.
    async fn run(&mut self, leadership: Leadership<'_>, stop: &mut watch::Receiver<bool>) -> End;

    /// How long a node waits before it asks for the lease again while another has it.
    fn wait(&self, lease: Duration) -> Duration {
        lease / 3
    }

    /// Whether the store answered just now when it was asked for the lease, or failed during the job.
    fn asked(&mut self, _reached: bool) {}
}

/// Why a leadership ended.
#[derive(Debug)]
pub enum End {
    /// The node stops.
    Stopped,
    /// Another node is the leader, or nobody.
    Lost,
    /// The store failed; `progress`: whether anything was done before.
    Failed { error: StoreError, progress: bool },
}

/// This node's leadership of a job, while it lasts.
pub struct Leadership<'a> {
    leaders: &'a dyn store::Leaders,
    job: JobKind,
    node: Arc<NodeId>,
    lease: Duration,
    renewal: Instant,
}

impl Leadership<'_> {
    /// Under which id the node leads.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// When [`Leadership::renew`] has to be called next, at the latest.
    pub fn renewal(&self) -> Instant {
        self.renewal
    }

    /// Renews the lease, if it is time to. False: it is lost.
    pub async fn renew(&mut self) -> Result<bool, StoreError> {
        if Instant::now() < self.renewal {
            return Ok(true);
        }
        let held = self.leaders.acquire(self.job, &self.node, self.lease).await?;
        self.renewal = Instant::now() + self.lease / 3;
        Ok(held)
    }
}

/// Runs a job whenever this node leads it, until it is stopped.
pub async fn campaign(
    store: &dyn Store,
    registry: &Registry,
    kind: JobKind,
    lease: Duration,
    job: &mut dyn Job,
    mut stop: watch::Receiver<bool>,
) {
    let leaders = store.leaders();
    let leading = registry.metrics().leading.get_or_create(&ByTask { task: kind.as_str() }).clone();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        let node = registry.node();
        let held = leaders.acquire(kind, &node, lease).await;
        job.asked(held.is_ok());
        let wait = match held {
            Ok(true) => {
                tracing::debug!(%node, "{kind}: this node is the leader");
                let renewal = Instant::now() + lease / 3;
                let leadership = Leadership { leaders, job: kind, node: node.clone(), lease, renewal };
                let _leading = InGauge::new(&leading, 1);
                match job.run(leadership, &mut stop).await {
                    End::Stopped => {
                        if let Err(error) = leaders.resign(kind, &node).await {
                            tracing::debug!(%error, "{kind}: the leadership will lapse by itself");
                        }
                        return;
                    }
                    End::Lost => {
                        tracing::warn!("{kind}: this node lost the leadership, as it was away for too long");
                        job.wait(lease)
                    }
                    End::Failed { error, progress } => {
                        job.asked(false);
                        if progress {
                            backoff.reset();
                        }
                        tracing::debug!(%error, "{kind} starts again");
                        backoff.next_wait()
                    }
                }
            }
            Ok(false) => {
                backoff.reset();
                job.wait(lease)
            }
            Err(error) => {
                tracing::debug!(%error, "{kind}: the leader can't be read from the store");
                backoff.next_wait()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
