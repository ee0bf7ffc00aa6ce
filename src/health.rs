//! A node's own state, for probes, metrics and the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The state of a node.
pub struct Health {
    store: String,
    state: Mutex<State>,
}

/// What a node needs of its store. The store is up when all of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorePart {
    /// The server itself: leases are renewed there.
    Server,
    /// The node's channel: its own beats come back over it.
    Channel,
    /// The connections over which streams are worked with.
    Lanes,
}

struct State {
    draining: bool,
    reached_once: bool,
    down: Option<Instant>,
    /// Why a part can't be used, in the order of [`StorePart`].
    faults: [Option<String>; 3],
}

impl State {
    fn fault(&self) -> Option<&String> {
        self.faults.iter().flatten().next()
    }
}

/// A look at the state.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the store is.
    pub store: String,
    /// The node is being stopped.
    pub draining: bool,
    /// The store answered at least once.
    pub reached_once: bool,
    /// Why the store can't be used.
    pub store_error: Option<String>,
    /// For how long it can't.
    pub down_for: Option<Duration>,
}

impl Health {
    /// A node that has not reached its store yet.
    pub fn new(store: String) -> Self {
        Health {
            store,
            state: Mutex::new(State { draining: false, reached_once: false, down: None, faults: [const { None }; 3] }),
        }
    }

    /// The server answers.
    pub fn store_is_up(&self) {
        self.is_up(StorePart::Server);
    }

    /// The server does not answer, or refuses.
    pub fn store_is_down(&self, reason: &str) {
        self.is_down(StorePart::Server, reason);
    }

    /// A part of the store can be used.
    pub fn is_up(&self, part: StorePart) {
        let mut state = self.state.lock();
        state.faults[part as usize] = None;
        if state.fault().is_some() {
            return;
        }
        state.reached_once = true;
        if let Some(since) = state.down.take() {
            tracing::info!(store = self.store, after = ?since.elapsed(), "the store is back");
        }
    }

    /// A part of the store can't be used.
    pub fn is_down(&self, part: StorePart, reason: &str) {
        let mut state = self.state.lock();
        state.faults[part as usize] = Some(reason.to_owned());
        if state.down.is_none() {
            tracing::warn!(
                store = self.store,
                ?part,
                reason,
                "the store can't be used: clients stay connected, and publishes are refused with 503 until it is back"
            );
            state.down = Some(Instant::now());
        }
    }

    /// The node is being stopped: load balancers had better send nobody here.
    pub fn drain(&self) {
        self.state.lock().draining = true;
    }

    /// A look at the state.
    pub fn report(&self) -> Report {
        let state = self.state.lock();
        Report {
            store: self.store.clone(),
            draining: state.draining,
            reached_once: state.reached_once,
            store_error: state.fault().cloned(),
            down_for: state.down.map(|since| since.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_up_when_all_its_parts_are() {
        let health = Health::new("a store".into());
        health.is_down(StorePart::Server, "not reached");
        health.is_down(StorePart::Channel, "no beat");
        assert_eq!(health.report().store_error.as_deref(), Some("not reached"));
        health.is_up(StorePart::Server);
        let report = health.report();
        assert_eq!((report.store_error.as_deref(), report.reached_once), (Some("no beat"), false));
        assert!(report.down_for.is_some());
        health.is_up(StorePart::Channel);
        let report = health.report();
        assert_eq!((report.store_error, report.down_for, report.reached_once), (None, None, true));
    }
}
