//! Leaders of jobs, and the webhook's checkpoint.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields, nonsense};
use crate::model::{EventId, NodeId, StreamName};
use crate::store::{Checkpoint, JobKind, Leaders, StoreError, millis};

#[async_trait]
impl Leaders for RedisStore {
    async fn acquire(&self, job: JobKind, node: &NodeId, ttl: Duration) -> Result<bool, StoreError> {
        let call = Call::script(&scripts::CLAIM, &[&self.keys.leader(job)]).arg(node.as_str()).arg(millis(ttl));
        Ok(self.membership.run(call).await? == Value::Int(1))
    }

    async fn resign(&self, job: JobKind, node: &NodeId) -> Result<(), StoreError> {
        let call = Call::script(&scripts::UNCLAIM, &[&self.keys.leader(job)]).arg(node.as_str());
        self.membership.run(call).await.map(drop)
    }

    async fn checkpoint(&self, stream: &StreamName) -> Result<Option<Checkpoint>, StoreError> {
        let (known, _) = read_checkpoint(self.pool.run(self.checkpoint_call(stream)).await?)?;
        Ok(known)
    }

    async fn advance(
        &self,
        stream: &StreamName,
        node: &NodeId,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<bool, StoreError> {
        let call =
            self.checkpoint_call(stream).arg(node.as_str()).arg(from.map_or(String::new(), written)).arg(written(to));
        let (_, moved) = read_checkpoint(self.pool.run(call).await?)?;
        Ok(moved)
    }
}

impl RedisStore {
    fn checkpoint_call(&self, stream: &StreamName) -> Call {
        Call::script(&scripts::CHECKPOINT, &[&self.keys.of(stream).meta, &self.keys.leader(JobKind::Webhook)])
    }
}

/// As it stands in Redis.
fn written(checkpoint: Checkpoint) -> String {
    match checkpoint.sent {
        Some(sent) => format!("{} {sent}", checkpoint.position),
        None => checkpoint.position.to_string(),
    }
}

fn read_checkpoint(answer: Value) -> Result<(Option<Checkpoint>, bool), StoreError> {
    let mut answer = Fields::of(answer)?;
    let (text, moved) = (answer.text()?, answer.number()? == 1);
    let id = |text: &str| text.parse::<EventId>().map_err(|_| nonsense("an id"));
    let known = match text.split_once(' ') {
        _ if text.is_empty() => None,
        Some((position, sent)) => Some(Checkpoint { position: id(position)?, sent: Some(id(sent)?) }),
        None => Some(Checkpoint::at(id(&text)?)),
    };
    Ok((known, moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_is_read_back() {
        let at = Checkpoint::at(EventId::new(5, 1));
        for checkpoint in [at, Checkpoint { sent: Some(EventId::new(9, 2)), ..at }] {
            let answer = vec![Value::BulkString(written(checkpoint).into_bytes()), Value::Int(1)];
            assert_eq!(read_checkpoint(Value::Array(answer)), Ok((Some(checkpoint), true)));
        }
        let nothing = vec![Value::BulkString(Vec::new()), Value::Int(0)];
        assert_eq!(read_checkpoint(Value::Array(nothing)), Ok((None, false)));
        assert!(read_checkpoint(Value::Array(vec![Value::BulkString(b"5-1 x".to_vec()), Value::Int(0)])).is_err());
    }
}
