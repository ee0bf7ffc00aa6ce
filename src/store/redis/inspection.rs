//! What kind of server this is, and whether the program can trust it with its data.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::{FromRedisValue, Value};

use super::call::Call;
use super::errors::ConnectError;
use super::pool::Pool;
use super::shards::Shards;
use crate::store::StoreError;

const OLDEST_MAJOR: u32 = 7;

/// WAITAOF came with this version.
const WAITAOF_SINCE: (u32, u32) = (7, 2);

/// A look at all servers that can be written to.
#[derive(Debug)]
pub struct Survey {
    /// Each with its address; of a Cluster, the masters.
    pub servers: Vec<(String, Result<Inspection, StoreError>)>,
    /// Slots of a Cluster that have no master; `None` where there is one server.
    pub uncovered_slots: Option<u16>,
}

/// A look at the server. `None` stands for what it does not reveal: managed services block CONFIG, and
/// parts of INFO.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// The version; for Valkey the one of Redis that it is compatible with.
    pub version: Option<String>,
    /// The version of Valkey, if it is one.
    pub valkey: Option<String>,
    /// Whether Sentinels named it.
    pub by_sentinels: bool,
    /// How many replicas it has.
    pub replicas: Option<u64>,
    /// How many replicas have to be in touch for it to take writes.
    pub min_replicas: Option<u64>,
    /// Whether it writes every change to a file.
    pub append_only: Option<bool>,
    /// When what it writes to that file is on disk: always, everysec or no.
    pub fsync: Option<String>,
    /// When it writes snapshots, as `save` has it; empty for never.
    pub snapshots: Option<String>,
    /// What it does when its memory is full.
    pub eviction: Option<String>,
    /// Whether it belongs to a Cluster.
    pub in_cluster: Option<bool>,
    /// Of a Cluster, whether it refuses all slots while one has no master.
    pub full_coverage: Option<bool>,
    /// Bytes in a node of a stream. Every stream takes at least one.
    pub stream_node_bytes: Option<u64>,
    /// How long a command takes there and back.
    pub round_trip: Duration,
}

/// How a server confirms that a write is on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskProof {
    /// By WAITAOF.
    Wait,
    /// It syncs before each answer.
    EachAnswer,
}

impl Inspection {
    /// How the server confirms that a write is on its disk; where it can't, what `durable=disk` needs.
    pub fn disk(&self) -> Result<DiskProof, &'static str> {
        if self.append_only == Some(false) {
            return Err("durable=disk needs a Redis with appendonly yes, and this one has no append-only file");
        }
        let mut numbers = self.version.as_deref().unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= WAITAOF_SINCE {
            Ok(DiskProof::Wait)
        } else if self.fsync.as_deref() == Some("always") {
            Ok(DiskProof::EachAnswer)
        } else {
            Err("durable=disk needs Redis 7.2 or newer, or appendfsync always")
        }
    }

    /// Refuses a server that can't be worked with, or that would lose data as a matter of course.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.check_version()?;
        self.check_eviction()
    }

    /// Redis 7.0 or newer, or Valkey.
    pub fn check_version(&self) -> Result<(), ConnectError> {
        let Some(version) = &self.version else { return Ok(()) };
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if major < OLDEST_MAJOR => Err(ConnectError::Version(version.clone())),
            _ => Ok(()),
        }
    }

    /// A server that evicts would silently drop positions and routes.
    pub fn check_eviction(&self) -> Result<(), ConnectError> {
        match self.eviction.as_deref() {
            None | Some("noeviction") => Ok(()),
            Some(policy) => Err(ConnectError::Eviction(policy.to_owned())),
        }
    }
}

pub(super) async fn survey(shards: &Shards) -> Survey {
    let map = shards.now();
    let servers = map.shards.iter().map(async |shard| {
        let by_sentinels = shard.server.has_sentinels();
        let inspection = inspect(&shard.pool).await.map(|inspection| Inspection { by_sentinels, ..inspection });
        (shard.server.to_string(), inspection)
    });
    Survey { servers: join_all(servers).await, uncovered_slots: shards.uncovered_slots() }
}

/// Refuses what can't be worked with. Of a Cluster, a server that is away is looked at by nobody: its slots fail.
pub(super) async fn check(shards: &Shards) -> Result<(), ConnectError> {
    let map = shards.now();
    let mut away = None;
    for looked_at in join_all(map.shards.iter().map(|shard| inspect(&shard.pool))).await {
        match looked_at {
            Ok(inspection) if inspection.in_cluster == Some(true) && !shards.is_cluster() => {
                return Err(ConnectError::InCluster);
            }
            Ok(inspection) => inspection.check()?,
            Err(error) => away = Some((error, away.map_or(1, |(_, others)| others + 1))),
        }
    }
    match away {
        Some((error, count)) if count == map.shards.len() => Err(ConnectError::Unreachable(error)),
        _ => Ok(()),
    }
}

pub(super) async fn inspect(pool: &Pool) -> Result<Inspection, StoreError> {
    // The first opens a connection; the second is the one to measure.
    pool.run(&Call::command("ECHO", "")).await?;
    let sent = Instant::now();
    pool.run(&Call::command("ECHO", "")).await?;
    let round_trip = sent.elapsed();
    let server = info(pool, "server").await;
    let persistence = info(pool, "persistence").await;
    let memory = info(pool, "memory").await;
    let replication = info(pool, "replication").await;
    let cluster = info(pool, "cluster").await;
    Ok(Inspection {
        version: entry(&server, "redis_version").map(str::to_owned),
        valkey: entry(&server, "valkey_version").map(str::to_owned),
        by_sentinels: false,
        replicas: entry(&replication, "connected_slaves").and_then(|count| count.parse().ok()),
        min_replicas: config(pool, "min-replicas-to-write").await.and_then(|count| count.parse().ok()),
        append_only: entry(&persistence, "aof_enabled").map(|enabled| enabled == "1"),
        fsync: config(pool, "appendfsync").await,
        snapshots: config(pool, "save").await,
        eviction: match entry(&memory, "maxmemory_policy") {
            Some(policy) => Some(policy.to_owned()),
            None => config(pool, "maxmemory-policy").await,
        },
        in_cluster: entry(&cluster, "cluster_enabled").map(|enabled| enabled == "1"),
        full_coverage: config(pool, "cluster-require-full-coverage").await.map(|required| required == "yes"),
        stream_node_bytes: config(pool, "stream-node-max-bytes").await.and_then(|bytes| bytes.parse().ok()),
        round_trip,
    })
}

/// A section of INFO; empty when the server keeps it to itself.
async fn info(pool: &Pool, section: &str) -> String {
    match pool.run(&Call::command("INFO", section)).await {
        Ok(Value::VerbatimString { text, .. }) => text,
        Ok(answer) => String::from_redis_value(answer).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

fn entry<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

async fn config(pool: &Pool, name: &str) -> Option<String> {
    let answer = pool.run(&Call::command("CONFIG", "GET").arg(name)).await.ok()?;
    let pairs = Vec::<(String, String)>::from_redis_value(answer).ok()?;
    pairs.into_iter().next().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_evicting_server_is_refused_and_an_unknown_one_is_not() {
        let of = |version: Option<&str>, eviction: Option<&str>| Inspection {
            version: version.map(str::to_owned),
            eviction: eviction.map(str::to_owned),
            ..Inspection::default()
        };
        assert_eq!(of(Some("6.2.14"), None).check(), Err(ConnectError::Version("6.2.14".to_owned())));
        assert_eq!(
            of(Some("7.0.0"), Some("allkeys-lru")).check(),
            Err(ConnectError::Eviction("allkeys-lru".to_owned()))
        );
        assert_eq!(of(Some("10.1"), Some("noeviction")).check(), Ok(()));
        assert_eq!(of(None, None).check(), Ok(()));
    }
}
