//! The lifecycle stream, as the server's scripts keep it.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{FromRedisValue as _, Value};

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields, nonsense};
use crate::model::{Draft, EventType, NodeId, StreamName};
use crate::store::lifecycle::{BatchOutcome, Before, Begun, Change, ConnectionRef, Lifecycle, REMEMBERED};
use crate::store::{StoreError, millis, random_step};

/// About how many open connections are read at once.
const OPEN_PAGE: usize = 256;

impl RedisStore {
    /// Changes of a node's connections; with a number they are its own batch.
    async fn change(&self, node: &NodeId, number: Option<u64>, changes: &[Change]) -> Result<BatchOutcome, StoreError> {
        let stream = StreamName::lifecycle();
        let keys = self.keys.of(&stream);
        let (once, sessions, open) = (keys.once(""), self.keys.sessions(), self.keys.open(node));
        let touched = [&keys.events, &keys.nodes, &keys.meta, &keys.collapse, &once, &sessions, &open];
        let call = Call::script(&scripts::LIFECYCLE, &touched.map(String::as_str))
            .arg(node.as_str())
            .arg(number.map_or(String::new(), |number| number.to_string()))
            .arg(changes.len());
        let call = changes.iter().fold(call, |call, Change { subject, kind, data }| {
            call.arg(kind.as_str()).arg(subject.connection.to_string()).arg(subject.remembered()).arg(&data[..])
        });
        let event = Draft::new(EventType::MESSAGE, Bytes::new());
        let mut answer = Fields::of(self.lanes.run(&stream, self.with_event(call, &stream, &event, "")).await?)?;
        let (outcome, number) = (answer.text()?, answer.count()?);
        match outcome.as_str() {
            "published" => Ok(BatchOutcome::Published(number)),
            "over" => Ok(BatchOutcome::Over),
            "behind" => Ok(BatchOutcome::Behind(number)),
            _ => Err(nonsense("an outcome of a batch")),
        }
    }

    /// Some of what a node has open when its session in a region ends.
    async fn left_open(&self, node: &NodeId, limit: usize, region: &str) -> Result<Vec<ConnectionRef>, StoreError> {
        let meta = self.keys.of(&StreamName::lifecycle()).meta;
        let call = Call::script(&scripts::LEFT_OPEN, &[&meta, &self.keys.sessions(), &self.keys.open(node)])
            .arg(node.as_str())
            .arg(limit)
            .arg(region)
            .arg(self.home());
        remembered(self.pool.run(call).await?)
    }
}

/// Connections, each followed by what is remembered of it. What makes no sense was written by nobody here.
fn remembered(answer: Value) -> Result<Vec<ConnectionRef>, StoreError> {
    let mut fields = Fields::of(answer)?;
    let mut open = Vec::new();
    while !fields.is_empty() {
        let (connection, remembered) = (fields.text()?, fields.text()?);
        open.extend(connection.parse().ok().and_then(|connection| ConnectionRef::recall(connection, &remembered)));
    }
    Ok(open)
}

#[async_trait]
impl Lifecycle for RedisStore {
    async fn begin_session(&self, node: &NodeId, region: &str, before: Option<&NodeId>) -> Result<Begun, StoreError> {
        let stream = StreamName::lifecycle();
        let keys = self.keys.of(&stream);
        let (now, then) = (self.keys.open(node), self.keys.open(before.unwrap_or(node)));
        let call =
            Call::script(&scripts::BEGIN_SESSION, &[&keys.events, &keys.meta, &self.keys.sessions(), &now, &then])
                .arg(node.as_str())
                .arg(before.map_or("", NodeId::as_str))
                .arg(random_step())
                .arg(self.position_ms(&stream))
                .arg(millis(REMEMBERED))
                .arg(region)
                .arg(self.home());
        let mut answer = Fields::of(self.lanes.run(&stream, call).await?)?;
        let (outcome, number, to) = (answer.text()?, answer.count()?, answer.text()?);
        let before = match outcome.as_str() {
            "held" => Before::Held(number),
            "lost" => Before::Lost(number),
            "moved" => Before::Moved(NodeId::from(to)),
            "unknown" => Before::Unknown,
            "over" => Before::Over,
            _ => return Err(nonsense("what became of a session")),
        };
        Ok(Begun { before, epoch: answer.id()? })
    }

    async fn publish_changes(
        &self,
        node: &NodeId,
        number: u64,
        changes: &[Change],
    ) -> Result<BatchOutcome, StoreError> {
        self.change(node, Some(number), changes).await
    }

    async fn open(&self, node: &NodeId) -> Result<Vec<ConnectionRef>, StoreError> {
        let meta = self.keys.of(&StreamName::lifecycle()).meta;
        let (mut cursor, mut open) = ("0".to_owned(), HashMap::new());
        // A page at a time, so that a node with very many does not hold up the store. Only that node adds and removes
        // any, and it waits for this: each comes at least once.
        loop {
            let call = Call::script(&scripts::OPEN_CONNECTIONS, &[&meta, &self.keys.open(node)]);
            let call = call.arg(&cursor).arg(OPEN_PAGE).arg(self.home());
            let mut page = Fields::of(self.pool.run(call).await?)?;
            cursor = page.text()?;
            open.extend(remembered(page.next()?)?.into_iter().map(|found| (found.connection, found)));
            if cursor == "0" {
                return Ok(open.into_values().collect());
            }
        }
    }

    async fn end_session(&self, node: &NodeId, region: &str, limit: usize) -> Result<Vec<ConnectionRef>, StoreError> {
        self.left_open(node, limit, region).await
    }

    async fn close(&self, node: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        self.change(node, None, changes).await.map(drop)
    }

    async fn sessions(&self, region: &str) -> Result<Vec<NodeId>, StoreError> {
        let meta = self.keys.of(&StreamName::lifecycle()).meta;
        let call = Call::script(&scripts::SESSIONS, &[&meta, &self.keys.sessions()]).arg(region).arg(self.home());
        let answer: Value = self.membership.run(call).await?;
        let nodes = Vec::<String>::from_redis_value(answer).map_err(|error| StoreError::Protocol(error.to_string()))?;
        Ok(nodes.into_iter().map(NodeId::from).collect())
    }
}
