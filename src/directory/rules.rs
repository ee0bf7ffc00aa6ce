//! Rules for the first home of a stream.

use std::str::FromStr;

use crate::model::StreamName;
use crate::store::matches;

/// `PATTERN=REGION` rules, the first that matches wins. A `*` in a pattern matches any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegionRules(Vec<(String, String)>);

impl RegionRules {
    /// The region in which the stream begins; none if no rule is about it.
    pub fn of(&self, stream: &StreamName) -> Option<&str> {
        let rule = self.0.iter().find(|(pattern, _)| matches(pattern, stream.as_str()));
        rule.map(|(_, region)| region.as_str())
    }

    /// All regions that rules name.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, region)| region.as_str())
    }
}

/// Why a text is not a list of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not PATTERN=REGION, such as device:us-*=us")]
pub struct RegionRulesError(String);

impl FromStr for RegionRules {
    type Err = RegionRulesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = |rule: &str| {
            // Names may hold '=', so the region stands behind the last one.
            let (pattern, region) = rule.rsplit_once('=')?;
            (!pattern.is_empty() && !region.is_empty()).then(|| (pattern.to_owned(), region.to_owned()))
        };
        let rules = text.split_whitespace().map(|rule| read(rule).ok_or_else(|| RegionRulesError(rule.to_owned())));
        rules.collect::<Result<_, _>>().map(RegionRules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_names_the_region() {
        let rules: RegionRules = "device:us-*=us device:a=b=eu topic:*=eu".parse().unwrap();
        let of = |stream: &str| rules.of(&stream.parse().unwrap()).map(str::to_owned);
        assert_eq!(of("device:us-7"), Some("us".to_owned()));
        assert_eq!(of("device:a=b"), Some("eu".to_owned()));
        assert_eq!(of("device:7"), None);
        assert!("device:*".parse::<RegionRules>().is_err() && "=us".parse::<RegionRules>().is_err());
    }
}
