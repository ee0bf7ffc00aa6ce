//! What a backend's answer means.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::access::claims::{ClaimsError, Rights, grant, milliseconds};
use crate::access::{Grant, Holder, Patterns, Refusal};
use crate::store::now_ms;

/// Most bytes of an answer.
pub const BYTES: usize = 64 * 1024;

/// An answer about a client.
#[derive(Debug, Clone)]
pub enum Decision {
    /// It may do this.
    Granted(Arc<Grant>),
    /// It may do nothing.
    Refused(Refusal),
}

impl Decision {
    /// The one where there is none.
    pub fn unavailable() -> Self {
        Decision::Refused(Refusal::Unavailable("the backend that decides who may come in gives no answer now".into()))
    }

    /// Whether it may be kept for who asks the same: it is one.
    pub fn is_one(&self) -> bool {
        !matches!(self, Decision::Refused(Refusal::Unavailable(_)))
    }

    /// Until when it holds, in milliseconds since 1970, if it says so.
    pub fn expires_ms(&self) -> Option<u64> {
        match self {
            Decision::Granted(grant) => grant.expires_ms,
            Decision::Refused(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct Body {
    device: Option<String>,
    #[serde(default)]
    subscribe: Patterns,
    #[serde(default)]
    publish: Patterns,
    info: Option<Box<RawValue>>,
    expires: Option<f64>,
}

/// Reads an answer; the error says why it is none.
pub fn read(status: StatusCode, body: &[u8]) -> Result<Decision, String> {
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            let reason = "the application does not know who asks; a token or key, or a login there, is needed";
            return Ok(Decision::Refused(Refusal::Invalid(reason.into())));
        }
        StatusCode::FORBIDDEN => {
            return Ok(Decision::Refused(Refusal::Forbidden("the application does not allow it".into())));
        }
        status if status.is_redirection() => {
            return Err(format!("the answer was {status}; redirects are not followed"));
        }
        status => return Err(format!("the answer was {status}")),
    }
    // In other words than serde's, which may hold what is nobody's business.
    let body: Body = serde_json::from_slice(body)
        .map_err(|_| "the answer is no JSON object of device, subscribe, publish, expires, info")?;
    let now_ms = now_ms();
    let expires_ms = body.expires.map(milliseconds);
    if expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
        return Err("the answer has expired already".into());
    }
    let rights = Rights { subscribe: body.subscribe, publish: body.publish, info: body.info };
    grant(Holder::Backend, body.device.as_deref(), rights, Some(now_ms), expires_ms)
        .map(|grant| Decision::Granted(Arc::new(grant)))
        .map_err(|error| format!("the answer can't be used: {}", without_text(&error)))
}

/// What is wrong, without what the answer says.
fn without_text(error: &ClaimsError) -> String {
    match error {
        ClaimsError::Device(_) => "its device is no name of a device".into(),
        ClaimsError::Pattern(name, _) => format!("its {name} has a pattern that matches no stream"),
        ClaimsError::Info(_) | ClaimsError::Id => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Need;

    fn granted(body: &str) -> Result<Arc<Grant>, String> {
        match read(StatusCode::OK, body.as_bytes())? {
            Decision::Granted(grant) => Ok(grant),
            Decision::Refused(refusal) => Err(format!("refused: {refusal}")),
        }
    }

    #[test]
    fn an_answer_is_used_like_the_claims_of_a_token() {
        let grant = granted(
            r#"{"device":"42","subscribe":["topic:a"],"publish":["topic:b"],"expires":9e9,"info":{"a":1},"later":1}"#,
        )
        .unwrap();
        assert!(grant.covers(Need::Subscribe(&"device:42".parse().unwrap())));
        assert!(grant.covers(Need::Publish(&"topic:b".parse().unwrap())));
        assert_eq!((grant.expires_ms, grant.info.as_ref().unwrap().as_str()), (Some(9_000_000_000_000), r#"{"a":1}"#));
        let nobody = granted("{}").unwrap();
        assert!(nobody.device.is_none() && nobody.subscribe.is_empty() && nobody.publish.is_empty());
    }

    #[test]
    fn whatever_makes_no_sense_grants_nothing_and_is_not_repeated() {
        for body in [
            "",
            "yes",
            "[]",
            "null",
            "true",
            r#"{"device":42}"#,
            r#"{"device":"no spaces"}"#,
            r#"{"device":"1","device":"42"}"#,
            r#"{"subscribe":"topic:a"}"#,
            r#"{"expires":"soon"}"#,
            r#"{"expires":5}"#,
            r#"{"info":"s3cret"}"#,
            r#"{"device":"s3cret\n"}"#,
            r#"{"subscribe":["topic:a","s3cret"]}"#,
            r#"{"publish":["topic:s3cret\u0000"]}"#,
        ] {
            let reason = granted(body).unwrap_err();
            assert!(!reason.contains("s3cret"), "{body}: {reason}");
        }
    }

    #[test]
    fn only_200_401_and_403_are_answers() {
        for (status, refused) in [(401, true), (403, true), (204, false), (302, false), (404, false), (500, false)] {
            let answer = read(StatusCode::from_u16(status).unwrap(), b"{}");
            assert_eq!(matches!(answer, Ok(Decision::Refused(_))), refused, "{status}: {answer:?}");
            assert_eq!(answer.is_err(), !refused, "{status}");
        }
    }
}
