//! An orderly stop: load balancers first, then clients, a few at a time.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal as unix_signal};

use crate::config::Settings;
use crate::health::Health;
use crate::hub::Hub;
use crate::transport::Connections;

/// What was published before the stop has this long, at the least, to get from the channel to clients before the first
/// of them is let go.
const LAST_EVENTS: Duration = Duration::from_millis(250);

/// How long the last bytes may take after the last client was sent away.
const LAST_BYTES: Duration = Duration::from_secs(3);

/// The signal that stopped the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: a supervisor, whose load balancer may still send clients and producers here.
    Terminated,
    /// SIGINT: somebody at a terminal.
    Interrupted,
}

/// SIGTERM and SIGINT, caught from [`listen`](Self::listen) on: one that comes while nobody waits is kept for the
/// next to wait. From then on neither ends the process by itself.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to catch them.
    pub fn listen() -> Self {
        let of = |kind| unix_signal(kind).expect("the runtime has signals");
        StopSignals { terminate: of(SignalKind::terminate()), interrupt: of(SignalKind::interrupt()) }
    }

    /// Waits for the next one. Nothing is lost when the waiting is given up.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminated,
            _ = self.interrupt.recv() => Stop::Interrupted,
        }
    }

    /// Has the next one end the process at once.
    #[expect(clippy::disallowed_methods, reason = "a second signal asks for that, while the drain is under way")]
    pub fn exit_at_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("a second signal to stop: stopping at once");
            std::process::exit(1);
        });
    }
}

/// Turns unready, waits for load balancers to notice, has `close` end accepting, then closes all connections. A
/// balancer that does not probe health would otherwise send their clients back here.
pub async fn let_go(
    stop: Stop,
    settings: &Settings,
    health: &Health,
    hub: &Hub,
    connections: &Connections,
    close: impl FnOnce(),
) {
    health.drain();
    let clients = connections.count();
    // A balancer sends producers here too, and new clients to a node that has none. Somebody at a terminal need
    // not wait for it; nor on the embedded store, as there is no other node to go to.
    let at_once = stop == Stop::Interrupted && (clients == 0 || settings.redis_url.is_none());
    let (delay, over) =
        if at_once { (Duration::ZERO, Duration::ZERO) } else { (settings.drain_delay(), settings.drain()) };
    tracing::info!(clients, ?delay, ?over, "stopping: unready now, then clients are let go");
    tokio::time::sleep(delay.max(LAST_EVENTS)).await;
    hub.stop_listening();
    close();
    connections.drain(over).await;
    if tokio::time::timeout(LAST_BYTES, connections.wait_until_empty()).await.is_err() {
        tracing::info!(left = connections.count(), "some clients did not take their last bytes");
    }
}
