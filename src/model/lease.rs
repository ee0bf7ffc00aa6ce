//! A producer's lease of a stream: for how long it holds, and what it is known by.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// For how long a lease holds without being renewed: whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTime(u32);

impl LeaseTime {
    /// An hour. A producer that can't say more often that it is there needs no lease.
    pub const LONGEST: LeaseTime = LeaseTime(3600);

    /// The time of so many seconds, if a lease may hold for that long.
    pub fn from_seconds(seconds: u64) -> Result<Self, LeaseTimeError> {
        let sound = u32::try_from(seconds).ok().filter(|seconds| (1..=LeaseTime::LONGEST.0).contains(seconds));
        sound.map(LeaseTime).ok_or_else(|| LeaseTimeError(seconds.to_string()))
    }

    /// The time.
    pub fn time(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl Serialize for LeaseTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

/// Why a lease can't hold for that long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no time for a lease: it is a whole number of seconds from 1 to {longest}", longest = LeaseTime::LONGEST.0)]
pub struct LeaseTimeError(String);

impl FromStr for LeaseTime {
    type Err = LeaseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || LeaseTimeError(text.chars().take(64).collect());
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return Err(wrong());
        }
        text.parse().ok().and_then(|seconds| LeaseTime::from_seconds(seconds).ok()).ok_or_else(wrong)
    }
}

/// What one lease is known by: whoever has it can renew and end it. No two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(Uuid);

impl LeaseId {
    /// One that no lease ever had.
    pub fn random() -> Self {
        LeaseId(Uuid::new_v4())
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is no lease's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no lease: it is the 32 hexadecimal digits that were answered when it was taken")]
pub struct LeaseIdError(String);

impl FromStr for LeaseId {
    type Err = LeaseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sound = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = if sound { Uuid::try_parse(text).ok() } else { None };
        id.map(LeaseId).ok_or_else(|| LeaseIdError(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_for_whole_seconds_up_to_an_hour() {
        assert_eq!("60".parse::<LeaseTime>().unwrap().time(), Duration::from_secs(60));
        assert!(LeaseTime::from_seconds(3600).is_ok());
        for text in ["", "0", "-1", "+5", "1.5", "5s", "3601", "99999999999999999999"] {
            assert!(text.parse::<LeaseTime>().unwrap_err().to_string().contains("seconds"), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_what_was_answered_and_nothing_like_it() {
        let id = LeaseId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "x", &id.to_string().to_uppercase(), &Uuid::new_v4().to_string(), &format!("{id}0")] {
            assert!(text.parse::<LeaseId>().unwrap_err().to_string().contains("32"), "{text:?}");
        }
    }
}
