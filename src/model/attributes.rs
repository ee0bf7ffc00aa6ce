//! What a CloudEvent says beside its type and its data.

use std::fmt;
use std::sync::Arc;

/// The context attributes of an event that came as a CloudEvent, as a JSON object. Stores keep them beside the data, and
/// only those who write CloudEvents read them.
///
/// The text is one word: without white space, also within its strings, so that it fits into the line in front of an
/// event's data on a channel. Cheap to clone, and one word of memory in events that have none.
#[derive(Clone, PartialEq, Eq)]
pub struct Attributes(Arc<Box<str>>);

impl Attributes {
    /// Longest text, in bytes.
    pub const MOST_BYTES: usize = 8192;

    /// The attributes of an object in JSON without white space between its tokens. `None` if it is too long.
    pub fn of_json(object: &str) -> Option<Self> {
        // JSON escapes all other white space in strings by itself.
        let word = object.replace(' ', "\\u0020");
        (word.len() <= Attributes::MOST_BYTES).then(|| Attributes(Arc::new(word.into())))
    }

    /// The attributes that a store has. Anyone with access to it may have put something else there: that is as if there
    /// were none.
    pub fn of_store(text: &str) -> Option<Self> {
        let is_word = (2..=Attributes::MOST_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte > b' ');
        is_word.then(|| Attributes(Arc::new(text.into())))
    }

    /// The object.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_one_word_and_means_the_same() {
        let attributes = Attributes::of_json(r#"{"subject":"a b\nc","id":"\\ 1"}"#).unwrap();
        assert_eq!(Attributes::of_store(attributes.as_str()), Some(attributes.clone()));
        let read: serde_json::Value = serde_json::from_str(attributes.as_str()).unwrap();
        assert_eq!(read, serde_json::json!({"subject": "a b\nc", "id": "\\ 1"}));
    }

    #[test]
    fn what_is_too_long_or_no_word_is_nothing() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(Attributes::MOST_BYTES));
        assert_eq!((Attributes::of_json(&long), Attributes::of_store(&long)), (None, None));
        for text in ["", "{", "{ }", "{\n}", "{\"a\":\"\u{7f} \"}"] {
            assert_eq!(Attributes::of_store(text), None, "{text:?}");
        }
    }
}
