//! The body of `POST /v1/sse`: what a client wants to follow, in JSON. The same as the parameters of `GET`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Problem;
use super::parameters::Parameters;
use crate::model::StreamName;

/// Most bytes of such a body: as many streams as a connection may follow, each with a position, take a fraction.
pub const WISH_BYTES: usize = 64 * 1024;

/// What a client wants to follow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    streams: Vec<String>,
    after: Option<After>,
    #[serde(default)]
    types: Vec<String>,
    envelope: Option<bool>,
    heartbeat: Option<bool>,
    members: Option<bool>,
    trace: Option<bool>,
    format: Option<String>,
}

/// Where to begin: everywhere alike, by several values as in an address, or in each stream by itself.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "\"after\" is a string, a list of strings, or an object of streams and positions")]
enum After {
    All(String),
    Several(Vec<String>),
    Each(BTreeMap<String, String>),
}

impl Wish {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let refused = |error: serde_json::Error| {
            let expected = r#"expected an object such as {"streams":["topic:news"],"after":"now"}"#;
            Problem::bad_request(format!("the body: {error}; {expected}"))
        };
        serde_json::from_slice(body).map_err(refused)
    }

    /// The same as parameters.
    pub fn into_parameters(self) -> Result<Parameters, Problem> {
        let mut pairs = Vec::new();
        for stream in &self.streams {
            let stream: StreamName = stream.parse().map_err(|error| Problem::invalid_name(&error))?;
            pairs.push((stream.kind().as_str().to_owned(), stream.name().to_owned()));
        }
        let after = match self.after {
            None => Vec::new(),
            Some(After::All(position)) => vec![position],
            Some(After::Several(positions)) => positions,
            Some(After::Each(positions)) => {
                positions.into_iter().map(|(stream, position)| format!("{stream}/{position}")).collect()
            }
        };
        pairs.extend(after.into_iter().map(|position| ("after".to_owned(), position)));
        pairs.extend(self.types.into_iter().map(|kind| ("types".to_owned(), kind)));
        pairs.extend(self.format.map(|format| ("format".to_owned(), format)));
        let switches = [
            ("envelope", self.envelope),
            ("heartbeat", self.heartbeat),
            ("members", self.members),
            ("trace", self.trace),
        ];
        for (name, switch) in switches {
            pairs.extend(switch.map(|on| (name.to_owned(), on.to_string())));
        }
        Ok(Parameters::from(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Parameters, String> {
        Wish::read(body.as_bytes()).and_then(Wish::into_parameters).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_body_says_what_parameters_say() {
        let body = r#"{"streams":["device:42","topic:a/b","topic:news"],"after":"now"}"#;
        assert!(read(body).unwrap_err().contains("'/'"), "a name is checked");
        let body =
            r#"{"streams":["device:42","topic:news"],"after":{"topic:news":"5-1"},"types":["a","b"],"envelope":true}"#;
        let parameters = read(body).unwrap();
        for (name, values) in
            [("device", &["42"][..]), ("topic", &["news"]), ("after", &["topic:news/5-1"]), ("types", &["a", "b"])]
        {
            assert_eq!(parameters.all(name).collect::<Vec<_>>(), values);
        }
        assert!(parameters.switch("envelope").unwrap() && !parameters.switch("heartbeat").unwrap());
    }

    #[test]
    fn a_list_of_positions_says_what_repeated_parameters_say() {
        let parameters = read(r#"{"streams":["topic:a","topic:b"],"after":["topic:a/5-1","topic:b/now"]}"#).unwrap();
        assert_eq!(parameters.all("after").collect::<Vec<_>>(), ["topic:a/5-1", "topic:b/now"]);
    }

    #[test]
    fn what_is_wrong_in_a_body_is_named() {
        for (body, named) in [
            ("", "expected an object"),
            ("[]", "expected an object"),
            ("{}", "streams"),
            (r#"{"streams":"topic:news"}"#, "expected a sequence"),
            (r#"{"streams":["topic:a"],"stream":1}"#, "`stream`"),
            (r#"{"streams":["topic:a"],"after":5}"#, "\"after\" is a string"),
            (r#"{"streams":["topic:a"],"after":["now",5]}"#, "a list of strings"),
            (r#"{"streams":["queue:a"]}"#, "queue:a"),
        ] {
            let problem = read(body).err().unwrap();
            assert!(problem.contains(named), "{body}: {problem}");
        }
    }
}
