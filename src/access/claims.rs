//! What a token says, once its signature is known to be good.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Grant, Holder, PatternError, Patterns};
use crate::model::{Info, InfoError, NameError, StreamKind, StreamName};

/// Longest id of a token, in characters: as long as one that can be revoked.
pub const ID_LENGTH: usize = 256;

/// The claims that mean something here. A claim that stands twice is an error: two readers could see two tokens.
#[derive(Debug, Deserialize)]
pub struct Claims {
    sub: Option<String>,
    exp: f64,
    iat: Option<f64>,
    jti: Option<String>,
    whimbrel: Option<Rights>,
    // Judged by the library, to which it would be no error.
    #[serde(rename = "nbf")]
    _not_before: Option<IgnoredAny>,
    /// One text: the library would take a list of several.
    #[serde(rename = "iss")]
    _issuer: Option<Box<str>>,
    #[serde(rename = "aud")]
    _audience: Option<IgnoredAny>,
}

/// What a device may do beyond its own inbox.
#[derive(Debug, Default, Deserialize)]
pub struct Rights {
    #[serde(default)]
    pub subscribe: Patterns,
    #[serde(default)]
    pub publish: Patterns,
    pub info: Option<Box<RawValue>>,
}

/// Why claims make no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// `sub` is no name of a device.
    #[error("its sub is no device: {0}")]
    Device(#[from] NameError),
    /// A pattern matches no stream.
    #[error("its {0}: {1}")]
    Pattern(&'static str, PatternError),
    /// `info` can't be shown.
    #[error("its info {0}")]
    Info(#[from] InfoError),
    /// `jti` is too long, or can't be written in a line.
    #[error("its jti has more than {ID_LENGTH} characters, or control characters")]
    Id,
}

impl Claims {
    /// The grant that they make.
    pub fn grant(self) -> Result<Grant, ClaimsError> {
        if !self.jti.as_deref().is_none_or(is_token_id) {
            return Err(ClaimsError::Id);
        }
        let holder = Holder::Token { id: self.jti.map(String::into_boxed_str) };
        let rights = self.whimbrel.unwrap_or_default();
        grant(holder, self.sub.as_deref(), rights, self.iat.map(milliseconds), Some(milliseconds(self.exp)))
    }
}

/// The grant of a device with these rights.
pub fn grant(
    holder: Holder,
    device: Option<&str>,
    rights: Rights,
    issued_ms: Option<u64>,
    expires_ms: Option<u64>,
) -> Result<Grant, ClaimsError> {
    let device = device.map(|name| StreamName::new(StreamKind::Device, name)).transpose()?;
    let Rights { subscribe, publish, info } = rights;
    for (name, patterns) in [("subscribe", &subscribe), ("publish", &publish)] {
        patterns.check().map_err(|error| ClaimsError::Pattern(name, error))?;
    }
    let info = info.map(|info| Info::new(&info)).transpose()?;
    Ok(Grant { device, subscribe, publish, info, issued_ms, expires_ms, ..Grant::nothing(holder) })
}

/// Whether a text can be a token's `jti`.
pub fn is_token_id(text: &str) -> bool {
    text.chars().count() <= ID_LENGTH && !text.chars().any(char::is_control)
}

/// Seconds since 1970, which may have a fraction, as milliseconds.
pub fn milliseconds(seconds: f64) -> u64 {
    // Casts from floats saturate.
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Result<Grant, String> {
        let claims: Claims = serde_json::from_str(text).map_err(|error| error.to_string())?;
        claims.grant().map_err(|error| error.to_string())
    }

    #[test]
    fn claims_become_a_grant() {
        let grant = claims(
            r#"{"sub":"42","exp":2000.5,"iat":1000,"jti":"t","aud":["a"],"other":1,
                "whimbrel":{"subscribe":["topic:a"],"publish":["topic:b"],"info":{"name":"Ann"},"later":1}}"#,
        )
        .unwrap();
        assert_eq!(grant.device, Some("device:42".parse().unwrap()));
        assert_eq!((grant.issued_ms, grant.expires_ms), (Some(1_000_000), Some(2_000_500)));
        assert_eq!(grant.info.unwrap().as_str(), r#"{"name":"Ann"}"#);
        let nobody = claims(r#"{"exp":5}"#).unwrap();
        assert!(nobody.device.is_none() && nobody.subscribe.is_empty() && nobody.publish.is_empty());
    }

    #[test]
    fn a_claim_that_stands_twice_is_refused() {
        for twice in [r#""sub":"1","sub":"2""#, r#""exp":6"#, r#""nbf":1,"nbf":2"#, r#""whimbrel":{},"whimbrel":{}"#] {
            let refusal = claims(&format!(r#"{{"exp":5,{twice}}}"#)).unwrap_err();
            assert!(refusal.contains("duplicate"), "{refusal}");
        }
        assert!(claims(r#"{"exp":5,"whimbrel":{"publish":[],"publish":["*"]}}"#).unwrap_err().contains("duplicate"));
    }

    #[test]
    fn claims_of_the_wrong_kind_are_refused() {
        for text in [
            r#"{"sub":"1"}"#,
            r#"{"exp":"5"}"#,
            r#"{"exp":null}"#,
            r#"{"exp":5,"sub":7}"#,
            r#"{"exp":5,"sub":"a b"}"#,
            r#"{"exp":5,"sub":""}"#,
            r#"{"exp":5,"whimbrel":{"subscribe":"topic:a"}}"#,
            r#"{"exp":5,"whimbrel":{"info":"text"}}"#,
            r#"{"exp":5,"whimbrel":[]}"#,
        ] {
            assert!(claims(text).is_err(), "{text}");
        }
        assert!(claims(&format!(r#"{{"exp":5,"jti":"{}"}}"#, "x".repeat(ID_LENGTH + 1))).is_err());
    }

    #[test]
    fn a_claim_that_makes_no_sense_is_named() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(400), "]".repeat(400));
        for (claim, name) in [
            (r#""whimbrel":{"subscribe":["topic:a","news"]}"#.to_owned(), "subscribe"),
            (r#""whimbrel":{"publish":["topic:a b"]}"#.to_owned(), "publish"),
            (r#""whimbrel":{"publish":["topic:a\n*"]}"#.to_owned(), "publish"),
            (r#""whimbrel":{"subscribe":["Topic:*"]}"#.to_owned(), "subscribe"),
            (r#""whimbrel":{"info":{"a":"\ud800"}}"#.to_owned(), "info"),
            (format!(r#""whimbrel":{{"info":{deep}}}"#), "info"),
            (r#""jti":"a\u0000b""#.to_owned(), "jti"),
            (r#""jti":"a\nb""#.to_owned(), "jti"),
            (r#""sub":"a\r\nb""#.to_owned(), "sub"),
            (r#""sub":"a\u2028b""#.to_owned(), "sub"),
        ] {
            let refusal = claims(&format!(r#"{{"exp":5,{claim}}}"#)).unwrap_err();
            assert!(
                refusal.starts_with(&format!("its {name} ")) || refusal.starts_with(&format!("its {name}:")),
                "{claim}: {refusal}"
            );
            assert!(!refusal.contains(char::is_control), "{claim}: {refusal:?}");
        }
    }
}
