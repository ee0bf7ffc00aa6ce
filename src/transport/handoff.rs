//! Taking a socket back from the HTTP server once a request on it was accepted as a listener's.
//!
//! The request's handler leaves what it accepted here and its response is never written; the connection's
//! owner sees that, takes the socket out of the HTTP server and speaks for itself from then on. An idle
//! listener then costs no HTTP state.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{CloseReason, Permit, Protocol, Rights, retry_ms};
use crate::hub::Listening;
use crate::model::{StreamName, TypeFilter};
use crate::presence::{PresenceGuard, TopicPresence};

/// A listener's request that was accepted.
pub struct Accepted {
    /// How the client is spoken to.
    pub protocol: Protocol,
    /// The whole head of the answer, where it is HTTP/1.1.
    pub head: String,
    /// What the client may do.
    pub rights: Rights,
    /// The device that it is connected as.
    pub device: Option<StreamName>,
    /// What the head holds besides what every answer of its kind does.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The event types that the client wants; all when `None`.
    pub types: Option<TypeFilter>,
    /// The streams, attached, with the positions to go on from.
    pub streams: Vec<Listening>,
    /// Its place among those who are connected. Or why it has none: the client is notified and the connection closed.
    pub place: Result<PresenceGuard, Refused>,
    /// Its part in the topics' presence, if it asked for one.
    pub members: Option<Box<TopicPresence>>,
    /// Its place among the node's connections.
    pub permit: Option<Permit>,
}

/// Why a listener is closed as soon as it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The reason that the client receives.
    pub reason: CloseReason,
    /// After how many milliseconds it may come back.
    pub retry_ms: u64,
}

impl From<CloseReason> for Refused {
    fn from(reason: CloseReason) -> Self {
        Refused { reason, retry_ms: retry_ms() }
    }
}

/// Where a request's handler leaves what it accepted, for the owner of its connection.
#[derive(Clone)]
pub struct Handoff(Arc<Inner>);

struct Inner {
    reserved: bool,
    accepted: Mutex<Option<Accepted>>,
    left: Notify,
}

impl Handoff {
    /// The handoff of one connection. `reserved`: it was let in for probes and administration only.
    pub fn new(reserved: bool) -> Self {
        Handoff(Arc::new(Inner { reserved, accepted: Mutex::default(), left: Notify::default() }))
    }

    /// Whether the connection was let in for probes and administration only.
    pub fn is_reserved(&self) -> bool {
        self.0.reserved
    }

    /// Leaves an accepted request, and never returns: there is no response for the HTTP server to write.
    pub async fn leave<T>(&self, accepted: Accepted) -> T {
        *self.0.accepted.lock() = Some(accepted);
        self.0.left.notify_one();
        std::future::pending().await
    }

    /// Waits for an accepted request.
    pub async fn taken(&self) -> Accepted {
        loop {
            self.0.left.notified().await;
            if let Some(accepted) = self.0.accepted.lock().take() {
                return accepted;
            }
        }
    }
}
