//! The ingress stream of this Redis, and the connection on which new entries are waited for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;
use tokio::sync::Mutex;

use super::RedisStore;
use super::call::Call;
use super::errors::{refused, unanswered};
use super::library;
use super::scripts;
use super::server::Connection;
use super::shards::{Shard, Shards};
use crate::model::{EventId, StreamName};
use crate::store::{Ingress, IngressPage, PAGE_BYTES, Placed, Placement, Rejected, Rejection, StoreError, millis};

/// What the marks of the ingress stream are kept under where there is one region.
const ONLY: &str = "local";

/// Entries in a page. They are placed before the next page is read, so a large page keeps all lanes busy.
const PAGE_ENTRIES: usize = 1024;

/// A page of small entries is rarely as large as one of a stream: several of those fit.
const PAGE_SIZE: usize = 4 * PAGE_BYTES;

/// Rejected entries that are kept, at the least.
const REJECTED_KEPT: usize = 10_000;

/// Ids of rejected entries that are remembered, so that none is written down twice: more than can have been written down
/// without having been removed. For how long, after the last.
const REJECTED_REMEMBERED: usize = 2 * PAGE_ENTRIES;
const REJECTED_TIME: Duration = Duration::from_secs(86_400);

/// Entries that are rejected, removed, and added once more in one call: none holds the store up for more than some
/// hundreds of microseconds.
const REJECTED_AT_ONCE: usize = 16;
const REMOVED_AT_ONCE: usize = 256;
const LIFTED_AT_ONCE: usize = 64;

/// A connection that waits: whatever is sent behind a blocking command waits too, so nothing else is.
#[derive(Default)]
pub(super) struct Bell(Mutex<Option<(Arc<Shard>, Connection)>>);

impl Bell {
    async fn wait(&self, shards: &Shards, key: &str, after: EventId, most: Duration) -> Result<(), StoreError> {
        let mut held = self.0.lock().await;
        let shard = shards.of_key(key)?;
        // Taken out for the time: were the wait given up, its answer would be in the way of the next.
        let usable = |(of, connection): &(Arc<Shard>, Connection)| Arc::ptr_eq(of, &shard) && !connection.is_broken();
        let connection = match held.take().filter(usable) {
            Some((_, connection)) => connection,
            None => shard.server.open(|_| {}).await?,
        };
        let mut wait = redis::cmd("XREAD");
        // BLOCK 0 would be for ever.
        wait.arg("COUNT").arg(1).arg("BLOCK").arg(millis(most).max(1));
        wait.arg("STREAMS").arg(key).arg(after.to_string());
        let mut io = connection.io();
        let answer = tokio::select! {
            answer = io.send_packed_command(&wait) => answer,
            // A server that is no master any more would let it wait.
            () = connection.broken() => return Err(StoreError::Unavailable("the connection broke".to_owned())),
        };
        match answer {
            Ok(Value::ServerError(error)) => {
                let answer = Err(refused(&error));
                // In a Cluster the stream may have moved while its entries were waited for.
                let _ = shards.attempts().follow(shards.redirect(&answer)).await;
                answer.map(|_: Value| ())
            }
            Ok(_) => {
                *held = Some((shard, connection));
                Ok(())
            }
            Err(error) => Err(unanswered(&error)),
        }
    }
}

impl RedisStore {
    /// Publishes entries of the ingress stream of a region, which need not be this one.
    pub async fn place_from(&self, region: &str, batch: &[Placement]) -> Vec<Result<Placed, StoreError>> {
        let call = |Placement { id, after, stream, draft }: &Placement| {
            let entry = match after {
                Some(after) => format!("{region} {id} {after}"),
                None => format!("{region} {id}"),
            };
            self.publish_call_of(stream, draft, &entry)
        };
        let answers = self.lanes.run_by_stream(batch, |placement| &placement.stream, call).await;
        answers.into_iter().map(|answer| answer.and_then(scripts::placed)).collect()
    }

    /// Lets the marks of streams expire again, as their entries are gone. A stream that misses it keeps its
    /// position until somebody uses it again.
    pub async fn let_expire(&self, streams: &[StreamName]) {
        let expire =
            |stream: &StreamName| Call::command("PEXPIRE", &self.keys.of(stream).meta).arg(self.position_ms(stream));
        self.lanes.run_by_stream(streams, |stream| stream, expire).await;
    }
}

#[async_trait]
impl Ingress for RedisStore {
    async fn entries(&self, after: EventId, largest: usize) -> Result<IngressPage, StoreError> {
        let call = Call::script(&scripts::INGRESS_READ, &[&self.keys.ingress(), &self.keys.lifting()])
            .arg(after.to_string())
            .arg(PAGE_ENTRIES)
            .arg(PAGE_SIZE)
            .arg(largest);
        scripts::ingress_page(self.pool.run(call).await?)
    }

    async fn wait(&self, after: EventId, most: Duration) -> Result<(), StoreError> {
        self.bell.wait(&self.shards, &self.keys.ingress(), after, most).await
    }

    async fn place(&self, batch: &[Placement]) -> Vec<Result<Placed, StoreError>> {
        self.place_from(self.region.as_deref().unwrap_or(ONLY), batch).await
    }

    async fn settle(&self, done: &[EventId], streams: &[StreamName]) -> Result<(), StoreError> {
        let ids: Vec<String> = done.iter().map(EventId::to_string).collect();
        self.pool.run(Call::command("XDEL", &self.keys.ingress()).arg(ids)).await?;
        // Only now: until the entries are gone, the marks that keep them from being taken twice may not go.
        self.let_expire(streams).await;
        Ok(())
    }

    async fn reject(&self, rejections: &[Rejection]) -> Result<(), StoreError> {
        for part in rejections.chunks(REJECTED_AT_ONCE) {
            let call = Call::script(&scripts::REJECT, &[&self.keys.rejected(), &self.keys.rejected_ids()])
                .arg(REJECTED_KEPT)
                .arg(REJECTED_REMEMBERED)
                .arg(millis(REJECTED_TIME));
            let call = part.iter().fold(call, |call, Rejection { id, reason, fields }| {
                let words: Vec<&[u8]> =
                    fields.iter().flat_map(|(name, value): &(Bytes, Bytes)| [&name[..], value]).collect();
                call.arg(id.to_string()).arg(reason).arg(words.len()).arg(words)
            });
            self.pool.run(call).await?;
        }
        let ids: Vec<String> = rejections.iter().map(|rejection| rejection.id.to_string()).collect();
        self.pool.run(Call::command("XDEL", &self.keys.ingress()).arg(ids)).await.map(drop)
    }

    async fn rejected(&self, before: Option<EventId>, most: usize) -> Result<Vec<Rejected>, StoreError> {
        // Redis refuses to look below the lowest id.
        if before == Some(EventId::ZERO) {
            return Ok(Vec::new());
        }
        let end = before.map_or_else(|| "+".to_owned(), |before| format!("({before}"));
        let call = Call::command("XREVRANGE", &self.keys.rejected()).arg(end).arg("-").arg("COUNT").arg(most);
        scripts::rejected(self.pool.run(call).await?)
    }

    async fn lift(&self, mark: Option<EventId>, done: &[EventId]) -> Result<bool, StoreError> {
        let keys = [self.keys.ingress(), self.keys.lifting()];
        let lift = async |mark: Option<EventId>, entries: usize| {
            let call = Call::script(&scripts::INGRESS_LIFT, &keys.each_ref().map(String::as_str));
            let call = call.arg(mark.map_or(String::new(), |mark| mark.to_string())).arg(entries).arg(PAGE_BYTES);
            match self.pool.run(call).await? {
                Value::BulkString(word) if word == b"more" => Ok(true),
                Value::BulkString(_) => Ok(false),
                _ => Err(scripts::nonsense("how far a lift is")),
            }
        };
        // Only begun: what is done has to be gone before anything is added once more.
        if !lift(mark, 0).await? {
            return Ok(false);
        }
        for part in done.chunks(REMOVED_AT_ONCE) {
            let ids: Vec<String> = part.iter().map(EventId::to_string).collect();
            self.pool.run(Call::command("XDEL", &self.keys.ingress()).arg(ids)).await?;
        }
        while lift(None, LIFTED_AT_ONCE).await? {}
        Ok(true)
    }

    async fn offer_functions(&self, event_bytes: usize, starting: bool) -> Result<bool, StoreError> {
        library::offer(self, event_bytes, starting).await
    }
}
