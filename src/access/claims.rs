//! What a token says, once its signature is known to be good.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Grant, Holder, Patterns};
use crate::model::{NameError, StreamKind, StreamName};

/// Most bytes of what is shown beside a connection.
pub const INFO_BYTES: usize = 1024;

/// Longest id of a token: as long as one that can be revoked.
pub const ID_BYTES: usize = 256;

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
    /// `info` is too large, or no object.
    #[error("its info has to be a JSON object of at most {INFO_BYTES} bytes")]
    Info,
    /// `jti` is too long.
    #[error("its jti is longer than {ID_BYTES} bytes")]
    Id,
}

impl Claims {
    /// The grant that they make.
    pub fn grant(self) -> Result<Grant, ClaimsError> {
        if self.jti.as_ref().is_some_and(|id| id.len() > ID_BYTES) {
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
    if info.as_ref().is_some_and(|info| info.get().len() > INFO_BYTES || !info.get().starts_with('{')) {
        return Err(ClaimsError::Info);
    }
    Ok(Grant { device, subscribe, publish, info, issued_ms, expires_ms, ..Grant::nothing(holder) })
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
        assert_eq!(grant.info.unwrap().get(), r#"{"name":"Ann"}"#);
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
        let large = |size| format!(r#"{{"exp":5,"whimbrel":{{"info":{{"a":"{}"}}}}}}"#, "x".repeat(size - 8));
        assert!(claims(&large(INFO_BYTES)).is_ok() && claims(&large(INFO_BYTES + 1)).is_err());
        assert!(claims(&format!(r#"{{"exp":5,"jti":"{}"}}"#, "x".repeat(ID_BYTES + 1))).is_err());
    }
}
