//! A Redis Cluster of masters, with a replica each or without.

use std::ops::Range;

use super::redis::{RedisServer, least_rights};
use super::{eventually, free_port};

/// Slots of a Cluster.
const SLOTS: usize = 16_384;

/// A Cluster of private servers.
pub struct Cluster {
    /// The masters that it began with, then a replica of each in the same order.
    pub servers: Vec<RedisServer>,
    pub masters: usize,
    timeout: &'static str,
}

impl Cluster {
    /// Masters without replicas: none is ever replaced.
    pub async fn of_masters(masters: usize) -> Self {
        Self::start(masters, masters, "5000").await
    }

    /// Three masters, and a replica of each that takes over soon.
    pub async fn with_replicas() -> Self {
        Self::start(6, 3, "1000").await
    }

    async fn start(count: usize, masters: usize, timeout: &'static str) -> Self {
        let mut cluster = Cluster { servers: Vec::new(), masters, timeout };
        for place in 0..count {
            cluster.add().await;
            if place < masters {
                let slots = slots_of(place, masters);
                let (first, last) = (slots.start.to_string(), (slots.end - 1).to_string());
                cluster.say(place, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            }
        }
        for replica in masters..count {
            let master = cluster.id(replica - masters).await;
            eventually("the replica knows its master", async || {
                cluster.servers[replica].try_ask::<String>(&["CLUSTER", "REPLICATE", &master]).await.map(drop)
            })
            .await;
        }
        cluster.is_whole().await;
        cluster
    }

    /// Adds a server that has no slots, and makes it known to the others.
    pub async fn add(&mut self) {
        let bus = free_port().to_string();
        let server = RedisServer::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            self.timeout,
            // A shard that is away takes no other with it.
            "--cluster-require-full-coverage",
            "no",
            // A master that gave its last slot away stays one.
            "--cluster-allow-replica-migration",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        self.servers.push(server);
        let place = self.servers.len() - 1;
        self.say(place, &["CLUSTER", "SET-CONFIG-EPOCH", &self.servers.len().to_string()]).await;
        let port = self.servers[place].port().to_string();
        if place > 0 {
            self.say(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
            eventually("all know all", async || {
                for server in &self.servers {
                    let nodes: String = server.try_ask(&["CLUSTER", "NODES"]).await?;
                    let known = nodes.lines().filter(|line| line.contains(" connected") && !line.contains("handshake"));
                    (known.count() == self.servers.len()).then_some(())?;
                }
                Some(())
            })
            .await;
        }
    }

    /// Waits until every server takes the Cluster for whole, and replicas are in step.
    pub async fn is_whole(&self) {
        for server in &self.servers {
            eventually("the Cluster is whole", async || {
                let info: String = server.try_ask(&["CLUSTER", "INFO"]).await?;
                let replication: String = server.try_ask(&["INFO", "replication"]).await?;
                let is_whole = info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384");
                let in_step = replication.contains("role:master") || replication.contains("master_link_status:up");
                (is_whole && in_step).then_some(())
            })
            .await;
        }
    }

    /// Where nodes find it: by one of its servers.
    pub fn url(&self) -> String {
        let login = if least_rights(true).is_empty() { "" } else { "whimbrel-node:node@" };
        format!("redis+cluster://{login}127.0.0.1:{}", self.servers[self.servers.len() - 1].port())
    }

    /// The id by which its servers know one of them.
    pub async fn id(&self, place: usize) -> String {
        self.servers[place].try_ask(&["CLUSTER", "MYID"]).await.unwrap()
    }

    /// Has a server do something.
    pub async fn say(&self, place: usize, command: &[&str]) {
        let mut raw = self.servers[place].raw().await;
        let done = redis::cmd(command[0]).arg(&command[1..]).query_async::<String>(&mut raw).await;
        done.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }

    /// The server that has the slot of a key.
    pub async fn of(&self, key: &str) -> &RedisServer {
        eventually("a server has the key", async || {
            for server in &self.servers {
                if server.try_ask::<redis::Value>(&["EXISTS", key]).await.is_some() {
                    let role: Vec<redis::Value> = server.try_ask(&["ROLE"]).await?;
                    if role[0] == redis::Value::BulkString(b"master".to_vec()) {
                        return Some(server);
                    }
                }
            }
            None
        })
        .await
    }

    /// The place of the master that has a slot.
    pub async fn place_of(&self, slot: u16) -> usize {
        eventually("a server has the slot", async || {
            for (place, server) in self.servers.iter().enumerate() {
                let Some(nodes) = server.try_ask::<String>(&["CLUSTER", "NODES"]).await else { continue };
                let own = nodes.lines().find(|line| line.contains("myself,master"));
                let ranges = own.into_iter().flat_map(|line| line.split(' ').skip(8));
                let has = |range: &str| {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
                    bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
                };
                if ranges.into_iter().any(has) {
                    return Some(place);
                }
            }
            None
        })
        .await
    }

    /// Gives a slot without keys to another master.
    pub async fn give_slot(&self, slot: u16, to: usize) {
        let (number, id) = (slot.to_string(), self.id(to).await);
        let from = self.place_of(slot).await;
        for place in [to, from] {
            self.say(place, &["CLUSTER", "SETSLOT", &number, "NODE", &id]).await;
        }
    }

    /// Moves a slot as `redis-cli --cluster reshard` does, and goes on only once a call has found it half way.
    pub async fn move_slot(&self, slot: u16, to: usize) {
        let from = self.place_of(slot).await;
        let (number, ids) = (slot.to_string(), [self.id(from).await, self.id(to).await]);
        self.say(to, &["CLUSTER", "SETSLOT", &number, "IMPORTING", &ids[0]]).await;
        self.say(from, &["CLUSTER", "SETSLOT", &number, "MIGRATING", &ids[1]]).await;
        let port = self.servers[to].port().to_string();
        let keys = async || -> Vec<String> {
            self.servers[from].try_ask(&["CLUSTER", "GETKEYSINSLOT", &number, "1000"]).await.unwrap()
        };
        let migrate = async |key: &String| {
            self.say(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        };
        if let Some(key) = keys().await.first() {
            migrate(key).await;
        }
        let refused = async || -> Option<String> {
            let stats: String = self.servers[from].try_ask(&["INFO", "errorstats"]).await?;
            stats.lines().find(|line| line.starts_with("errorstat_TRYAGAIN")).map(str::to_owned)
        };
        let before = refused().await;
        eventually("a call finds the slot half way", async || (refused().await != before).then_some(())).await;
        loop {
            let left = keys().await;
            if left.is_empty() {
                break;
            }
            for key in &left {
                migrate(key).await;
            }
        }
        // The new master first, so that no server sends anybody to one that does not know yet.
        for place in [to, from] {
            self.say(place, &["CLUSTER", "SETSLOT", &number, "NODE", &ids[1]]).await;
        }
    }

    /// The stream of a master, by the slots that it began with: `topic:N` with the least such N from `from` on.
    pub async fn topic_of(&self, place: usize, from: usize) -> String {
        for n in from.. {
            let slot: usize = self.servers[0].try_ask(&["CLUSTER", "KEYSLOT", &format!("topic:{n}")]).await.unwrap();
            if slots_of(place, self.masters).contains(&slot) {
                return format!("topic:{n}");
            }
        }
        unreachable!()
    }
}

fn slots_of(place: usize, masters: usize) -> Range<usize> {
    place * SLOTS / masters..(place + 1) * SLOTS / masters
}
