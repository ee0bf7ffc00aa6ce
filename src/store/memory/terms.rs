//! The nodes' terms at telling who came and left, as a plain value.

use std::collections::HashMap;

use uuid::Uuid;

use crate::store::lifecycle::{Before, Change, Happening, REMEMBERED, Told, Whom};
use crate::store::{NodeId, millis};

/// All terms. The Redis store's `begin_term.lua`, `lifecycle.lua` and `left_open.lua` do the same.
#[derive(Debug, Default)]
pub struct Terms(HashMap<NodeId, Term>);

#[derive(Debug)]
struct Term {
    state: State,
    /// The batch told last.
    number: u64,
    /// Since when it is in this state.
    since_ms: u64,
    /// Where its node has its lease.
    region: String,
    open: HashMap<Uuid, Whom>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    /// Others ended it.
    Over,
    /// It goes on under this id.
    Moved(NodeId),
}

impl Term {
    fn new(region: &str, now_ms: u64) -> Self {
        Term { state: State::Open, number: 0, since_ms: now_ms, region: region.to_owned(), open: HashMap::new() }
    }
}

impl Terms {
    /// See [`Lifecycle::begin_term`](crate::store::Lifecycle::begin_term).
    pub fn begin(&mut self, node: &NodeId, region: &str, before: Option<&NodeId>, now_ms: u64) -> Before {
        match self.0.get(node) {
            Some(own) if own.state != State::Open => return Before::Over,
            Some(own) if before == Some(node) => return Before::Held(own.number),
            _ => {}
        }
        let before = before.filter(|before| *before != node);
        match before.and_then(|before| self.0.get(before)).map(|term| (&term.state, term.number)) {
            Some((State::Moved(to), _)) if to == node => Before::Held(self.begun(node, region, now_ms).number),
            Some((State::Moved(to), _)) => Before::Moved(to.clone()),
            Some((State::Over, number)) => {
                self.begun(node, region, now_ms);
                Before::Lost(number)
            }
            Some((State::Open, number)) if !self.0.contains_key(node) => {
                let mut open = HashMap::new();
                if let Some(term) = before.and_then(|before| self.0.get_mut(before)) {
                    (term.state, term.since_ms) = (State::Moved(node.clone()), now_ms);
                    open = std::mem::take(&mut term.open);
                }
                let term = self.begun(node, region, now_ms);
                (term.number, term.open) = (number, open);
                Before::Held(number)
            }
            Some((State::Open, _)) | None => {
                self.begun(node, region, now_ms);
                Before::Unknown
            }
        }
    }

    /// The node's term, which begins if it had not begun.
    fn begun(&mut self, node: &NodeId, region: &str, now_ms: u64) -> &mut Term {
        let remembered = millis(REMEMBERED);
        self.0.retain(|_, term| term.state == State::Open || now_ms.saturating_sub(term.since_ms) <= remembered);
        self.0.entry(node.clone()).or_insert_with(|| Term::new(region, now_ms))
    }

    /// Whether the node's batch of this number is to be told; otherwise what became of it.
    pub fn is_next(&self, node: &NodeId, number: u64) -> Result<(), Told> {
        match self.0.get(node).filter(|term| term.state == State::Open) {
            None => Err(Told::Over),
            Some(term) if number <= term.number => Err(Told::UpTo(term.number)),
            Some(term) if number > term.number + 1 => Err(Told::Behind(term.number)),
            Some(_) => Ok(()),
        }
    }

    /// Takes a change over into what the node has open. False when it was told before.
    pub fn take(&mut self, node: &NodeId, change: &Change) -> bool {
        let Some(term) = self.0.get_mut(node) else { return false };
        let Change { whom, happening, .. } = change;
        match happening {
            Happening::Connected => term.open.insert(whom.connection, whom.clone()).is_none(),
            Happening::Disconnected(_) => term.open.remove(&whom.connection).is_some(),
        }
    }

    /// The node's batch of this number was told.
    pub fn told(&mut self, node: &NodeId, number: u64) {
        if let Some(term) = self.0.get_mut(node) {
            term.number = number;
        }
    }

    /// Ends the term of a node of this region. False when it is not of this region, or never began.
    pub fn end(&mut self, node: &NodeId, region: &str, now_ms: u64) -> bool {
        let Some(term) = self.0.get_mut(node).filter(|term| term.region == region) else { return false };
        if term.state == State::Open {
            (term.state, term.since_ms) = (State::Over, now_ms);
        }
        true
    }

    /// Some of what a node has open.
    pub fn open(&self, node: &NodeId, limit: usize) -> Vec<Whom> {
        self.0.get(node).into_iter().flat_map(|term| term.open.values()).take(limit).cloned().collect()
    }

    /// Nodes of this region whose terms were not ended.
    pub fn nodes(&self, region: &str) -> Vec<NodeId> {
        let open = self.0.iter().filter(|(_, term)| term.state == State::Open && term.region == region);
        open.map(|(node, _)| node.clone()).collect()
    }
}
