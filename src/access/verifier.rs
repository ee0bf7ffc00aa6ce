//! Judging device tokens: signature, times, issuer and audience, and what they grant.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};

use super::claims::{Claims, ClaimsError};
use super::verification_keys::VerificationKey;
use super::{Grant, signatures};

/// Longest token. Heads of requests may be longer, so that a longer token is refused by this name.
pub const TOKEN_BYTES: usize = 8192;

/// By how much the clocks of whoever issues tokens and of a node may differ, in seconds.
pub const LEEWAY_SECONDS: u64 = 5;

/// What every token has to have.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// One of these as its `iss`, if there are any.
    pub issuers: Vec<String>,
    /// One of these among its `aud`, if there are any.
    pub audiences: Vec<String>,
}

/// Why a token is not accepted. Never says anything of the token beyond that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is too long.
    #[error("the token is longer than {TOKEN_BYTES} bytes")]
    Large,
    /// It is no token.
    #[error("this is no known API key, and no JWT with an alg that is accepted here")]
    Malformed,
    /// It asks to be judged by rules that this version does not know.
    #[error("the token has crit, and this version knows no such extension")]
    Critical,
    /// No key is for its algorithm, or has its name.
    #[error("no key here is for a token of this alg and kid")]
    NoKey,
    /// It was signed by somebody else.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    Early,
    /// It lacks a claim, or one is of the wrong kind.
    #[error("the token's {0} is missing or malformed")]
    Missing(String),
    /// It is of another issuer.
    #[error("the token is of another issuer (iss)")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is for another audience (aud)")]
    Audience,
    /// Its claims are of the wrong kind.
    #[error("the token's claims can't be read: exp is required, and no claim may stand twice")]
    Unreadable,
    /// Its claims make no sense.
    #[error("the token can't be used: {0}")]
    Claims(#[from] ClaimsError),
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked,
}

impl TokenError {
    /// Whether it may be no token for this service at all, but something that the application knows.
    pub fn is_foreign(&self) -> bool {
        matches!(self, TokenError::Large | TokenError::Malformed | TokenError::NoKey | TokenError::Signature)
    }
}

/// A key, with what is asked of the tokens that it verifies.
#[derive(Debug, Clone)]
pub struct Trusted {
    key: VerificationKey,
    validation: Validation,
}

impl Trusted {
    /// Trusts a key.
    pub fn new(key: VerificationKey, rules: &Rules) -> Self {
        let mut validation = Validation {
            algorithms: key.algorithms.clone(),
            leeway: LEEWAY_SECONDS,
            validate_nbf: true,
            validate_aud: !rules.audiences.is_empty(),
            ..Validation::default()
        };
        let mut required = vec!["exp"];
        if !rules.issuers.is_empty() {
            validation.set_issuer(&rules.issuers);
            required.push("iss");
        }
        if validation.validate_aud {
            validation.set_audience(&rules.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Trusted { key, validation }
    }

    /// Whether a token with this header may have been signed for this key.
    pub fn fits(&self, header: &Header) -> bool {
        let is_named = match (&self.key.id, &header.kid) {
            (Some(id), Some(kid)) => **id == **kid,
            _ => true,
        };
        is_named && self.key.algorithms.contains(&header.alg)
    }

    /// Whether it is the key of this name.
    pub fn is_named(&self, kid: &str) -> bool {
        self.key.id.as_deref() == Some(kid)
    }

    /// Judges a token; [`TokenError::Signature`] when another key may still verify it.
    fn judge(&self, token: &str) -> Result<Claims, TokenError> {
        decode::<Claims>(token, &self.key.key, &self.validation).map(|data| data.claims).map_err(|error| {
            match error.into_kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::Early,
                ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                    TokenError::Missing(claim)
                }
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                ErrorKind::InvalidAudience => TokenError::Audience,
                // Only claims are read as JSON after the header was.
                ErrorKind::Json(_) => TokenError::Unreadable,
                _ => TokenError::Malformed,
            }
        })
    }
}

/// Reads a token's header. Keys and addresses that it brings along mean nothing here.
pub fn header(token: &str) -> Result<Header, TokenError> {
    if token.len() > TOKEN_BYTES {
        return Err(TokenError::Large);
    }
    let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
    if header.crit.is_some() { Err(TokenError::Critical) } else { Ok(header) }
}

/// Judges a token by those of these keys that are for its algorithm.
pub fn judge<'a>(
    token: &str,
    header: &Header,
    keys: impl IntoIterator<Item = &'a Trusted>,
) -> Result<Grant, TokenError> {
    signatures::install();
    let mut outcome = TokenError::NoKey;
    for trusted in keys.into_iter().filter(|key| key.fits(header)) {
        match trusted.judge(token) {
            Err(TokenError::Signature) => outcome = TokenError::Signature,
            judged => return judged.and_then(|claims| claims.grant().map_err(TokenError::from)),
        }
    }
    Err(outcome)
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
