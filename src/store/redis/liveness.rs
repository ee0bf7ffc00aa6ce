//! Leases: which nodes are alive, on the server's clock.

use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};

use super::call::Call;
use super::scripts;
use super::{NOTES_LIVE, RedisStore};
use crate::model::{NodeId, StreamName};
use crate::store::{Liveness, NodeInfo, NodeLease, Renewal, StoreError, millis};

impl RedisStore {
    /// Writes the node into the region's list of nodes, and counts those alive.
    async fn assert_node(&self, node: &NodeId, ttl: Duration) -> Result<u32, StoreError> {
        let call = Call::script(&scripts::ASSERT_NODE, &[&self.keys.nodes()]).arg(node.as_str()).arg(millis(ttl));
        scripts::count(self.membership.run(call).await?)
    }
}

// The list of nodes and a node's own keys lie in different Cluster slots, so each call touches one of them.
#[async_trait]
impl Liveness for RedisStore {
    async fn register(&self, node: &NodeId, info: &NodeInfo, ttl: Duration) -> Result<(), StoreError> {
        // In the list first: a lease that nobody cleans up after would be worse than an entry without one.
        self.assert_node(node, ttl).await?;
        let call = Call::script(&scripts::REGISTER, &[&self.keys.lease(node)]).arg(millis(ttl)).arg(&[
            ("region", &info.region),
            ("address", &info.address),
            ("version", &info.version),
        ]);
        let call = info.link.iter().fold(call, |call, link| call.arg("link").arg(link));
        self.membership.run(call).await?;
        Ok(())
    }

    async fn renew(&self, node: &NodeId, ttl: Duration) -> Result<Renewal, StoreError> {
        let touched = [self.keys.lease(node), self.keys.streams(node)];
        let call = Call::script(&scripts::RENEW, &touched.each_ref().map(String::as_str));
        let call = call.arg(millis(ttl)).arg(millis(NOTES_LIVE));
        if self.membership.run(call).await? != Value::Int(1) {
            return Ok(Renewal::Gone);
        }
        Ok(Renewal::Held { nodes: self.assert_node(node, ttl).await? })
    }

    async fn link_address(&self, node: &NodeId) -> Result<Option<String>, StoreError> {
        let call = Call::script(&scripts::LINK_ADDRESS, &[&self.keys.lease(node)]);
        Option::<String>::from_redis_value(self.pool.run(call).await?)
            .map_err(|error| StoreError::Protocol(error.to_string()))
    }

    async fn release(&self, node: &NodeId) -> Result<(), StoreError> {
        self.membership.run(Call::command("DEL", &self.keys.lease(node)).arg(self.keys.streams(node))).await?;
        self.membership.run(Call::command("ZREM", &self.keys.nodes()).arg(node.as_str())).await?;
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeLease>, StoreError> {
        let answer = self.membership.run(Call::script(&scripts::NODES, &[&self.keys.nodes()])).await?;
        let nodes = Vec::<(String, u64, bool)>::from_redis_value(answer)
            .map_err(|error| StoreError::Protocol(error.to_string()))?;
        let lease = |(node, deadline_ms, lapsed)| NodeLease { node: NodeId::from(node), deadline_ms, lapsed };
        Ok(nodes.into_iter().map(lease).collect())
    }

    async fn claim(&self, dead: &NodeId, by: &NodeId, ttl: Duration) -> Result<bool, StoreError> {
        let call = Call::script(&scripts::CLAIM, &[&self.keys.cleaner(dead)]).arg(by.as_str()).arg(millis(ttl));
        Ok(self.membership.run(call).await? == Value::Int(1))
    }

    async fn streams_of(&self, node: &NodeId, limit: usize) -> Result<Vec<StreamName>, StoreError> {
        let answer = self.membership.run(Call::command("SRANDMEMBER", &self.keys.streams(node)).arg(limit)).await?;
        let names = Vec::<String>::from_redis_value(answer).map_err(|error| StoreError::Protocol(error.to_string()))?;
        // A newer version may follow streams that this one has no names for. Their routes lapse by themselves.
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }
}
