//! Query parameters: read once, each one known, or refused by name.

use std::str::FromStr;

use super::Problem;
use crate::access;

/// How many are in an answer, unless another number is asked for.
const DEFAULT_LIMIT: usize = 100;

/// The parameters of a request.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

/// Known wherever there are parameters: the token, which was read before, and what some EventSource
/// replacements add on their own.
const EVERYWHERE: [&str; 2] = [access::PARAMETER, "lastEventId"];

impl From<Vec<(String, String)>> for Parameters {
    /// Names that are known, with their values.
    fn from(pairs: Vec<(String, String)>) -> Self {
        Parameters(pairs)
    }
}

impl Parameters {
    /// Reads a query, whose parameters have to be among `known`.
    pub fn read(query: &str, known: &[&str]) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        for (name, _) in &pairs {
            if known.iter().chain(&EVERYWHERE).any(|known| known == name) || name.starts_with('_') {
                continue;
            }
            let name: String = name.chars().take(64).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Problem::bad_request(format!("the parameter '{name}' is not known here; known: {known}")));
        }
        Ok(Parameters(pairs))
    }

    /// Every value given for `name`.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The only value given for `name`.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::bad_request(format!("the parameter '{name}' is given more than once"))),
        }
    }

    /// The only value given for `name`, understood.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parse = |value: &str| {
            value.parse().map_err(|error| Problem::bad_request(format!("the parameter '{name}': {error}")))
        };
        self.one(name)?.map(parse).transpose()
    }

    /// The only value given for `name`, a number in plain digits.
    pub fn number(&self, name: &str) -> Result<Option<usize>, Problem> {
        let read = |value: &str| {
            let plain = value.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| value.parse().ok()).flatten().ok_or_else(|| {
                let value: String = value.chars().take(64).collect();
                Problem::bad_request(format!("the parameter '{name}': '{value}' is not a whole number"))
            })
        };
        self.one(name)?.map(read).transpose()
    }

    /// How many are wanted in an answer: `limit`, a hundred without it.
    pub fn limit(&self, most: usize) -> Result<usize, Problem> {
        let limit = self.number("limit")?.unwrap_or(DEFAULT_LIMIT);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(Problem::bad_request(format!("the limit is {limit}; allowed are 1 to {most}")))
        }
    }

    /// Whether a switch is on: `1` or `true`, `0` or `false`.
    pub fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(Problem::bad_request(format!("the parameter '{name}' must be 1 or 0"))),
        }
    }
}

/// What events are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As this service has them.
    Whimbrel,
    /// As CloudEvents.
    CloudEvents,
}

impl Format {
    /// The parameter `format`.
    pub fn of(parameters: &Parameters) -> Result<Self, Problem> {
        match parameters.one("format")? {
            None => Ok(Format::Whimbrel),
            Some("cloudevents") => Ok(Format::CloudEvents),
            Some(other) => {
                let other: String = other.chars().take(64).collect();
                Err(Problem::bad_request(format!("the parameter 'format': '{other}' is not known; known: cloudevents")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_parameter_is_refused_with_those_that_are_known() {
        let problem = Parameters::read("typ=a", &["type"]).err().unwrap();
        assert!(problem.to_string().contains("'typ'") && problem.to_string().contains("known: type"), "{problem}");
        assert!(Parameters::read("_=123&lastEventId=4-0&token=x", &[]).is_ok());
    }
}
