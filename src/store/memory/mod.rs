//! The embedded store: everything in this process, for one node. It is gone when the process ends, unless there is
//! a [journal] behind it.
//!
//! [`log`](StreamLog) is one stream as a plain value; here stand the map of streams, the channels, the
//! leases, the clock and the byte limit around it. Each operation is one step under the store's lock, and what it
//! answers and sends waits for the journal.

mod device_slots;
mod entry;
mod event_log;
mod journal;
mod leader;
mod lifecycle;
mod log;
mod members;
mod presence;
mod producers;
mod restore;
mod revocations;
mod sessions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::producers::ProducerLeases;
use super::mailbox::Mailbox;
use super::{
    ChannelMessage, Channels, Control, Coordination, Ingress, Leaders, Liveness, NodeInfo, NodeLease, Producers,
    Renewal, RetentionRules, Revocations, SendHistory, Store, StoreError, Subscription, millis, now_ms, random_step,
};
use crate::model::{Draft, NodeId, Published, StreamName};

pub use journal::{DataDirError, Fsync};
pub use log::{Stored, StreamLog};
pub use restore::{Restored, inspect};

use journal::{Journal, Settling};

use sessions::Sessions;

/// How often all streams are looked through for what outlived its time. Each is also looked at whenever
/// it is used, so this only bounds how long forgotten ones take memory.
const SWEEP_MS: u64 = 10_000;

/// How often while there is no room.
const SWEEP_FULL_MS: u64 = 1000;

/// The embedded store.
pub struct MemoryStore {
    rules: RetentionRules,
    position_time: Duration,
    max_bytes: usize,
    /// One lock for all: an operation holds it for some microseconds, and under it a publish and its
    /// messages are one step, so that every channel has every stream's order.
    state: Mutex<State>,
    /// Where there is a journal: what answers wait for.
    settling: Option<Settling>,
}

#[derive(Default)]
struct State {
    streams: HashMap<StreamName, StreamLog>,
    /// The sum of what the logs take.
    bytes: usize,
    channels: HashMap<NodeId, Vec<Arc<Mailbox>>>,
    /// Members of topics.
    members: HashMap<StreamName, members::Roster>,
    /// When each node's lease ends.
    leases: HashMap<NodeId, u64>,
    /// The nodes' lifecycle sessions.
    sessions: Sessions,
    producers: ProducerLeases,
    revocations: revocations::Kept,
    swept_ms: u64,
    journal: Option<Journal>,
}

impl MemoryStore {
    /// An empty store that keeps at most about `max_bytes`.
    pub fn new(rules: RetentionRules, position_time: Duration, max_bytes: usize) -> Self {
        MemoryStore { rules, position_time, max_bytes, state: Mutex::default(), settling: None }
    }

    /// Does something under the lock. What it recorded goes to the journal as one, and all that it saw has to be there
    /// before it may be answered: up to where is the second part of the answer.
    fn take_step<T>(&self, work: impl FnOnce(&mut State) -> T) -> (T, Option<u64>) {
        let mut state = self.state.lock();
        let answer = work(&mut state);
        let due = state.journal.as_mut().map(Journal::seal);
        state.compact();
        (answer, due)
    }

    async fn settled(&self, due: Option<u64>) -> Result<(), StoreError> {
        match (&self.settling, due) {
            (Some(settling), Some(due)) => settling.settled(due).await,
            _ => Ok(()),
        }
    }

    /// Does something under the lock, and answers once that can be answered.
    async fn step<T: Send>(&self, work: impl FnOnce(&mut State) -> T + Send) -> Result<T, StoreError> {
        let (answer, due) = self.take_step(work);
        self.settled(due).await?;
        Ok(answer)
    }

    /// The same, with something that can fail.
    async fn try_step<T: Send>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        self.step(work).await?
    }

    /// The same, if there is room on disk for what it records.
    async fn step_with_room<T: Send>(&self, work: impl FnOnce(&mut State) -> T + Send) -> Result<T, StoreError> {
        self.try_step(|state| state.reserve(0).map(|()| work(state))).await
    }

    /// Runs one operation on a stream's log. A stream that does not exist yet comes to be only while
    /// there is room: otherwise reads of made-up names would fill the memory.
    fn with_log<T>(
        &self,
        state: &mut State,
        stream: &StreamName,
        now_ms: u64,
        operation: impl FnOnce(&mut StreamLog) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        state.sweep_if_due(now_ms);
        if !state.streams.contains_key(stream) {
            self.make_room(state, 0, now_ms)?;
        }
        state.with_log(stream, || StreamLog::new(self.rules.of(stream), self.position_time), operation)
    }

    /// Runs one operation on a stream's log, as a step.
    async fn work<T: Send>(
        &self,
        stream: &StreamName,
        operation: impl FnOnce(&mut StreamLog, u64) -> T + Send,
    ) -> Result<T, StoreError> {
        let now_ms = now_ms();
        self.try_step(|state| self.with_log(state, stream, now_ms, |log| Ok(operation(log, now_ms)))).await
    }

    /// Runs an operation that writes nothing. A stream that does not exist yet does not come to be for it.
    async fn look<T: Send>(
        &self,
        stream: &StreamName,
        operation: impl FnOnce(&mut StreamLog, u64) -> T + Send,
    ) -> Result<T, StoreError> {
        let now_ms = now_ms();
        self.step(|state| {
            state.sweep_if_due(now_ms);
            if state.streams.contains_key(stream) {
                let fresh = || StreamLog::new(self.rules.of(stream), self.position_time);
                state.with_log(stream, fresh, |log| operation(log, now_ms))
            } else {
                operation(&mut StreamLog::new(self.rules.of(stream), self.position_time), now_ms)
            }
        })
        .await
    }

    fn make_room(&self, state: &mut State, wanted: usize, now_ms: u64) -> Result<(), StoreError> {
        // Not with each of many that are refused: it takes going through all that there is.
        if state.bytes.saturating_add(wanted) > self.max_bytes && now_ms.abs_diff(state.swept_ms) >= SWEEP_FULL_MS {
            state.sweep(now_ms);
        }
        if state.bytes.saturating_add(wanted) > self.max_bytes {
            return Err(StoreError::Full(format!("the embedded store holds {} bytes already", state.bytes)));
        }
        state.reserve(wanted)
    }

    /// Publishes where there is room.
    fn publish_in(
        &self,
        state: &mut State,
        stream: &StreamName,
        draft: &Draft,
        now_ms: u64,
    ) -> Result<Published, StoreError> {
        let fresh = || StreamLog::new(self.rules.of(stream), self.position_time);
        let stored = state.with_log(stream, fresh, |log| log.publish(draft, now_ms, random_step()))?;
        if let Some(event) = &stored.event {
            state.record_event(stream, draft.key.as_deref(), now_ms);
            for node in &stored.nodes {
                state.notify(node, || ChannelMessage::Event(stream.clone(), event.clone()));
            }
        }
        Ok(Published {
            id: stored.id,
            stream: stream.clone(),
            nodes: stored.nodes.len() as u32,
            duplicate: stored.event.is_none(),
        })
    }
}

impl State {
    fn with_log<T>(
        &mut self,
        stream: &StreamName,
        fresh: impl FnOnce() -> StreamLog,
        operation: impl FnOnce(&mut StreamLog) -> T,
    ) -> T {
        let (log, before) = match self.streams.get_mut(stream) {
            Some(log) => {
                let before = log.bytes();
                (log, before)
            }
            None => (self.streams.entry(stream.clone()).or_insert_with(fresh), 0),
        };
        let recorded = self.journal.is_some().then(|| log.recorded());
        let answer = operation(log);
        self.bytes = self.bytes - before + log.bytes();
        if let Some(journal) = self.journal.as_mut().filter(|_| recorded != Some(log.recorded())) {
            log.position_record(stream.as_str()).iter().for_each(|record| journal.record(record));
        }
        answer
    }

    /// Runs an operation on the log of a stream, if it exists.
    fn with_known<T>(&mut self, stream: &StreamName, operation: impl FnOnce(&mut StreamLog) -> T) -> Option<T> {
        let known = self.streams.contains_key(stream);
        known.then(|| self.with_log(stream, || unreachable!("it exists"), operation))
    }

    /// Sends a message once all that it comes from may be seen.
    fn notify(&mut self, node: &NodeId, message: impl Fn() -> ChannelMessage) {
        match (&self.journal, self.channels.get(node)) {
            (Some(journal), Some(mailboxes)) => mailboxes.iter().for_each(|mailbox| journal.send(mailbox, message())),
            (Some(_), None) => {}
            (None, _) => self.notify_now(node, message),
        }
    }

    /// Sends a message that comes from nothing that is kept.
    fn notify_now(&mut self, node: &NodeId, message: impl Fn() -> ChannelMessage) {
        if let Some(mailboxes) = self.channels.get_mut(node) {
            mailboxes.retain(|mailbox| mailbox.push(message()));
        }
    }

    fn sweep_if_due(&mut self, now_ms: u64) {
        // Also when the clock was set back: `swept_ms` would stay ahead for as long.
        if now_ms.abs_diff(self.swept_ms) >= SWEEP_MS {
            self.sweep(now_ms);
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        self.swept_ms = now_ms;
        let mut bytes = 0;
        self.streams.retain(|_, log| {
            log.sweep(now_ms);
            let keep = !log.is_blank();
            bytes += if keep { log.bytes() } else { 0 };
            keep
        });
        self.bytes = bytes;
        self.leases.retain(|_, until| *until > now_ms);
        self.channels.retain(|_, mailboxes| {
            mailboxes.retain(|mailbox| !mailbox.is_closed());
            !mailboxes.is_empty()
        });
    }
}

#[async_trait]
impl Channels for MemoryStore {
    async fn subscribe(&self, node: &NodeId) -> Result<Box<dyn Subscription>, StoreError> {
        let mailbox = Arc::new(Mailbox::default());
        self.state.lock().channels.entry(node.clone()).or_default().push(mailbox.clone());
        Ok(Box::new(MemorySubscription(mailbox)))
    }

    async fn beat(&self, node: &NodeId) -> Result<(), StoreError> {
        self.step(|state| state.notify(node, || ChannelMessage::Beat)).await
    }

    async fn signal(&self, node: &NodeId, control: &Control) -> Result<(), StoreError> {
        self.step(|state| state.notify(node, || ChannelMessage::Control(control.clone()))).await
    }
}

/// Closes its mailbox when dropped, so that the store lets go of it.
struct MemorySubscription(Arc<Mailbox>);

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self, limit: usize) -> Option<Vec<ChannelMessage>> {
        self.0.take(limit).await
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[async_trait]
impl SendHistory for MemoryStore {
    async fn send_history(
        &self,
        _device: &StreamName,
        _sent: &[(NodeId, f64)],
    ) -> Result<Vec<(NodeId, f64)>, StoreError> {
        // There is no other node that events could go to.
        Ok(Vec::new())
    }
}

#[async_trait]
impl Liveness for MemoryStore {
    async fn register(&self, node: &NodeId, _info: &NodeInfo, ttl: Duration) -> Result<(), StoreError> {
        // Nobody else could read the info: there is only this node.
        self.state.lock().leases.insert(node.clone(), now_ms().saturating_add(millis(ttl)));
        Ok(())
    }

    async fn renew(&self, node: &NodeId, ttl: Duration) -> Result<Renewal, StoreError> {
        let now_ms = now_ms();
        let mut state = self.state.lock();
        let Some(until) = state.leases.get_mut(node).filter(|until| **until > now_ms) else {
            return Ok(Renewal::Gone);
        };
        *until = now_ms.saturating_add(millis(ttl));
        Ok(Renewal::Held { nodes: state.leases.values().filter(|until| **until > now_ms).count() as u32 })
    }

    async fn link_address(&self, _node: &NodeId) -> Result<Option<String>, StoreError> {
        // There is only this node.
        Ok(None)
    }

    async fn release(&self, node: &NodeId) -> Result<(), StoreError> {
        self.state.lock().leases.remove(node);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeLease>, StoreError> {
        let now_ms = now_ms();
        let lease = |(node, until): (&NodeId, &u64)| NodeLease {
            node: node.clone(),
            deadline_ms: *until,
            lapsed: *until <= now_ms,
        };
        Ok(self.state.lock().leases.iter().map(lease).collect())
    }

    async fn claim(&self, _dead: &NodeId, _by: &NodeId, _ttl: Duration) -> Result<bool, StoreError> {
        // There is only this node.
        Ok(true)
    }

    async fn streams_of(&self, node: &NodeId, limit: usize) -> Result<Vec<StreamName>, StoreError> {
        let state = self.state.lock();
        let routed = state.streams.iter().filter(|(_, log)| log.has_route(node));
        Ok(routed.map(|(stream, _)| stream.clone()).take(limit).collect())
    }
}

impl Store for MemoryStore {
    fn coordination(&self) -> &dyn Coordination {
        self
    }

    fn ingress(&self) -> Option<&dyn Ingress> {
        None
    }

    fn producers(&self) -> &dyn Producers {
        self
    }

    fn leaders(&self) -> &dyn Leaders {
        self
    }

    fn revocations(&self) -> &dyn Revocations {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventId, EventType, Route, Start};
    use crate::store::EventLog as _;

    fn stream(name: &str) -> StreamName {
        name.parse().unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    fn draft(bytes: usize) -> Draft {
        Draft::new(EventType::MESSAGE, vec![b'1'; bytes])
    }

    #[tokio::test]
    async fn a_full_store_refuses_publishes_and_new_streams_but_still_reads() {
        let store = MemoryStore::new(RetentionRules::default(), Duration::from_secs(60), 10_000);
        let kept = stream("device:1");
        let mut stored = 0;
        let refusal = loop {
            match store.publish(&kept, &draft(1000)).await {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refusal, StoreError::Full(_)));
        assert_eq!(store.read(&kept, Start::Earliest, 100).await.unwrap().events.len(), stored);
        // Otherwise made-up names would fill the memory.
        let route =
            |name: &str| (stream(name), Route { node: NodeId::random(), registration: 1, ttl: LONG, noted: false });
        let mut made_up = 0;
        let refusal = loop {
            made_up += 1;
            assert!(made_up < 100);
            let (name, route) = route(&format!("topic:{made_up}"));
            if let Err(error) = store.sync(&name, &route, None).await {
                break error;
            }
        };
        assert!(matches!(refusal, StoreError::Full(_)));
    }

    #[tokio::test]
    async fn reading_a_stream_that_nobody_used_takes_no_memory() {
        let store = MemoryStore::new(RetentionRules::default(), LONG, 1 << 20);
        let name = stream("topic:1");
        let page = store.read(&name, Start::Earliest, 1).await.unwrap();
        assert_eq!((page.last, page.epoch), (EventId::ZERO, EventId::ZERO));
        store.read_before(&name, EventId::new(5, 5), 1).await.unwrap();
        store.acknowledge(&name, Some(EventId::new(5, 5))).await.unwrap();
        store.inbox(&name).await.unwrap();
        assert!(store.state.lock().streams.is_empty());
    }

    #[tokio::test]
    async fn what_outlived_its_time_takes_no_memory() {
        let rules: RetentionRules = "*=10/1".parse().unwrap();
        let store = MemoryStore::new(rules, Duration::from_secs(1), 1 << 20);
        let node = NodeId::random();
        drop(store.subscribe(&node).await.unwrap());
        store.register(&node, &NodeInfo::default(), Duration::from_secs(1)).await.unwrap();
        let route = Route { node, registration: 1, ttl: Duration::from_secs(1), noted: false };
        store.sync(&stream("topic:1"), &route, None).await.unwrap();
        store.publish(&stream("device:1"), &Draft { key: Some("k".to_owned()), ..draft(100) }).await.unwrap();
        let mut state = store.state.lock();
        state.sweep(now_ms() + 400_000);
        assert!(state.streams.is_empty() && state.channels.is_empty() && state.leases.is_empty());
        assert_eq!(state.bytes, 0);
    }

    /// There may be very many of them, and an operation must not take longer for those of others.
    #[test]
    fn idempotency_keys_that_outlived_their_time_are_left_to_the_sweep() {
        let mut log = StreamLog::new(RetentionRules::default().of(&stream("topic:1")), Duration::from_secs(86_400));
        for number in 0..100 {
            log.publish(&Draft { key: Some(format!("key {number}")), ..draft(1) }, 1_000, 7).unwrap();
        }
        let (full, later) = (log.bytes(), 400_000);
        log.position(later);
        assert_eq!(log.bytes(), full, "an operation looks at no keys but its own");
        log.sweep(later);
        assert!(log.bytes() < full);
    }

    #[test]
    fn a_log_goes_on_above_its_last_id_when_the_clock_is_set_back() {
        let mut log = StreamLog::new(RetentionRules::default().of(&stream("topic:1")), Duration::from_secs(60));
        let before = log.publish(&draft(1), 5_000_000, 7).unwrap().id;
        let after = log.publish(&draft(1), 1_000_000, 7).unwrap().event.unwrap();
        assert_eq!((after.prev, after.id), (before, EventId::new(5_000_000, before.seq + 7)));
    }
}
