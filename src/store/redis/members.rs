//! Members of topics, as the server's scripts keep them.

use async_trait::async_trait;
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields};
use crate::model::{NodeId, StreamName};
use crate::store::StoreError;
use crate::store::members::{DROPPED_AT_ONCE, LocalMember, Member, MemberPage, TopicMembers};

#[async_trait]
impl TopicMembers for RedisStore {
    async fn set_members(
        &self,
        topic: &StreamName,
        node: &NodeId,
        members: &[LocalMember],
    ) -> Result<bool, StoreError> {
        let (keys, [held, roster]) = (self.keys.of(topic), self.keys.members(topic));
        let call = Call::script(&scripts::MEMBERS_SET, &[&held, &roster, &keys.nodes, &keys.meta])
            .arg(topic.as_str())
            .arg(node.as_str())
            .arg(self.keys.channels())
            .arg(self.home());
        let with = |call: Call, member: &LocalMember| {
            call.arg(&member.device).arg(member.connections).arg(member.info.as_deref().unwrap_or_default())
        };
        let call = members.iter().fold(call, with);
        Ok(scripts::count(self.lanes.run(topic, call).await?)? == 1)
    }

    async fn drop_members(
        &self,
        topic: &StreamName,
        dead: &NodeId,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let (keys, [held, roster]) = (self.keys.of(topic), self.keys.members(topic));
        let call = Call::script(&scripts::MEMBERS_DROP, &[&held, &roster, &keys.nodes])
            .arg(topic.as_str())
            .arg(dead.as_str())
            .arg(self.keys.channels())
            .arg(after.unwrap_or_default())
            .arg(DROPPED_AT_ONCE);
        let next = scripts::text(self.lanes.run(topic, call).await?)?;
        Ok((!next.is_empty()).then_some(next))
    }

    async fn members(&self, topic: &StreamName, after: Option<&str>, limit: usize) -> Result<MemberPage, StoreError> {
        let (keys, [held, roster]) = (self.keys.of(topic), self.keys.members(topic));
        let call = Call::script(&scripts::MEMBERS_LIST, &[&held, &roster, &keys.nodes, &keys.meta])
            .arg(self.home())
            .arg(after.unwrap_or_default())
            .arg(limit);
        let mut answer = Fields::of(self.pool.run(call).await?)?;
        let next = answer.text()?;
        let members = answer.rest().map(member).collect::<Result<_, _>>()?;
        Ok(MemberPage { members, next: (!next.is_empty()).then_some(next) })
    }
}

fn member(entry: Value) -> Result<Member, StoreError> {
    let mut entry = Fields::of(entry)?;
    let (device, info) = (entry.text()?, entry.text()?);
    let (connections, since_ms) = (entry.numeral()?, entry.numeral()?);
    Ok(Member { device, info: (!info.is_empty()).then_some(info), connections, since_ms })
}
