//! Times as people and programs write them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// A point in time: milliseconds since 1970, or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(u64);

/// The last millisecond that RFC 3339 can write (year 9999).
const MAX_MS: u64 = 253_402_300_799_999;

impl Time {
    /// So many milliseconds after the beginning of 1970.
    pub fn from_ms(ms: u64) -> Self {
        Time(ms)
    }

    /// In milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0
    }
}

/// As RFC 3339 in UTC.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.0.min(MAX_MS))).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a time: expected milliseconds since 1970 or RFC 3339, such as 2025-11-22T07:03:20Z \
     (in a URL a + is written %2B)"
)]
pub struct TimeError(String);

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let ms = if digits { text.parse().ok() } else { rfc3339(text) };
        ms.map(Time).ok_or_else(|| TimeError(text.chars().take(64).collect()))
    }
}

/// humantime reads UTC only, so an offset is taken off first.
fn rfc3339(text: &str) -> Option<u64> {
    if text.ends_with('Z') {
        return utc(text);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+hh:mm".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |text: &str, most: u64| {
        let sound = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| sound && *number <= most)
    };
    let shift = (number(hours, 23)? * 60 + number(minutes, 59)?) * 60_000;
    let local = utc(&format!("{local}Z"))?;
    match offset.as_bytes()[0] {
        b'+' => local.checked_sub(shift),
        b'-' => local.checked_add(shift),
        _ => None,
    }
}

fn utc(text: &str) -> Option<u64> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_milliseconds_or_rfc_3339() {
        for (text, ms) in [
            ("0", 0),
            ("1763795000123", 1_763_795_000_123),
            ("2025-11-22T07:03:20Z", 1_763_795_000_000),
            ("2025-11-22T07:03:20.123Z", 1_763_795_000_123),
            ("2025-11-22T08:03:20+01:00", 1_763_795_000_000),
            ("2025-11-22T01:33:20.5-05:30", 1_763_795_000_500),
        ] {
            assert_eq!(text.parse::<Time>().map(Time::ms), Ok(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_is() {
        for text in [
            "",
            "-5",
            "+5",
            "yesterday",
            "2025-11-22",
            "2025-11-22T07:03:20",
            "2025-11-22T08:03:20 01:00",
            "2025-11-22T08:03:20+1:00",
            "2025-11-22T08:03:20+24:00",
            "2025-13-22T08:03:20Z",
            "1960-01-01T00:00:00Z",
            "99999999999999999999",
            "+01:00",
            "ü:00",
        ] {
            assert!(text.parse::<Time>().unwrap_err().to_string().contains("RFC 3339"), "{text:?}");
        }
    }
}
