//! Durability: how far a publish has to get before it is answered.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Published;

/// What has to be reached before a publish is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// So many replicas have it.
    Replicas(u32),
    /// It is on the store's disk.
    Disk,
}

/// Most replicas that a publish can wait for.
const MAX_REPLICAS: u32 = 16;

/// Why a text names no durability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not replicas:N (N from 1 to {MAX_REPLICAS}) or disk")]
pub struct DurabilityError(String);

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Replicas(count) => write!(f, "replicas:{count}"),
            Durability::Disk => f.write_str("disk"),
        }
    }
}

impl FromStr for Durability {
    type Err = DurabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let replicas = || {
            let count = text.strip_prefix("replicas:")?.parse().ok()?;
            (1..=MAX_REPLICAS).contains(&count).then_some(Durability::Replicas(count))
        };
        match text {
            "disk" => Ok(Durability::Disk),
            _ => replicas().ok_or_else(|| DurabilityError(text.chars().take(64).collect())),
        }
    }
}

/// What a durable publish reached in time. The event is stored in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The event.
    pub published: Published,
    /// How far it got.
    pub reached: Reached,
    /// Whether that is what was asked for.
    pub enough: bool,
}

/// How far an event got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// Replicas that have it, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Whether it is on disk, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_is_replicas_or_disk() {
        assert_eq!("replicas:2".parse(), Ok(Durability::Replicas(2)));
        assert_eq!("disk".parse(), Ok(Durability::Disk));
        for text in ["", "replicas", "replicas:", "replicas:0", "replicas:17", "replicas:-1", "both", "disk:1"] {
            assert!(text.parse::<Durability>().is_err(), "{text:?}");
        }
    }
}
