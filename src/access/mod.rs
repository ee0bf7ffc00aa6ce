//! Who may use the service, for what, and how much of it.
//!
//! [`host`] and [`origins`] keep foreign web pages from using it through a user's browser, and [`cors`] names
//! the pages that may. [`throttle`] says how much one client may take, by [`rates`], [`proxies`]
//! who that is, and [`crowded`] when a device with too many connections may come back.
//!
//! A request brings a token or a key ([`Credential`]), or nothing. [`Access`] makes a [`Grant`] of it, once, by
//! the keys of producers ([`ApiKeys`]) or by judging the token ([`verifier`]) with keys from settings or [`key_sets`]; about
//! listeners without a token, a [`backend`] of the application may be asked. What the request then [`Need`]s is
//! checked against the grant alone, before anything is asked of the store, so that a refusal gives away nothing of
//! what is there. A listener's grant goes along with its connection.
//!
//! Without any key or secret, access is open: every grant covers everything.

mod api_keys;
mod backend;
mod claims;
pub mod cors;
mod credentials;
pub mod crowded;
mod grant;
pub mod host;
mod key_sets;
pub mod origins;
mod patterns;
pub mod proxies;
pub mod rates;
mod revocations;
mod signatures;
pub mod throttle;
mod verification_keys;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::HeaderMap;
use jsonwebtoken::{AlgorithmFamily, Header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

pub use api_keys::{ApiKeys, ApiKeysError, to_hex};
pub use backend::{Action, BackendError, BackendSettings, Question, Visitor};
pub use claims::{ID_LENGTH as TOKEN_ID_LENGTH, is_token_id};
use credentials::CredentialError;
pub use credentials::{Credential, PARAMETER, Way};
pub use grant::{Denied, Grant, Holder, Identity, Need, Shown};
pub use key_sets::{KeySetError, KeySets, KeySources, KeySourcesError};
pub use patterns::{PatternError, Patterns};
pub use revocations::{Revocation, RevocationSet, Subject};
pub use signatures::install as install_signatures;
pub use verification_keys::{PublicKeys, Secrets};
pub use verifier::{Rules, TokenError};

use crate::metrics::{AccessMetrics, Metrics};
use crate::store::{Store, StoreError, now_ms};
use crate::watch::watch;
use backend::Backend;
use key_sets::KnownSets;
use verifier::Trusted;

/// The grants that a text makes as the claims of a token, and as a backend's answer.
#[cfg(any(test, fuzzing))]
pub fn read_grants(text: &[u8]) -> Vec<Grant> {
    let claims = serde_json::from_slice::<claims::Claims>(text).ok().and_then(|claims| claims.grant().ok());
    claims.into_iter().chain(backend::read_grant(text)).collect()
}

/// By what callers are judged.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// Secrets of device tokens.
    pub secrets: Option<Secrets>,
    /// Public keys of device tokens.
    pub public_keys: Option<PublicKeys>,
    /// Where there are more such keys.
    pub key_sets: Option<KeySources>,
    /// What every token has to have.
    pub rules: Rules,
    /// The backend that decides about listeners without a token.
    pub backend: Option<BackendSettings>,
    /// The file of producers' keys.
    pub api_keys: Option<PathBuf>,
    /// What anyone may read.
    pub anonymous: Patterns,
}

impl AccessSettings {
    /// Whether any key or secret is set: then nobody does anything without.
    pub fn is_closed(&self) -> bool {
        self.takes_tokens() || self.api_keys.is_some() || self.backend.is_some()
    }

    /// Whether there are keys that device tokens are judged by.
    pub fn takes_tokens(&self) -> bool {
        self.secrets.is_some() || self.public_keys.is_some() || self.key_sets.is_some()
    }
}

/// Why a caller gets no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it brought is not good.
    #[error("{0}")]
    Invalid(String),
    /// Nothing here issued what it brought; the application may know it.
    #[error("{0}")]
    Foreign(String),
    /// It is known who it is, and it may not.
    #[error("{0}")]
    Forbidden(String),
    /// It can't be judged now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error.is_foreign() {
            true => Refusal::Foreign(error.to_string()),
            false => Refusal::Invalid(error.to_string()),
        }
    }
}

impl From<CredentialError> for Refusal {
    fn from(error: CredentialError) -> Self {
        match error {
            // A backend of the application may know what to make of it.
            CredentialError::Bare => Refusal::Foreign(error.to_string()),
            CredentialError::Several(_) | CredentialError::Text => Refusal::Invalid(error.to_string()),
        }
    }
}

/// Why callers can't be judged as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The keys of producers can't be read.
    #[error("WHIMBREL_API_KEYS_FILE (--api-keys-file): {0}")]
    ApiKeys(#[from] ApiKeysError),
    /// The key sets can't be followed.
    #[error("WHIMBREL_JWKS_URL (--jwks-url): {0}")]
    KeySets(#[from] KeySetError),
    /// The backend can't be asked.
    #[error("WHIMBREL_AUTHORIZE_URL (--authorize-url): {0}")]
    Backend(#[from] BackendError),
}

/// Judges callers.
pub struct Access {
    /// Everybody's grant, while access is open.
    open: Option<Arc<Grant>>,
    /// The grant of whoever brings nothing.
    anonymous: Arc<Grant>,
    trusted: Arc<[Trusted]>,
    key_sets: KeySets,
    /// Turns to verify a signature by a public key.
    verifying: Arc<Semaphore>,
    backend: Option<Backend>,
    keys: Option<ApiKeys>,
    /// Tokens that are refused before their time.
    revoked: ArcSwap<RevocationSet>,
    /// Whoever changes them holds this.
    learning: Mutex<()>,
    /// The store was asked for them once. Until then nobody knows whether a token is revoked.
    revocations_known: AtomicBool,
    /// Something was learned since the store's whole list was read: the store may have lost it without its version
    /// showing that.
    revocations_unconfirmed: AtomicBool,
}

impl Access {
    /// Reads what it needs.
    pub fn new(settings: AccessSettings) -> Result<Arc<Self>, AccessError> {
        let open = (!settings.is_closed()).then(Grant::open);
        let AccessSettings { secrets, public_keys, key_sets, rules, backend, api_keys, anonymous } = settings;
        let secrets = secrets.iter().flat_map(Secrets::keys);
        let trusted = secrets.chain(public_keys.iter().flat_map(PublicKeys::keys));
        Ok(Arc::new(Access {
            open,
            anonymous: Arc::new(Grant { public: anonymous, ..Grant::nothing(Holder::Anonymous) }),
            trusted: trusted.map(|key| Trusted::new(key, &rules)).collect(),
            verifying: Arc::new(Semaphore::new(verifiers())),
            key_sets: key_sets.map(|sources| KeySets::new(&sources, &rules)).transpose()?.unwrap_or_default(),
            backend: backend.map(Backend::new).transpose()?,
            keys: api_keys.as_deref().map(ApiKeys::open).transpose()?,
            revoked: ArcSwap::default(),
            learning: Mutex::default(),
            revocations_known: AtomicBool::new(false),
            revocations_unconfirmed: AtomicBool::new(false),
        }))
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Reads the producers' keys again whenever their file changes; runs until it is dropped.
    pub async fn keep_keys(self: Arc<Self>) {
        let Some(path) = self.keys.as_ref().map(|keys| keys.path().to_owned()) else { return };
        watch(vec![path], |_| match self.keys.as_ref().map(ApiKeys::reload) {
            Some(Ok(count)) => tracing::info!(count, "the keys of producers were read again"),
            Some(Err(error)) => tracing::error!(%error, "the keys of producers stay as they were"),
            None => {}
        })
        .await;
    }

    /// Keeps the key sets fresh; runs until it is dropped.
    pub async fn keep_key_sets(self: Arc<Self>, metrics: Arc<Metrics>) {
        self.key_sets.keep(&metrics.access).await;
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
        let credential = Credential::of(headers, query)?;
        let Some(credential) = credential else { return Ok(self.anonymous.clone()) };
        if credential.way == Way::Cookie && !with_cookies {
            let reason = "a page of another site may not use the cookie whimbrel_token";
            return Err(Refusal::Invalid(reason.into()));
        }
        // Only programs have keys, and they can set headers.
        let key = (credential.way == Way::Header).then(|| self.keys.as_ref()?.find(&credential.text)).flatten();
        match key {
            Some(grant) => Ok(self.with_public(grant)),
            None => self.token(&credential.text).await,
        }
    }

    /// The grant of a known caller, and beside it what anyone may read.
    fn with_public(&self, grant: Arc<Grant>) -> Arc<Grant> {
        match self.anonymous.public.is_empty() {
            true => grant,
            false => Arc::new(Grant { public: self.anonymous.public.clone(), ..(*grant).clone() }),
        }
    }

    /// The grant of a device token.
    pub async fn token(&self, token: &str) -> Result<Arc<Grant>, Refusal> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let grant = self.judge(token).await?;
        self.check_revoked(&grant)?;
        Ok(self.with_public(Arc::new(grant)))
    }

    /// The grant of whoever brings nothing.
    pub fn anonymous(&self) -> Arc<Grant> {
        self.anonymous.clone()
    }

    /// Whether a backend decides about listeners that bring no token of this service.
    pub fn has_backend(&self) -> bool {
        self.backend.is_some()
    }

    /// The grant that the backend gives to a client.
    pub async fn ask_backend(&self, question: &Question<'_>, metrics: &AccessMetrics) -> Result<Arc<Grant>, Refusal> {
        let Some(backend) = &self.backend else { return Err(Refusal::Invalid("a token or key is needed".into())) };
        // Few requests ask, and what all requests carry would be several times as large with this inside.
        let asking = Box::pin(backend.ask(question, metrics, |grant| self.is_revoked(grant)));
        let grant = asking.await?;
        self.check_revoked(&grant)?;
        Ok(self.with_public(grant))
    }

    fn check_revoked(&self, grant: &Grant) -> Result<(), Refusal> {
        if !self.revocations_known.load(Ordering::Acquire) {
            return Err(Refusal::Unavailable("which tokens are revoked is not known yet".into()));
        }
        if self.is_revoked(grant) { Err(TokenError::Revoked.into()) } else { Ok(()) }
    }

    /// Judges a token by all keys; where none fits, by those that have come to the key sets since.
    async fn judge(&self, token: &str) -> Result<Grant, Refusal> {
        let header = verifier::header(token)?;
        let known = self.key_sets.trusted();
        let mut judged = self.verify(token, &header, known.clone()).await;
        let has_no_key = |judged: &_| matches!(judged, Err(TokenError::NoKey | TokenError::Signature));
        if has_no_key(&judged) {
            self.key_sets.look_again(&header).await;
            // Also where a set was read while this token was judged.
            let newest = self.key_sets.trusted();
            if newest != known {
                judged = self.verify(token, &header, newest).await;
            }
        }
        if has_no_key(&judged) && self.key_sets.lack_some() {
            return Err(Refusal::Unavailable("the keys that tokens are verified by can't be read yet".into()));
        }
        Ok(judged?)
    }

    /// Judges a token by the settings' keys and by those of key sets. Public keys take much longer than secrets, so they
    /// get part of the cores and threads of their own: a flood of bad tokens must not hold up deliveries.
    async fn verify(&self, token: &str, header: &Header, sets: KnownSets) -> Result<Grant, TokenError> {
        if header.alg.family() == AlgorithmFamily::Hmac {
            return verifier::judge(token, header, self.trusted.iter());
        }
        let turn = self.verifying.clone().acquire_owned().await;
        let (token, header) = (token.to_owned(), header.clone());
        let trusted = self.trusted.clone();
        let judging = move || {
            // Held to the end, also if the client has gone meanwhile.
            let _turn = turn;
            verifier::judge(&token, &header, trusted.iter().chain(sets.iter()))
        };
        // A panic was logged and counted where it happened.
        tokio::task::spawn_blocking(judging).await.unwrap_or(Err(TokenError::Malformed))
    }

    /// Whether a grant was revoked.
    pub fn is_revoked(&self, grant: &Grant) -> bool {
        self.revoked.load().names(grant)
    }

    /// All revocations that this node knows, lifted ones too.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.revoked.load().all()
    }

    /// The revocation of this id, unless it was lifted.
    pub fn revocation(&self, id: Uuid) -> Option<Revocation> {
        self.revoked.load().get(id).cloned()
    }

    /// Takes in revocations, and forgets those whose time is over. False when that changes nothing.
    pub fn learn(&self, entries: Vec<Revocation>) -> bool {
        let _turn = self.learning.lock();
        let mut set = (**self.revoked.load()).clone();
        let changed = set.merge(entries, now_ms());
        if changed {
            self.revoked.store(Arc::new(set));
            self.revocations_unconfirmed.store(true, Ordering::Release);
        }
        changed
    }

    /// Asks the store for revocations, and puts back what it lost. `version` is what was read last. False when nothing
    /// is new.
    pub async fn read_revocations(&self, store: &dyn Store, version: &mut Option<String>) -> Result<bool, StoreError> {
        if self.revocations_unconfirmed.swap(false, Ordering::AcqRel) {
            *version = None;
        }
        let listed = store.revocations().list_revocations(version.as_deref()).await?;
        let changed = match listed {
            None => self.learn(Vec::new()),
            Some(list) => {
                let changed = self.learn(list.entries.clone());
                let missing = Revocation::missing_from(&self.revocations(), &list.entries);
                *version = Some(list.version);
                if !missing.is_empty() && !store.revocations().put_revocations(&missing).await? {
                    tracing::warn!("the store has no room for more revocations");
                }
                changed
            }
        };
        self.revocations_known.store(true, Ordering::Release);
        Ok(changed)
    }

    /// Follows the revocations that other nodes hand in; `changed` is called when there are others. Runs until it is
    /// dropped.
    pub async fn follow_revocations(self: Arc<Self>, store: Arc<dyn Store>, changed: impl Fn()) {
        let (mut version, mut rounds) = (None, 0_u32);
        let mut ticks = tokio::time::interval(REVOCATION_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            rounds = rounds.wrapping_add(1);
            let mut is_new = match self.read_revocations(&*store, &mut version).await {
                Ok(is_new) => is_new,
                Err(error) => {
                    tracing::debug!(%error, "revocations can't be read");
                    continue;
                }
            };
            if rounds.is_multiple_of(EXCHANGE_ROUNDS) {
                is_new |= self.learn(store.revocations().exchange_revocations(&self.revocations()).await);
            }
            if is_new {
                changed();
            }
        }
    }
}

/// Signatures by public keys that are verified at once: half of the cores are for everything else.
fn verifiers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// How often the store is asked for new revocations: all nodes are to know one within 2 s.
const REVOCATION_INTERVAL: Duration = Duration::from_millis(700);

/// Every so many times other regions are looked at too: one may have been away when a revocation was sent to it.
const EXCHANGE_ROUNDS: u32 = 15;

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
