//! What a token says about its bearer.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

use super::json::{self, JsonError};

/// Most bytes of it.
pub const INFO_BYTES: usize = 1024;

/// A JSON object about the bearer of a token, in one line. It is shown beside the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info(Arc<str>);

/// Why JSON can't be shown beside a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// It is too large, or no object.
    #[error("has to be a JSON object of at most {INFO_BYTES} bytes")]
    Kind,
    /// Not every client could read it.
    #[error(transparent)]
    Json(#[from] JsonError),
}

impl Info {
    /// Takes a JSON object.
    pub fn new(json: &RawValue) -> Result<Self, InfoError> {
        let text = json.get();
        if text.len() > INFO_BYTES || !text.starts_with('{') {
            return Err(InfoError::Kind);
        }
        json::check(text.as_bytes())?;
        // A line end can only be white space there, but would end a line of what stores and channels carry.
        Ok(Info(text.replace(['\n', '\r'], " ").into()))
    }

    /// Reads what a store kept.
    pub fn recall(text: &str) -> Option<Self> {
        Info::new(serde_json::from_str(text).ok()?).ok()
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Info {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Info {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Info::new(&Box::<RawValue>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_line_and_stays_what_it_was() {
        let info = Info::recall("{\"name\":\r\n\"Ann\\n\"}").unwrap();
        assert_eq!(info.as_str(), r#"{"name":  "Ann\n"}"#);
        let text = serde_json::to_string(&info).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str(&text).ok()), (info.as_str(), Some(info.clone())));
    }

    #[test]
    fn what_some_clients_could_not_read_is_refused() {
        let nested = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(
            Info::recall(&nested(json::MAX_NESTING - 1)).is_some()
                && Info::recall(&nested(json::MAX_NESTING)).is_none()
        );
        for text in ["", "[]", "null", "\"a\"", r#"{"a":"\ud800"}"#, "{\"a\":\"\u{1}\"}", "{} {}"] {
            assert_eq!(Info::recall(text), None, "{text}");
        }
        let sized = |size: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(size - 8));
        assert!(Info::recall(&sized(INFO_BYTES)).is_some() && Info::recall(&sized(INFO_BYTES + 1)).is_none());
    }
}
