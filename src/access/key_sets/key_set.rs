//! One key set, kept fresh.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hyper::StatusCode;
use jsonwebtoken::Header;
use reqwest::{Url, redirect};
use tokio::sync::watch;

use super::pace::{APART, Pace};
use super::reading;
use super::source::{KeySource, Location};
use crate::access::verification_keys::VerificationKey;
use crate::access::verifier::{Rules, Trusted};
use crate::backoff::Backoff;
use crate::client;
use crate::metrics::AccessMetrics;
use crate::watch::watch;

/// How long a fetch may take, in all.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// Most bytes of a set.
const SET_BYTES: usize = 256 * 1024;

/// Between two tries to get a set for the first time.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A file is read when it changes; this is in case that went unnoticed.
const FILE_LIFETIME: Duration = Duration::from_secs(3600);

/// Why key sets can't be followed at all.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// There is no HTTP client.
    #[error("the HTTP client can't be set up: {0}")]
    Client(String),
    /// The file has no key set.
    #[error("the key set in {location}: {reason}")]
    File {
        /// Where it is.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One key set.
pub struct KeySet {
    source: KeySource,
    rules: Rules,
    http: reqwest::Client,
    /// The keys, once they were read.
    keys: ArcSwapOption<Vec<Trusted>>,
    pace: watch::Sender<Pace>,
}

impl KeySet {
    /// The set of a place. Nothing is fetched yet, but a file has to be one.
    pub fn new(source: KeySource, rules: &Rules) -> Result<Self, KeySetError> {
        let http = client::builder()
            // A redirect could lead from where it is safe to where it is not.
            .redirect(redirect::Policy::none())
            .timeout(FETCH_TIME)
            .build()
            .map_err(|error| KeySetError::Client(client::cause(&error)))?;
        if let Location::File(path) = &source.location {
            read_file(path).map_err(|reason| KeySetError::File { location: source.location.to_string(), reason })?;
        }
        let mut rules = rules.clone();
        if let Some(issuer) = &source.issuer {
            rules.issuers = vec![issuer.clone()];
        }
        Ok(KeySet { source, rules, http, keys: ArcSwapOption::empty(), pace: watch::Sender::default() })
    }

    /// Its keys, once they are known.
    pub fn keys(&self) -> Option<Arc<Vec<Trusted>>> {
        self.keys.load_full()
    }

    /// Whether it has the very key that a token names.
    pub fn has_key_for(&self, header: &Header) -> bool {
        let Some(keys) = self.keys() else { return false };
        match &header.kid {
            Some(kid) => keys.iter().any(|key| key.is_named(kid)),
            // It names none, so nothing says that there is another one.
            None => true,
        }
    }

    /// Waits for it to be fetched, unless that was done a moment ago.
    pub async fn fetch_again(&self) {
        let mut pace = self.pace.subscribe();
        let (mut is_worth_it, mut round) = (false, 0);
        self.pace.send_modify(|pace| (is_worth_it, round) = (pace.want(Instant::now()), pace.rounds));
        let fetched = pace.wait_for(|pace| pace.rounds > round);
        if is_worth_it {
            // Who waited in vain is judged by what is known.
            let _ = tokio::time::timeout(2 * FETCH_TIME, fetched).await;
        }
    }

    /// Keeps it fresh; runs until it is dropped.
    pub async fn keep(&self, metrics: &AccessMetrics) {
        let files = match &self.source.location {
            Location::File(path) => vec![path.clone()],
            Location::Web(_) => Vec::new(),
        };
        tokio::join!(self.keep_fetching(metrics), watch(files, |_| self.pace.send_modify(Pace::insist)));
    }

    async fn keep_fetching(&self, metrics: &AccessMetrics) {
        let mut backoff = Backoff::new(FIRST_RETRY, APART);
        let mut pace = self.pace.subscribe();
        loop {
            self.pace.send_modify(Pace::begin);
            let wait = match self.fetch().await {
                Ok((keys, lifetime)) => {
                    metrics.key_set_fetches.inc();
                    self.take(keys);
                    lifetime
                }
                Err(reason) => {
                    metrics.key_set_failures.inc();
                    let stands = self.keys.load().is_some();
                    let then = if stands { "its keys stay as they were" } else { "no token is accepted by it" };
                    tracing::warn!(location = %self.source.location, reason, "a key set can't be read; until it can, {then}");
                    // What stands may stand for a while; without any key, nobody comes in.
                    if stands { APART } else { backoff.next_wait() }
                }
            };
            self.pace.send_modify(Pace::end);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = pace.wait_for(Pace::is_wanted) => {}
            }
        }
    }

    fn take(&self, keys: Vec<VerificationKey>) {
        let keys: Vec<Trusted> = keys.into_iter().map(|key| Trusted::new(key, &self.rules)).collect();
        let count = keys.len();
        let before = self.keys.swap(Some(Arc::new(keys)));
        if before.is_none_or(|before| before.len() != count) {
            tracing::info!(location = %self.source.location, count, "a key set was read");
        }
    }

    /// Reads it anew, and says for how long it may be believed.
    async fn fetch(&self) -> Result<(Vec<VerificationKey>, Duration), String> {
        match &self.source.location {
            Location::Web(url) => self.fetch_from(url).await,
            Location::File(path) => Ok((read_file(path)?, FILE_LIFETIME)),
        }
    }

    async fn fetch_from(&self, url: &Url) -> Result<(Vec<VerificationKey>, Duration), String> {
        let response = self.http.get(url.clone()).send().await.map_err(|error| client::cause(&error))?;
        if response.status() != StatusCode::OK {
            let hint = if response.status().is_redirection() { "; redirects are not followed" } else { "" };
            return Err(format!("the answer was {}{hint}", response.status()));
        }
        let lifetime = reading::lifetime(response.headers());
        let body = client::read_at_most(response, SET_BYTES).await.map_err(|error| error.to_string())?;
        Ok((reading::keys(&body)?, lifetime))
    }
}

fn read_file(path: &Path) -> Result<Vec<VerificationKey>, String> {
    let mut body = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(SET_BYTES as u64 + 1).read_to_end(&mut body).map_err(|error| error.to_string())?;
    match body.len() {
        0..=SET_BYTES => reading::keys(&body),
        _ => Err(format!("it is longer than {SET_BYTES} bytes")),
    }
}
