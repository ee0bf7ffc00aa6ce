//! What is at the place of a key set, and for how long it can be believed.

use std::time::Duration;

use hyper::{HeaderMap, header};
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::access::verification_keys::{VerificationKey, of_set};

/// Most keys of a set: each may have to be tried.
const MOST_KEYS: usize = 100;

/// For how long a set is believed: if nothing says so, at least, and at most.
const LIFETIME: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(86_400);

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The keys of a set that tokens can be verified by. Others are passed over: sets hold keys for other uses too, and
/// of kinds yet to come.
pub fn keys(body: &[u8]) -> Result<Vec<VerificationKey>, String> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|_| "it is no key set: {\"keys\": […]}")?;
    let count = body.keys.len();
    if count > MOST_KEYS {
        return Err(format!("it has {count} keys; {MOST_KEYS} are allowed"));
    }
    let read = |raw: &&RawValue| of_set(&serde_json::from_str::<Jwk>(raw.get()).ok()?);
    let keys: Vec<VerificationKey> = body.keys.iter().filter_map(read).collect();
    match keys.is_empty() {
        true => Err(format!("of its {count} keys none is RSA of at least 2048 bits, EC (P-256, P-384) or Ed25519")),
        false => Ok(keys),
    }
}

/// For how long an answer with these headers is believed.
pub fn lifetime(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(header::CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let mut lifetime = LIFETIME;
    for directive in values.flat_map(|value| value.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        if matches!(directive.as_str(), "no-store" | "no-cache") {
            return SHORTEST;
        }
        let seconds = directive.strip_prefix("max-age=").and_then(|age| age.trim_matches('"').parse().ok());
        lifetime = seconds.map_or(lifetime, Duration::from_secs);
    }
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    lifetime.saturating_sub(age.map_or(Duration::ZERO, Duration::from_secs)).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}"#;

    fn count(body: &str) -> Result<usize, String> {
        keys(body.as_bytes()).map(|keys| keys.len())
    }

    #[test]
    fn keys_for_other_uses_are_passed_over() {
        let others =
            r#"{"kty":"oct","k":"c2VjcmV0IHNlY3JldCBzZWNyZXQ"},{"kty":"later"},7,{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
        assert_eq!(count(&format!(r#"{{"keys":[{others},{ED},{ED}],"more":1}}"#)), Ok(2));
        assert!(count(&format!(r#"{{"keys":[{others}]}}"#)).unwrap_err().contains("of its 4 keys none"));
    }

    #[test]
    fn what_is_no_key_set_is_refused_and_not_repeated() {
        for body in ["", "<html>", "[]", "{}", r#"{"keys":"s3cret"}"#, r#"{"keys":[],"keys":[]}"#] {
            let refusal = count(body).unwrap_err();
            assert!(!refusal.contains("s3cret") && refusal.contains("key"), "{body}: {refusal}");
        }
        let many = vec![ED; MOST_KEYS + 1].join(",");
        assert!(count(&format!(r#"{{"keys":[{many}]}}"#)).unwrap_err().contains("101 keys"));
    }

    #[test]
    fn a_set_is_kept_for_as_long_as_its_cache_control_says_within_reason() {
        let seconds = |values: &[(header::HeaderName, &str)]| {
            let headers = values.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            lifetime(&headers).as_secs()
        };
        let control = |value| seconds(&[(header::CACHE_CONTROL, value)]);
        assert_eq!(seconds(&[]), 300);
        assert_eq!((control("public, Max-Age=3600"), control("max-age=\"900\"")), (3600, 900));
        assert_eq!((control("max-age=1"), control("max-age=99999999"), control("no-store")), (60, 86_400, 60));
        assert_eq!((control("max-age=-5"), control("max-age=soon"), control("private")), (300, 300, 300));
        assert_eq!(seconds(&[(header::CACHE_CONTROL, "max-age=3600"), (header::AGE, "600")]), 3000);
    }
}
