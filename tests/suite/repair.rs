//! What a node's dispatchers owe their streams when the store fails at the worst moment.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;
use whimbrel::dispatch::{Registry, RegistrySettings};
use whimbrel::metrics::Metrics;
use whimbrel::model::{
    Draft, Durability, EventId, Imported, Inbox, NodeId, Page, Part, Published, Receipt, Route, Standing, Start,
    StreamName,
};
use whimbrel::store::lifecycle::{BatchOutcome, Begun, Change, ConnectionRef, Lifecycle};
use whimbrel::store::members::{LocalMember, MemberPage, TopicMembers};
use whimbrel::store::memory::MemoryStore;
use whimbrel::store::presence::{Claim, Claimed, DeviceLimit, DeviceState};
use whimbrel::store::{
    Coordination, DeviceConnections, EventLog, Ingress, Leaders, Producers, RetentionRules, Revocations, SendHistory,
    Store, StoreError,
};

use crate::conformance::draft;
use crate::support::{eventually, in_time};

/// A store whose syncs wait to be let through, or to fail.
struct Gate {
    inner: MemoryStore,
    waiting: Mutex<Vec<(StreamName, oneshot::Sender<bool>)>>,
    closed: watch::Sender<bool>,
}

impl Gate {
    fn new() -> Arc<Self> {
        let inner = MemoryStore::new(RetentionRules::default(), Duration::from_secs(600), 1 << 20);
        Arc::new(Gate { inner, waiting: Mutex::default(), closed: watch::Sender::new(false) })
    }

    /// Syncs wait from here on, with their answer in hand.
    fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Syncs are answered at once again, and so is the one that waits: with its answer, or an error.
    async fn open(&self, answer: bool) {
        let (_, one) = eventually("a sync waits", async || self.waiting.lock().pop()).await;
        self.closed.send_replace(false);
        one.send(answer).unwrap();
    }

    /// The sync of this stream that waits is answered; whichever comes next waits again.
    async fn answer(&self, stream: &StreamName) {
        let one = eventually("a sync of the stream waits", async || {
            let mut waiting = self.waiting.lock();
            let at = waiting.iter().position(|(known, _)| known == stream)?;
            Some(waiting.remove(at).1)
        })
        .await;
        one.send(true).unwrap();
    }
}

#[async_trait]
impl EventLog for Gate {
    async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError> {
        self.inner.publish(stream, draft).await
    }

    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>> {
        self.inner.publish_all(batch).await
    }

    async fn publish_durably(
        &self,
        stream: &StreamName,
        draft: &Draft,
        durability: Durability,
    ) -> Result<Receipt, StoreError> {
        self.inner.publish_durably(stream, draft, durability).await
    }

    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError> {
        self.inner.position(stream).await
    }

    async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, StoreError> {
        self.inner.publish_ephemeral(stream, draft).await
    }

    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError> {
        let page = self.inner.sync(stream, route, head).await;
        if *self.closed.borrow() {
            let (go, gone) = oneshot::channel();
            self.waiting.lock().push((stream.clone(), go));
            if !gone.await.unwrap() {
                return Err(StoreError::Unavailable("the gate".to_owned()));
            }
        }
        page
    }

    async fn recover(
        &self,
        stream: &StreamName,
        head: EventId,
        epoch: EventId,
        seen: &[EventId],
    ) -> Result<Page, StoreError> {
        self.inner.recover(stream, head, epoch, seen).await
    }

    async fn detach(&self, stream: &StreamName, node: &NodeId, registration: Option<u64>) -> Result<(), StoreError> {
        self.inner.detach(stream, node, registration).await
    }

    async fn read(&self, stream: &StreamName, start: Start, limit: usize) -> Result<Page, StoreError> {
        self.inner.read(stream, start, limit).await
    }

    async fn read_before(&self, stream: &StreamName, before: EventId, limit: usize) -> Result<Page, StoreError> {
        self.inner.read_before(stream, before, limit).await
    }

    async fn acknowledge(&self, stream: &StreamName, id: Option<EventId>) -> Result<Standing, StoreError> {
        self.inner.acknowledge(stream, id).await
    }

    async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError> {
        self.inner.inbox(stream).await
    }

    async fn import(&self, stream: &StreamName, part: &Part) -> Result<Imported, StoreError> {
        self.inner.import(stream, part).await
    }

    async fn erase(&self, stream: &StreamName) -> Result<(), StoreError> {
        self.inner.erase(stream).await
    }

    async fn relay(&self, node: &NodeId, stream: &StreamName, id: EventId) -> Result<(), StoreError> {
        self.inner.relay(node, stream, id).await
    }
}

#[async_trait]
impl SendHistory for Gate {
    async fn send_history(
        &self,
        device: &StreamName,
        sent: &[(NodeId, f64)],
    ) -> Result<Vec<(NodeId, f64)>, StoreError> {
        self.inner.send_history(device, sent).await
    }
}

#[async_trait]
impl DeviceConnections for Gate {
    async fn claim_slot(&self, device: &StreamName, claim: &Claim, limit: DeviceLimit) -> Result<Claimed, StoreError> {
        self.inner.claim_slot(device, claim, limit).await
    }

    async fn release_slots(&self, places: &[(StreamName, Uuid)]) -> Result<(), StoreError> {
        self.inner.release_slots(places).await
    }

    async fn kick(&self, device: &StreamName) -> Result<u32, StoreError> {
        self.inner.kick(device).await
    }

    async fn device(&self, device: &StreamName) -> Result<DeviceState, StoreError> {
        self.inner.device(device).await
    }
}

#[async_trait]
impl TopicMembers for Gate {
    async fn set_members(
        &self,
        topic: &StreamName,
        node: &NodeId,
        members: &[LocalMember],
    ) -> Result<bool, StoreError> {
        self.inner.set_members(topic, node, members).await
    }

    async fn drop_members(
        &self,
        topic: &StreamName,
        dead: &NodeId,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        self.inner.drop_members(topic, dead, after).await
    }

    async fn members(&self, topic: &StreamName, after: Option<&str>, limit: usize) -> Result<MemberPage, StoreError> {
        self.inner.members(topic, after, limit).await
    }
}

#[async_trait]
impl Lifecycle for Gate {
    async fn begin_session(&self, node: &NodeId, region: &str, before: Option<&NodeId>) -> Result<Begun, StoreError> {
        self.inner.begin_session(node, region, before).await
    }

    async fn publish_changes(
        &self,
        node: &NodeId,
        number: u64,
        changes: &[Change],
    ) -> Result<BatchOutcome, StoreError> {
        self.inner.publish_changes(node, number, changes).await
    }

    async fn open(&self, node: &NodeId) -> Result<Vec<ConnectionRef>, StoreError> {
        Lifecycle::open(&self.inner, node).await
    }

    async fn end_session(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<ConnectionRef>, StoreError> {
        self.inner.end_session(node, region, limit).await
    }

    async fn close(&self, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        Lifecycle::close(&self.inner, node, changes).await
    }

    async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        self.inner.sessions(region).await
    }
}

impl Store for Gate {
    fn coordination(&self) -> &dyn Coordination {
        &self.inner
    }

    fn ingress(&self) -> Option<&dyn Ingress> {
        None
    }

    fn producers(&self) -> &dyn Producers {
        &self.inner
    }

    fn leaders(&self) -> &dyn Leaders {
        self.inner.leaders()
    }

    fn revocations(&self) -> &dyn Revocations {
        self.inner.revocations()
    }
}

fn registry(gate: &Arc<Gate>) -> Arc<Registry> {
    registry_that_syncs_every(gate, Duration::from_secs(600))
}

fn registry_that_syncs_every(gate: &Arc<Gate>, sync: Duration) -> Arc<Registry> {
    let settings = RegistrySettings { sync, lease: Duration::from_secs(15), ring_bytes: 1 << 20 };
    Registry::new(gate.clone(), NodeId::random(), settings, Metrics::new())
}

#[tokio::test]
async fn a_sync_that_fails_while_another_is_wanted_is_not_the_streams_last() {
    let gate = Gate::new();
    let registry = registry(&gate);
    let stream: StreamName = "topic:news".parse().unwrap();
    let attached = registry.attach(&stream).await.unwrap();
    gate.close();
    registry.mark_all();
    eventually("the first sync is out", async || (!gate.waiting.lock().is_empty()).then_some(())).await;
    registry.mark_all();
    gate.open(false).await;
    let missed = gate.publish(&stream, &draft("1")).await.unwrap().id;
    eventually("the stream is synced in the end", async || {
        let again = registry.attach(&stream).await.unwrap();
        (again.head() == missed).then_some(())
    })
    .await;
    drop(attached);
}

#[tokio::test]
async fn a_stream_whose_attach_was_out_during_an_interruption_is_synced_after_it() {
    let gate = Gate::new();
    let registry = registry(&gate);
    let stream: StreamName = "topic:news".parse().unwrap();
    gate.close();
    let attaching = tokio::spawn({
        let (registry, stream) = (registry.clone(), stream.clone());
        async move { registry.attach(&stream).await.unwrap() }
    });
    eventually("the attach is out", async || (!gate.waiting.lock().is_empty()).then_some(())).await;
    // Sent over a channel that is interrupted just now.
    let missed = gate.publish(&stream, &draft("1")).await.unwrap().id;
    registry.mark_all();
    gate.open(true).await;
    let attached = in_time("the attach", attaching).await.unwrap();
    eventually("the stream is synced after the interruption", async || {
        let again = registry.attach(&stream).await.unwrap();
        (again.head() == missed).then_some(())
    })
    .await;
    drop(attached);
}

/// Waits until the node has dispatched this event.
async fn has_dispatched(registry: &Arc<Registry>, stream: &StreamName, id: EventId) {
    eventually("the event is dispatched", async || {
        let again = registry.attach(stream).await.unwrap();
        (again.head() == id).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_awaits_an_answer_is_not_asked_again_and_holds_up_no_other() {
    let gate = Gate::new();
    let registry = registry_that_syncs_every(&gate, Duration::from_millis(100));
    let [slow, quick]: [StreamName; 2] = ["topic:slow", "topic:quick"].map(|name| name.parse().unwrap());
    let _attached = (registry.attach(&slow).await.unwrap(), registry.attach(&quick).await.unwrap());
    gate.close();
    for n in 0..5 {
        // No node notifies this one: only a sync finds it.
        let missed = gate.publish(&quick, &draft(n.to_string())).await.unwrap().id;
        gate.answer(&quick).await;
        gate.answer(&quick).await;
        has_dispatched(&registry, &quick, missed).await;
    }
    let waiting: Vec<_> = gate.waiting.lock().iter().map(|(stream, _)| stream.clone()).collect();
    assert_eq!(waiting.iter().filter(|stream| **stream == slow).count(), 1);
}

#[tokio::test]
async fn a_stream_whose_sync_fails_among_others_asks_again_by_itself() {
    let gate = Gate::new();
    // The next turn of the rotation is far away.
    let registry = registry_that_syncs_every(&gate, Duration::from_secs(600));
    let streams: [StreamName; 3] = ["topic:a", "topic:b", "topic:c"].map(|name| name.parse().unwrap());
    let mut attached = Vec::new();
    for stream in &streams {
        attached.push(registry.attach(stream).await.unwrap());
    }
    gate.close();
    registry.mark_all();
    eventually("all ask", async || (gate.waiting.lock().len() == 3).then_some(())).await;
    // Behind what the answers say that wait.
    let missed = gate.publish(&streams[0], &draft("1")).await.unwrap().id;
    gate.answer(&streams[1]).await;
    gate.answer(&streams[2]).await;
    gate.open(false).await;
    has_dispatched(&registry, &streams[0], missed).await;
}
