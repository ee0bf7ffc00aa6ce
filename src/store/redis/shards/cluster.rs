//! The masters of a Redis Cluster, followed as slots move and replicas take over.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::seq::IteratorRandom as _;
use redis::{ConnectionAddr, ConnectionInfo, FromRedisValue as _};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::slot::SLOTS;
use super::topology::{Address, View};
use super::{Map, Shard};
use crate::metrics::StoreMetrics;
use crate::store::StoreError;
use crate::store::redis::errors::not_reached;
use crate::store::redis::server::{CredentialFiles, Server, Target, at};

/// How often its nodes are asked though nothing happened, and while a master is away.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);
const TROUBLED_INTERVAL: Duration = Duration::from_millis(500);

/// Between two questions at the least, however many calls are redirected.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// How long one node may take to answer, connecting included; and the rest, once most have.
const ASK_TIME: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_millis(50);

/// Nodes that are asked at a time, chosen at random. With a few views it takes many bad ones to miss what is newest.
const ASKED: usize = 6;

/// What a Cluster's connections have to say to whoever follows it. Without a Cluster nobody listens.
#[derive(Clone, Default)]
pub(in crate::store::redis) struct Alarm(Arc<Alarms>);

#[derive(Default)]
struct Alarms {
    troubled: Notify,
    losses: watch::Sender<()>,
    changes: watch::Sender<()>,
}

impl Alarm {
    /// A server can't be reached, or redirects calls.
    pub(in crate::store::redis) fn troubled(&self) {
        self.0.troubled.notify_one();
    }

    /// A server that was lost is back, or replaced: what it had to send meanwhile did not come.
    pub(in crate::store::redis) fn lost(&self) {
        self.0.losses.send_replace(());
    }

    /// The map is another.
    fn changed(&self) {
        self.0.changes.send_replace(());
    }
}

/// A Cluster. Displayed without user and password.
pub(super) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    credentials: CredentialFiles,
    metrics: StoreMetrics,
    map: Arc<ArcSwap<Map>>,
    /// What the map was made of. Whoever changes the map holds it.
    view: Mutex<View>,
    alarm: Alarm,
    watching: Mutex<Option<AbortHandle>>,
}

impl Cluster {
    /// Learns from any of the nodes which masters there are, and follows that from then on.
    pub(super) async fn find(
        seeds: Vec<ConnectionInfo>,
        credentials: CredentialFiles,
        metrics: StoreMetrics,
    ) -> Result<Arc<Self>, StoreError> {
        let map = Map { shards: Vec::new(), owners: Some(vec![None; usize::from(SLOTS)].into()) };
        let cluster = Arc::new(Cluster {
            seeds,
            credentials,
            metrics,
            map: Arc::new(ArcSwap::from_pointee(map)),
            view: Mutex::default(),
            alarm: Alarm::default(),
            watching: Mutex::default(),
        });
        cluster.refresh().await?;
        if cluster.map.load().shards.is_empty() {
            return Err(StoreError::Unavailable(format!("reached, but no slot of the {cluster} has a master")));
        }
        let watching = tokio::spawn(watch(Arc::downgrade(&cluster), cluster.alarm.clone()));
        *cluster.watching.lock() = Some(watching.abort_handle());
        Ok(cluster)
    }

    pub(super) fn map(&self) -> &Arc<ArcSwap<Map>> {
        &self.map
    }

    pub(super) fn losses(&self) -> watch::Receiver<()> {
        self.alarm.0.losses.subscribe()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.alarm.0.changes.subscribe()
    }

    pub(super) fn look_again(&self) {
        self.alarm.troubled();
    }

    /// How many slots have no master.
    pub(super) fn uncovered(&self) -> u16 {
        self.view.lock().uncovered()
    }

    /// A server says that a slot is elsewhere. That counts until its nodes are asked, which is soon.
    pub(super) fn moved(&self, slot: u16, address: Option<&Address>) {
        self.look_again();
        let Some(address) = address else { return };
        let _changing = self.view.lock();
        let known = self.map.load_full();
        let place = known.shards.iter().position(|shard| shard.address == *address);
        let (mut shards, mut owners) = (known.shards.clone(), known.owners.clone());
        let place = match place {
            Some(place) => place,
            None => {
                let Some(shard) = self.new_shard(address) else { return };
                shards.push(shard);
                shards.len() - 1
            }
        };
        if let Some(owner) = owners.as_mut().and_then(|owners| owners.get_mut(usize::from(slot))) {
            *owner = u16::try_from(place).ok();
            self.map.store(Arc::new(Map { shards, owners }));
            self.alarm.changed();
        }
    }

    /// The shard at an address. One that has no slot yet is not kept.
    pub(super) fn shard_at(&self, address: &Address) -> Option<Arc<Shard>> {
        let known = self.map.load();
        let shard = known.shards.iter().find(|shard| shard.address == *address).cloned();
        shard.or_else(|| self.new_shard(address))
    }

    fn new_shard(&self, address: &Address) -> Option<Arc<Shard>> {
        let info = at(self.seeds.first()?, &address.host, address.port);
        let server = Server::new(Target::Server(info), &self.credentials, &self.metrics);
        Shard::new(server, address.clone(), self.alarm.clone())
            .inspect_err(|error| tracing::warn!(%address, %error, "a server of the Cluster can't be used"))
            .ok()
    }

    /// Asks nodes, and goes by what is newest among their answers.
    async fn refresh(&self) -> Result<(), StoreError> {
        let asked = self.to_ask();
        let count = asked.len();
        let mut answers: FuturesUnordered<_> = asked.into_iter().map(|info| ask(info, &self.credentials)).collect();
        let (mut views, mut reasons) = (Vec::new(), Vec::new());
        let mut until = Instant::now() + 2 * ASK_TIME;
        loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(view)) => views.push(view),
                    Some(Err(reason)) => reasons.push(reason),
                    None => break,
                },
                () = sleep_until(until) => break,
            }
            if views.len() > count / 2 {
                until = until.min(Instant::now() + GRACE);
            }
        }
        if views.is_empty() {
            return Err(not_reached(format!("no node of the {self} answers ({})", reasons.join("; "))));
        }
        self.install(&views, views.len() > count / 2);
        Ok(())
    }

    /// Some of all nodes that are known.
    fn to_ask(&self) -> Vec<ConnectionInfo> {
        let members = self.view.lock().members.clone();
        let first = &self.seeds[0];
        let members = members.iter().map(|address| at(first, &address.host, address.port));
        let mut known: Vec<ConnectionInfo> = Vec::new();
        for info in members.chain(self.seeds.iter().cloned()) {
            if !known.iter().any(|known| known.addr() == info.addr()) {
                known.push(info);
            }
        }
        known.into_iter().sample(&mut rand::rng(), ASKED)
    }

    fn install(&self, views: &[View], most: bool) {
        let mut held = self.view.lock();
        // A few that were cut off may know less than what is known already. Where most answer, what is known may be of
        // a Cluster that was set up anew since.
        let view = View::merged(views.iter().chain((!most).then_some(&*held)));
        let known = self.map.load_full();
        let masters: BTreeSet<&Address> = view.claims.iter().map(|claim| &claim.master).collect();
        let of = |address: &Address| {
            let known = known.shards.iter().find(|shard| shard.address == *address).cloned();
            known.or_else(|| self.new_shard(address))
        };
        let shards: Vec<Arc<Shard>> = masters.into_iter().filter_map(of).collect();
        let mut owners = vec![None; usize::from(SLOTS)];
        for claim in &view.claims {
            let place = shards.iter().position(|shard| shard.address == claim.master);
            owners[usize::from(claim.first)..=usize::from(claim.last)].fill(place.and_then(|p| u16::try_from(p).ok()));
        }
        if view.claims != held.claims {
            let names: Vec<String> = shards.iter().map(|shard| shard.address.to_string()).collect();
            tracing::info!(masters = names.join(" "), slots_without = view.uncovered(), "the Cluster has changed");
        }
        let is_left = |old: &Arc<Shard>| !shards.iter().any(|shard| Arc::ptr_eq(shard, old));
        let replaced = known.shards.iter().any(is_left);
        *held = view;
        self.map.store(Arc::new(Map { shards, owners: Some(owners.into()) }));
        self.alarm.changed();
        if replaced {
            self.alarm.lost();
        }
    }

    /// Whether some of it can't be worked with.
    fn is_troubled(&self) -> bool {
        self.uncovered() > 0 || self.map.load().shards.iter().any(|shard| shard.is_troubled())
    }
}

/// One node's view.
async fn ask(node: ConnectionInfo, credentials: &CredentialFiles) -> Result<View, String> {
    let host = match node.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        other => other.to_string(),
    };
    let address = node.addr().to_string();
    let answered = async {
        let mut question = redis::pipe();
        question.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("NODES");
        let answers =
            Server::new(Target::Server(node), credentials, &StoreMetrics::default()).ask(&question, 2).await?;
        let [slots, nodes] = <[redis::Value; 2]>::try_from(answers).map_err(|_| "too few answers".to_owned())?;
        if let redis::Value::ServerError(error) = &slots {
            return Err(error.details().unwrap_or(error.code()).to_owned());
        }
        // What does not show its epochs is taken as it is.
        let nodes = match nodes {
            redis::Value::VerbatimString { text, .. } => text,
            nodes => String::from_redis_value(nodes).unwrap_or_default(),
        };
        View::read(&slots, &nodes, &host).ok_or_else(|| "an answer that makes no sense".to_owned())
    };
    let answer = timeout(ASK_TIME, answered).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    answer.map_err(|reason| format!("{address}: {reason}"))
}

/// Asks now and then, and at once when something is wrong.
async fn watch(cluster: Weak<Cluster>, alarm: Alarm) {
    let mut interval = QUIET_INTERVAL;
    loop {
        sleep(LEAST_INTERVAL).await;
        let _ = timeout(interval.mul_f64(rand::random_range(0.5..1.5)), alarm.0.troubled.notified()).await;
        let Some(cluster) = cluster.upgrade() else { return };
        if let Err(error) = cluster.refresh().await {
            tracing::debug!(%error, "the Cluster can't be asked for its servers");
        }
        interval = if cluster.is_troubled() { TROUBLED_INTERVAL } else { QUIET_INTERVAL };
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.seeds.iter().map(|info| info.addr().to_string()).collect();
        write!(f, "Cluster of {}", places.join(","))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.watching.lock().take().iter().for_each(AbortHandle::abort);
    }
}
