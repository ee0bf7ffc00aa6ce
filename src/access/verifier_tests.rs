//! Tokens that should be accepted, and those by which somebody tries to get in.

use serde_json::json;

use super::*;
use crate::access::verification_keys::{PublicKeys, Secrets};

#[path = "../../tests/suite/support/token.rs"]
#[allow(dead_code, reason = "the suite needs the rest of it")]
mod token;

use token::{ED25519, ES256, ES384, RS256, SECRET, by_key, encoded, hs256, now, token_by};

/// Every kind of key at once, as while one is replaced by another.
fn keys(rules: &Rules) -> Vec<Trusted> {
    let secrets: Secrets = format!("an older secret of the same kind\n\n{SECRET}").parse().unwrap();
    let pems = [RS256.1, ES256.1, ES384.1, ED25519.1].join("\n");
    let public: PublicKeys = pems.parse().unwrap();
    secrets.keys().chain(public.keys()).map(|key| Trusted::new(key, rules)).collect()
}

fn judged_by(rules: &Rules, token: &str) -> Result<Grant, TokenError> {
    judge(token, &header(token)?, &keys(rules))
}

fn judged(token: &str) -> Result<Grant, TokenError> {
    judged_by(&Rules::default(), token)
}

fn claims() -> String {
    json!({"sub": "42", "exp": now() + 60}).to_string()
}

fn head(alg: &str) -> String {
    format!(r#"{{"alg":"{alg}"}}"#)
}

fn refusal(token: &str) -> TokenError {
    judged(token).unwrap_err()
}

#[test]
fn tokens_of_every_kind_of_key_are_accepted_while_all_are_set() {
    let by = |alg: &str, key: (&str, &str)| token_by(&head(alg), &claims(), by_key(alg, key.0));
    let tokens = [
        token_by(&head("HS256"), &claims(), hs256(SECRET)),
        token_by(&head("HS256"), &claims(), hs256("an older secret of the same kind")),
        by("RS256", RS256),
        by("PS512", RS256),
        by("ES256", ES256),
        by("ES384", ES384),
        by("EdDSA", ED25519),
    ];
    for token in tokens {
        assert_eq!(judged(&token).unwrap().device, Some("device:42".parse().unwrap()), "{token}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // Who knows the public key, as everybody may, signs with it as if it were the secret.
    for public in [RS256.1, ES256.1, ED25519.1, RS256.1.trim()] {
        assert_eq!(refusal(&token_by(&head("HS256"), &claims(), hs256(public))), TokenError::Signature);
    }
    // And without any secret there is no key at all for such a token.
    let only: PublicKeys = RS256.1.parse().unwrap();
    let only: Vec<_> = only.keys().map(|key| Trusted::new(key, &Rules::default())).collect();
    let forged = token_by(&head("HS256"), &claims(), hs256(RS256.1));
    assert_eq!(judge(&forged, &header(&forged).unwrap(), &only).unwrap_err(), TokenError::NoKey);
}

#[test]
fn a_signature_of_one_algorithm_is_none_of_another() {
    for (named, alg, key) in [("PS256", "RS256", RS256), ("RS512", "RS256", RS256), ("ES384", "ES256", ES256)] {
        assert_eq!(refusal(&token_by(&head(named), &claims(), by_key(alg, key.0))), TokenError::Signature);
    }
}

#[test]
fn none_is_no_algorithm_however_it_is_written() {
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "HS384", "HS512"] {
        for signature in ["", "x"] {
            let token = format!("{}.{}.{signature}", encoded(head(alg)), encoded(claims()));
            assert!(judged(&token).is_err(), "{alg} {signature}");
        }
    }
    let without = token_by("{}", &claims(), hs256(SECRET));
    assert_eq!(refusal(&without), TokenError::Malformed);
}

#[test]
fn a_token_brings_no_key_of_its_own() {
    let own = "the attacker's own secret, long enough";
    let jwk = format!(r#""jwk":{{"kty":"oct","k":"{}"}}"#, encoded(own));
    for rest in [
        r#""jku":"http://127.0.0.1:1/keys""#,
        r#""x5u":"http://127.0.0.1:1/certificate""#,
        r#""x5c":["AAAA"]"#,
        r#""kid":"../../../../dev/null""#,
        r#""kid":"' OR 1=1 --""#,
        r#""kid":"http://127.0.0.1:1/keys""#,
        &jwk,
    ] {
        let header = format!(r#"{{"alg":"HS256",{rest}}}"#);
        assert_eq!(refusal(&token_by(&header, &claims(), hs256(own))), TokenError::Signature, "{rest}");
        // Beside a good signature they are ignored.
        assert!(judged(&token_by(&header, &claims(), hs256(SECRET))).is_ok(), "{rest}");
    }
    // An empty key is what a naive reader makes of /dev/null.
    assert_eq!(refusal(&token_by(&head("HS256"), &claims(), hs256(""))), TokenError::Signature);
}

#[test]
fn an_extension_that_must_be_understood_is_refused() {
    let header = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
    assert_eq!(refusal(&token_by(header, &claims(), hs256(SECRET))), TokenError::Critical);
}

#[test]
fn what_stands_twice_is_refused() {
    let twice = format!(r#"{{"sub":"41","sub":"42","exp":{}}}"#, now() + 60);
    assert_eq!(refusal(&token_by(&head("HS256"), &twice, hs256(SECRET))), TokenError::Unreadable);
    let header = r#"{"alg":"none","alg":"HS256"}"#;
    assert_eq!(refusal(&token_by(header, &claims(), hs256(SECRET))), TokenError::Malformed);
}

#[test]
fn a_signed_text_that_was_changed_is_refused() {
    let token = token_by(&head("HS256"), &claims(), hs256(SECRET));
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = encoded(json!({"sub": "43", "exp": now() + 60}).to_string());
    assert_eq!(refusal(&format!("{header}.{other}.{signature}")), TokenError::Signature);
    assert_eq!(refusal(&format!("{header}.{claims}.")), TokenError::Signature);
    for text in [format!("{header}.{claims}"), format!("{token}.{claims}"), format!(".{claims}."), String::new()] {
        assert_eq!(refusal(&text), TokenError::Malformed, "{text}");
    }
    // Padding, line ends and the other alphabet of base64 would be second spellings of one token.
    for text in [format!("{token}="), format!("{token}\n"), format!(" {token}")] {
        assert!(judged(&text).is_err(), "{text:?}");
    }
}

#[test]
fn a_token_that_is_too_long_is_not_even_read() {
    let long = json!({"sub": "42", "exp": now() + 60, "x": "x".repeat(TOKEN_BYTES)}).to_string();
    assert_eq!(refusal(&token_by(&head("HS256"), &long, hs256(SECRET))), TokenError::Large);
    let deep = format!(r#"{{"exp":{},"x":{}{}}}"#, now() + 60, "[".repeat(2000), "]".repeat(2000));
    // Claims that mean nothing here are passed over, however deep they are.
    assert!(judged(&token_by(&head("HS256"), &deep, hs256(SECRET))).is_ok());
}

#[test]
fn times_are_kept_within_five_seconds() {
    let at = |claims: serde_json::Value| judged(&token_by(&head("HS256"), &claims.to_string(), hs256(SECRET)));
    let now = now();
    assert!(at(json!({"exp": now + 1})).is_ok() && at(json!({"exp": now - 3})).is_ok());
    assert_eq!(at(json!({"exp": now - 7})).unwrap_err(), TokenError::Expired);
    assert_eq!(at(json!({"exp": 0})).unwrap_err(), TokenError::Expired);
    assert!(at(json!({"exp": now + 60, "nbf": now + 3})).is_ok());
    assert_eq!(at(json!({"exp": now + 60, "nbf": now + 9})).unwrap_err(), TokenError::Early);
    assert!(at(json!({"exp": u64::MAX})).is_ok() && at(json!({"exp": 1e300, "nbf": 0})).is_err());
    for claims in [
        json!({}),
        json!({"exp": null}),
        json!({"exp": (now + 60).to_string()}),
        json!({"exp": -1}),
        json!({"exp": [now + 60]}),
        json!({"exp": true}),
        json!({"exp": now + 60, "nbf": "soon"}),
        json!({"exp": now + 60, "nbf": -1}),
    ] {
        assert!(at(claims.clone()).is_err(), "{claims}");
    }
}

#[test]
fn issuer_and_audience_have_to_be_the_ones_that_are_set() {
    let rules =
        Rules { issuers: vec!["https://login.example".into()], audiences: vec!["push".into(), "events".into()] };
    let with = |rest: serde_json::Value| {
        let mut claims = json!({"sub": "42", "exp": now() + 60});
        claims.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        judged_by(&rules, &token_by(&head("HS256"), &claims.to_string(), hs256(SECRET)))
    };
    let issuer = "https://login.example";
    assert!(with(json!({"iss": issuer, "aud": "push"})).is_ok());
    assert!(with(json!({"iss": issuer, "aud": ["other", "events"]})).is_ok());
    assert_eq!(with(json!({"iss": "https://login.example.evil", "aud": "push"})).unwrap_err(), TokenError::Issuer);
    assert_eq!(with(json!({"iss": issuer, "aud": "pus"})).unwrap_err(), TokenError::Audience);
    assert_eq!(with(json!({"iss": issuer, "aud": []})).unwrap_err(), TokenError::Audience);
    assert_eq!(with(json!({"aud": "push"})).unwrap_err(), TokenError::Missing("iss".into()));
    assert_eq!(with(json!({"iss": issuer})).unwrap_err(), TokenError::Missing("aud".into()));
    assert!(with(json!({"iss": [issuer, "https://evil.example"], "aud": "push"})).is_err(), "of one issuer");
    // Where none is set, what a token says of it does not matter.
    assert!(
        judged(&token_by(&head("HS256"), &json!({"exp": now() + 60, "aud": "x"}).to_string(), hs256(SECRET))).is_ok()
    );
}

#[test]
fn no_refusal_repeats_the_token() {
    let token = token_by(&head("HS256"), &claims(), hs256("somebody else's secret, long enough"));
    let parts: Vec<_> = token.split('.').collect();
    for text in [token.as_str(), &token[1..], parts[0]] {
        let said = judged(text).unwrap_err().to_string();
        assert!(parts.iter().all(|part| !said.contains(part)), "{said}");
    }
}
