//! One leadership of delivering: from the stored checkpoint until the leadership ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use super::Format;
use super::batch::{self, Batch, MAX_EVENTS, Next};
use super::receiver::{Failure, Reaction, Receiver};
use crate::backoff::Backoff;
use crate::dispatch::chain::Chain;
use crate::leader::{End, Job, Leadership};
use crate::metrics::Metrics;
use crate::model::{EventId, Page, Start, StreamName};
use crate::store::{Checkpoint, Store, StoreError};

/// How often the stream is looked at while nothing is under way. What comes within that time goes out together.
const LOOK: Duration = Duration::from_millis(250);

/// The wait after a request that was not taken, at first and at the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a node keeps about delivery, over all its leaderships.
pub struct Delivering {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    receiver: Receiver,
    stream: StreamName,
    /// This node's position, and the epoch of its history: after a flush no other place has either.
    known: Option<(EventId, EventId)>,
    /// The receiver refused all further requests (410). That holds until the node is started again.
    gone: bool,
    /// Requests failed, and that was logged.
    failing: bool,
    progress: bool,
}

/// A place in the stream, and the checkpoint in the store.
struct Position {
    chain: Chain,
    checkpoint: Option<Checkpoint>,
}

impl Delivering {
    /// Nothing is known yet.
    pub fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>, receiver: Receiver) -> Self {
        let stream = StreamName::lifecycle();
        Delivering { store, metrics, receiver, stream, known: None, gone: false, failing: false, progress: false }
    }

    async fn deliver(
        &mut self,
        leadership: &mut Leadership<'_>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<End, StoreError> {
        let mut place = self.begin().await?;
        loop {
            if !leadership.renew().await? {
                return Ok(End::Lost);
            }
            if self.gone {
                if rest(leadership.renewal(), stop).await {
                    return Ok(End::Stopped);
                }
                continue;
            }
            let page = self.page(place.chain.position()).await?;
            match next(&place, &page, self.receiver.format()) {
                Next::Nothing => {
                    self.metrics.webhook.lag_seconds.set(0.0);
                    // What came before the signal to stop has been sent by now.
                    if rest(leadership.renewal().min(Instant::now() + LOOK), stop).await {
                        return Ok(End::Stopped);
                    }
                }
                Next::Passed(after) => {
                    if !self.go_on(leadership, &mut place, Checkpoint::at(after.position())).await? {
                        return Ok(End::Lost);
                    }
                    place.chain = after;
                }
                Next::Batch(batch) => {
                    let sent = Checkpoint { position: place.chain.position(), sent: Some(batch.after.position()) };
                    if !self.go_on(leadership, &mut place, sent).await? {
                        return Ok(End::Lost);
                    }
                    if let Some(end) = self.send(&batch, page.now_ms, leadership, stop).await? {
                        return Ok(end);
                    }
                    if self.gone {
                        continue;
                    }
                    if !self.go_on(leadership, &mut place, Checkpoint::at(batch.after.position())).await? {
                        return Ok(End::Lost);
                    }
                    place.chain = batch.after;
                    self.known = Some((batch.after.position(), page.epoch));
                    self.progress = true;
                }
            }
        }
    }

    /// Where delivery goes on.
    async fn begin(&self) -> Result<Position, StoreError> {
        let checkpoint = self.store.leaders().checkpoint(&self.stream).await?;
        let position = match (checkpoint, self.known) {
            (Some(checkpoint), _) => checkpoint.position,
            (None, Some((position, _))) => position,
            // The first time, with the oldest event that is kept: connects of the minute in which nodes start
            // belong to it.
            (None, None) => self.store.read(&self.stream, Start::Earliest, 1).await?.from,
        };
        Ok(Position { chain: Chain::at(position), checkpoint })
    }

    /// What the stream has after a position.
    async fn page(&self, position: EventId) -> Result<Page, StoreError> {
        let page = self.store.read(&self.stream, Start::After(position), MAX_EVENTS).await?;
        if page.last >= position {
            return Ok(page);
        }
        // The store lost events that were sent already, or all: no new ones may get their ids.
        let epoch = self.known.map_or(page.epoch, |(_, epoch)| epoch);
        self.store.recover(&self.stream, position, epoch, &[]).await
    }

    /// Writes down where delivery is now. False: it is not this node's to say.
    async fn go_on(
        &self,
        leadership: &Leadership<'_>,
        place: &mut Position,
        to: Checkpoint,
    ) -> Result<bool, StoreError> {
        if place.checkpoint == Some(to) {
            return Ok(true);
        }
        let moved = self.store.leaders().advance(&self.stream, leadership.node(), place.checkpoint, to).await?;
        if moved {
            place.checkpoint = Some(to);
        }
        Ok(moved)
    }

    /// Sends a batch until it is taken. Otherwise it returns how the leadership ended, or that the receiver is gone.
    async fn send(
        &mut self,
        batch: &Batch,
        now_ms: u64,
        leadership: &mut Leadership<'_>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<End>, StoreError> {
        let read = Instant::now();
        let waited = Duration::from_millis(batch.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest)));
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            self.metrics.webhook.lag_seconds.set((waited + read.elapsed()).as_secs_f64());
            match self.post(batch, leadership).await? {
                None => return Ok(Some(End::Lost)),
                Some(Reaction::Taken) => {
                    self.taken(batch);
                    return Ok(None);
                }
                Some(Reaction::Gone) => {
                    self.give_up();
                    return Ok(None);
                }
                Some(Reaction::Failed(failure)) => {
                    let wait = backoff.next_wait().max(failure.rest.unwrap_or_default());
                    self.failed(&failure, wait);
                    let until = Instant::now() + wait;
                    while Instant::now() < until {
                        self.metrics.webhook.lag_seconds.set((waited + read.elapsed()).as_secs_f64());
                        if rest(until.min(leadership.renewal()), stop).await {
                            return Ok(Some(End::Stopped));
                        }
                        if !leadership.renew().await? {
                            return Ok(Some(End::Lost));
                        }
                    }
                }
            }
        }
    }

    /// Sends a batch once, and renews the leadership meanwhile. `None`: it is lost.
    async fn post(&self, batch: &Batch, leadership: &mut Leadership<'_>) -> Result<Option<Reaction>, StoreError> {
        let post = self.receiver.post(batch);
        tokio::pin!(post);
        loop {
            tokio::select! {
                answer = &mut post => return Ok(Some(answer)),
                () = tokio::time::sleep_until(leadership.renewal().into()) => if !leadership.renew().await? {
                    return Ok(None);
                }
            }
        }
    }

    fn taken(&mut self, batch: &Batch) {
        let metrics = &self.metrics.webhook;
        metrics.batches.inc();
        metrics.events.inc_by(batch.events as u64);
        if batch.gap {
            metrics.gaps.inc();
            tracing::warn!(id = %batch.id, "events were gone before they could be sent: the webhook got a gap");
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!(receiver = %self.receiver.target(), "the webhook is taken again");
        }
    }

    fn failed(&mut self, failure: &Failure, wait: Duration) {
        self.metrics.webhook.failed(failure.kind);
        let (reason, receiver) = (&failure.reason, self.receiver.target());
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(%reason, wait_ms = wait.as_millis(), %receiver, "the webhook was not taken");
        } else {
            tracing::warn!(%reason, wait_ms = wait.as_millis(), %receiver, "the webhook was not taken; it is sent again until it is");
        }
    }

    fn give_up(&mut self) {
        self.gone = true;
        self.metrics.webhook.gone.set(1);
        self.metrics.webhook.failed("gone");
        tracing::error!(
            receiver = %self.receiver.target(),
            "the webhook's receiver answered 410 Gone: nothing more is sent to it until this node is started again"
        );
    }
}

/// What comes next at a place. Where all is gone of what had been sent before, and what is there is beyond, it is
/// no longer asked for just that.
fn next(place: &Position, page: &Page, format: Format) -> Next {
    let sent = place.checkpoint.and_then(|checkpoint| checkpoint.sent);
    match batch::next(place.chain, page, sent, format) {
        Next::Nothing if sent.is_some() => batch::next(place.chain, page, None, format),
        next => next,
    }
}

/// Waits. True: the node stops.
async fn rest(until: Instant, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep_until(until.into()) => false,
        _ = stop.wait_for(|stop| *stop) => true,
    }
}

#[async_trait]
impl Job for Delivering {
    async fn run(&mut self, mut leadership: Leadership<'_>, stop: &mut watch::Receiver<bool>) -> End {
        self.metrics.webhook.delivering.set(1);
        self.progress = false;
        let end = self.deliver(&mut leadership, stop).await;
        // The lag is the next leader's to report.
        self.metrics.webhook.delivering.set(0);
        self.metrics.webhook.lag_seconds.set(0.0);
        end.unwrap_or_else(|error| End::Failed { error, progress: self.progress })
    }
}
