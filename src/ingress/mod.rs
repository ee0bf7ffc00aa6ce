//! What producers add straight into the store: one node at a time takes the entries of the ingress stream and
//! publishes each to the stream that it names.
//!
//! ```text
//! XADD -> ingress stream -> entry -> backlog -> publish (with the entry's id) -> removed
//!                             \-> rejected, with the reason
//! ```
//!
//! The leader ([`leader`]) runs [`drain`](Drain), which reads pages, reads events out of [`entry`]s,
//! keeps what is on its way in a [`backlog`], and removes what is done. Nothing depends on the election being right:
//! a stream keeps the id of the newest entry it took (the mark), and takes none that is not above. A node that was
//! stopped in the middle, and goes on when another has long taken over, is refused by the marks; so is a second
//! placement after a crash between publishing and removing.

mod backlog;
mod drain;
pub(crate) mod entry;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::directory;
use crate::hub::Hub;
use crate::leader::{self, Election, End, Job, Leadership};
use crate::model::StreamName;
use crate::store::{Ingress, JobKind, Store};

use drain::{Drain, Lanes, Memory};

/// Starts the candidacy for draining, and offers the store its functions. Does nothing on a store without an ingress.
pub fn begin(store: Arc<dyn Store>, hub: Arc<Hub>, lease: Duration) -> Election {
    Election::start(|stopped| async move {
        if let Some(ingress) = store.ingress() {
            let mut draining = Draining { ingress, hub: &hub, memory: Memory::default(), lanes: lanes(&store) };
            tokio::select! {
                () = leader::campaign(&*store, hub.registry(), JobKind::Ingress, lease, &mut draining, stopped) => {}
                () = offer_functions(ingress, &hub, lease) => {}
            }
        }
    })
}

/// One for each region, and one for streams of which only the directory may know where they are.
fn lanes(store: &Arc<dyn Store>) -> Lanes {
    let regions = directory::count_of(&**store);
    let store = store.clone();
    let of = move |stream: &StreamName| directory::known_region_of(&*store, stream).unwrap_or(regions);
    Lanes { count: regions + usize::from(regions > 1), of: Box::new(of) }
}

/// What the leader does.
struct Draining<'a> {
    ingress: &'a dyn Ingress,
    hub: &'a Hub,
    memory: Memory,
    lanes: Lanes,
}

#[async_trait]
impl Job for Draining<'_> {
    async fn run(&mut self, leadership: Leadership<'_>, stop: &mut watch::Receiver<bool>) -> End {
        Drain::new(self.ingress, self.hub, leadership, &mut self.memory, &self.lanes).run(stop).await
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
