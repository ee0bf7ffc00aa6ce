//! Ending what nobody needs any more: streams without listeners, rings of quiet streams, pages.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Registry;
use crate::directory;
use crate::dispatch::dispatcher::{Detach, Dispatcher};
use crate::model::StreamName;

/// A dispatcher stays this long after its last subscriber: a page reload should find it, ring and all.
const LINGER: Duration = Duration::from_secs(5);

/// When memory for rings is tight, streams that were quiet for this long give theirs up.
const QUIET_RING: Duration = Duration::from_secs(5);

/// And in any case after this long: a connection that comes back later reads pages.
const OLD_RING: Duration = Duration::from_secs(120);

impl Registry {
    /// Ends what nobody needs any more; runs until it is dropped.
    pub async fn tidy_for_ever(self: Arc<Self>) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            self.pages.forget_old();
            self.end_lingering(Instant::now());
            self.forget_quiet_rings(Instant::now());
        }
    }

    pub(super) fn linger(&self, stream: &StreamName) {
        self.lingering.lock().push_back((Instant::now() + LINGER, stream.clone()));
    }

    fn end_lingering(self: &Arc<Self>, now: Instant) {
        loop {
            let stream = {
                let mut lingering = self.lingering.lock();
                match lingering.front() {
                    Some((until, _)) if *until <= now => lingering.pop_front().map(|(_, stream)| stream),
                    _ => None,
                }
            };
            let Some(stream) = stream else { return };
            let Some(dispatcher) = self.dispatchers.lock().get(&stream).cloned() else { continue };
            match dispatcher.start_detach(LINGER) {
                Some(Detach::Now) => {
                    tokio::spawn(self.clone().run_detach(dispatcher.clone(), Some(dispatcher.registration())));
                }
                Some(Detach::Later) => self.linger(&stream),
                None => {}
            }
        }
    }

    /// Looks at the rings that were filled, or looked at, longest ago. A ring that is in use is looked at again after
    /// as long a time: looking at every stream every second is most of what a node with very many would do.
    fn forget_quiet_rings(&self, now: Instant) {
        let quiet = if self.memory.ring.is_tight() { QUIET_RING } else { OLD_RING };
        loop {
            let dispatcher = {
                let mut rings = self.rings.lock();
                match rings.front() {
                    Some((since, _)) if *since + quiet <= now => rings.pop_front().map(|(_, dispatcher)| dispatcher),
                    _ => return,
                }
            };
            let Some(dispatcher) = dispatcher.and_then(|dispatcher| dispatcher.upgrade()) else { continue };
            if dispatcher.keeps_ring(now, quiet) {
                self.rings.lock().push_back((now, Arc::downgrade(&dispatcher)));
            }
        }
    }

    /// A route that nobody here wants: left by an attach whose answer was lost, or not yet lapsed.
    pub(super) fn detach_stray(self: &Arc<Self>, stream: &StreamName) {
        let dispatcher = match self.dispatchers.lock().entry(stream.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(entry) => {
                let dispatcher = Dispatcher::detaching(stream.clone(), self.memory.clone(), self.metrics.clone());
                entry.insert(Arc::new(dispatcher)).clone()
            }
        };
        tokio::spawn(self.clone().run_detach(dispatcher, None));
    }

    pub(super) async fn run_detach(self: Arc<Self>, dispatcher: Arc<Dispatcher>, registration: Option<u64>) {
        let answer = {
            let detaches = &self.detaches[directory::region_of(&*self.store, dispatcher.stream())];
            let _permit = detaches.acquire().await.expect("the semaphore is never closed");
            self.store.detach(dispatcher.stream(), &self.node(), registration).await
        };
        if let Err(error) = answer {
            // The route lapses by itself.
            tracing::debug!(stream = %dispatcher.stream(), %error, "detach failed");
        }
        self.dispatchers.lock().remove(dispatcher.stream());
        dispatcher.detached();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{Flush, Path, RegistrySettings};
    use crate::metrics::Metrics;
    use crate::model::{Event, EventId, EventType, NodeId};
    use crate::store::RetentionRules;
    use crate::store::memory::MemoryStore;

    /// A registry that follows these streams, with an event in the ring of each.
    async fn registry(streams: &[StreamName]) -> Arc<Registry> {
        let store = Arc::new(MemoryStore::new(RetentionRules::default(), OLD_RING, 1 << 20));
        let settings = RegistrySettings { sync: OLD_RING, lease: OLD_RING, ring_bytes: 1 << 20 };
        let registry = Registry::new(store, NodeId::random(), settings, Metrics::new());
        for stream in streams {
            let head = registry.attach(stream).await.unwrap().head();
            event(&registry, stream, EventId::new(head.ms + 1, 1), head);
        }
        registry
    }

    fn event(registry: &Arc<Registry>, stream: &StreamName, id: EventId, prev: EventId) {
        let event = Event::new(id, prev, EventType::MESSAGE, "1".into());
        registry.message(stream, Arc::new(event), Path::Channel, &mut Flush::default());
    }

    fn streams() -> Vec<StreamName> {
        (0..100).map(|n| format!("topic:{n}").parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn quiet_streams_give_their_rings_up_and_are_looked_at_no_more() {
        let registry = registry(&streams()).await;
        let all = registry.ring_bytes();
        registry.forget_quiet_rings(Instant::now() + OLD_RING / 2);
        assert_eq!((registry.ring_bytes(), registry.rings.lock().len()), (all, 100));
        registry.forget_quiet_rings(Instant::now() + OLD_RING);
        assert_eq!((registry.ring_bytes(), registry.rings.lock().len()), (0, 0));
    }

    #[tokio::test]
    async fn a_ring_is_looked_at_only_when_it_may_have_become_quiet() {
        let registry = registry(&streams()).await;
        // Nothing is due for as long, however many there are and however often somebody looks.
        let before: Vec<_> = registry.rings.lock().iter().map(|(since, _)| *since).collect();
        for second in 0..100 {
            registry.forget_quiet_rings(Instant::now() + Duration::from_secs(second));
        }
        let after: Vec<_> = registry.rings.lock().iter().map(|(since, _)| *since).collect();
        assert_eq!(before, after);
    }

    #[tokio::test]
    async fn a_stream_whose_ring_fills_again_is_looked_at_again() {
        let registry = registry(&streams()[..1]).await;
        registry.forget_quiet_rings(Instant::now() + OLD_RING);
        assert_eq!(registry.ring_bytes(), 0);
        let head = registry.attach(&streams()[0]).await.unwrap().head();
        event(&registry, &streams()[0], EventId::new(head.ms + 1, 1), head);
        assert!(registry.ring_bytes() > 0);
        registry.forget_quiet_rings(Instant::now() + OLD_RING);
        assert_eq!(registry.ring_bytes(), 0);
    }
}
