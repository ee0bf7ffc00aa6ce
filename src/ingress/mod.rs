//! What producers add straight into the store: one node at a time takes the entries of the ingress stream and
//! publishes each to the stream that it names.
//!
//! ```text
//! XADD -> ingress stream -> entry -> backlog -> publish (with the entry's id) -> removed
//!                             \-> rejected, with the reason
//! ```
//!
//! [`take_turns`] finds out whose turn it is: a lease in the store. Whoever has it runs [`drain`](Drain), which
//! reads pages, reads events out of [`entry`]s, keeps what is on its way in a [`backlog`], and removes what is
//! done. Nothing depends on the lease being right: a stream keeps the id of the newest entry it took (the mark),
//! and takes none that is not above. A node that was stopped in the middle, and goes on when another has long
//! taken over, is refused by the marks; so is a second placement after a crash between publishing and removing.

mod backlog;
mod drain;
mod entry;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::hub::Hub;
use crate::store::{Ingress, Store};

use drain::{Drain, End, Memory};

/// The part of a node that takes its turns at draining.
pub struct Turns {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Turns {
    /// Begins to take turns, and offers the store its functions. Does nothing on a store without an ingress.
    pub fn begin(store: Arc<dyn Store>, hub: Arc<Hub>, lease: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            if let Some(ingress) = store.ingress() {
                tokio::select! {
                    () = take_turns(ingress, &hub, lease, stopped) => {}
                    () = offer_functions(ingress, &hub, lease) => {}
                }
            }
        });
        Turns { stop, task }
    }

    /// Ends with the entries that are on their way, and leaves the rest to the next node.
    pub async fn end(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

/// Drains whenever it is this node's turn, until it is told to stop.
async fn take_turns(ingress: &dyn Ingress, hub: &Hub, lease: Duration, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut memory = Memory::default();
    loop {
        let node = hub.registry().node();
        let wait = match ingress.hold(&node, lease).await {
            Ok(true) => {
                let drain = Drain::new(ingress, hub, &node, lease, &mut memory);
                match drain.run(&mut stop).await {
                    End::Stopped => {
                        if let Err(error) = ingress.let_go(&node).await {
                            tracing::debug!(%error, "the turn at the ingress stream ends by itself");
                        }
                        return;
                    }
                    End::TurnLost => {
                        tracing::warn!("another node drains the ingress stream: this one was away for too long");
                        lease / 3
                    }
                    End::Failed { error, progress } => {
                        if progress {
                            backoff.reset();
                        }
                        tracing::debug!(%error, "draining the ingress stream begins anew");
                        backoff.next_wait()
                    }
                }
            }
            Ok(false) => {
                backoff.reset();
                lease / 3
            }
            Err(error) => {
                tracing::debug!(%error, "whose turn it is at the ingress stream can't be found out");
                backoff.next_wait()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Makes sure that the store has the functions that producers call, also after it forgot them. Never ends.
async fn offer_functions(ingress: &dyn Ingress, hub: &Hub, lease: Duration) {
    let mut looks = tokio::time::interval(lease / 3);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut starting, mut warned) = (true, false);
    loop {
        looks.tick().await;
        match ingress.offer_functions(hub.limits().event_bytes, starting).await {
            Ok(loaded) => {
                if loaded {
                    tracing::info!("loaded the function library for producers");
                }
                (starting, warned) = (false, false);
            }
            // A managed store may not let anybody load functions; everything else works without them.
            Err(error) if !warned => {
                tracing::warn!(%error, "the function library can't be loaded: FCALL will not work for producers");
                warned = true;
            }
            Err(_) => {}
        }
    }
}
