//! The leases of producers, as the server's scripts keep them: all in one place, apart from their streams.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields, Script, nonsense};
use crate::model::{LeaseId, LeaseTime, StreamName};
use crate::store::producers::{HeldLease, LOOKS_APART, Lapsed, LeaseList, Look, MOST_LEASES, Producers, Taking};
use crate::store::{StoreError, millis};

impl RedisStore {
    fn lease_call(&self, script: &'static Script) -> Call {
        Call::script(script, &[&self.keys.leases(), &self.keys.deadlines()])
    }

    async fn end(&self, stream: &StreamName, id: LeaseId, state: &str) -> Result<bool, StoreError> {
        let call = self.lease_call(&scripts::LEASE_END).arg(stream.as_str()).arg(id.to_string()).arg(state);
        Ok(self.pool.run(call).await? == Value::Int(1))
    }
}

#[async_trait]
impl Producers for RedisStore {
    async fn take_lease(
        &self,
        stream: &StreamName,
        id: LeaseId,
        time: LeaseTime,
        key: Option<&str>,
    ) -> Result<Taking, StoreError> {
        let call = self
            .lease_call(&scripts::LEASE_TAKE)
            .arg(stream.as_str())
            .arg(id.to_string())
            .arg(millis(time.time()))
            .arg(key.unwrap_or_default())
            .arg(MOST_LEASES);
        let mut answer = Fields::of(self.pool.run(call).await?)?;
        let (outcome, rest) = (answer.text()?, answer.text()?);
        match outcome.as_str() {
            "taken" => Ok(Taking::Taken),
            "again" => rest.parse().map(Taking::Again).map_err(|_| nonsense("a lease")),
            "held" => rest.parse().map(Duration::from_millis).map(Taking::Held).map_err(|_| nonsense("milliseconds")),
            "full" => Ok(Taking::Full),
            _ => Err(nonsense("what became of a lease")),
        }
    }

    async fn renew_lease(&self, stream: &StreamName, id: LeaseId, time: LeaseTime) -> Result<bool, StoreError> {
        let call = self.lease_call(&scripts::LEASE_RENEW).arg(stream.as_str()).arg(id.to_string());
        Ok(self.pool.run(call.arg(millis(time.time()))).await? == Value::Int(1))
    }

    async fn end_lease(&self, stream: &StreamName, id: LeaseId) -> Result<bool, StoreError> {
        self.end(stream, id, "held").await
    }

    async fn lapsed(&self, most: usize, reached: Duration, looked_ms: u64) -> Result<Look, StoreError> {
        let call = self
            .lease_call(&scripts::LEASES_LAPSED)
            .arg(most)
            .arg(millis(reached))
            .arg(looked_ms)
            .arg(millis(LOOKS_APART));
        let mut answer = Fields::of(self.membership.run(call).await?)?;
        let now_ms = answer.numeral()?;
        let lapsed = answer.rest().filter_map(|lease| lapsed(lease).ok()).collect();
        Ok(Look { now_ms, lapsed })
    }

    async fn leases(&self, most: usize) -> Result<LeaseList, StoreError> {
        let mut answer = Fields::of(self.pool.run(self.lease_call(&scripts::LEASES).arg(most)).await?)?;
        let total = answer.count()?;
        Ok(LeaseList { total, leases: answer.rest().filter_map(|lease| held(lease).ok()).collect() })
    }

    async fn forget_lease(&self, lapsed: &Lapsed) -> Result<(), StoreError> {
        self.end(&lapsed.stream, lapsed.id, "lapsed").await.map(drop)
    }
}

fn held(lease: Value) -> Result<HeldLease, StoreError> {
    let mut lease = Fields::of(lease)?;
    Ok(HeldLease {
        stream: lease.text()?.parse().map_err(|_| nonsense("a stream"))?,
        time: Duration::from_millis(lease.numeral()?),
        renewed_ms: lease.numeral()?,
        lapses_ms: lease.numeral()?,
        lapsed: lease.text()? == "lapsed",
    })
}

fn lapsed(lease: Value) -> Result<Lapsed, StoreError> {
    let mut lease = Fields::of(lease)?;
    Ok(Lapsed {
        stream: lease.text()?.parse().map_err(|_| nonsense("a stream"))?,
        id: lease.text()?.parse().map_err(|_| nonsense("a lease"))?,
        time: Duration::from_millis(lease.numeral()?),
        renewed_ms: lease.numeral()?,
    })
}
