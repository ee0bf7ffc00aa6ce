//! Where the master is, and connections to it.
//!
//! A [`Server`] opens every connection of a store: `target` is what the URL names, `sentinel` finds the master
//! behind Sentinels, and `connection` runs calls. Each connection belongs to a [`Master`], the time for which one
//! server is the master. When that ends (the server refuses writes as a replica, or Sentinels name another), all
//! its connections are broken at once, subscriptions included, and the next call opens one anew.

mod connection;
mod credentials;
mod sentinel;
mod target;
mod url;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{ConnectionInfo, PushInfo, PushKind, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::errors::{not_connected, not_reached, replica};
use crate::metrics::{RoleMetrics, StoreMetrics};
use crate::store::StoreError;

pub(super) use connection::{Connection, RESPONSE_TIMEOUT};
use credentials::Login;
pub use credentials::{CredentialFiles, FileError};
use sentinel::{Named, Sentinels};
pub use target::ServerConfig;
pub(super) use target::{Kind, Target, at};
pub use url::RedisUrl;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long it may take to find the master, connect to it, and see that it is one.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// How often Sentinels are asked though nothing happened: a switch that was published while no subscription was
/// there is noticed within this time.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The Redis of a URL. Displayed without user and password. Clones share what is known of it.
#[derive(Clone)]
pub(super) struct Server(Arc<Shared>);

struct Shared {
    target: Target,
    credentials: CredentialFiles,
    metrics: StoreMetrics,
    sentinels: Option<Arc<Sentinels>>,
    known: Mutex<Known>,
    /// Changes whenever Sentinels name another master.
    switches: watch::Sender<()>,
    watching: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct Known {
    current: Option<Arc<Master>>,
    /// Another server, to which connections are being opened.
    candidate: Option<Arc<Master>>,
    /// The newest configuration of Sentinels.
    epoch: u64,
    /// When that was learned.
    learned: Option<Instant>,
}

/// One server for as long as it is the master.
pub(super) struct Master {
    address: String,
    left: CancellationToken,
}

/// What a connection is opened to.
struct Found {
    info: ConnectionInfo,
    named: Option<Named>,
    asked: Instant,
}

impl Server {
    /// Connects to nothing yet. Needs a runtime.
    pub(super) fn new(target: Target, credentials: &CredentialFiles, metrics: &StoreMetrics) -> Self {
        let sentinels = match &target {
            Target::Server(_) => None,
            Target::Sentinels { sentinels, master, .. } => {
                Some(Arc::new(Sentinels::new(sentinels, master, credentials)))
            }
        };
        let shared = Arc::new(Shared {
            target,
            credentials: credentials.clone(),
            metrics: metrics.clone(),
            sentinels: sentinels.clone(),
            known: Mutex::default(),
            switches: watch::Sender::new(()),
            watching: Mutex::default(),
        });
        if let Some(sentinels) = sentinels {
            let watching = tokio::spawn(watch(Arc::downgrade(&shared), sentinels));
            *shared.watching.lock() = Some(watching.abort_handle());
        }
        Server(shared)
    }

    /// Asks a server something, whether or not it is a master.
    pub(super) async fn ask(&self, question: &redis::Pipeline, answers: usize) -> Result<Vec<Value>, String> {
        let found = self.find().await.map_err(|error| error.to_string())?;
        let client = self.0.credentials.client(found.info, Login::Server).await?;
        let mut io = client
            .get_multiplexed_async_connection_with_config(&connection::config())
            .await
            .map_err(|error| error.to_string())?;
        io.send_packed_commands(question, 0, answers).await.map_err(|error| error.to_string())
    }

    /// Opens a connection to the master; `on_push` gets what it is sent without having asked.
    pub(super) async fn open(
        &self,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, StoreError> {
        let in_time = tokio::time::timeout(OPEN_TIMEOUT, self.try_open(on_push)).await;
        in_time.unwrap_or_else(|_| Err(not_reached("connecting took too long")))
    }

    async fn try_open(&self, on_push: impl Fn(PushInfo) + Send + Sync + 'static) -> Result<Connection, StoreError> {
        let found = self.find().await?;
        let master = self.candidate(&found.info.addr().to_string());
        let broken = master.left.child_token();
        let watch = broken.clone();
        let config = connection::config().set_push_sender(move |push: PushInfo| {
            match push.kind {
                PushKind::Disconnection => watch.cancel(),
                _ => on_push(push),
            }
            Ok::<(), std::convert::Infallible>(())
        });
        let client = self.0.credentials.client(found.info.clone(), Login::Server).await.map_err(not_reached)?;
        let mut io = client.get_multiplexed_async_connection_with_config(&config).await.map_err(not_connected)?;
        let role = io.send_packed_command(&redis::cmd("ROLE")).await.map_err(not_connected)?;
        check_role(&role, &master.address)?;
        self.install(&master, &found)?;
        Ok(Connection::new(io, master, broken))
    }

    /// The figures of its connections of one role.
    pub(super) fn metrics(&self, role: &'static str) -> RoleMetrics {
        self.0.metrics.of(role)
    }

    /// Whether Sentinels say where it is.
    pub(super) fn has_sentinels(&self) -> bool {
        self.0.sentinels.is_some()
    }

    /// For [`Self::pause`].
    pub(super) fn switches(&self) -> watch::Receiver<()> {
        self.0.switches.subscribe()
    }

    /// Waits before another try to connect, but not for longer than Sentinels take to name another master.
    pub(super) async fn pause(&self, time: Duration, switches: &mut watch::Receiver<()>) {
        let _ = tokio::time::timeout(time, switches.changed()).await;
    }

    async fn find(&self) -> Result<Found, StoreError> {
        let asked = Instant::now();
        match (&self.0.target, &self.0.sentinels) {
            (Target::Sentinels { server, .. }, Some(sentinels)) => {
                let named = sentinels.master().await.map_err(not_reached)?;
                Ok(Found { info: at(server, &named.host, named.port), named: Some(named), asked })
            }
            (Target::Server(info) | Target::Sentinels { server: info, .. }, _) => {
                Ok(Found { info: info.clone(), named: None, asked })
            }
        }
    }

    /// The master at an address, whether it is known as one or is going to be.
    fn candidate(&self, address: &str) -> Arc<Master> {
        let mut known = self.0.known.lock();
        let Known { current, candidate, .. } = &mut *known;
        let fits = |master: &&Arc<Master>| master.address == address && !master.left.is_cancelled();
        if let Some(master) = current.iter().chain(&*candidate).find(fits) {
            return master.clone();
        }
        let master = Arc::new(Master { address: address.to_owned(), left: CancellationToken::new() });
        candidate.insert(master).clone()
    }

    /// It is the master from now on, unless a newer one became known meanwhile.
    fn install(&self, master: &Arc<Master>, found: &Found) -> Result<(), StoreError> {
        let mut known = self.0.known.lock();
        if let Some(named) = &found.named
            && !known.accepts(named, found.asked)
        {
            return Err(not_reached(format!("Sentinels know a newer master than {}", master.address)));
        }
        match &known.current {
            Some(current) if Arc::ptr_eq(current, master) => return Ok(()),
            Some(current) => current.leave("another server is the master"),
            None => {}
        }
        known.current = Some(master.clone());
        known.candidate = None;
        Ok(())
    }
}

impl Known {
    /// Takes note of the Sentinels' answers. False when it is older than what is known: a few of them that have not learnt
    /// of a failover yet. A majority that confirms it afterwards was set up anew.
    fn accepts(&mut self, named: &Named, asked: Instant) -> bool {
        let newer = self.learned.is_none_or(|learned| asked >= learned);
        if named.epoch < self.epoch && !(named.majority && newer) {
            return false;
        }
        self.epoch = named.epoch;
        self.learned = Some(Instant::now());
        true
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.target.fmt(f)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watching.lock().take().iter().for_each(AbortHandle::abort);
    }
}

impl Master {
    /// Breaks all connections to it.
    fn leave(&self, reason: &str) {
        if !self.left.is_cancelled() {
            tracing::warn!(server = self.address, reason, "leaving a server: all connections to it are closed");
            self.left.cancel();
        }
    }
}

impl Shared {
    /// Leaves the master when Sentinels name another one.
    fn heed(&self, named: &Named, asked: Instant, server: &ConnectionInfo) {
        let address = at(server, &named.host, named.port).addr().to_string();
        let mut known = self.known.lock();
        if !known.accepts(named, asked) {
            return;
        }
        if let Some(current) = known.current.as_ref().filter(|current| current.address != address) {
            current.leave("Sentinels name another master");
        }
    }
}

/// Asks Sentinels now and then, and at once when one of them publishes a switch.
async fn watch(shared: Weak<Shared>, sentinels: Arc<Sentinels>) {
    let mut last = None;
    loop {
        let _ = tokio::time::timeout(WATCH_INTERVAL, sentinels.switched()).await;
        let asked = Instant::now();
        let answer = sentinels.master().await;
        let Some(shared) = shared.upgrade() else { return };
        let (Ok(named), Target::Sentinels { server, .. }) = (answer, &shared.target) else { continue };
        shared.heed(&named, asked, server);
        let address = (named.host, named.port);
        if last.replace(address.clone()).is_some_and(|last| last != address) {
            tracing::info!(server = %shared.target, master = ?address, "Sentinels name another master");
            shared.switches.send_replace(());
        }
    }
}

/// Only a master takes writes. A server that does not show its role is taken for one.
fn check_role(role: &Value, address: &str) -> Result<(), StoreError> {
    let word = match role {
        Value::Array(words) => words.first(),
        _ => None,
    };
    match word {
        Some(Value::BulkString(word)) if word == b"slave" || word == b"replica" => Err(replica(address)),
        Some(Value::BulkString(word)) if word == b"sentinel" => {
            let reason = format!("reached, but {address} is a Sentinel: use redis+sentinel://HOST:PORT/MASTER");
            Err(StoreError::Unavailable(reason))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(epoch: u64, majority: bool) -> Named {
        Named { host: "a".into(), port: 1, epoch, majority }
    }

    #[test]
    fn an_older_configuration_counts_only_when_a_majority_says_so_afterwards() {
        let mut known = Known::default();
        let before = Instant::now();
        assert!(known.accepts(&named(3, true), before));
        assert!(!known.accepts(&named(2, false), Instant::now()));
        assert!(!known.accepts(&named(2, true), before), "asked before the newer one was known");
        assert!(known.accepts(&named(3, false), before));
        assert!(known.accepts(&named(4, false), before));
        assert!(known.accepts(&named(0, true), Instant::now()), "Sentinels were set up anew");
    }

    #[test]
    fn a_replica_and_a_sentinel_are_no_masters() {
        let role = |word: &str| Value::Array(vec![Value::BulkString(word.into())]);
        assert_eq!(check_role(&role("master"), "a:1"), Ok(()));
        let refused = check_role(&role("slave"), "a:1").unwrap_err().to_string();
        assert!(refused.contains("reached, but read-only"), "{refused}");
        let refused = check_role(&role("sentinel"), "a:1").unwrap_err().to_string();
        assert!(refused.contains("a:1 is a Sentinel: use redis+sentinel://"), "{refused}");
        assert_eq!(check_role(&Value::Nil, "a:1"), Ok(()));
    }
}
