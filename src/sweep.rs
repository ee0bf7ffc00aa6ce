//! The directory's entries of topics end with their streams. Topics that are named for one purpose, a request say, would
//! make the directory and its replicas grow for ever.
//!
//! ```text
//! the position expired -> the region ends the home -> the directory removes the entry -> the replicas drop it
//! ```
//!
//! One node of a region at a time goes through the directory, slowly ([`leader`]), and looks at topics whose home its
//! region is. It is safe at any pace, and with two of them at once: a home is ended in its region first, and only where
//! nothing is left there of the topic. Whoever comes meanwhile asks the directory, and has it record the home as of a
//! newer version before the region takes that; an entry is removed only as of the version that was ended. Devices keep
//! their entries: where a device belongs outlives its inbox.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::directory::Regions;
use crate::dispatch::Registry;
use crate::leader::{self, Election, End, Job, Leadership};
use crate::model::{StreamKind, StreamName};
use crate::store::redis::PARTS;
use crate::store::{JobKind, Store, StoreError};

/// Topics that are looked at together.
const GROUP: usize = 64;

/// Between two groups: a thousand topics a second are looked at.
const BETWEEN_GROUPS: Duration = Duration::from_millis(64);

/// Between two walks through the directory, in lease times.
const BETWEEN_WALKS: u32 = 4;

/// Starts the candidacy for ending entries; nothing where there is no directory.
pub fn begin(store: Arc<dyn Store>, registry: Arc<Registry>, lease: Duration) -> Option<Election> {
    let regions = store.regions()?.clone();
    Some(Election::start(move |stopped| async move {
        let mut sweeper = Sweeper { regions: &regions, part: 0, pause: lease * BETWEEN_WALKS };
        leader::campaign(&*store, &registry, JobKind::Directory, lease, &mut sweeper, stopped).await;
    }))
}

struct Sweeper<'a> {
    regions: &'a Regions,
    /// The part of the directory that is looked at next.
    part: u64,
    pause: Duration,
}

/// Why a walk goes no further.
enum Break {
    Lost,
    Failed(StoreError),
}

impl From<StoreError> for Break {
    fn from(error: StoreError) -> Self {
        Break::Failed(error)
    }
}

#[async_trait]
impl Job for Sweeper<'_> {
    async fn run(&mut self, mut leadership: Leadership<'_>, stop: &mut watch::Receiver<bool>) -> End {
        let mut progress = false;
        loop {
            let end = tokio::select! {
                swept = self.sweep_part(&mut leadership) => swept,
                _ = stop.wait_for(|stop| *stop) => return End::Stopped,
            };
            match end {
                Ok(()) => progress = true,
                Err(Break::Lost) => return End::Lost,
                Err(Break::Failed(error)) => return End::Failed { error, progress },
            }
        }
    }
}

impl Sweeper<'_> {
    async fn sweep_part(&mut self, leadership: &mut Leadership<'_>) -> Result<(), Break> {
        let here = self.regions.home().name().clone();
        let mut topics = self.regions.directory().part(self.part).await?;
        topics.retain(|(stream, home)| *home.region == *here && may_end(stream));
        for group in topics.chunks(GROUP) {
            if !leadership.renew().await? {
                return Err(Break::Lost);
            }
            self.regions.end_homes(group).await?;
            tokio::time::sleep(BETWEEN_GROUPS).await;
        }
        self.part = (self.part + 1) % PARTS;
        if self.part == 0 {
            self.rest(leadership).await?;
        }
        Ok(())
    }

    /// Waits before the next walk.
    async fn rest(&self, leadership: &mut Leadership<'_>) -> Result<(), Break> {
        for _ in 0..BETWEEN_WALKS * 4 {
            if !leadership.renew().await? {
                return Err(Break::Lost);
            }
            tokio::time::sleep(self.pause / (BETWEEN_WALKS * 4)).await;
        }
        Ok(())
    }
}

fn may_end(stream: &StreamName) -> bool {
    stream.kind() == StreamKind::Topic && !stream.is_reserved()
}
