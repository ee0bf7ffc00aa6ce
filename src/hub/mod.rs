//! What can be done with the service, whatever the way in: publish, listen, read, acknowledge, erase, hold a lease.
//!
//! `api` and `transport` call it; neither calls the other.

mod access;
mod admission;
mod devices;
mod history;
mod inbox;
mod listen;
mod operators;
mod parts;
mod producers;
mod progress;
mod publish;
mod publish_request;
mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use crate::access::Access;
use crate::directory::Regions;
use crate::dispatch::Registry;
use crate::link::Links;
use crate::metrics::Metrics;
use crate::model::StreamName;
use crate::presence::Presence;
use crate::store::{Store, StoreError};
use crate::trouble::{Troubles, Work};

pub use admission::{Admission, Admitted};
pub use history::{Before, BeforeError, History};
pub use inbox::AckError;
pub use listen::{After, AfterError, ListenError, Listening};
pub use parts::ImportError;
pub use producers::LeaseError;
pub use progress::WaitError;
pub use publish::PublishError;
pub use publish_request::{Accepted, OptionError, PublishOptions, PublishRequest};

/// Limits on what producers hand in.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes of one event's data.
    pub event_bytes: usize,
}

/// What can be done with the service.
pub struct Hub {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    presence: Arc<Presence>,
    links: Option<Arc<Links>>,
    access: Arc<Access>,
    metrics: Arc<Metrics>,
    limits: Limits,
    draining: AtomicBool,
    /// Room for requests that wait for an acknowledgement.
    waits: Semaphore,
    troubles: Troubles,
}

impl Hub {
    /// A hub on a store, with the dispatchers of this node.
    pub fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        presence: Arc<Presence>,
        links: Option<Arc<Links>>,
        access: Arc<Access>,
        limits: Limits,
    ) -> Arc<Self> {
        let metrics = registry.metrics().clone();
        let (draining, waits) = (AtomicBool::new(false), progress::waits());
        let troubles = Troubles::default();
        Arc::new(Hub { store, registry, presence, links, access, metrics, limits, draining, waits, troubles })
    }

    /// The dispatchers of this node.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The connections of this node.
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// The links to other nodes, if there are any.
    pub fn links(&self) -> Option<&Arc<Links>> {
        self.links.as_ref()
    }

    /// All regions, if there are several.
    pub fn regions(&self) -> Option<&Arc<Regions>> {
        self.store.regions()
    }

    /// The node's figures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What the store refuses.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// What producers are held to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// No more listeners are accepted: they are sent elsewhere.
    pub fn stop_listening(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Takes note of what the store answered.
    fn noted<T>(&self, work: Work, stream: &StreamName, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.troubles.note(work, Some(stream), answer.as_ref());
        answer
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
