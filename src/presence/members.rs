//! Presence in topics: which devices of this node are members of which topics, and which connections are notified.
//!
//! A connection that asked for it counts for its device in each topic that it follows ([`TopicPresence`]). Changes go to
//! the store by one task, in rounds, with the numbers of the moment: so an update may be repeated, or late,
//! and is right in the end. The store publishes [`MemberNotice`]s, which go to the connections here that asked.
//!
//! Notices come over the node's channel, at most once. A connection that may have missed some is notified, and reads the list
//! of members again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::by_region::RegionOf;
use crate::backoff::Backoff;
use crate::directory;
use crate::dispatch::Registry;
use crate::model::{Info, MemberNotice, StreamName};
use crate::store::members::{LocalMember, MEMBER, read_notices};
use crate::store::{Control, Store, StoreError};

/// Devices of one topic in one call.
const DEVICES: usize = 256;

/// Topics in one round.
const TOPICS: usize = 64;

/// Longest wait of a connection for the store to take it in: it is let in all the same, and becomes a member later.
const JOIN_TIME: Duration = Duration::from_secs(1);

/// A connection that is notified of devices that join and leave.
pub trait Watcher: Send + Sync + 'static {
    /// A device joined a topic that it follows, or left it.
    fn member(&self, notice: &MemberNotice);

    /// Notices may have been missed.
    fn missed_members(&self);
}

/// The devices of this node that are present in topics.
pub struct Members {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    here: Mutex<Here>,
    /// There is an update for the store.
    work: watch::Sender<()>,
    /// One for each region, by its number: one that does not answer holds up its own topics alone.
    lanes: Vec<Lane>,
}

/// Updates the store of one region.
struct Lane {
    /// One round at a time: the numbers of an earlier one must not come after those of a later one.
    updating: tokio::sync::Mutex<()>,
    /// Rounds that are over.
    rounds: watch::Sender<u64>,
}

struct Here {
    topics: HashMap<StreamName, Topic>,
    /// For each region, by its number.
    queues: Vec<Queue>,
    region_of: RegionOf,
}

#[derive(Default)]
struct Queue {
    /// Devices whose numbers the store has to get, by topic.
    changed: HashMap<StreamName, BTreeSet<String>>,
    /// Rounds that were begun.
    round: u64,
}

#[derive(Default)]
struct Topic {
    devices: HashMap<String, Device>,
    /// By the number of the connection.
    watchers: HashMap<u64, Weak<dyn Watcher>>,
}

struct Device {
    connections: u32,
    info: Option<Info>,
}

impl Here {
    fn queue(&mut self, topic: &StreamName) -> &mut Queue {
        let region = (self.region_of)(topic);
        &mut self.queues[region]
    }

    fn mark_changed(&mut self, topic: &StreamName, device: &str) {
        self.queue(topic).changed.entry(topic.clone()).or_default().insert(device.to_owned());
    }

    /// One more connection of a device, or one less.
    fn count(&mut self, topic: &StreamName, device: &str, info: Option<&Info>, joins: bool) {
        let devices = &mut self.topics.entry(topic.clone()).or_default().devices;
        let known = devices.entry(device.to_owned()).or_insert(Device { connections: 0, info: None });
        if joins {
            known.connections += 1;
            known.info = info.cloned().or(known.info.take());
        } else {
            known.connections = known.connections.saturating_sub(1);
        }
        if known.connections == 0 {
            devices.remove(device);
        }
        self.forget_if_empty(topic);
        self.mark_changed(topic, device);
    }

    /// Something else is shown beside a device.
    fn inform(&mut self, topic: &StreamName, device: &str, info: &Info) {
        if let Some(known) = self.topics.get_mut(topic).and_then(|topic| topic.devices.get_mut(device)) {
            known.info = Some(info.clone());
            self.mark_changed(topic, device);
        }
    }

    fn forget_if_empty(&mut self, topic: &StreamName) {
        if self.topics.get(topic).is_some_and(|topic| topic.devices.is_empty() && topic.watchers.is_empty()) {
            self.topics.remove(topic);
        }
    }

    /// The next updates for the store of a region, with the numbers of now.
    fn take(&mut self, region: usize) -> Vec<(StreamName, Vec<LocalMember>)> {
        let Here { topics: present, queues, .. } = self;
        let queue = &mut queues[region];
        let topics: Vec<_> = queue.changed.keys().take(TOPICS).cloned().collect();
        let taken = topics.into_iter().map(|topic| {
            let changed = queue.changed.get_mut(&topic).expect("it was just there");
            let devices: Vec<_> = std::iter::from_fn(|| changed.pop_first()).take(DEVICES).collect();
            if changed.is_empty() {
                queue.changed.remove(&topic);
            }
            let known = present.get(&topic);
            let local = |device: String| {
                let here = known.and_then(|topic| topic.devices.get(&device));
                let info = here.and_then(|here| here.info.as_ref()).map(|info| info.as_str().to_owned());
                LocalMember { device, connections: here.map_or(0, |here| here.connections), info }
            };
            let devices = devices.into_iter().map(local).collect();
            (topic, devices)
        });
        taken.collect()
    }

    /// All devices of some topics have to be updated again. Returns the topics' watchers.
    fn refresh_where(&mut self, concerned: impl Fn(&StreamName) -> bool) -> Vec<Arc<dyn Watcher>> {
        let mut watchers = Vec::new();
        let Here { topics, queues, region_of } = self;
        for (name, topic) in topics.iter().filter(|(name, _)| concerned(name)) {
            if !topic.devices.is_empty() {
                let changed = queues[region_of(name)].changed.entry(name.clone()).or_default();
                changed.extend(topic.devices.keys().cloned());
            }
            watchers.extend(topic.watchers.values().filter_map(Weak::upgrade));
        }
        watchers
    }
}

impl Members {
    pub(super) fn new(store: Arc<dyn Store>, registry: Arc<Registry>) -> Arc<Self> {
        let regions = directory::count_of(&*store);
        let lane = |_| Lane { updating: tokio::sync::Mutex::default(), rounds: watch::Sender::new(0) };
        let region_of = {
            let store = store.clone();
            Arc::new(move |topic: &StreamName| directory::region_of(&*store, topic))
        };
        let queues = (0..regions).map(|_| Queue::default()).collect();
        let here = Here { topics: HashMap::new(), queues, region_of };
        let lanes = (0..regions).map(lane).collect();
        Arc::new(Members { store, registry, here: Mutex::new(here), work: watch::Sender::new(()), lanes })
    }

    /// The part of a connection in its topics. It is a member of none so far.
    pub fn topic_presence(self: &Arc<Self>, device: Option<StreamName>, info: Option<Info>) -> TopicPresence {
        let (topics, watcher) = (Mutex::default(), OnceLock::new());
        TopicPresence { members: self.clone(), device, info: Mutex::new(info), topics, watcher }
    }

    /// A control message came in that is about members. False when it is about something else.
    pub(super) fn receive(&self, control: &Control) -> bool {
        if control.word != MEMBER {
            return false;
        }
        let Some(notices) = read_notices(control) else {
            tracing::warn!("a message on the node's channel about members makes no sense");
            return true;
        };
        let Some(first) = notices.first() else { return true };
        let watchers: Vec<_> = match self.here.lock().topics.get(&first.topic) {
            Some(topic) => topic.watchers.values().filter_map(Weak::upgrade).collect(),
            None => return true,
        };
        for watcher in watchers {
            notices.iter().for_each(|notice| watcher.member(notice));
        }
        true
    }

    /// The store may have lost members, the node has a new id, or its channel was cut: the members of all
    /// such topics are updated again, and watchers are notified that they may have missed something.
    pub(super) fn refresh_where(&self, concerned: impl Fn(&StreamName) -> bool) {
        let watchers = self.here.lock().refresh_where(concerned);
        self.work.send_replace(());
        for watcher in watchers {
            watcher.missed_members();
        }
    }

    /// Updates the store with joins and leaves; runs until it is dropped.
    pub async fn update_for_ever(self: Arc<Self>) {
        join_all((0..self.lanes.len()).map(|region| self.update_region(region))).await;
    }

    async fn update_region(&self, region: usize) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut work = self.work.subscribe();
        work.mark_changed();
        while work.changed().await.is_ok() {
            loop {
                match self.update_round(region).await {
                    Ok(true) => backoff.reset(),
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(%error, "members of topics can't be updated in the store");
                        tokio::time::sleep(backoff.next_wait()).await;
                    }
                }
            }
        }
    }

    /// Updates the store with all that is left; in each region the first failure ends it. False then.
    pub(super) async fn update_all(&self) -> bool {
        let update = async |region| {
            loop {
                match self.update_round(region).await {
                    Ok(true) => {}
                    Ok(false) => return true,
                    Err(_) => return false,
                }
            }
        };
        join_all((0..self.lanes.len()).map(update)).await.into_iter().all(|updated| updated)
    }

    /// One round in a region; false when nothing was left to update.
    async fn update_round(&self, region: usize) -> Result<bool, StoreError> {
        let lane = &self.lanes[region];
        let _turn = lane.updating.lock().await;
        let (round, taken) = {
            let mut here = self.here.lock();
            let taken = here.take(region);
            here.queues[region].round += 1;
            (here.queues[region].round, taken)
        };
        let node = self.registry.node();
        let updating = taken.iter().map(|(topic, members)| self.store.set_members(topic, &node, members));
        let answers = join_all(updating).await;
        let mut failure = None;
        for (answer, (topic, members)) in answers.into_iter().zip(&taken) {
            let why = match answer {
                Ok(true) => continue,
                // Leaves count all the same. The next sync of the topic asserts the route.
                Ok(false) if members.iter().all(|member| member.connections == 0) => continue,
                Ok(false) => StoreError::Unavailable(format!("the node has no route to {topic} yet")),
                Err(error) => error,
            };
            failure = Some(why);
            let mut here = self.here.lock();
            members.iter().for_each(|member| here.mark_changed(topic, &member.device));
        }
        lane.rounds.send_replace(round);
        match failure {
            Some(why) => Err(why),
            None => Ok(!taken.is_empty()),
        }
    }
}

/// A connection's part in the topics that it follows. It ends when this is dropped.
pub struct TopicPresence {
    members: Arc<Members>,
    /// The inbox of the device that it makes a member; without one it only watches.
    device: Option<StreamName>,
    /// What is shown beside the device.
    info: Mutex<Option<Info>>,
    /// Where it takes part.
    topics: Mutex<Vec<StreamName>>,
    watcher: OnceLock<(u64, Weak<dyn Watcher>)>,
}

impl TopicPresence {
    /// Whether it is of this device.
    pub fn is_of(&self, device: &str) -> bool {
        self.device.as_ref().is_some_and(|own| own.name() == device)
    }

    /// Takes part in topics. Returns once the store has it, or could not be reached.
    pub async fn join<'a>(&self, streams: impl Iterator<Item = &'a StreamName>) {
        let begun = self.begin(streams, self.device.as_ref().map(StreamName::name));
        if begun.is_empty() {
            return;
        }
        self.members.work.send_replace(());
        let over = join_all(begun.into_iter().map(async |(region, round)| {
            let mut rounds = self.members.lanes[region].rounds.subscribe();
            let _ = rounds.wait_for(|over| *over > round).await;
        }));
        let _ = tokio::time::timeout(JOIN_TIME, over).await;
    }

    /// Notes the topics. Gives the numbers of rounds begun by then in each region whose store needs an update.
    fn begin<'a>(&self, streams: impl Iterator<Item = &'a StreamName>, device: Option<&str>) -> BTreeMap<usize, u64> {
        let mut topics = self.topics.lock();
        let mut here = self.members.here.lock();
        let mut begun = BTreeMap::new();
        for topic in streams.filter(|stream| stream.device().is_none()) {
            topics.push(topic.clone());
            if let Some((number, watcher)) = self.watcher.get() {
                here.topics.entry(topic.clone()).or_default().watchers.insert(*number, watcher.clone());
            }
            if let Some(device) = device {
                here.count(topic, device, self.info.lock().as_ref(), true);
                let region = (here.region_of)(topic);
                begun.insert(region, here.queues[region].round);
            }
        }
        begun
    }

    /// The connection is set up, and is notified from now on.
    pub fn watch(&self, number: u64, watcher: Weak<dyn Watcher>) {
        let topics = self.topics.lock();
        let mut here = self.members.here.lock();
        for topic in topics.iter() {
            here.topics.entry(topic.clone()).or_default().watchers.insert(number, watcher.clone());
        }
        let _ = self.watcher.set((number, watcher));
    }

    /// This is shown beside the device from now on; the others in its topics get no notice of it.
    pub fn inform(&self, info: Option<&Info>) {
        let (Some(device), Some(info)) = (&self.device, info) else { return };
        let topics = self.topics.lock();
        if self.info.lock().replace(info.clone()).as_ref() == Some(info) {
            return;
        }
        let mut here = self.members.here.lock();
        topics.iter().for_each(|topic| here.inform(topic, device.name(), info));
        self.members.work.send_replace(());
    }

    /// Takes no part in a topic any more.
    pub fn leave(&self, topic: &StreamName) {
        let mut topics = self.topics.lock();
        if let Some(at) = topics.iter().position(|known| known == topic) {
            topics.swap_remove(at);
            self.end(topic);
        }
    }

    /// Takes no part in any topic any more.
    pub fn leave_all(&self) {
        for topic in self.topics.lock().drain(..) {
            self.end(&topic);
        }
    }

    fn end(&self, topic: &StreamName) {
        let mut here = self.members.here.lock();
        if let (Some((number, _)), Some(known)) = (self.watcher.get(), here.topics.get_mut(topic)) {
            known.watchers.remove(number);
        }
        match self.device.as_ref() {
            Some(device) => {
                here.count(topic, device.name(), None, false);
                self.members.work.send_replace(());
            }
            None => here.forget_if_empty(topic),
        }
    }
}

impl Drop for TopicPresence {
    fn drop(&mut self) {
        self.leave_all();
    }
}
