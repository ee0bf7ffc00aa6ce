//! Streams with two homes. A directory that failed over may have forgotten which region has a stream, and given it to
//! another region as of the same version. Both regions then serve it, and neither knows of what the other stores.
//!
//! A node that knows one home sees it when it learns of the other. The directory's word holds: the region that it does
//! not name gives the stream up, from then on redirects every call to the other, and what it has is published there
//! once more, each event once. Clients that followed it there get a gap notice, and then all that the stream has:
//! events may come twice to them, under new ids, but none is lost.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Regions;
use super::replica::Home;
use crate::backoff::Backoff;
use crate::model::{Draft, StreamName};
use crate::store::redis::{Assignment, RedisStore};
use crate::store::{EventLog as _, StoreError};

/// Conflicts that wait to be settled. One more is seen again by whoever learns of it next.
const MOST: usize = 100_000;

/// Conflicts that were seen.
#[derive(Default)]
pub(super) struct Conflicts {
    waiting: Mutex<Waiting>,
    seen: Notify,
}

#[derive(Default)]
struct Waiting {
    /// With the homes that this node knew.
    queue: VecDeque<(StreamName, Home)>,
    known: HashSet<StreamName>,
}

impl Conflicts {
    fn add(&self, stream: StreamName, known: Home) {
        let mut waiting = self.waiting.lock();
        if waiting.queue.len() < MOST && waiting.known.insert(stream.clone()) {
            waiting.queue.push_back((stream, known));
            self.seen.notify_one();
        }
    }

    fn take(&self) -> Option<(StreamName, Home)> {
        let mut waiting = self.waiting.lock();
        let (stream, known) = waiting.queue.pop_front()?;
        waiting.known.remove(&stream);
        Some((stream, known))
    }
}

impl Regions {
    /// The directory names another region as of the version that this node knows.
    pub(super) fn conflict(&self, stream: &StreamName, known: Home) {
        self.conflicts.add(stream.clone(), known);
    }

    /// Settles conflicts; runs until it is dropped.
    pub async fn settle_conflicts_for_ever(self: Arc<Self>) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let Some((stream, known)) = self.conflicts.take() else {
                self.conflicts.seen.notified().await;
                continue;
            };
            match self.settle_conflict(&stream, known).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::debug!(%stream, %error, "a stream with two homes can't be settled yet");
                    self.conflicts.add(stream, known);
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn settle_conflict(&self, stream: &StreamName, known: Home) -> Result<(), StoreError> {
        let from = self.region(known)?.name().to_string();
        let here = Assignment { region: from.clone(), version: known.version };
        let home = self.assigned(stream, &here).await?;
        if home.region == from {
            return Ok(());
        }
        let (losing, winning) = (self.store_of(&from).await?, self.store_of(&home.region).await?);
        // Somebody has to be there before this one is given up.
        if let Some(ended) = winning.claim(stream, home.version).await? {
            self.directory().renew(stream, &home, ended).await?;
            return Err(StoreError::Unavailable("its home was ended just now".to_owned()));
        }
        if losing.cede(stream, known.version, &home.region).await? {
            self.metrics.region_conflicts.inc();
            tracing::warn!(
                %stream, given_up = from, home = home.region,
                "a stream had two homes, as the directory had forgotten one; what both have is put together"
            );
            self.has_home_in(stream, &home);
            merge(stream, known.version, (&from, &losing), (&home, &winning)).await?;
        } else {
            // Another stream with the same fingerprint, or somebody was faster.
            self.has_home_in(stream, &home);
        }
        Ok(())
    }
}

/// Publishes in a stream's home what is stranded in the region that gave it up.
async fn merge(
    stream: &StreamName,
    version: u32,
    (from, losing): (&str, &RedisStore),
    (home, winning): (&Assignment, &RedisStore),
) -> Result<(), StoreError> {
    let (mut upto, winning) = (String::new(), winning.as_of(home.version));
    while let Some(stranded) = losing.stranded(stream, version, (from, &home.region), &upto).await? {
        for draft in stranded.events {
            match winning.publish(stream, &draft).await {
                // Its key was used for another event there.
                Err(StoreError::KeyReused) => {
                    let key = draft.key.as_deref().unwrap_or_default();
                    let key = Some(format!("whimbrel:{from}:{key}"));
                    winning.publish(stream, &Draft { key, ..draft }).await?;
                }
                answer => _ = answer?,
            }
        }
        upto = stranded.upto;
    }
    Ok(())
}
