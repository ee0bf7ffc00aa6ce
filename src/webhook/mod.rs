//! Webhooks: connects and disconnects go to a backend as POST requests.
//!
//! ```text
//! lifecycle stream -> page -> batch (what goes out next) -> receiver (signed, one at a time) -> written down
//! ```
//!
//! One node of a region delivers at a time ([`leader`]). [`delivery`] is what it does then: it reads on from where
//! the store has the checkpoint, makes a [`batch`] of what comes next, writes down what it is going to
//! send, sends it until it is taken, and writes down that it was. The next leader after a crash sends
//! the same batch once more, under the same `webhook-id`: at least once, and the receiver can recognise it.
//!
//! The requests follow the Standard Webhooks specification, version 1.0.0: see [`signing`] for the signature and
//! [`receiver`] for what the answers mean. `docs/webhooks.md` is about the same from the outside.

mod batch;
mod delivery;
mod format;
mod receiver;
mod signing;
mod target;

use std::sync::Arc;
use std::time::Duration;

use crate::dispatch::Registry;
use crate::leader::{self, Election};
use crate::store::{JobKind, Store};

use delivery::Delivering;

pub use format::{Format, FormatError};
pub use receiver::{Receiver, ReceiverError};
pub use signing::{SigningKeys, SigningKeysError, signed};
pub use target::{Target, TargetError};

/// Starts the candidacy for delivering.
pub fn begin(store: Arc<dyn Store>, registry: Arc<Registry>, receiver: Receiver, lease: Duration) -> Election {
    Election::start(|stopped| async move {
        let mut delivering = Delivering::new(store.clone(), registry.metrics().clone(), receiver);
        leader::campaign(&*store, &registry, JobKind::Webhook, lease, &mut delivering, stopped).await;
    })
}
