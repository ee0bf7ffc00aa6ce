//! Revocations, as the server's scripts keep them.

use async_trait::async_trait;
use redis::Value;
use uuid::Uuid;

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields};
use crate::store::StoreError;
use crate::store::revocations::{MOST_REVOCATIONS, Revocation, RevocationList, Revocations};

#[async_trait]
impl Revocations for RedisStore {
    async fn put_revocations(&self, entries: &[Revocation]) -> Result<bool, StoreError> {
        // Random, so that a list that was lost can't have the version of the one after it.
        let version = Uuid::new_v4().simple().to_string();
        let mut call = Call::script(&scripts::REVOCATIONS_PUT, &[&self.keys.revocations()]);
        call = call.arg(version).arg(MOST_REVOCATIONS);
        for entry in entries {
            let body = serde_json::to_string(entry).expect("a revocation holds only texts and numbers");
            call = call.arg(entry.id.to_string()).arg(entry.expires_ms).arg(u8::from(entry.lifted)).arg(body);
        }
        Ok(self.membership.run(call).await? == Value::Int(1))
    }

    async fn list_revocations(&self, version: Option<&str>) -> Result<Option<RevocationList>, StoreError> {
        let call = Call::script(&scripts::REVOCATIONS, &[&self.keys.revocations()]).arg(version.unwrap_or_default());
        let mut answer = Fields::of(self.membership.run(call).await?)?;
        if answer.is_empty() {
            return Ok(None);
        }
        let version = answer.text()?;
        let mut entries = Vec::new();
        while !answer.is_empty() {
            let body = answer.text()?;
            match serde_json::from_str(&body) {
                Ok(entry) => entries.push(entry),
                Err(error) => tracing::warn!(%error, "a revocation can't be read: it is of another version"),
            }
        }
        Ok(Some(RevocationList { version, entries }))
    }
}
