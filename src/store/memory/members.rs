//! Who is present in topics, in this process.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryStore, State, now_ms};
use crate::model::{NodeId, StreamName};
use crate::store::members::{DROPPED_AT_ONCE, LocalMember, Member, MemberPage, TopicMembers, write_notices};
use crate::store::{ChannelMessage, StoreError};

/// The devices that are present in a topic, by name. The Redis store's `members_….lua` do the same.
#[derive(Debug, Default)]
pub(super) struct Roster(BTreeMap<String, Entry>);

#[derive(Debug, Default)]
struct Entry {
    since_ms: u64,
    info: Option<String>,
    /// What each node has of it.
    nodes: Vec<(NodeId, u32)>,
}

impl Entry {
    fn connections(&self, counts: impl Fn(&NodeId) -> bool) -> u64 {
        self.nodes.iter().filter(|(node, _)| counts(node)).map(|(_, count)| u64::from(*count)).sum()
    }
}

/// Who joined (`true`) or left, with its info.
type Change = (bool, String, Option<String>);

impl Roster {
    /// Sets what a node has of a device. `live` says whether a node has a route.
    fn set(
        &mut self,
        own: &NodeId,
        member: &LocalMember,
        now_ms: u64,
        live: impl Fn(&NodeId) -> bool,
    ) -> Option<Change> {
        let counts = |node: &NodeId| node == own || live(node);
        let entry = self.0.entry(member.device.clone()).or_default();
        let before = entry.connections(counts);
        if before == 0 {
            *entry = Entry { since_ms: now_ms, info: entry.info.take(), nodes: Vec::new() };
        }
        entry.nodes.retain(|(node, _)| node != own);
        if member.connections > 0 {
            entry.nodes.push((own.clone(), member.connections));
            entry.info = member.info.clone().or(entry.info.take());
        }
        let (after, info) = (entry.connections(counts), entry.info.clone());
        if entry.nodes.is_empty() {
            self.0.remove(&member.device);
        }
        ((before == 0) != (after == 0)).then(|| (after > 0, member.device.clone(), info))
    }

    /// Takes away what a dead node had of a device.
    fn drop(&mut self, dead: &NodeId, device: &str, live: impl Fn(&NodeId) -> bool) -> Option<Change> {
        let entry = self.0.get_mut(device)?;
        let held = entry.nodes.len();
        entry.nodes.retain(|(node, _)| node != dead);
        let left = entry.nodes.len() < held && entry.connections(live) == 0;
        left.then(|| (false, device.to_owned(), self.0.remove(device).and_then(|entry| entry.info)))
    }

    /// The names after one, at most `limit`, and whether there are more.
    fn after(&self, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut names = self.0.range::<str, _>((from, Bound::Unbounded)).map(|(name, _)| name.clone());
        (names.by_ref().take(limit).collect(), names.next().is_some())
    }
}

impl State {
    /// Works on the members of a topic, and makes known who joined and who left. `routed` are the nodes with a route.
    fn with_roster<T>(
        &mut self,
        topic: &StreamName,
        now_ms: u64,
        work: impl FnOnce(&mut Roster, &[NodeId]) -> (T, Vec<Change>),
    ) -> T {
        let routed = self.streams.get(topic).map(|log| log.routed(now_ms)).unwrap_or_default();
        let roster = self.members.entry(topic.clone()).or_default();
        let (answer, changes) = work(roster, &routed);
        if roster.0.is_empty() {
            self.members.remove(topic);
        }
        if !changes.is_empty() {
            let control = write_notices(topic, now_ms, &changes);
            for node in &routed {
                self.notify(node, || ChannelMessage::Control(control.clone()));
            }
        }
        answer
    }
}

#[async_trait]
impl TopicMembers for MemoryStore {
    async fn set_members(
        &self,
        topic: &StreamName,
        node: &NodeId,
        members: &[LocalMember],
    ) -> Result<bool, StoreError> {
        let now_ms = now_ms();
        self.step(|state| {
            state.with_roster(topic, now_ms, |roster, routed| {
                let is_routed = routed.contains(node);
                let fit = members.iter().filter(|member| is_routed || member.connections == 0);
                let changes = fit.filter_map(|member| roster.set(node, member, now_ms, |node| routed.contains(node)));
                (is_routed, changes.collect())
            })
        })
        .await
    }

    async fn drop_members(
        &self,
        topic: &StreamName,
        dead: &NodeId,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        self.step(|state| {
            state.with_roster(topic, now_ms(), |roster, routed| {
                let (devices, more) = roster.after(after, DROPPED_AT_ONCE);
                let live = |node: &NodeId| node != dead && routed.contains(node);
                let changes = devices.iter().filter_map(|device| roster.drop(dead, device, live)).collect();
                (devices.into_iter().next_back().filter(|_| more), changes)
            })
        })
        .await
    }

    async fn members(&self, topic: &StreamName, after: Option<&str>, limit: usize) -> Result<MemberPage, StoreError> {
        self.step(|state| {
            state.with_roster(topic, now_ms(), |roster, routed| {
                let (devices, more) = roster.after(after, limit);
                let next = devices.last().filter(|_| more).cloned();
                let shown = |device: String| {
                    let entry = roster.0.get(&device)?;
                    let connections = entry.connections(|node| routed.contains(node));
                    let (info, since_ms) = (entry.info.clone(), entry.since_ms);
                    (connections > 0).then_some(Member { device, info, connections, since_ms })
                };
                let members = devices.into_iter().filter_map(shown).collect();
                (MemberPage { members, next }, Vec::new())
            })
        })
        .await
    }
}
