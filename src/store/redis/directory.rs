//! The directory in Redis: which region is the home of which stream, and what changed about that.
//!
//! Bucket and change are written by one script, so all of the directory is on one server, also in a Cluster.

use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::call::Call;
use super::errors::ConnectError;
use super::inspection;
use super::keys::Keys;
use super::pool::Session;
use super::scripts;
use super::server::ServerConfig;
use super::shards::{Pools, Shards};
use crate::model::StreamName;
use crate::store::{StoreError, millis};

/// Into how many hashes the directory is divided, so that none is too large to be read at once: ten million
/// streams make ten thousand entries each.
const BUCKETS: u64 = 1024;

/// Buckets that are read in one pipeline, a part of the directory.
const AT_ONCE: u64 = 16;

/// So many parts make the directory.
pub const PARTS: u64 = BUCKETS / AT_ONCE;

/// Changes that are kept at least. A node that was cut off for longer than they last reads all buckets again.
const CHANGES_KEPT: usize = 100_000;

/// Most changes read at a time.
const CHANGES_READ: usize = 1000;

/// How long a replica of the directory may take to have a new home.
const REPLICA_TIME: Duration = Duration::from_secs(1);

/// A stream's home: a region, and how often that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The region.
    pub region: String,
    /// 1 for the first home, and one more with each move.
    pub version: u32,
}

/// What became of the home of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is this one.
    Assigned(Assignment),
    /// It was this one; nothing is left of the stream.
    Ended(Assignment),
}

/// What changed after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The position of the last of them.
    pub position: String,
    /// Streams and what became of their homes, in the order in which they changed.
    pub homes: Vec<(StreamName, Change)>,
    /// There may be more.
    pub more: bool,
}

/// The directory.
pub struct RedisDirectory {
    keys: Keys,
    shards: Shards,
    pool: Pools,
}

impl RedisDirectory {
    /// Connects, and checks that this Redis can be worked with.
    pub async fn connect(config: &ServerConfig, prefix: &str) -> Result<Self, ConnectError> {
        let shards = Shards::find(config).await?;
        inspection::check(&shards).await?;
        Ok(RedisDirectory { keys: Keys::new(prefix), pool: Pools::new(&shards, |shard| &shard.pool), shards })
    }

    fn changes_key(&self) -> String {
        self.keys.changes(self.shards.is_cluster())
    }

    fn bucket(&self, number: u64) -> String {
        self.keys.bucket(self.shards.is_cluster(), number)
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        format!("Redis at {}", self.shards)
    }

    /// A name of this directory that no other has.
    pub async fn id(&self) -> Result<String, StoreError> {
        let fresh = uuid::Uuid::new_v4().simple().to_string();
        let call = Call::script(&scripts::IDENTITY, &[&self.keys.identity()]).arg(&["directory", &fresh]);
        let held: Vec<String> = understood(self.pool.run(call).await?)?;
        held.into_iter().next().ok_or_else(|| StoreError::Protocol("expected an identity".to_owned()))
    }

    /// Gives a stream its first home unless it has one; answers with the home that it has. Where the directory has
    /// replicas, one of them has it by then, unless that takes too long: a failover must not forget it.
    pub async fn assign(&self, stream: &StreamName, first: &Assignment) -> Result<Assignment, StoreError> {
        let bucket = self.bucket(stream.fingerprint() % BUCKETS);
        let call = Call::script(&scripts::DIRECTORY_ASSIGN, &[&bucket, &self.changes_key()])
            .arg(stream.as_str())
            .arg(format!("{} {}", first.version, first.region))
            .arg(CHANGES_KEPT);
        let mut session = self.pool.session(&bucket).await?;
        let known = read(&understood::<String>(session.run(&call).await?)?)?;
        if known == *first && has_replicas(&mut session).await {
            let wait = Call::command("WAIT", "1").arg(millis(REPLICA_TIME));
            let replicas = session.run(&wait).await.and_then(understood::<u32>);
            if !matches!(replicas, Ok(1..)) {
                tracing::warn!(%stream, "no replica of the directory has a new home yet: a failover may forget it");
            }
        }
        Ok(known)
    }

    /// Whether a stream has a home.
    pub async fn has_home(&self, stream: &StreamName) -> Result<bool, StoreError> {
        let bucket = self.bucket(stream.fingerprint() % BUCKETS);
        let call = Call::script(&scripts::DIRECTORY_HAS, &[&bucket]).arg(stream.as_str());
        Ok(understood::<u32>(self.pool.run(call).await?)? == 1)
    }

    /// Records that a stream moved, if its home is still that of before; answers with the home that it has.
    pub async fn record(
        &self,
        stream: &StreamName,
        before: &Assignment,
        after: &Assignment,
    ) -> Result<Assignment, StoreError> {
        let bucket = self.bucket(stream.fingerprint() % BUCKETS);
        let call = Call::script(&scripts::DIRECTORY_MOVE, &[&bucket, &self.changes_key()])
            .arg(stream.as_str())
            .arg(format!("{} {}", before.version, before.region))
            .arg(format!("{} {}", after.version, after.region))
            .arg(CHANGES_KEPT);
        read(&understood::<String>(self.pool.run(call).await?)?)
    }

    /// Where the changes stand now.
    pub async fn position(&self) -> Result<String, StoreError> {
        let call = Call::script(&scripts::DIRECTORY_POSITION, &[&self.changes_key()]);
        understood(self.pool.run(call).await?)
    }

    /// What changed after a position; `None` when it is no longer known what did.
    pub async fn changes(&self, position: &str) -> Result<Option<Changes>, StoreError> {
        type Entry = (String, Vec<(String, String)>);
        let call = Call::script(&scripts::DIRECTORY_CHANGES, &[&self.changes_key()]).arg(position).arg(CHANGES_READ);
        let (known, entries): (bool, Vec<Entry>) = understood(self.pool.run(call).await?)?;
        if !known {
            return Ok(None);
        }
        let position = entries.last().map_or_else(|| position.to_owned(), |(id, _)| id.clone());
        let more = entries.len() >= CHANGES_READ;
        let homes = entries.into_iter().filter_map(|(_, fields)| {
            let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
            let change = match field("ended") {
                Some(home) => Change::Ended(read(home).ok()?),
                // Only a newer version writes others, and publishes them in its own way.
                None => Change::Assigned(read(field("h")?).ok()?),
            };
            Some((field("s")?.parse().ok()?, change))
        });
        Ok(Some(Changes { position, homes: homes.collect(), more }))
    }

    /// The homes in a part of the directory, of [`PARTS`].
    pub async fn part(&self, number: u64) -> Result<Vec<(StreamName, Assignment)>, StoreError> {
        let buckets = number * AT_ONCE..(number + 1) * AT_ONCE;
        let calls = buckets.map(|bucket| Call::script(&scripts::DIRECTORY_BUCKET, &[&self.bucket(bucket)]));
        let mut homes = Vec::new();
        for answer in self.pool.session(&self.changes_key()).await?.run_all(calls.collect()).await? {
            let entries = understood::<Vec<(String, String)>>(answer?)?;
            homes.extend(entries.iter().filter_map(|(stream, home)| Some((stream.parse().ok()?, read(home).ok()?))));
        }
        Ok(homes)
    }

    /// Removes homes that ended, each if the stream still has just this one; says which are removed.
    pub async fn end(&self, ended: &[(&StreamName, &Assignment)]) -> Result<Vec<bool>, StoreError> {
        let end = |(stream, home): &(&StreamName, &Assignment)| {
            let bucket = self.bucket(stream.fingerprint() % BUCKETS);
            Call::script(&scripts::DIRECTORY_END, &[&bucket, &self.changes_key()])
                .arg(stream.as_str())
                .arg(format!("{} {}", home.version, home.region))
                .arg(CHANGES_KEPT)
        };
        let answers = self.pool.session(&self.changes_key()).await?.run_all(ended.iter().map(end).collect()).await?;
        answers.into_iter().map(|answer| Ok(understood::<u32>(answer?)? == 1)).collect()
    }

    /// A stream goes on in the home that it had, which was ended there as of a version: it has it as of a newer one from
    /// here on, unless it was given another meanwhile. Answers with the home that it has.
    pub async fn renew(&self, stream: &StreamName, home: &Assignment, ended: u32) -> Result<Assignment, StoreError> {
        let version = home.version.max(ended).saturating_add(1);
        self.record(stream, home, &Assignment { region: home.region.clone(), version }).await
    }
}

/// Whether the server has any. One that does not say has none.
async fn has_replicas(session: &mut Session) -> bool {
    let info = session.run(&Call::command("INFO", "replication")).await.and_then(understood::<String>);
    info.is_ok_and(|info| info.lines().any(|line| line.starts_with("connected_slaves:") && !line.ends_with(":0")))
}

fn understood<T: FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    T::from_redis_value(answer).map_err(|error| StoreError::Protocol(error.to_string()))
}

/// Reads `VERSION REGION`.
fn read(text: &str) -> Result<Assignment, StoreError> {
    text.split_once(' ')
        .and_then(|(version, region)| Some(Assignment { version: version.parse().ok()?, region: region.to_owned() }))
        .ok_or_else(|| StoreError::Protocol(format!("'{text}' is no home of a stream")))
}
