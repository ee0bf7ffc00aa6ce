//! The keys with which tokens are verified, as settings and key sets give them.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::Algorithm::{self, *};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};

/// Shorter secrets can be guessed from a token, by whoever has one and a fast machine.
const LEAST_SECRET: usize = 16;

/// Keys of one setting at a time: those in use and those that replace them, with room for mistakes.
const MOST_KEYS: usize = 16;

/// Bytes of the smallest RSA key (2048 bits) in its encoding.
const LEAST_RSA: usize = 256;

const RSA: &[Algorithm] = &[RS256, RS384, RS512, PS256, PS384, PS512];

/// A key, and the only algorithms that tokens verified by it may name.
#[derive(Clone)]
pub struct VerificationKey {
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
    /// Its name in a key set: tokens that name another key (`kid`) were not signed for it.
    pub(super) id: Option<Box<str>>,
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ***", self.algorithms)
    }
}

/// Secrets shared with whoever issues tokens (HS256). Never shown.
#[derive(Clone)]
pub struct Secrets(Vec<Box<[u8]>>);

/// Why a text holds no secrets. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// There is none.
    #[error("holds no secret")]
    None,
    /// One can be guessed.
    #[error("holds a secret that is too short: at least {LEAST_SECRET} characters, better 32 random ones or more")]
    Short,
    /// There are too many.
    #[error("holds more than {MOST_KEYS} secrets")]
    Many,
}

impl Secrets {
    /// The one to sign with: the first.
    pub fn newest(&self) -> &[u8] {
        &self.0[0]
    }

    /// Each as a key.
    pub fn keys(&self) -> impl Iterator<Item = VerificationKey> {
        let key = |secret| VerificationKey { key: DecodingKey::from_secret(secret), algorithms: vec![HS256], id: None };
        self.0.iter().map(move |secret| key(secret))
    }
}

impl FromStr for Secrets {
    type Err = SecretsError;

    /// Reads secrets with a blank line between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let secrets: Vec<Box<[u8]>> = paragraphs(text).map(|secret| secret.trim().as_bytes().into()).collect();
        match secrets.len() {
            0 => Err(SecretsError::None),
            1..=MOST_KEYS if secrets.iter().all(|secret| secret.len() >= LEAST_SECRET) => Ok(Secrets(secrets)),
            1..=MOST_KEYS => Err(SecretsError::Short),
            _ => Err(SecretsError::Many),
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What stands between blank lines.
fn paragraphs(text: &str) -> impl Iterator<Item = String> {
    let mut paragraphs = vec![String::new()];
    for line in text.lines() {
        match line.trim().is_empty() {
            true => paragraphs.push(String::new()),
            false => {
                let last = paragraphs.last_mut().expect("there is one from the start");
                last.push_str(line);
                last.push('\n');
            }
        }
    }
    paragraphs.into_iter().filter(|paragraph| !paragraph.is_empty())
}

/// Public keys of whoever issues tokens.
#[derive(Debug, Clone)]
pub struct PublicKeys(Vec<VerificationKey>);

/// Why a text holds no public keys. It does not repeat the text, which may be a private one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeysError {
    /// There is none.
    #[error("holds no key in PEM (-----BEGIN PUBLIC KEY-----)")]
    None,
    /// It is one to sign with.
    #[error("holds a private key; the node needs the public one alone (openssl pkey -pubout)")]
    Private,
    /// It is of a kind that has no algorithm here.
    #[error("holds a key that is neither RSA of at least 2048 bits, nor EC (P-256, P-384), nor Ed25519")]
    Kind,
    /// It is a certificate.
    #[error("holds a certificate; give the key in it (openssl x509 -pubkey -noout)")]
    Certificate,
    /// There are too many.
    #[error("holds more than {MOST_KEYS} keys")]
    Many,
}

impl PublicKeys {
    /// Each of them.
    pub fn keys(&self) -> impl Iterator<Item = VerificationKey> {
        self.0.iter().cloned()
    }
}

impl FromStr for PublicKeys {
    type Err = PublicKeysError;

    /// Reads keys in PEM, one after another.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // In the environment line ends are often written out.
        let text = text.replace("\\n", "\n");
        let mut keys = Vec::new();
        let mut rest = text.as_str();
        while let Some((block, following)) = first_pem(rest) {
            keys.push(public_key(block)?);
            rest = following;
        }
        match (keys.len(), rest.trim().is_empty()) {
            (0, _) | (_, false) => Err(PublicKeysError::None),
            (1..=MOST_KEYS, true) => Ok(PublicKeys(keys)),
            (_, true) => Err(PublicKeysError::Many),
        }
    }
}

/// The first PEM block of a text, and what follows it.
fn first_pem(text: &str) -> Option<(&str, &str)> {
    const END: &str = "-----END ";
    let start = text.find("-----BEGIN ")?;
    let end = start + text[start..].find(END)?;
    let close = end + END.len() + text[end + END.len()..].find("-----")? + "-----".len();
    if text[..start].trim().is_empty() { text[start..].split_at_checked(close - start) } else { None }
}

fn public_key(pem: &str) -> Result<VerificationKey, PublicKeysError> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(PublicKeysError::Private);
    }
    if pem.contains("CERTIFICATE-----") {
        return Err(PublicKeysError::Certificate);
    }
    let readers = [DecodingKey::from_ed_pem, DecodingKey::from_ec_pem, DecodingKey::from_rsa_pem];
    let key = readers.iter().find_map(|read| read(pem.as_bytes()).ok()).ok_or(PublicKeysError::Kind)?;
    let algorithms = algorithms_of(&key).ok_or(PublicKeysError::Kind)?;
    Ok(VerificationKey { key, algorithms: algorithms.to_vec(), id: None })
}

/// The algorithms that a public key is for, by its kind and size.
fn algorithms_of(key: &DecodingKey) -> Option<&'static [Algorithm]> {
    use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
    match (key.family(), key.kind()) {
        // Points of the curves, uncompressed.
        (AlgorithmFamily::Ec, SecretOrDer(point)) if point.len() == 65 => Some(&[ES256]),
        (AlgorithmFamily::Ec, SecretOrDer(point)) if point.len() == 97 => Some(&[ES384]),
        (AlgorithmFamily::Ed, SecretOrDer(point)) if point.len() == 32 => Some(&[EdDSA]),
        (AlgorithmFamily::Rsa, SecretOrDer(der)) if der.len() >= LEAST_RSA => Some(RSA),
        (AlgorithmFamily::Rsa, RsaModulusExponent { n, .. }) if n.len() >= LEAST_RSA => Some(RSA),
        _ => None,
    }
}

/// A key of a key set, if tokens can be verified by it: an encryption key can't, nor may a shared secret stand in a
/// set that anybody can read.
pub fn of_set(jwk: &Jwk) -> Option<VerificationKey> {
    let common = &jwk.common;
    let verifies = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let is_supported = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => true,
        AlgorithmParameters::EllipticCurve(key) => matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384),
        AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
        // Shared secrets, and kinds yet to come.
        _ => false,
    };
    if !verifies || !is_supported {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let mut algorithms = algorithms_of(&key)?.to_vec();
    if let Some(only) = common.key_algorithm {
        algorithms.retain(|algorithm| named(*algorithm) == Some(only));
    }
    let id = common.key_id.as_deref().map(Box::from);
    (!algorithms.is_empty()).then_some(VerificationKey { key, algorithms, id })
}

/// An algorithm as key sets name it.
fn named(algorithm: Algorithm) -> Option<KeyAlgorithm> {
    format!("{algorithm:?}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = include_str!("../../tests/keys/es256.public.pem");
    const RSA_KEY: &str = include_str!("../../tests/keys/rs256.public.pem");
    const ED: &str = include_str!("../../tests/keys/ed25519.public.pem");

    #[test]
    fn several_secrets_stand_between_blank_lines_and_none_is_shown() {
        let both: Secrets = "first secret, long enough\n\r\n  second secret, long enough\n".parse().unwrap();
        assert_eq!(both.newest(), b"first secret, long enough");
        assert_eq!(both.keys().count(), 2);
        assert_eq!(format!("{both:?}"), "***");
        assert_eq!(" \n\n".parse::<Secrets>().unwrap_err(), SecretsError::None);
        assert_eq!("long enough, this one\n\nshort".parse::<Secrets>().unwrap_err(), SecretsError::Short);
    }

    #[test]
    fn a_public_key_is_for_the_algorithms_of_its_kind_only() {
        let of = |pem: &str| {
            let keys = pem.parse::<PublicKeys>().unwrap();
            keys.keys().map(|key| key.algorithms).collect::<Vec<_>>()
        };
        assert_eq!(of(EC), [vec![ES256]]);
        assert_eq!(of(ED), [vec![EdDSA]]);
        assert_eq!(of(RSA_KEY), [RSA.to_vec()]);
        assert_eq!(of(&format!("{EC}\n\n{ED}{RSA_KEY}")).len(), 3);
        assert_eq!(of(&EC.replace('\n', "\\n")), [vec![ES256]], "as environments have it");
    }

    #[test]
    fn what_is_no_public_key_is_refused_and_not_repeated() {
        let refusal = |text: &str| text.parse::<PublicKeys>().unwrap_err();
        assert_eq!(refusal(""), PublicKeysError::None);
        assert_eq!(refusal("a secret"), PublicKeysError::None);
        assert_eq!(refusal(&format!("{EC} and more")), PublicKeysError::None);
        assert_eq!(refusal(include_str!("../../tests/keys/es256.pem")), PublicKeysError::Private);
        assert_eq!(refusal("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), PublicKeysError::Kind);
        assert_eq!(refusal(&EC.repeat(17)), PublicKeysError::Many);
    }

    #[test]
    fn a_key_set_gives_no_secrets_and_no_keys_to_encrypt_with() {
        let key = |text: &str| of_set(&serde_json::from_str(text).unwrap());
        assert!(key(r#"{"kty":"oct","k":"c2VjcmV0IHNlY3JldCBzZWNyZXQ"}"#).is_none());
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let ed = |rest: &str| key(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{rest}}}"#));
        assert_eq!(ed(r#","kid":"a""#).unwrap().id.as_deref(), Some("a"));
        assert!(ed(r#","key_ops":["sign"]"#).is_none());
        assert!(ed(r#","use":"enc""#).is_none() && ed(r#","alg":"ES256""#).is_none());
        assert_eq!(ed(r#","use":"sig","alg":"EdDSA""#).unwrap().algorithms, [EdDSA]);
    }
}
