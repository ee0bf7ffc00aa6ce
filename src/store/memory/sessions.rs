//! The nodes' sessions on the lifecycle topic, as a plain value.

use std::borrow::Cow;
use std::collections::HashMap;

use uuid::Uuid;

use super::journal::{Record, SessionRecord, SessionState};
use crate::model::NodeId;
use crate::store::lifecycle::{BatchOutcome, Before, Change, ConnectionRef, LifecycleKind, REMEMBERED};
use crate::store::millis;

/// All sessions. The Redis store's `begin_session.lua`, `lifecycle.lua` and `left_open.lua` do the same.
#[derive(Debug, Default)]
pub struct Sessions(HashMap<NodeId, Session>);

#[derive(Debug)]
struct Session {
    state: State,
    /// The batch that was published last.
    number: u64,
    /// Since when it is in this state.
    since_ms: u64,
    /// Where its node has its lease.
    region: String,
    open: HashMap<Uuid, ConnectionRef>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    /// Others ended it.
    Over,
    /// It goes on under this id.
    Moved(NodeId),
}

impl Session {
    fn new(region: &str, now_ms: u64) -> Self {
        Session { state: State::Open, number: 0, since_ms: now_ms, region: region.to_owned(), open: HashMap::new() }
    }
}

impl Sessions {
    /// See [`Lifecycle::begin_session`](crate::store::Lifecycle::begin_session).
    pub fn begin(&mut self, node: &NodeId, region: &str, before: Option<&NodeId>, now_ms: u64) -> Before {
        match self.0.get(node) {
            Some(own) if own.state != State::Open => return Before::Over,
            Some(own) if before == Some(node) => return Before::Held(own.number),
            _ => {}
        }
        let before = before.filter(|before| *before != node);
        match before.and_then(|before| self.0.get(before)).map(|session| (&session.state, session.number)) {
            Some((State::Moved(to), _)) if to == node => Before::Held(self.begun(node, region, now_ms).number),
            Some((State::Moved(to), _)) => Before::Moved(to.clone()),
            Some((State::Over, number)) => {
                self.begun(node, region, now_ms);
                Before::Lost(number)
            }
            Some((State::Open, number)) if !self.0.contains_key(node) => {
                let mut open = HashMap::new();
                if let Some(session) = before.and_then(|before| self.0.get_mut(before)) {
                    (session.state, session.since_ms) = (State::Moved(node.clone()), now_ms);
                    open = std::mem::take(&mut session.open);
                }
                let session = self.begun(node, region, now_ms);
                (session.number, session.open) = (number, open);
                Before::Held(number)
            }
            Some((State::Open, _)) | None => {
                self.begun(node, region, now_ms);
                Before::Unknown
            }
        }
    }

    /// The node's session, which begins if it had not begun.
    fn begun(&mut self, node: &NodeId, region: &str, now_ms: u64) -> &mut Session {
        let remembered = millis(REMEMBERED);
        self.0
            .retain(|_, session| session.state == State::Open || now_ms.saturating_sub(session.since_ms) <= remembered);
        self.0.entry(node.clone()).or_insert_with(|| Session::new(region, now_ms))
    }

    /// Whether the node's batch of this number is to be published; otherwise what became of it.
    pub fn is_next(&self, node: &NodeId, number: u64) -> Result<(), BatchOutcome> {
        match self.0.get(node).filter(|session| session.state == State::Open) {
            None => Err(BatchOutcome::Over),
            Some(session) if number <= session.number => Err(BatchOutcome::Published(session.number)),
            Some(session) if number > session.number + 1 => Err(BatchOutcome::Behind(session.number)),
            Some(_) => Ok(()),
        }
    }

    /// Takes a change over into what the node has open. False when that was done before.
    pub fn take(&mut self, node: &NodeId, change: &Change) -> bool {
        let Some(session) = self.0.get_mut(node) else { return false };
        let Change { subject, kind, .. } = change;
        match kind {
            LifecycleKind::Connected => session.open.insert(subject.connection, subject.clone()).is_none(),
            LifecycleKind::Disconnected(_) => session.open.remove(&subject.connection).is_some(),
            LifecycleKind::Renewed => match session.open.get_mut(&subject.connection) {
                Some(open) => {
                    *open = subject.clone();
                    true
                }
                None => false,
            },
        }
    }

    /// The node's batch of this number was published.
    pub fn published(&mut self, node: &NodeId, number: u64) {
        if let Some(session) = self.0.get_mut(node) {
            session.number = number;
        }
    }

    /// Ends the session of a node of this region. False when it is not of this region, or never began.
    pub fn end(&mut self, node: &NodeId, region: &str, now_ms: u64) -> bool {
        let Some(session) = self.0.get_mut(node).filter(|session| session.region == region) else { return false };
        if session.state == State::Open {
            (session.state, session.since_ms) = (State::Over, now_ms);
        }
        true
    }

    /// Some of what a node has open.
    pub fn open(&self, node: &NodeId, limit: usize) -> Vec<ConnectionRef> {
        self.0.get(node).into_iter().flat_map(|session| session.open.values()).take(limit).cloned().collect()
    }

    /// Nodes of this region whose sessions were not ended.
    pub fn nodes(&self, region: &str) -> Vec<NodeId> {
        let open = self.0.iter().filter(|(_, session)| session.state == State::Open && session.region == region);
        open.map(|(node, _)| node.clone()).collect()
    }

    /// The record of a node's session, but for its connections.
    pub fn record<'a>(&self, node: &'a NodeId) -> Option<Record<'a>> {
        self.0.get(node).map(|session| session.record(node))
    }

    /// The records of all.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.0.iter().flat_map(|(node, session)| {
            let open = session.open.values().map(|subject| connection_record(node, subject, true));
            std::iter::once(session.record(node)).chain(open)
        })
    }

    /// Takes a session over. One that moved takes its connections along, to where the other session was restored.
    pub fn restore(&mut self, node: NodeId, record: SessionRecord) {
        let SessionRecord { state, number, since_ms, region } = record;
        let session = self.0.entry(node).or_insert_with(|| Session::new(&region, since_ms));
        (session.number, session.since_ms, session.region) = (number, since_ms, region);
        session.state = match state {
            SessionState::Open => State::Open,
            SessionState::Over => State::Over,
            SessionState::Moved(to) => State::Moved(to.into()),
        };
        if let State::Moved(to) = session.state.clone() {
            let open = std::mem::take(&mut session.open);
            if let Some(session) = self.0.get_mut(&to) {
                session.open.extend(open);
            }
        }
    }

    /// Takes over that a connection of a node is open, or is not.
    pub fn restore_connection(&mut self, node: &NodeId, connection: Uuid, open: Option<&str>) {
        let Some(session) = self.0.get_mut(node) else { return };
        match open.and_then(|remembered| ConnectionRef::recall(connection, remembered)) {
            Some(subject) => _ = session.open.insert(connection, subject),
            None => _ = session.open.remove(&connection),
        }
    }
}

impl Session {
    fn record<'a>(&self, node: &'a NodeId) -> Record<'a> {
        let state = match &self.state {
            State::Open => SessionState::Open,
            State::Over => SessionState::Over,
            State::Moved(to) => SessionState::Moved(to.as_str().to_owned()),
        };
        let (number, since_ms, region) = (self.number, self.since_ms, self.region.clone());
        Record::Session { node: node.as_str().into(), session: SessionRecord { state, number, since_ms, region } }
    }
}

/// The record of a node's connection that is open, or is not any more.
pub fn connection_record<'a>(node: &'a NodeId, subject: &ConnectionRef, open: bool) -> Record<'a> {
    let open = open.then(|| Cow::Owned(subject.remembered()));
    Record::Connection { node: node.as_str().into(), connection: subject.connection, open }
}
