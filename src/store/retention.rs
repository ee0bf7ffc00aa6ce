//! How much history a stream keeps.

use std::str::FromStr;
use std::time::Duration;

use crate::model::StreamName;

/// How much of a stream is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At least this many newest events.
    pub events: u64,
    /// The log is dropped this long after its newest event.
    pub time: Duration,
}

/// `PATTERN=EVENTS/SECONDS` rules, the first that matches wins. A `*` in a pattern matches any run of
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRules(Vec<(String, Retention)>);

impl RetentionRules {
    /// All rules in order, patterns first; the last one matches every stream.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Retention)> {
        self.0.iter().map(|(pattern, retention)| (pattern.as_str(), *retention)).chain([("*", DEFAULT)])
    }

    /// What holds for `stream`. Streams that no rule matches get the default: 1000 events, a day.
    pub fn of(&self, stream: &StreamName) -> Retention {
        self.0
            .iter()
            .find(|(pattern, _)| matches(pattern, stream.as_str()))
            .map_or(DEFAULT, |(_, retention)| *retention)
    }
}

const DEFAULT: Retention = Retention { events: 1000, time: Duration::from_secs(86_400) };

impl Default for RetentionRules {
    fn default() -> Self {
        RetentionRules(vec![("*".into(), DEFAULT)])
    }
}

/// Whether `text` is what `pattern` describes; `*` stands for any run of characters, also an empty one.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Why a text is not a list of retention rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not PATTERN=EVENTS/SECONDS with at least 1 event and 1 second, such as topic:llm:*=50000/3600")]
pub struct RetentionError(String);

impl FromStr for RetentionRules {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_whitespace()
            .map(|rule| read_rule(rule).ok_or_else(|| RetentionError(rule.to_owned())))
            .collect::<Result<_, _>>()
            .map(RetentionRules)
    }
}

fn read_rule(rule: &str) -> Option<(String, Retention)> {
    // Names may hold '=', so the amounts stand behind the last one.
    let (pattern, amounts) = rule.rsplit_once('=')?;
    let (events, seconds) = amounts.split_once('/')?;
    let events = events.parse().ok().filter(|n| *n > 0)?;
    let seconds = seconds.parse().ok().filter(|n| *n > 0)?;
    (!pattern.is_empty()).then(|| (pattern.to_owned(), Retention { events, time: Duration::from_secs(seconds) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: &str, stream: &str) -> u64 {
        rules.parse::<RetentionRules>().unwrap().of(&stream.parse().unwrap()).events
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let rules = "topic:llm:*=50000/3600 device:*=10/60 *=7/1";
        assert_eq!(of(rules, "topic:llm:a"), 50_000);
        assert_eq!(of(rules, "device:1"), 10);
        assert_eq!(of(rules, "topic:x"), 7);
        assert_eq!(of("device:*=10/60", "topic:x"), 1000);
    }

    #[test]
    fn a_star_matches_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("*", "topic:a", true),
            ("topic:a", "topic:a", true),
            ("topic:a", "topic:ab", false),
            ("topic:*:end", "topic:x:y:end", true),
            ("topic:*:end", "topic:x:end:y", false),
            ("*:b*d", "topic:abcd", false),
            ("*:*b*d", "topic:abcd", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_bad_rule_is_refused_by_name() {
        for rule in ["*", "*=5", "*=0/1", "*=1/0", "=1/1", "*=a/b", "*=-1/5"] {
            let refusal = rule.parse::<RetentionRules>().unwrap_err().to_string();
            assert!(refusal.contains(rule), "{refusal}");
        }
    }
}
