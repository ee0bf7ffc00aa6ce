//! Revocations of tokens, as stores keep them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;

/// Most revocations at a time. Each node holds all of them.
pub const MOST_REVOCATIONS: usize = 10_000;

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What it is called.
    pub id: Uuid,
    /// Whose tokens, or which one.
    pub subject: Subject,
    /// Tokens are refused that were issued before this time, in milliseconds since 1970.
    pub before_ms: u64,
    /// When somebody asked for it, in milliseconds since 1970.
    pub created_ms: u64,
    /// Until when it stands, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Somebody took it back. It is kept until its time, so that no copy brings it back into force.
    pub lifted: bool,
}

/// What a revocation is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// All tokens of a device.
    Device(Box<str>),
    /// The token with this `jti`.
    Token(Box<str>),
}

/// All revocations of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// Stands for exactly this list.
    pub version: String,
    /// All of them, in no order.
    pub entries: Vec<Revocation>,
}

/// Revocations outlive what a store loses: each node keeps what it has seen, and puts back what is missing. So an
/// entry is never removed before its time, only lifted.
#[async_trait]
pub trait Revocations: Send + Sync {
    /// Adds what the store lacks, and lifts what is lifted. False: there is no room for all of it.
    async fn put_revocations(&self, entries: &[Revocation]) -> Result<bool, StoreError>;

    /// All revocations, or nothing when the list is still the one of this version.
    async fn list_revocations(&self, version: Option<&str>) -> Result<Option<RevocationList>, StoreError>;

    /// Gives other regions what they lack of `known`, and brings what they have. A region that is away is left out.
    async fn exchange_revocations(&self, _known: &[Revocation]) -> Vec<Revocation> {
        Vec::new()
    }
}
