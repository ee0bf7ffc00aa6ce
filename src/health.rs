//! What a node knows of its own state, for probes, metrics and the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The state of a node.
pub struct Health {
    store: String,
    state: Mutex<State>,
}

struct State {
    draining: bool,
    reached_once: bool,
    down: Option<(Instant, String)>,
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
    /// Why the store does not answer.
    pub store_error: Option<String>,
    /// For how long it has not.
    pub down_for: Option<Duration>,
}

impl Health {
    /// A node that has not reached its store yet.
    pub fn new(store: String) -> Self {
        Health { store, state: Mutex::new(State { draining: false, reached_once: false, down: None }) }
    }

    /// The store answers.
    pub fn store_is_up(&self) {
        let mut state = self.state.lock();
        state.reached_once = true;
        if let Some((since, _)) = state.down.take() {
            tracing::info!(store = self.store, after = ?since.elapsed(), "the store is back");
        }
    }

    /// The store does not answer.
    pub fn store_is_down(&self, reason: &str) {
        let mut state = self.state.lock();
        match &mut state.down {
            Some((_, known)) => reason.clone_into(known),
            None => {
                tracing::warn!(store = self.store, reason, "the store is away: sockets stay, publishes get 503");
                state.down = Some((Instant::now(), reason.to_owned()));
            }
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
            store_error: state.down.as_ref().map(|(_, reason)| reason.clone()),
            down_for: state.down.as_ref().map(|(since, _)| since.elapsed()),
        }
    }
}
