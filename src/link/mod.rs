//! Direct dispatch: events go from node to node over connections of their own, around the store's channels.
//!
//! ```text
//!   publish -> store (leaves linked nodes out) -> answer: these hold a route
//!                                                   |
//!      Peer (queue) -> socket -> receive -> Registry::message, as if the channel had brought it
//!         ^                         |
//!         +---- acknowledged -------+      not within 200 ms: relayed over the channel after all
//! ```
//!
//! A node's own clients get what is published on it the same way, also where there are no links.
//!
//! [`Links`] keeps the links of this node: `plan` decides which ones are worth having, by `counts` of what went
//! where. `senders` count what each device sends, and `prediction` guesses from that where its next events go. `peer` is the sending end of one, `receive` the other; between them `handshake` (which node is which),
//! `frame` (messages) and `unacked` (what is not answered yet) are values, and `wire` is the socket.
//!
//! Nothing here is needed for a promise: an event that a link loses or brings late or twice is a hole or a
//! duplicate in the stream's chain, and dealt with there. See `docs/links.md`.

mod counts;
mod devices;
mod fallback;
pub(crate) mod frame;
mod handshake;
mod keeper;
mod listing;
mod peer;
mod plan;
#[cfg(test)]
mod population;
mod prediction;
mod receive;
mod routes;
mod senders;
mod unacked;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::dispatch::Registry;
use crate::store::DIRECT_TIME;

pub use handshake::Key;
pub use keeper::{LinkSettings, Links};
pub use listing::{Listed, State};

/// When a stream is looked into for the second time: what had been sent to the store before the first time
/// either came there since, or was published to every node.
const LOOK_AGAIN: Duration = DIRECT_TIME.saturating_add(Duration::from_millis(200));

/// Connections whose handshake is under way. More are closed at once.
const MAX_STRANGERS: usize = 64;

/// Links to this node. More are closed at once, and their events come over the channel.
const MAX_ACCEPTED: usize = 1024;

/// Accepts links to this node; runs until it is dropped.
pub async fn accept_for_ever(listener: TcpListener, key: Key, registry: Arc<Registry>) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let places = Arc::new(Semaphore::new(MAX_ACCEPTED));
    loop {
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a link can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(stranger) = strangers.clone().try_acquire_owned() else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (key, registry) = (key.clone(), registry.clone());
        tokio::spawn(async move {
            let accepted = wire::accept(socket, key, &registry.node()).await;
            drop(stranger);
            match accepted {
                Ok((wire, from)) => {
                    tracing::debug!(%from, "a link to this node is open");
                    let metrics = registry.metrics().clone();
                    metrics.links.accepted.inc();
                    receive::receive(wire, registry, &metrics.links).await;
                    metrics.links.accepted.dec();
                    tracing::debug!(%from, "a link to this node has ended");
                }
                Err(error) => tracing::warn!(%address, %error, "a link was refused"),
            }
            drop(place);
        });
    }
}
