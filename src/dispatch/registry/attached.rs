//! What keeps a stream attached.

use std::sync::Arc;

use super::Registry;
use crate::dispatch::catch_up::catch_up;
use crate::dispatch::chain::Chain;
use crate::dispatch::dispatcher::{Dispatcher, Joining, Subscriber};
use crate::dispatch::sink::{Sink, Slot};
use crate::model::EventId;

/// A stream that is attached and stays so while this lives.
pub struct Attached {
    pub(super) registry: Arc<Registry>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) head: EventId,
}

impl Attached {
    /// The stream's dispatcher.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// Where the live end stood when this was attached.
    pub fn head(&self) -> EventId {
        self.head
    }

    /// Lets a connection follow the stream from right after `position`.
    pub fn follow(self, sink: Arc<dyn Sink>, slot: Slot, position: EventId) {
        let subscriber = Subscriber { sink, slot };
        match self.dispatcher.join(&subscriber, position) {
            Joining::Joined | Joining::Closed => {}
            Joining::Partly(reached) => self.catch_up(subscriber, Chain::at(reached)),
            Joining::Behind | Joining::Ahead => self.catch_up(subscriber, Chain::at(position)),
        }
    }

    pub(super) fn catch_up(self, subscriber: Subscriber, chain: Chain) {
        tokio::spawn(catch_up(self.registry.clone(), self, subscriber, chain));
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.dispatcher.unpin() {
            self.registry.linger(self.dispatcher.stream());
        }
    }
}
