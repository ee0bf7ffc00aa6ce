//! Settings that close access: what they need of each other, and mistakes that would leave it open.

use super::settle::from_file;
use super::{SettingError, Settings, spelling, value};
use crate::access::{AccessSettings, ApiKeys, BackendSettings, Rules};

/// What unknown variables must not have in their names: a misspelt one could leave access open.
const GUARDING: [&str; 7] = ["TOKEN", "SECRET", "KEY", "ORIGIN", "AUTH", "JWT", "JWKS"];

/// Variables of the commands that are clients. A node may run where they are set.
const OF_CLIENTS: [&str; 5] =
    ["WHIMBREL_TOKEN", "WHIMBREL_URL", "WHIMBREL_CA_FILE", "WHIMBREL_POSTGRES_DSN", "WHIMBREL_POSTGRES_DSN_FILE"];

/// Each of these closes access, so an empty one is no way of leaving it out: the deployment meant to fill it.
const CLOSING: [&str; 8] = [
    "jwt_secret",
    "jwt_secret_file",
    "jwt_public_key",
    "jwt_public_key_file",
    "jwks_url",
    "authorize_url",
    "authorize_url_file",
    "api_keys_file",
];

/// Whether a variable is one for clients.
pub fn is_of_clients(variable: &str) -> bool {
    OF_CLIENTS.contains(&variable)
}

/// Refuses an unknown variable that looks as if it were meant to guard access. `own` is its name without
/// `WHIMBREL_`.
pub fn refuse_misspelt(variable: &str, own: &str) -> Result<(), SettingError> {
    let upper = variable.to_uppercase();
    match GUARDING.iter().find(|word| upper.contains(**word)) {
        Some(word) => {
            let reason = format!(
                "{}; its name has {word} in it, so it may be meant to protect access, and is not ignored",
                spelling::no_such_setting(own)
            );
            Err(SettingError::unknown(variable, reason))
        }
        None => Ok(()),
    }
}

/// Refuses an empty variable where that would leave access open.
pub fn refuse_empty(field: &str) -> Result<(), SettingError> {
    match CLOSING.contains(&field) {
        true => Err(SettingError::new(field, "is set but empty; give a value, or unset it".into())),
        false => Ok(()),
    }
}

impl Settings {
    /// By what callers are judged.
    pub fn access(&self) -> AccessSettings {
        AccessSettings {
            secrets: self.jwt_secret.clone(),
            public_keys: self.jwt_public_key.clone(),
            key_sets: self.jwks_url.clone(),
            rules: Rules { issuers: self.jwt_issuer.clone(), audiences: self.jwt_audience.clone() },
            backend: self
                .authorize_url
                .clone()
                .map(|target| BackendSettings { target, keys: self.webhook_secret.clone() }),
            api_keys: self.api_keys_file.clone(),
            anonymous: self.anonymous.clone(),
        }
    }

    pub(super) fn settle_access(&mut self) -> Result<(), SettingError> {
        from_file("jwt_secret", &self.jwt_secret_file, &mut self.jwt_secret, value::from_str)?;
        from_file("jwt_public_key", &self.jwt_public_key_file, &mut self.jwt_public_key, value::from_str)?;
        if let Some(path) = &self.api_keys_file {
            ApiKeys::open(path).map_err(|error| SettingError::new("api_keys_file", error.to_string()))?;
        }
        let access = self.access();
        let refuse = |field: &str, reason: &str| Err(SettingError::new(field, reason.into()));
        for (field, given) in [("jwt_audience", &self.jwt_audience), ("jwt_issuer", &self.jwt_issuer)] {
            if !given.is_empty() && !access.takes_tokens() {
                return refuse(
                    field,
                    "no token is accepted without a key: set WHIMBREL_JWT_SECRET, WHIMBREL_JWT_PUBLIC_KEY or \
                     WHIMBREL_JWKS_URL",
                );
            }
        }
        if !self.anonymous.is_empty() && !access.is_closed() {
            return refuse(
                "anonymous",
                "access is open to everyone for everything as long as no key or secret is set, \
                                        such as WHIMBREL_JWT_SECRET or WHIMBREL_API_KEYS_FILE",
            );
        }
        Ok(())
    }
}
