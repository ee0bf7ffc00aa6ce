//! The feed: loads the replica, then follows the directory's changes.

use std::time::{Duration, Instant};

use super::Regions;
use super::replica::{Home, Replica};
use crate::backoff::Backoff;
use crate::store::StoreError;
use crate::store::redis::{Change, PARTS};

/// Between two looks at the changes. The old home of a stream that moved refuses callers with the new one, so
/// this decides only how soon callers go there directly.
const INTERVAL: Duration = Duration::from_millis(100);

/// Follows the changes from `position` on, until it is dropped.
pub async fn follow_for_ever(regions: &Regions, mut position: String) {
    let mut backoff = Backoff::new(INTERVAL, Duration::from_secs(2));
    loop {
        match step(regions, &position).await {
            Ok((next, more)) => {
                position = next;
                if !more {
                    regions.is_fresh(Instant::now());
                    tokio::time::sleep(INTERVAL).await;
                }
                backoff.reset();
            }
            Err(error) => {
                tracing::debug!(%error, "the directory can't be followed");
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}

async fn step(regions: &Regions, position: &str) -> Result<(String, bool), StoreError> {
    let Some(changes) = regions.directory().changes(position).await? else {
        tracing::info!("changes of the directory are gone before they were read; reading it again");
        return Ok((load(regions).await?, true));
    };
    for (stream, change) in &changes.homes {
        match change {
            Change::Assigned(home) => regions.learn(stream, home),
            Change::Ended(home) => regions.forget(stream, home),
        }
    }
    Ok((changes.position, changes.more))
}

/// Reads the whole directory. The answer is the position to follow from: it is taken before the first bucket is
/// read, so that no change falls between the two.
pub async fn load(regions: &Regions) -> Result<String, StoreError> {
    let position = regions.directory().position().await?;
    let again = (!regions.replica().is_empty()).then(Replica::default);
    for part in 0..PARTS {
        for (stream, home) in regions.directory().part(part).await? {
            regions.learn(&stream, &home);
            if let Some(found) = &again {
                found.set(stream.fingerprint(), Home { region: 0, version: 1 });
            }
        }
    }
    if let Some(found) = &again {
        // Homes that ended while the changes were not followed. One that was given meanwhile is asked for again.
        regions.replica().keep_only(found);
    }
    Ok(position)
}
