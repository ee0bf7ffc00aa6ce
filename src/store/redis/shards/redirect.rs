//! Calls that a server of a Cluster does not take, as their slot is elsewhere or on its way, and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::topology::Address;
use super::{Shard, Shards};
use crate::store::StoreError;
use crate::store::redis::call::Call;

/// For how long a call is sent again while its slot is on its way: with a key that exists and one that does not, as
/// nearly every script has them, neither server takes it before the slot has arrived.
const HOLD_TIME: Duration = Duration::from_secs(2);

/// The wait before it is sent again, at first and at the longest.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// How often it is sent elsewhere without a wait.
const AT_ONCE: u32 = 3;

/// What a server answered instead of doing something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) enum Redirect {
    /// The slot is there for good.
    Moved(u16, Option<Address>),
    /// What this call touches is there already, though the slot is not yet.
    Ask(Option<Address>),
    /// Some of what it touches is here, some is there.
    TryAgain,
    /// Nobody has the slot, or the server does not know who.
    Down,
}

impl Redirect {
    /// The redirection that an error is.
    pub(super) fn of(error: &StoreError) -> Option<Self> {
        // A store's error knows nothing of Clusters: for everybody else it just was not done.
        let StoreError::Unavailable(text) = error else { return None };
        let mut words = text.split(' ');
        match words.next()? {
            "MOVED" => Some(Redirect::Moved(words.next()?.parse().ok()?, Address::read(words.next()?))),
            "ASK" => Some(Redirect::Ask(Address::read(words.nth(1)?))),
            "TRYAGAIN" => Some(Redirect::TryAgain),
            "CLUSTERDOWN" => Some(Redirect::Down),
            _ => None,
        }
    }
}

/// The attempts of one call, or of one batch. With one shard there is only the first.
pub(in crate::store::redis) struct Attempts<'a> {
    shards: &'a Shards,
    /// When the first was redirected.
    since: Option<Instant>,
    followed: u32,
    wait: Duration,
    /// Where the next one goes by way of exception.
    ask: Option<Arc<Shard>>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(shards: &'a Shards) -> Self {
        Attempts { shards, since: None, followed: 0, wait: FIRST_WAIT, ask: None }
    }

    /// Where the next attempt goes.
    pub(in crate::store::redis) fn shard(&mut self, slot: impl FnOnce() -> u16) -> Result<Arc<Shard>, StoreError> {
        self.ask.take().map_or_else(|| self.shards.of(slot), Ok)
    }

    /// Whether there is to be another attempt, after this answer to a call; waits until it is time for that.
    pub(in crate::store::redis) async fn go_on(&mut self, answer: &Result<Value, StoreError>, call: &mut Call) -> bool {
        let Some(redirect) = self.shards.redirect(answer) else { return false };
        call.asking = false;
        if let Redirect::Ask(Some(address)) = &redirect {
            self.ask = self.shards.at(address);
            call.asking = self.ask.is_some();
        }
        self.follow([redirect]).await
    }

    /// The same for several calls, or one that is not sent elsewhere by way of exception.
    pub(in crate::store::redis) async fn follow(&mut self, redirects: impl IntoIterator<Item = Redirect>) -> bool {
        if self.since.get_or_insert_with(Instant::now).elapsed() >= HOLD_TIME {
            return false;
        }
        self.followed += 1;
        let mut at_once = self.followed <= AT_ONCE;
        for redirect in redirects {
            match redirect {
                Redirect::Moved(slot, address) => self.shards.moved(slot, address.as_ref()),
                Redirect::Ask(_) if self.ask.is_some() => {}
                Redirect::Ask(_) | Redirect::TryAgain | Redirect::Down => at_once = false,
            }
        }
        if !at_once {
            tokio::time::sleep(self.wait).await;
            self.wait = LONGEST_WAIT.min(self.wait * 2);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_names_where_a_slot_is() {
        let read = |text: &str| Redirect::of(&StoreError::Unavailable(text.to_owned()));
        let there = Address { host: "10.0.0.1".to_owned(), port: 7000 };
        assert_eq!(read("MOVED 3999 10.0.0.1:7000"), Some(Redirect::Moved(3999, Some(there.clone()))));
        assert_eq!(read("MOVED 3999 :7000"), Some(Redirect::Moved(3999, None)));
        assert_eq!(read("ASK 3999 10.0.0.1:7000"), Some(Redirect::Ask(Some(there))));
        assert_eq!(read("TRYAGAIN Multiple keys request during rehashing of slot"), Some(Redirect::TryAgain));
        assert_eq!(read("CLUSTERDOWN Hash slot not served"), Some(Redirect::Down));
        assert_eq!(read("not reached: MOVED"), None);
        assert_eq!(Redirect::of(&StoreError::Unknown("MOVED 1 a:1".to_owned())), None);
    }
}
