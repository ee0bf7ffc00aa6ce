//! Times as people and programs write them.

use std::fmt;
use std::str::FromStr;

use ::time::OffsetDateTime;
use ::time::format_description::{StaticFormatDescription, well_known::Rfc3339};
use ::time::macros::format_description;
use serde::{Serialize, Serializer};

/// A point in time: milliseconds since 1970, or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(u64);

/// The last millisecond that RFC 3339 can write (year 9999).
const MAX_MS: u64 = 253_402_300_799_999;

const NANOS_A_MS: i128 = 1_000_000;

/// RFC 3339 with milliseconds, of a time in UTC.
const FORMAT: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

impl Time {
    /// So many milliseconds after the beginning of 1970.
    pub fn from_ms(ms: u64) -> Self {
        Time(ms)
    }

    /// In milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0
    }

    /// Whether a text is a time in RFC 3339, in whichever year.
    pub fn is_rfc3339(text: &str) -> bool {
        rfc3339(text).is_some()
    }
}

/// As RFC 3339 in UTC.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0.min(MAX_MS)) * NANOS_A_MS;
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| fmt::Error)?;
        f.write_str(&time.format(FORMAT).map_err(|_| fmt::Error)?)
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
        let ms = if digits {
            text.parse().ok()
        } else {
            // None before 1970.
            rfc3339(text).and_then(|time| time.unix_timestamp_nanos().div_euclid(NANOS_A_MS).try_into().ok())
        };
        ms.map(Time).ok_or_else(|| TimeError(text.chars().take(64).collect()))
    }
}

/// The time that a text in RFC 3339 names, of any offset and precision.
fn rfc3339(text: &str) -> Option<OffsetDateTime> {
    // RFC 3339 allows something else between date and time, and the library any character. Readers of ours may not.
    let has_separator = matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    if has_separator { OffsetDateTime::parse(text, &Rfc3339).ok() } else { None }
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
            "2025-11-22 07:03:20Z",
            "2025-13-22T08:03:20Z",
            "1960-01-01T00:00:00Z",
            "99999999999999999999",
            "+01:00",
            "ü:00",
        ] {
            assert!(text.parse::<Time>().unwrap_err().to_string().contains("RFC 3339"), "{text:?}");
        }
    }

    #[test]
    fn a_time_is_written_with_milliseconds_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_763_795_000_120, "2025-11-22T07:03:20.120Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Time::from_ms(ms).to_string(), text);
        }
    }

    #[test]
    fn rfc_3339_has_any_year_offset_and_precision() {
        for text in ["2025-11-22T07:03:20Z", "2018-04-05t17:31:00.123456789+02:00", "0001-01-01T00:00:00-23:59"] {
            assert!(Time::is_rfc3339(text), "{text}");
        }
        for text in [
            "",
            "5",
            "2025-11-22",
            "2025-11-22T07:03:20",
            "2025-11-22 07:03:20Z",
            "2025-11-22T07:03:20.Z",
            "2025-11-22T07:03:20+2:00",
            "2025-21-22T07:03:20Z",
            "2025-02-30T07:03:20Z",
            "2025-11-22T07:03:20Zz",
            "2025-11-2éT07:03:20Z",
        ] {
            assert!(!Time::is_rfc3339(text), "{text}");
        }
    }
}
