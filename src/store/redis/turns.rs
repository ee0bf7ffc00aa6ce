//! Whose turn it is at a work, and how far the webhook got.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::RedisStore;
use super::scripts::{self, Call, Fields, nonsense};
use crate::model::{EventId, StreamName};
use crate::store::{Handover, NodeId, StoreError, Turns, Work, millis};

#[async_trait]
impl Turns for RedisStore {
    async fn hold(&self, work: Work, node: &NodeId, ttl: Duration) -> Result<bool, StoreError> {
        let call = Call::script(&scripts::CLAIM, &[&self.keys.turn(work)]).arg(node.as_str()).arg(millis(ttl));
        Ok(self.membership.run(call).await? == Value::Int(1))
    }

    async fn let_go(&self, work: Work, node: &NodeId) -> Result<(), StoreError> {
        let call = Call::script(&scripts::UNCLAIM, &[&self.keys.turn(work)]).arg(node.as_str());
        self.membership.run(call).await.map(drop)
    }

    async fn handover(&self, stream: &StreamName) -> Result<Option<Handover>, StoreError> {
        let (known, _) = read_handover(self.pool.run(self.hand_over_call(stream)).await?)?;
        Ok(known)
    }

    async fn hand_over(
        &self,
        stream: &StreamName,
        node: &NodeId,
        from: Option<Handover>,
        to: Handover,
    ) -> Result<bool, StoreError> {
        let call =
            self.hand_over_call(stream).arg(node.as_str()).arg(from.map_or(String::new(), written)).arg(written(to));
        let (_, moved) = read_handover(self.pool.run(call).await?)?;
        Ok(moved)
    }
}

impl RedisStore {
    fn hand_over_call(&self, stream: &StreamName) -> Call {
        Call::script(&scripts::HAND_OVER, &[&self.keys.of(stream).meta, &self.keys.turn(Work::Webhook)])
    }
}

/// As it stands in Redis.
fn written(handover: Handover) -> String {
    match handover.sent {
        Some(sent) => format!("{} {sent}", handover.position),
        None => handover.position.to_string(),
    }
}

fn read_handover(answer: Value) -> Result<(Option<Handover>, bool), StoreError> {
    let mut answer = Fields::of(answer)?;
    let (text, moved) = (answer.text()?, answer.number()? == 1);
    let id = |text: &str| text.parse::<EventId>().map_err(|_| nonsense("an id"));
    let known = match text.split_once(' ') {
        _ if text.is_empty() => None,
        Some((position, sent)) => Some(Handover { position: id(position)?, sent: Some(id(sent)?) }),
        None => Some(Handover::at(id(&text)?)),
    };
    Ok((known, moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_is_read_back() {
        let at = Handover::at(EventId::new(5, 1));
        for handover in [at, Handover { sent: Some(EventId::new(9, 2)), ..at }] {
            let answer = vec![Value::BulkString(written(handover).into_bytes()), Value::Int(1)];
            assert_eq!(read_handover(Value::Array(answer)), Ok((Some(handover), true)));
        }
        let nothing = vec![Value::BulkString(Vec::new()), Value::Int(0)];
        assert_eq!(read_handover(Value::Array(nothing)), Ok((None, false)));
        assert!(read_handover(Value::Array(vec![Value::BulkString(b"5-1 x".to_vec()), Value::Int(0)])).is_err());
    }
}
