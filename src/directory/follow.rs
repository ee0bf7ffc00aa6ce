//! Devices that keep connecting in another region than their home are moved there.
//!
//! What is counted lies beside the device's other state in its home, so it does not matter at which nodes of a region
//! the device connects. The connections have to be in a row: a device that alternates between regions stays where it
//! is. And they have to be spread over a time, in which a device is moved once at most, as it is counted anew then.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::RegionalStore;
use super::migration::End;
use crate::model::StreamName;
use crate::store::StoreError;
use crate::store::redis::Plan;

/// Devices that a node moves at once for this. Others wait.
pub(super) const MOST_AT_ONCE: usize = 4;

/// Connections that are counted at once for one home region. More are not counted: a region that does not answer would
/// pile them up.
const MOST_COUNTED: usize = 256;

/// Counting the connections of devices whose home is one region.
pub(super) struct Counting {
    permits: Semaphore,
    fails: AtomicBool,
}

impl Default for Counting {
    fn default() -> Self {
        Counting { permits: Semaphore::new(MOST_COUNTED), fails: AtomicBool::new(false) }
    }
}

impl Counting {
    /// Whether it works otherwise than the last time.
    fn has_changed(&self, fails: bool) -> bool {
        self.fails.swap(fails, Ordering::Relaxed) != fails
    }

    /// A line in the log when it begins to fail, and one when it works again: not one a connection.
    fn note(&self, region: &str, answer: Result<(), &StoreError>) {
        if self.has_changed(answer.is_err()) {
            match answer {
                Ok(()) => tracing::info!(region, "devices of the region can follow their connections again"),
                Err(error) => tracing::warn!(region, %error, "devices of the region can't follow their connections"),
            }
        }
    }
}

/// When a device is moved to where it connects: `CONNECTIONS/SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowRule {
    /// So many connections in a row, at nodes of one other region.
    pub connections: u32,
    /// From the first to the last of them at least.
    pub time: Duration,
}

/// Why a text is not such a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not CONNECTIONS/SECONDS, such as 10/3600, with at least 2 connections and 1 second")]
pub struct FollowRuleError(String);

impl FromStr for FollowRule {
    type Err = FollowRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (connections, seconds) = text.split_once('/')?;
            let (connections, seconds): (u32, u32) = (connections.parse().ok()?, seconds.parse().ok()?);
            let time = Duration::from_secs(seconds.into());
            (connections >= 2 && seconds >= 1).then_some(FollowRule { connections, time })
        };
        read().ok_or_else(|| FollowRuleError(text.to_owned()))
    }
}

impl RegionalStore {
    /// The device has made a new connection here. Nobody waits for what follows from that.
    pub(super) fn connected_here(&self, device: &StreamName) {
        let Some(rule) = self.regions().follow_rule(device) else { return };
        let (store, device) = (self.clone(), device.clone());
        tokio::spawn(async move {
            let regions = store.regions();
            let home = regions.number_of_home(&device);
            let (counting, region) = (&regions.counting[home], regions.all()[home].name());
            let Ok(permit) = counting.permits.try_acquire() else { return };
            let counted = store.count(&device, rule).await;
            drop(permit);
            counting.note(region, counted.as_ref().map(drop));
            if let Ok(Some(plan)) = counted {
                store.follow(plan).await;
            }
        });
    }

    /// Counts a connection. The move that is due with it, if one is.
    async fn count(&self, device: &StreamName, rule: FollowRule) -> Result<Option<Plan>, StoreError> {
        let regions = self.regions();
        let here = regions.home();
        // Its connections at home are counted as well: they end a row.
        let may = !regions.is_home_of(here, device) && regions.following.available_permits() > 0;
        let (home, is_due) = self
            .home_and(device, |store| {
                let (here, wanted) = (here.name().clone(), (rule.connections, rule.time));
                async move { store.connected_through(device, &here, wanted, may).await }
            })
            .await?;
        let from = regions.region(home)?.name();
        // Of just this version: where it was moved to since is not for this to say.
        Ok((is_due && from != here.name()).then(|| Plan {
            stream: device.clone(),
            from: from.to_string(),
            to: here.name().to_string(),
            version: home.version.saturating_add(1),
        }))
    }

    async fn follow(&self, plan: Plan) {
        let regions = self.regions();
        // Closed when the node stops.
        let Ok(_permit) = regions.following.acquire().await else { return };
        let (device, from, to) = (plan.stream.clone(), plan.from.clone(), plan.to.clone());
        match regions.move_as(plan).await {
            Ok(Some(End::Moved)) => {
                regions.metrics.region_follows.inc();
                tracing::info!(%device, from, to, "a device that keeps connecting here was moved here");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%device, from, to, %error, "a device can't follow its connections yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_how_many_connections_and_over_how_long() {
        let rule: FollowRule = "10/3600".parse().unwrap();
        assert_eq!(rule, FollowRule { connections: 10, time: Duration::from_secs(3600) });
        for wrong in ["10", "1/3600", "10/0", "/", "10/3600/1", "-1/5", "on"] {
            assert!(wrong.parse::<FollowRule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_region_that_is_away_makes_one_line_and_not_one_a_connection() {
        let counting = Counting::default();
        let changes: Vec<bool> = [false, true, true, true, false].map(|fails| counting.has_changed(fails)).into();
        assert_eq!(changes, [false, true, false, false, true]);
    }
}
