//! Cleaning up after dead nodes: with their routes, every publish would be sent to a node that is gone.
//!
//! Routes lapse by themselves; this only makes it sooner, and ends what else a node leaves behind. A
//! survivor claims a dead node, takes its devices out of topics, removes its routes, publishes on the
//! lifecycle topic that its connections were lost, and forgets it last: if a cleaner dies half way, the
//! next one finds what is left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::scope::Scope;
use crate::model::{NodeId, StreamKind, StreamName};
use crate::presence::Presence;
use crate::store::{NodeLease, Store, StoreError};

/// Routes removed at a time: they are pipelined, and a claim is renewed with each such step.
const STEP: usize = 256;

/// Looks for dead nodes and cleans up after them; runs until it is dropped.
pub async fn clean_up_for_ever(store: Arc<dyn Store>, scope: Scope, presence: Arc<Presence>, lease: Duration) {
    let mut looks = tokio::time::interval(lease / 3);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watch = Watch::new(lease);
    loop {
        looks.tick().await;
        let dead = match known_nodes(&*store, &presence, scope.region_name()).await {
            Ok(nodes) => watch.look(&nodes, Instant::now()),
            Err(_) => {
                watch.interrupted();
                continue;
            }
        };
        let own = scope.node();
        for node in dead.into_iter().filter(|node| *node != *own) {
            match clean_up(&*store, &presence, scope.region_name(), (&node, &own), lease).await {
                Ok(true) => {
                    scope.registry().metrics().nodes_cleaned.inc();
                    tracing::info!(dead = %node, "cleaned up after a dead node");
                }
                Ok(false) => {}
                Err(error) => tracing::debug!(dead = %node, %error, "cleaning up will be tried again"),
            }
        }
    }
}

/// All nodes that left something: those with a lease, dead or alive, and those that were forgotten although the
/// lifecycle stream waits for their end, as by a version that did not know of it.
async fn known_nodes(store: &dyn Store, presence: &Presence, region: &str) -> Result<Vec<NodeLease>, StoreError> {
    // A node has its lease before it begins a session, so this has to be asked first.
    let sessions = presence.sessions(region).await.unwrap_or_default();
    let mut nodes = store.coordination().nodes().await?;
    for node in sessions {
        if nodes.iter().all(|known| known.node != node) {
            nodes.push(NodeLease { node, deadline_ms: 0, lapsed: true });
        }
    }
    Ok(nodes)
}

/// False when another is at it.
async fn clean_up(
    store: &dyn Store,
    presence: &Presence,
    region: &str,
    (dead, own): (&NodeId, &NodeId),
    lease: Duration,
) -> Result<bool, StoreError> {
    loop {
        if !store.coordination().claim(dead, own, lease).await? {
            return Ok(false);
        }
        let streams = store.coordination().streams_of(dead, STEP).await?;
        if streams.is_empty() {
            break;
        }
        let detached = join_all(streams.iter().map(|stream| detach(store, stream, dead))).await;
        detached.into_iter().collect::<Result<(), _>>()?;
    }
    while presence.publish_lost(dead, region).await? {
        if !store.coordination().claim(dead, own, lease).await? {
            return Ok(false);
        }
    }
    store.coordination().release(dead).await?;
    Ok(true)
}

/// Removes the route of a dead node, and before that what it had of a topic's members: they are notified over routes.
async fn detach(store: &dyn Store, stream: &StreamName, dead: &NodeId) -> Result<(), StoreError> {
    if stream.kind() == StreamKind::Topic {
        let mut after = store.drop_members(stream, dead, None).await?;
        while let Some(last) = after {
            after = store.drop_members(stream, dead, Some(&last)).await?;
        }
    }
    store.detach(stream, dead, None).await
}

/// Which nodes' deadlines stand still.
///
/// A lapsed deadline alone proves nothing: after an outage, or a failover to a store whose clock is ahead,
/// all leases look lapsed at once. A node is dead when its deadline is past and was seen to stand still
/// for a whole lease time, by a node that was not cut off meanwhile.
struct Watch {
    lease: Duration,
    seen: HashMap<NodeId, (u64, Instant)>,
    looked: Option<Instant>,
}

impl Watch {
    fn new(lease: Duration) -> Self {
        Watch { lease, seen: HashMap::new(), looked: None }
    }

    /// The store gave no answer: whatever stood still meanwhile may have been cut off too.
    fn interrupted(&mut self) {
        self.seen.clear();
    }

    /// The nodes that are dead by now.
    fn look(&mut self, nodes: &[NodeLease], now: Instant) -> Vec<NodeId> {
        if self.looked.is_some_and(|looked| now.duration_since(looked) > self.lease) {
            self.interrupted();
        }
        self.looked = Some(now);
        let before = std::mem::take(&mut self.seen);
        let mut dead = Vec::new();
        for NodeLease { node, deadline_ms, lapsed } in nodes {
            let since = match before.get(node) {
                Some((known, since)) if known == deadline_ms => *since,
                _ => now,
            };
            if *lapsed && now.duration_since(since) >= self.lease {
                dead.push(node.clone());
            }
            self.seen.insert(node.clone(), (*deadline_ms, since));
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn nodes(entries: &[(&str, u64, bool)]) -> Vec<NodeLease> {
        entries
            .iter()
            .map(|(node, deadline_ms, lapsed)| NodeLease {
                node: NodeId::from((*node).to_owned()),
                deadline_ms: *deadline_ms,
                lapsed: *lapsed,
            })
            .collect()
    }

    /// Looks every third of a lease; what `at` gives for each step is what is seen.
    fn found(steps: u32, at: impl Fn(u32) -> Option<Vec<NodeLease>>) -> Vec<(u32, String)> {
        let (start, mut watch, mut found) = (Instant::now(), Watch::new(LEASE), Vec::new());
        for step in 0..steps {
            match at(step) {
                Some(nodes) => {
                    let dead = watch.look(&nodes, start + LEASE / 3 * step);
                    found.extend(dead.into_iter().map(|node| (step, node.to_string())));
                }
                None => watch.interrupted(),
            }
        }
        found
    }

    #[test]
    fn a_node_whose_deadline_stands_still_for_a_lease_is_dead() {
        let dead = found(4, |step| Some(nodes(&[("a", 100 + u64::from(step), false), ("b", 100, step > 2)])));
        assert_eq!(dead, [(3, "b".to_owned())]);
    }

    #[test]
    fn leases_that_look_lapsed_but_move_are_alive() {
        // A failover to a clock far ahead: everything is in the past, but is renewed.
        assert_eq!(found(9, |step| Some(nodes(&[("a", u64::from(step), true)]))), []);
    }

    #[test]
    fn nobody_is_judged_within_a_lease_of_ones_own_outage() {
        let dead = found(8, |step| (step != 3).then(|| nodes(&[("a", 100, true)])));
        assert_eq!(dead, [(7, "a".to_owned())]);
    }

    #[test]
    fn a_node_that_slept_begins_to_look_anew() {
        let (start, mut watch) = (Instant::now(), Watch::new(LEASE));
        let seen = nodes(&[("a", 100, true)]);
        assert_eq!(watch.look(&seen, start), []);
        assert_eq!(watch.look(&seen, start + LEASE * 20), []);
    }
}
