//! The way of spans to the collector.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::collector::Collector;
use super::span::Span;
use crate::backoff::Backoff;
use crate::metrics::{ByReason, Metrics};

/// Spans that wait for export: what is beyond is dropped. Some 300 bytes each.
pub const MOST_WAITING: usize = 4096;

/// Spans of one request.
const BATCH: usize = 512;

/// How long spans wait for others to share a request with.
const GATHERING: Duration = Duration::from_secs(1);

/// How often a batch is sent, at most. What comes meanwhile waits in the queue.
const TRIES: usize = 3;

/// The wait after a request that was not taken, at first and at the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long a stop waits for the last spans to be taken.
const FLUSHING: Duration = Duration::from_secs(3);

/// The task that exports spans.
pub struct Exporting {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Begins to send what comes out of `spans`.
    pub(super) fn begin(spans: mpsc::Receiver<Span>, collector: Collector, metrics: Arc<Metrics>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let exporter = Exporter {
            spans,
            collector,
            metrics,
            stopped,
            is_away: false,
            dropped: 0,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        };
        Exporting { stop, task: tokio::spawn(exporter.run()) }
    }

    /// Sends what waits, for a while, and ends.
    pub async fn end(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(FLUSHING, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the last spans were dropped: the OTLP collector did not take them in time");
        }
    }
}

struct Exporter {
    spans: mpsc::Receiver<Span>,
    collector: Collector,
    metrics: Arc<Metrics>,
    stopped: watch::Receiver<bool>,
    /// The collector does not take spans, and that was logged.
    is_away: bool,
    /// Spans that it did not take since.
    dropped: u64,
    backoff: Backoff,
}

impl Exporter {
    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                count = self.spans.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
                () = stop(&mut self.stopped), if !self.spans.is_closed() => {
                    self.spans.close();
                    continue;
                }
            }
            self.gather(&mut batch).await;
            self.send(&batch).await;
            batch.clear();
        }
    }

    /// Waits for more that can share the request.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        let Exporter { spans, stopped, .. } = self;
        let gathering = async { while batch.len() < BATCH && spans.recv_many(batch, BATCH - batch.len()).await > 0 {} };
        tokio::select! {
            _ = tokio::time::timeout(GATHERING, gathering) => {}
            () = stop(stopped) => {}
        }
    }

    /// Sends a batch, or drops it: a collector that is away costs no more than the queue.
    async fn send(&mut self, batch: &[Span]) {
        for _ in 0..TRIES {
            let Err(reason) = self.collector.send(batch).await else { return self.taken(batch.len()) };
            if !self.is_away {
                tracing::warn!(%reason, collector = %self.collector, "the OTLP collector takes no spans: they are dropped when too many wait");
                self.is_away = true;
            }
            if *self.stopped.borrow() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.next_wait()) => {}
                () = stop(&mut self.stopped) => {}
            }
        }
        self.dropped += batch.len() as u64;
        self.metrics.spans_dropped.get_or_create(&ByReason { reason: "collector" }).inc_by(batch.len() as u64);
    }

    fn taken(&mut self, count: usize) {
        self.metrics.spans_exported.inc_by(count as u64);
        self.backoff.reset();
        if std::mem::take(&mut self.is_away) {
            let not_taken = std::mem::take(&mut self.dropped);
            tracing::warn!(not_taken, collector = %self.collector, "the OTLP collector takes spans again");
        }
    }
}

/// Resolves once the end is asked for.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // Nobody is left who could ask for it.
        std::future::pending().await
    }
}
