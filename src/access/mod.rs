//! Who may use the service, for what, and how much of it.
//!
//! [`host`] and [`origins`] keep foreign web pages from using it through somebody's browser, and [`cors`] tells
//! browsers which pages may. [`rates`] says how often somebody may do something, [`proxies`]
//! who that is, and [`crowded`] when a device with too many connections may come back.
//!
//! A request brings a token or a key ([`Credential`]), or nothing. [`Access`] makes a [`Grant`] of it, once, by
//! the keys of producers ([`ApiKeys`]) or by judging the token ([`verifier`]). What the request then [`Need`]s is
//! checked against the grant alone, before anything is asked of the store, so that a refusal tells nothing of
//! what is there. A listener's grant goes along with its connection.
//!
//! Without any key or secret, access is open: everybody's grant covers everything.

mod api_keys;
mod claims;
pub mod cors;
mod credentials;
pub mod crowded;
mod grant;
pub mod host;
pub mod origins;
mod patterns;
pub mod proxies;
pub mod rates;
mod signatures;
mod verification_keys;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use hyper::HeaderMap;

pub use api_keys::{ApiKeys, ApiKeysError, to_hex};
pub use credentials::{Credential, PARAMETER, Way};
pub use grant::{Denied, Grant, Holder, Identity, Need, Shown};
pub use patterns::{PatternError, Patterns};
pub use signatures::install as install_signatures;
pub use verification_keys::{PublicKeys, Secrets};
pub use verifier::{Rules, TokenError};

use crate::watch::watch;
use verifier::Trusted;

/// By what callers are judged.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// Secrets of device tokens.
    pub secrets: Option<Secrets>,
    /// Public keys of device tokens.
    pub public_keys: Option<PublicKeys>,
    /// What every token has to have.
    pub rules: Rules,
    /// The file of producers' keys.
    pub api_keys: Option<PathBuf>,
    /// What anyone may read.
    pub anonymous: Patterns,
}

impl AccessSettings {
    /// Whether any key or secret is set: then nobody does anything without.
    pub fn is_closed(&self) -> bool {
        self.secrets.is_some() || self.public_keys.is_some() || self.api_keys.is_some()
    }
}

/// Why a caller gets no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it brought is not good.
    #[error("{0}")]
    Invalid(String),
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Refusal::Invalid(error.to_string())
    }
}

/// Judges callers.
pub struct Access {
    /// Everybody's grant, while access is open.
    open: Option<Arc<Grant>>,
    /// The grant of whoever brings nothing.
    anonymous: Arc<Grant>,
    trusted: Vec<Trusted>,
    keys: Option<ApiKeys>,
}

impl Access {
    /// Reads what it needs.
    pub fn new(settings: AccessSettings) -> Result<Arc<Self>, ApiKeysError> {
        let open = (!settings.is_closed()).then(Grant::open);
        let AccessSettings { secrets, public_keys, rules, api_keys, anonymous } = settings;
        let secrets = secrets.iter().flat_map(Secrets::keys);
        let trusted = secrets.chain(public_keys.iter().flat_map(PublicKeys::keys));
        Ok(Arc::new(Access {
            open,
            anonymous: Arc::new(Grant { subscribe: anonymous, ..Grant::nothing(Holder::Anonymous) }),
            trusted: trusted.map(|key| Trusted::new(key, &rules)).collect(),
            keys: api_keys.as_deref().map(ApiKeys::open).transpose()?,
        }))
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Reads the producers' keys again whenever their file changes; runs until it is dropped.
    pub async fn keep_keys(self: Arc<Self>) {
        let Some(path) = self.keys.as_ref().map(|keys| keys.path().to_owned()) else { return };
        watch(vec![path], || match self.keys.as_ref().map(ApiKeys::reload) {
            Some(Ok(count)) => tracing::info!(count, "the keys of producers were read again"),
            Some(Err(error)) => tracing::error!(%error, "the keys of producers stay as they were"),
            None => {}
        })
        .await;
    }

    /// The grant of whoever sent a request. `with_cookies`: the page behind it may use the browser's cookies.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        query: &str,
        with_cookies: bool,
    ) -> Result<Arc<Grant>, Refusal> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let credential = Credential::of(headers, query).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let Some(credential) = credential else { return Ok(self.anonymous.clone()) };
        if credential.way == Way::Cookie && !with_cookies {
            let reason = "a page of another site may not use the cookie whimbrel_token";
            return Err(Refusal::Invalid(reason.into()));
        }
        // Only programs have keys, and they can set headers.
        let key = (credential.way == Way::Header).then(|| self.keys.as_ref()?.find(&credential.text)).flatten();
        match key {
            Some(grant) => Ok(grant),
            None => self.token(&credential.text).await,
        }
    }

    /// The grant of a device token.
    pub async fn token(&self, token: &str) -> Result<Arc<Grant>, Refusal> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let header = verifier::header(token)?;
        Ok(Arc::new(verifier::judge(token, &header, &self.trusted)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(settings: AccessSettings) -> Arc<Access> {
        Access::new(settings).unwrap()
    }

    #[tokio::test]
    async fn without_any_key_everybody_may_do_everything_and_with_one_nobody_without() {
        let open = access(AccessSettings::default());
        assert!(
            open.is_open()
                && open.authenticate(&HeaderMap::new(), "token=x", true).await.unwrap().covers(Need::Manage(None))
        );
        let secrets = Some("a secret of enough characters".parse().unwrap());
        let closed = access(AccessSettings { secrets, ..AccessSettings::default() });
        let nobody = closed.authenticate(&HeaderMap::new(), "", true).await.unwrap();
        assert!(!closed.is_open() && !nobody.covers(Need::Caller) && !nobody.covers(Need::Listen));
        assert!(closed.authenticate(&HeaderMap::new(), "token=x", true).await.is_err());
    }
}
