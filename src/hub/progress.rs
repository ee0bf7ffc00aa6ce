//! How far an event got, and waiting for a device to acknowledge it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Hub;
use crate::backoff::Backoff;
use crate::model::{Event, EventId, Progress, StreamKind, StreamName};
use crate::store::StoreError;

/// Most requests that wait for an acknowledgement at once. Each reads the store about twice a second.
pub(super) const MAX_WAITS: usize = 1024;

/// How long a waiting request lets the store rest, at first and at the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Why the progress of an event can't be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// As many wait already as may.
    #[error("{MAX_WAITS} requests wait for acknowledgements on this node already")]
    TooMany,
    /// The store can't be asked.
    #[error("{}", .0.for_client())]
    Store(#[from] StoreError),
}

/// Room for requests that wait.
pub(super) fn waits() -> Semaphore {
    Semaphore::new(MAX_WAITS)
}

impl Hub {
    /// One event, if it is kept, and how far it got. With patience, and for a device's event, this waits until the
    /// device has acknowledged it; an event that the log loses meanwhile is still answered.
    pub async fn event(
        &self,
        stream: &StreamName,
        id: EventId,
        patience: Duration,
    ) -> Result<Option<(Arc<Event>, Progress)>, WaitError> {
        let Some(event) = self.kept(stream, id).await? else { return Ok(None) };
        let mut progress = self.progress(stream, id).await;
        if !patience.is_zero() && stream.kind() == StreamKind::Device {
            let _permit = self.waits.try_acquire().map_err(|_| WaitError::TooMany)?;
            let end = Instant::now() + patience;
            let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
            // A store that is away for a moment is no reason to give up.
            while progress != Ok(Progress::Acknowledged) && !self.is_draining() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(backoff.next_wait().min(left)).await;
                progress = self.progress(stream, id).await;
            }
        }
        Ok(Some((event, progress?)))
    }

    async fn progress(&self, stream: &StreamName, id: EventId) -> Result<Progress, StoreError> {
        Ok(self.store.acknowledge(stream, None).await?.progress(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::dispatch::{Registry, RegistrySettings};
    use crate::hub::Limits;
    use crate::metrics::Metrics;
    use crate::model::{Draft, EventType, NodeId};
    use crate::presence::Presence;
    use crate::store::memory::MemoryStore;
    use crate::store::presence::{DeviceLimit, Overflow};
    use crate::store::{NodeInfo, RetentionRules};
    use crate::transport::Connections;

    const LONG: Duration = Duration::from_secs(600);

    fn hub() -> Arc<Hub> {
        let store = Arc::new(MemoryStore::new(RetentionRules::default(), LONG, 1 << 20));
        let settings = RegistrySettings { sync: LONG, lease: LONG, ring_bytes: 0 };
        let registry = Registry::new(store.clone(), NodeId::random(), settings, Metrics::new());
        let limit = DeviceLimit { most: 1, overflow: Overflow::Newest };
        let presence = Presence::new(store.clone(), registry.clone(), limit, NodeInfo::default(), Connections::new(1));
        Hub::new(
            store,
            registry,
            presence,
            None,
            Access::new(Default::default()).unwrap(),
            Limits { event_bytes: 1000 },
        )
    }

    #[tokio::test]
    async fn only_so_many_wait_at_once_and_a_node_that_stops_lets_them_go() {
        let (hub, stream): (_, StreamName) = (hub(), "device:42".parse().unwrap());
        let id = hub.publish(&stream, &Draft::new(EventType::MESSAGE, "1")).await.unwrap().id;
        let wait = || {
            let (hub, stream) = (hub.clone(), stream.clone());
            tokio::spawn(async move { hub.event(&stream, id, LONG).await.map(|found| found.unwrap().1) })
        };
        let waiting: Vec<_> = (0..MAX_WAITS).map(|_| wait()).collect();
        while hub.waits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(wait().await.unwrap(), Err(WaitError::TooMany));
        assert_eq!(hub.event(&stream, id, Duration::ZERO).await.unwrap().unwrap().1, Progress::Stored);
        hub.stop_listening();
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Ok(Progress::Stored));
        }
    }
}
