//! Patterns of stream names: which streams a grant covers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::model::StreamName;
use crate::store::matches;

/// What the names of the service's own topics begin with. A `*` does not reach into them: who may follow every
/// topic is not thereby shown which devices come and go.
const OWN: &str = "topic:whimbrel:";

/// Stream names, and patterns in which `*` stands for any run of characters. Matching takes time linear in the
/// length of pattern and name.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Patterns(Box<[Box<str>]>);

impl Patterns {
    /// Covers every stream, the service's own ones included.
    pub fn all() -> Self {
        Patterns([EVERYTHING, OWN_TOPICS].map(Box::from).into())
    }

    /// Whether a stream is covered.
    pub fn cover(&self, stream: &StreamName) -> bool {
        let own = stream.is_reserved();
        self.0.iter().any(|pattern| (!own || names_own(pattern)) && matches(pattern, stream.as_str()))
    }

    /// Whether every stream is covered, the service's own ones aside.
    pub fn cover_everything(&self) -> bool {
        self.0.iter().any(|pattern| &**pattern == EVERYTHING)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| &**pattern)
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses a pattern that matches no stream there could be: it was misspelt.
    pub fn check(&self) -> Result<(), PatternError> {
        match self.0.iter().find(|pattern| !can_match(pattern)) {
            Some(wrong) => Err(PatternError(wrong.escape_debug().take(64).collect())),
            None => Ok(()),
        }
    }
}

const EVERYTHING: &str = "*";
const OWN_TOPICS: &str = "topic:whimbrel:*";

/// Whether the part of a pattern that is meant literally leads into the service's own topics.
fn names_own(pattern: &str) -> bool {
    pattern.starts_with(OWN)
}

/// Whether the literal beginning of a pattern agrees with that of some stream.
fn can_match(pattern: &str) -> bool {
    let literal = pattern.split('*').next().unwrap_or_default();
    let agrees = |kind: &str| literal.starts_with(kind) || (literal.len() < pattern.len() && kind.starts_with(literal));
    (agrees("device:") || agrees("topic:")) && pattern.chars().all(|c| c == '*' || StreamName::allows(c))
}

/// Why a text is no pattern of streams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' matches no stream: write device:NAME, topic:NAME, or a pattern such as topic:news:*")]
pub struct PatternError(String);

impl FromIterator<Box<str>> for Patterns {
    fn from_iter<I: IntoIterator<Item = Box<str>>>(patterns: I) -> Self {
        Patterns(patterns.into_iter().collect())
    }
}

impl FromStr for Patterns {
    type Err = PatternError;

    /// Reads patterns with white space between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let patterns: Patterns = text.split_whitespace().map(Box::from).collect();
        patterns.check().map(|()| patterns)
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|patterns: Vec<Box<str>>| Patterns(patterns.into()))
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn cover(patterns: &str, stream: &str) -> bool {
        patterns.parse::<Patterns>().unwrap().cover(&stream.parse().unwrap())
    }

    #[test]
    fn a_star_matches_any_run_of_characters_and_anything_else_itself() {
        assert!(cover("topic:news", "topic:news") && !cover("topic:news", "topic:newsroom"));
        assert!(cover("topic:orders:*", "topic:orders:7:lines") && !cover("topic:orders:*", "topic:orders"));
        assert!(cover("topic:a.c", "topic:a.c") && !cover("topic:a.c", "topic:abc"), "a dot is a dot");
        assert!(cover("device:1 topic:*:x", "topic:a:x") && !cover("device:1 topic:*:x", "device:12"));
        assert!(!cover("topic:*", "device:1") && cover("*", "device:1"));
        assert!(!cover("", "topic:a"));
    }

    #[test]
    fn a_star_does_not_reach_the_services_own_topics() {
        for patterns in ["*", "topic:*", "topic:whim*"] {
            assert!(!cover(patterns, "topic:whimbrel:lifecycle"), "{patterns}");
        }
        assert!(cover("topic:whimbrel:lifecycle", "topic:whimbrel:lifecycle"));
        assert!(Patterns::all().cover(&StreamName::lifecycle()));
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused_by_name() {
        for text in ["news", "topics:*", "topic", "Device:1", "device 1 x", "topic:a b:", "topic:ä"] {
            assert!(text.parse::<Patterns>().is_err(), "{text}");
        }
        for text in ["*", "t*", "topic:*", "*:news", "device:a|b", ""] {
            assert!(text.parse::<Patterns>().is_ok(), "{text}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_few() {
        let pattern = format!("topic:{}b", "*a".repeat(2000));
        let patterns: Patterns = [pattern.into()].into_iter().collect();
        let stream = format!("topic:{}", "a".repeat(200)).parse().unwrap();
        let start = Instant::now();
        for _ in 0..1000 {
            assert!(!patterns.cover(&stream));
        }
        // Backtracking would take ages for one.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
