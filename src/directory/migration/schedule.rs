//! Moves: an operator's, and those that others left half done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::run::Migration;
use super::steps::End;
use crate::backoff::Backoff;
use crate::directory::Regions;
use crate::model::StreamName;
use crate::store::StoreError;
use crate::store::redis::{Assignment, Plan, RedisStore};

/// How long a move may wait for others of the same stream.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long moves may take that are under way when the node stops.
const LAST_MOVES: Duration = Duration::from_secs(3);

/// A mover that lives has recorded the new home and thrown away the old one long before.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// Streams of which something is done here, each once at a time.
#[derive(Default)]
pub(in crate::directory) struct Busy {
    streams: Mutex<HashSet<StreamName>>,
    idle: Notify,
}

impl Busy {
    fn take(&self, stream: &StreamName) -> Option<Guard<'_>> {
        self.streams.lock().insert(stream.clone()).then(|| Guard { busy: self, stream: stream.clone() })
    }

    /// Returns when nothing is done.
    async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.streams.lock().is_empty() {
                return;
            }
            idle.await;
        }
    }
}

struct Guard<'a> {
    busy: &'a Busy,
    stream: StreamName,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut streams = self.busy.streams.lock();
        streams.remove(&self.stream);
        if streams.is_empty() {
            self.busy.idle.notify_waiters();
        }
    }
}

impl Regions {
    /// Makes a region a stream's home, wherever it is now; returns when it is. The move goes on if the caller
    /// does not wait for it.
    pub async fn move_to(self: &Arc<Self>, stream: &StreamName, region: &str) -> Result<(), StoreError> {
        let (regions, stream, region) = (self.clone(), stream.clone(), region.to_owned());
        let moved = tokio::spawn(async move { regions.move_for_long(&stream, &region).await });
        moved.await.unwrap_or_else(|error| Err(StoreError::Unknown(error.to_string())))
    }

    async fn move_for_long(&self, stream: &StreamName, region: &str) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));
        loop {
            let home = self.assigned(stream, &Assignment { region: region.to_owned(), version: 1 }).await?;
            self.learn(stream, &home);
            if home.region == region {
                return Ok(());
            }
            if stream.is_reserved() {
                let why =
                    format!("{stream} stays in the region {}: the sessions of nodes are kept beside it", home.region);
                return Err(StoreError::Unsupported(why));
            }
            let plan = Plan {
                stream: stream.clone(),
                from: home.region,
                to: region.to_owned(),
                version: home.version.saturating_add(1),
            };
            match self.move_as(plan.clone()).await? {
                Some(End::Moved) => continue,
                // What is left of it is found out by going through it.
                Some(End::Blocked(to)) => _ = self.move_as(Plan { to, ..plan }).await?,
                Some(End::Superseded) | None => {}
            }
            if begun.elapsed() > LONGEST_WAIT {
                return Err(StoreError::Unavailable(format!("{stream} is being moved by somebody else")));
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Completes a move that its mover may have left; others of this stream that come meanwhile wait.
    pub(in crate::directory) async fn complete(&self, plan: Plan) {
        let (stream, to) = (plan.stream.clone(), plan.to.clone());
        match self.move_as(plan).await {
            Ok(Some(End::Moved)) => tracing::info!(%stream, region = to, "completed a move"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%stream, region = to, %error, "a move can't be completed yet"),
        }
    }

    /// The stream is in its new home, and what comes after that was not done when this node came there.
    pub(in crate::directory) fn finish(self: &Arc<Self>, plan: Plan) {
        let regions = self.clone();
        tokio::spawn(async move {
            let Some(_turn) = regions.finishing.take(&plan.stream) else { return };
            tokio::time::sleep(FINISH_TIME).await;
            regions.complete(plan).await;
        });
    }

    /// The node stops: no more devices are moved to where they connect, and the moves that are under way are completed.
    /// One that takes longer is completed by whoever touches the stream next.
    pub async fn end_moves(&self) {
        self.following.close();
        if tokio::time::timeout(LAST_MOVES, self.moving.idle()).await.is_err() {
            tracing::info!("a move is left for other nodes to complete");
        }
    }

    /// `None` when somebody here is at a move of this stream.
    pub(in crate::directory) async fn move_as(&self, plan: Plan) -> Result<Option<End>, StoreError> {
        let Some(_turn) = self.moving.take(&plan.stream) else { return Ok(None) };
        let (from, to) = (self.store_of(&plan.from).await?, self.store_of(&plan.to).await?);
        let (stream, home) = (plan.stream.clone(), Assignment { region: plan.to.clone(), version: plan.version });
        let end = Migration::new(self.directory(), plan, from, to).run().await?;
        if end == End::Moved {
            self.metrics.region_moves.inc();
            self.learn(&stream, &home);
        }
        Ok(Some(end))
    }

    pub(in crate::directory) async fn store_of(&self, region: &str) -> Result<RedisStore, StoreError> {
        let known = self
            .named(region)
            .ok_or_else(|| StoreError::Unavailable(format!("WHIMBREL_REGIONS does not name the region '{region}'")))?;
        Ok((*known.store().await?).clone())
    }
}
