//! Signatures of requests, after the Standard Webhooks specification: the receiver knows by them who sent what,
//! and that it is not an old request sent again.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::header::CONTENT_TYPE;
use reqwest::{Body, RequestBuilder};
use ring::hmac;

/// Base64 as the specification has it; libraries leave the padding of secrets away at times.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// Bytes of a secret, by the specification.
const LEAST: usize = 24;
const MOST: usize = 64;

/// Secrets at a time: the one in use and one that replaces it, with room for a mistake.
const MOST_KEYS: usize = 4;

/// The secrets with which requests are signed: one, or several while one replaces another, as a receiver is
/// content with any signature that it can verify. Never shown.
#[derive(Clone)]
pub struct SigningKeys(Vec<hmac::Key>);

/// Why a text holds no secrets to sign with. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeysError {
    /// There is none.
    #[error("holds no secret")]
    None,
    /// There are too many.
    #[error("holds more than {MOST_KEYS} secrets")]
    Many,
    /// It is one of a kind that this version can't sign with.
    #[error("is a key for asymmetric signatures (v1a), and this version signs with secrets that begin with {PREFIX}")]
    Asymmetric,
    /// It is no secret of this kind.
    #[error("is not a secret such as {PREFIX} and {LEAST} to {MOST} random bytes in base64")]
    Form,
    /// It has the wrong length.
    #[error("is a secret of {0} bytes; {LEAST} to {MOST} are allowed")]
    Length(usize),
}

impl SigningKeys {
    /// The signatures of a request, as its header has them.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signature = |key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{timestamp}.").as_bytes());
            context.update(body);
            format!("v1,{}", BASE64.encode(context.sign()))
        };
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

impl FromStr for SigningKeys {
    type Err = SigningKeysError;

    /// Reads secrets with white space between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let keys = text.split_whitespace().map(key).collect::<Result<Vec<_>, _>>()?;
        match keys.len() {
            0 => Err(SigningKeysError::None),
            1..=MOST_KEYS => Ok(SigningKeys(keys)),
            _ => Err(SigningKeysError::Many),
        }
    }
}

/// A request with this body of this media type, signed now if there are secrets. `id` names what is sent.
pub fn signed(
    request: RequestBuilder,
    keys: Option<&SigningKeys>,
    id: &str,
    media_type: &'static str,
    body: impl AsRef<[u8]> + Into<Body>,
) -> RequestBuilder {
    // Of the attempt, not of what is sent: receivers refuse what was signed minutes ago.
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let request = request.header(CONTENT_TYPE, media_type);
    let request = match keys {
        Some(keys) => request
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", keys.sign(id, timestamp, body.as_ref())),
        None => request,
    };
    request.body(body)
}

fn key(text: &str) -> Result<hmac::Key, SigningKeysError> {
    if text.starts_with("whsk_") || text.starts_with("whpk_") {
        return Err(SigningKeysError::Asymmetric);
    }
    let encoded = text.strip_prefix(PREFIX).ok_or(SigningKeysError::Form)?;
    let secret = BASE64.decode(encoded).map_err(|_| SigningKeysError::Form)?;
    match secret.len() {
        LEAST..=MOST => Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret)),
        length => Err(SigningKeysError::Length(length)),
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn refusal(text: &str) -> SigningKeysError {
        text.parse::<SigningKeys>().unwrap_err()
    }

    #[test]
    fn a_signature_is_the_one_that_the_specifications_libraries_make() {
        // The example of their tests.
        let keys: SigningKeys = SECRET.parse().unwrap();
        let signature = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_is_replaced_requests_are_signed_with_both() {
        let other = format!("{PREFIX}{}", BASE64.encode([7; 40]));
        let both: SigningKeys = format!("{other}\n{SECRET}\n").parse().unwrap();
        let (new, old): (SigningKeys, SigningKeys) = (other.parse().unwrap(), SECRET.parse().unwrap());
        let expected = format!("{} {}", new.sign("a", 1, b"x"), old.sign("a", 1, b"x"));
        assert_eq!(both.sign("a", 1, b"x"), expected);
        assert_eq!(refusal(&[SECRET; 5].join(" ")), SigningKeysError::Many);
    }

    #[test]
    fn secrets_of_other_kinds_are_refused_and_never_repeated() {
        let of = |length| format!("{PREFIX}{}", BASE64.encode(vec![7; length]));
        assert_eq!(refusal(" \n"), SigningKeysError::None);
        for text in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not*base64"] {
            assert_eq!(refusal(text), SigningKeysError::Form);
        }
        for kind in ["whsk", "whpk"] {
            assert_eq!(refusal(&SECRET.replace("whsec", kind)), SigningKeysError::Asymmetric);
        }
        assert_eq!((refusal(&of(23)), refusal(&of(65))), (SigningKeysError::Length(23), SigningKeysError::Length(65)));
        assert!(of(24).parse::<SigningKeys>().is_ok() && of(64).parse::<SigningKeys>().is_ok());
        assert!(of(25).trim_end_matches('=').parse::<SigningKeys>().is_ok(), "padding may be left away");
        assert!(!format!("{:?}", SECRET.parse::<SigningKeys>()).contains("MfKQ9r8"));
    }
}
