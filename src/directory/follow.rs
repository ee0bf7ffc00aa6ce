//! Devices that keep connecting in another region than their home are moved there.
//!
//! What is counted lies beside the device's other state in its home, so it does not matter at which nodes of a region
//! the device connects. The connections have to be in a row: a device that alternates between regions stays where it
//! is. And they have to be spread over a time, in which a device is moved once at most, as it is counted anew then.

use std::str::FromStr;
use std::time::Duration;

use super::RegionalStore;
use super::migration::End;
use crate::model::StreamName;
use crate::store::StoreError;
use crate::store::redis::Plan;

/// Devices that a node moves at once for this. Others are moved when they connect the next time.
pub(super) const MOST_AT_ONCE: usize = 4;

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
            if let Err(error) = store.follow(&device, rule).await {
                tracing::warn!(%device, %error, "a device that keeps connecting here can't be moved here yet");
            }
        });
    }

    async fn follow(&self, device: &StreamName, rule: FollowRule) -> Result<(), StoreError> {
        let regions = self.regions();
        let here = regions.home();
        // Its connections at home are counted as well: they end a row.
        let turn = if regions.is_home_of(here, device) { None } else { regions.following.try_acquire().ok() };
        let (home, is_due) = self
            .home_and(device, |store| {
                let (here, may) = (here.name().clone(), turn.is_some());
                let wanted = (rule.connections, rule.time);
                async move { store.connected_through(device, &here, wanted, may).await }
            })
            .await?;
        let from = regions.region(home)?.name();
        if !is_due || from == here.name() {
            return Ok(());
        }
        // Of just this version: where it was moved to since is not for this to say.
        let plan = Plan {
            stream: device.clone(),
            from: from.to_string(),
            to: here.name().to_string(),
            version: home.version.saturating_add(1),
        };
        if regions.move_as(plan).await? == Some(End::Moved) {
            regions.metrics.region_follows.inc();
            tracing::info!(%device, %from, to = %here.name(), "a device that keeps connecting here was moved here");
        }
        Ok(())
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
}
