//! Tokens and keys of tests, made without the library that judges them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use ring::{hmac, signature};
use serde_json::{Value, json};

/// The secret with which tokens of tests are signed.
pub const SECRET: &str = "a secret that only the tests know, 0123456789";

/// Keys of tests, private and public.
pub const RS256: (&str, &str) = (include_str!("../../keys/rs256.pem"), include_str!("../../keys/rs256.public.pem"));
pub const ES256: (&str, &str) = (include_str!("../../keys/es256.pem"), include_str!("../../keys/es256.public.pem"));
pub const ES384: (&str, &str) = (include_str!("../../keys/es384.pem"), include_str!("../../keys/es384.public.pem"));
pub const ED25519: (&str, &str) =
    (include_str!("../../keys/ed25519.pem"), include_str!("../../keys/ed25519.public.pem"));

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Text as it stands in a token.
pub fn encoded(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token with this header and these claims, signed by whatever `sign` does.
pub fn token_by(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = encoded(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// Signs with a secret.
pub fn hs256(secret: &str) -> impl FnOnce(&[u8]) -> Vec<u8> {
    move |message| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message).as_ref().to_vec()
}

/// Signs with one of the private keys above, by `alg`.
pub fn by_key(alg: &str, pem: &str) -> impl FnOnce(&[u8]) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let (der, alg) = (STANDARD.decode(body).unwrap(), alg.to_owned());
    move |message| {
        let random = SystemRandom::new();
        let ecdsa = |algorithm: &'static signature::EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, &der, &random).unwrap();
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        };
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(encoding, &random, message, &mut signature).unwrap();
            signature
        };
        match alg.as_str() {
            "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "EdDSA" => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap().sign(message).as_ref().to_vec(),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS512" => rsa(&RSA_PSS_SHA512),
            _ => panic!("no key for {alg}"),
        }
    }
}

/// The public half of one of the private keys above, as key sets have it.
pub fn jwk(alg: &str, pem: &str, kid: &str) -> Value {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let (der, random) = (STANDARD.decode(body).unwrap(), SystemRandom::new());
    let point = |algorithm| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &der, &random).unwrap();
        // Uncompressed: a byte that says so, and both coordinates.
        let point = pair.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(point.len() / 2);
        (encoded(x), encoded(y))
    };
    let mut jwk = match alg {
        "ES256" => {
            let (x, y) = point(&ECDSA_P256_SHA256_FIXED_SIGNING);
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
        }
        "ES384" => {
            let (x, y) = point(&ECDSA_P384_SHA384_FIXED_SIGNING);
            json!({"kty": "EC", "crv": "P-384", "x": x, "y": y})
        }
        "EdDSA" => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
            json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key())})
        }
        _ => {
            let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
            let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
            json!({"kty": "RSA", "n": encoded(public.n), "e": encoded(public.e)})
        }
    };
    (jwk["kid"], jwk["alg"], jwk["use"]) = (json!(kid), json!(alg), json!("sig"));
    jwk
}

/// A token of these claims by the tests' secret. `exp` is in an hour unless given.
pub fn token(mut claims: Value) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = json!(now() + 3600);
    }
    token_by(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), hs256(SECRET))
}

/// A token of a device that may follow and publish to these streams.
pub fn device(device: &str, subscribe: &[&str], publish: &[&str]) -> String {
    token(json!({"sub": device, "iat": now(), "whimbrel": {"subscribe": subscribe, "publish": publish}}))
}

/// The header that brings a token or key.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
