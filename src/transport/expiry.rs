//! The ends of connections' grants: one timer for all connections of a node.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::sync::Notify;
use uuid::Uuid;

use super::rights::Due;
use super::{CloseReason, Connection, Connections, Protocol, sse, websocket};
use crate::access::Grant;
use crate::dispatch::{Registry, Sink as _};
use crate::model::StreamName;
use crate::presence::Renewed;
use crate::store::now_ms;

/// Longest time between two looks at the clock: it may be set.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Connections whose grants end. Others take no room here.
#[derive(Default)]
pub struct Expiries {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// When something is due, and the number of the connection.
    due: BTreeSet<(u64, u64)>,
    /// By the public id of the connection: with that the client renews.
    numbers: HashMap<Uuid, (u64, u64)>,
}

impl Expiries {
    /// Notes when something is due for a connection next; `None` when nothing ever is.
    fn set(&self, id: Uuid, number: u64, due_ms: Option<u64>) {
        let mut inner = self.inner.lock();
        if let Some((before, _)) = inner.numbers.remove(&id) {
            inner.due.remove(&(before, number));
        }
        if let Some(due_ms) = due_ms {
            inner.numbers.insert(id, (due_ms, number));
            inner.due.insert((due_ms, number));
            if inner.due.first() == Some(&(due_ms, number)) {
                self.changed.notify_one();
            }
        }
    }

    fn number_of(&self, id: Uuid) -> Option<u64> {
        self.inner.lock().numbers.get(&id).map(|(_, number)| *number)
    }

    /// The numbers of connections for which something is due, and when the next is.
    fn take_due(&self, now_ms: u64) -> (Vec<u64>, Option<u64>) {
        let mut inner = self.inner.lock();
        let later = inner.due.split_off(&(now_ms + 1, 0));
        let due = std::mem::replace(&mut inner.due, later);
        (due.into_iter().map(|(_, number)| number).collect(), inner.due.first().map(|(due_ms, _)| *due_ms))
    }
}

impl Connections {
    /// Notes when a connection's grant ends.
    pub(crate) fn expect_end(&self, connection: &Connection) {
        self.expiries.set(connection.known_as(), connection.number(), connection.next_due_ms());
    }

    /// A connection is over.
    pub(super) fn forget_end(&self, connection: &Connection) {
        self.expiries.set(connection.known_as(), connection.number(), None);
    }

    /// Ends connections whose grants end, and notifies clients before; runs until it is dropped.
    pub async fn expire_for_ever(self: Arc<Self>, registry: Arc<Registry>) {
        loop {
            let (numbers, next_ms) = self.expiries.take_due(now_ms());
            for connection in numbers.into_iter().filter_map(|number| self.get(number)) {
                self.expire(&connection, &registry);
            }
            let wait = next_ms.map_or(LONGEST_WAIT, |next_ms| {
                Duration::from_millis(next_ms.saturating_sub(now_ms())).min(LONGEST_WAIT)
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.expiries.changed.notified() => {}
            }
        }
    }

    fn expire(&self, connection: &Arc<Connection>, registry: &Registry) {
        while let Some(due) = connection.due(now_ms()) {
            match due {
                Due::Expired => return connection.close(CloseReason::Expired, soon_ms()),
                Due::Ended(streams) => end_streams(connection, registry, &streams),
                Due::Expiring => {
                    connection.push(match connection.protocol() {
                        Protocol::Sse { framing, .. } => framing.block(sse::EXPIRING),
                        Protocol::WebSocket { .. } => websocket::text(r#"{"op":"expiring"}"#),
                    });
                    connection.flush();
                }
            }
        }
        self.expect_end(connection);
    }

    /// Finds the connection with this public id, if its grant ends.
    pub(super) fn known_as(&self, id: Uuid) -> Option<Arc<Connection>> {
        self.get(self.expiries.number_of(id)?)
    }

    /// Gives a connection another grant, and ends what that does not cover. Answers until when it holds.
    pub(crate) fn renew_connection(
        &self,
        connection: &Arc<Connection>,
        grant: Arc<Grant>,
        registry: &Registry,
    ) -> Renewed {
        let expires_ms = grant.expires_ms;
        let uncovered = connection.renew(grant)?;
        match connection.protocol() {
            Protocol::Sse { .. } if !uncovered.is_empty() => connection.close(CloseReason::Expired, soon_ms()),
            _ => end_streams(connection, registry, &uncovered),
        }
        self.expect_end(connection);
        Ok(expires_ms)
    }

    /// Ends all connections with a grant of which this is true.
    pub fn close_where(&self, reason: CloseReason, is_meant: impl Fn(&Grant) -> bool) -> usize {
        let mut closed = 0;
        for connection in self.all().filter(|connection| connection.rests_on(&is_meant)) {
            connection.close(reason, soon_ms());
            closed += 1;
        }
        closed
    }
}

/// Ends streams of a connection that goes on.
fn end_streams(connection: &Arc<Connection>, registry: &Registry, streams: &[StreamName]) {
    for stream in streams {
        if let Some(slot) = connection.unfollow(stream) {
            if let Some(members) = connection.members() {
                members.leave(stream);
            }
            registry.leave(stream, connection.number(), slot);
            connection.push(websocket::text(format!(r#"{{"op":"unsubscribed","stream":"{stream}"}}"#)));
        }
    }
    connection.flush();
}

/// Whoever has a new token already had better come back at once, but not all in one instant.
fn soon_ms() -> u64 {
    rand::rng().random_range(100..500)
}
