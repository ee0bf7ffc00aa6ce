//! Producers that are gone: when the lease of a producer lapses, `whimbrel:abandoned` is published in its stream,
//! once.
//!
//! ```text
//! lapsed -> ended (can't be renewed any more) -> `whimbrel:abandoned` published, under a key -> forgotten
//! ```
//!
//! One node at a time looks ([`leader`]), but nothing depends on that. A lease that lapsed is ended before anything is
//! published, in one step, so a producer that can still renew is never reported. It stays in the store until the
//! event is in its stream. The event's idempotency key is the lease's: a node that publishes it again, because the
//! one before died or only seemed to, finds it there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::watch;

use crate::hub::{Hub, PublishError};
use crate::leader::{self, Election, End, Job, Leadership};
use crate::model::{Draft, EventType, LeaseId, Time};
use crate::store::producers::{LEASES_A_LOOK, LOOKS_APART, Lapsed};
use crate::store::{JobKind, Store, StoreError};

/// How often leases are looked at: by so much a lapse is reported late. Nodes that are not the leader ask as often
/// whether it is now.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the key of a lapse is remembered: longer than a node may be stopped between publishing and
/// forgetting a lease, or a store away.
const KEY_TIME: Duration = Duration::from_secs(30 * 86_400);

/// Starts the candidacy for looking.
pub fn begin(store: Arc<dyn Store>, hub: Arc<Hub>, lease: Duration) -> Election {
    Election::start(|stopped| async move {
        let mut looker = Looker { store: &*store, hub: &hub, contact: Contact::default() };
        leader::campaign(&*store, hub.registry(), JobKind::Producers, lease, &mut looker, stopped).await;
    })
}

struct Looker<'a> {
    store: &'a dyn Store,
    hub: &'a Hub,
    contact: Contact,
}

#[async_trait]
impl Job for Looker<'_> {
    async fn run(&mut self, mut leadership: Leadership<'_>, stop: &mut watch::Receiver<bool>) -> End {
        let mut progress = false;
        // Only what the store's clock shows: how long ago the last look was is known from the second one on.
        let mut looked_ms = match self.store.producers().lapsed(0, Duration::ZERO, 0).await {
            Ok(look) => look.now_ms,
            Err(error) => return End::Failed { error, progress },
        };
        while !*stop.borrow() {
            let step = async {
                if !leadership.renew().await? {
                    return Ok(None);
                }
                let reached = self.contact.lasts(Instant::now());
                self.store.producers().lapsed(LEASES_A_LOOK, reached, looked_ms).await.map(Some)
            };
            let look = match step.await {
                Ok(Some(look)) => look,
                Ok(None) => return End::Lost,
                Err(error) => return End::Failed { error, progress },
            };
            self.contact.reached(Instant::now());
            (looked_ms, progress) = (look.now_ms, true);
            let more = look.lapsed.len() == LEASES_A_LOOK;
            let done = join_all(look.lapsed.iter().map(|lapsed| publish_abandoned(self.store, self.hub, lapsed))).await;
            if more && done.contains(&true) {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        End::Stopped
    }

    fn wait(&self, lease: Duration) -> Duration {
        LOOK_EVERY.min(lease / 3)
    }

    fn asked(&mut self, reached: bool) {
        if reached {
            self.contact.reached(Instant::now());
        } else {
            self.contact = Contact::default();
        }
    }
}

/// The data of the event.
#[derive(Serialize)]
struct Abandoned {
    lease: LeaseId,
    seconds: u64,
    renewed: Time,
}

fn abandoned(lapsed: &Lapsed) -> Draft {
    let abandoned =
        Abandoned { lease: lapsed.id, seconds: lapsed.time.as_secs(), renewed: Time::from_ms(lapsed.renewed_ms) };
    let data = serde_json::to_vec(&abandoned).expect("it holds only numbers and texts");
    let key = format!("{}:{}", EventType::ABANDONED, lapsed.id);
    Draft { key: Some(key), key_time: Some(KEY_TIME), ..Draft::new(EventType::abandoned(), data) }
}

/// Publishes that a stream's producer is gone, then forgets the lease. False: it is to be tried again.
async fn publish_abandoned(store: &dyn Store, hub: &Hub, lapsed: &Lapsed) -> bool {
    let stream = &lapsed.stream;
    match hub.publish(stream, &abandoned(lapsed)).await {
        Ok(published) if published.duplicate => {}
        Ok(_) => {
            hub.metrics().producer_leases_lapsed.inc();
            tracing::info!(%stream, lease = %lapsed.id, "a producer's lease lapsed; its readers are notified");
        }
        // Somebody else used the key for another event: this one can never be published.
        Err(PublishError::Store(StoreError::KeyReused)) => {
            tracing::warn!(%stream, lease = %lapsed.id, "the key of a lapsed lease was used for another event, so readers aren't notified");
        }
        Err(error) => {
            tracing::debug!(%stream, %error, "a lapsed lease can't be published yet; it is tried again");
            return false;
        }
    }
    match store.producers().forget_lease(lapsed).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%stream, %error, "a lease that lapsed will be forgotten later");
            false
        }
    }
}

/// For how long the store could be reached without a break.
#[derive(Default)]
struct Contact(Option<(Instant, Instant)>);

impl Contact {
    fn reached(&mut self, now: Instant) {
        let since = self.0.filter(|(_, last)| now.duration_since(*last) <= LOOKS_APART).map(|(since, _)| since);
        self.0 = Some((since.unwrap_or(now), now));
    }

    /// Nothing when the last time is too long ago: this node may have slept.
    fn lasts(&self, now: Instant) -> Duration {
        let unbroken = self.0.filter(|(_, last)| now.duration_since(*last) <= LOOKS_APART);
        unbroken.map_or(Duration::ZERO, |(since, last)| last.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_lasts_until_it_breaks_and_begins_anew_after_a_sleep() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut contact = Contact::default();
        assert_eq!(contact.lasts(start), Duration::ZERO);
        for at in 0..=5 {
            contact.reached(start + second * at);
        }
        assert_eq!(contact.lasts(start + second * 6), second * 5);
        assert_eq!(contact.lasts(start + second * 60), Duration::ZERO, "it slept");
        contact.reached(start + second * 60);
        contact.reached(start + second * 61);
        assert_eq!(contact.lasts(start + second * 61), second);
    }
}
