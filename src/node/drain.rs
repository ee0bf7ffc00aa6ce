//! An orderly stop: load balancers first, then clients, a few at a time.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal as unix_signal};

use crate::config::Settings;
use crate::health::Health;
use crate::hub::Hub;
use crate::transport::Connections;

/// After the last client was told to go, this long for the last bytes.
const LAST_BYTES: Duration = Duration::from_secs(3);

/// Waits for SIGTERM or SIGINT. Another one later ends the process at once.
pub async fn signal() {
    let mut terminate = unix_signal(SignalKind::terminate()).expect("the runtime has signals");
    let mut interrupt = unix_signal(SignalKind::interrupt()).expect("the runtime has signals");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("told to stop again: stopping at once");
        std::process::exit(1);
    });
}

/// Turns unready, waits for load balancers to notice, then lets all clients go.
pub async fn let_go(settings: &Settings, health: &Health, hub: &Hub, connections: &Connections) {
    health.drain();
    let clients = connections.count();
    // Without clients there is nobody to spare a reconnect, and nothing to wait for.
    let delay = if clients == 0 { Duration::ZERO } else { settings.drain_delay() };
    tracing::info!(clients, ?delay, over = ?settings.drain(), "stopping: unready now, then clients are let go");
    tokio::time::sleep(delay).await;
    hub.stop_listening();
    connections.drain(settings.drain()).await;
    if tokio::time::timeout(LAST_BYTES, connections.wait_until_empty()).await.is_err() {
        tracing::info!(left = connections.count(), "some clients did not take their last bytes");
    }
}
