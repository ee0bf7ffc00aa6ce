//! A Redis URL, checked, and shown without its password.

use std::fmt;
use std::str::FromStr;

use super::target::Kind;

/// The address of a Redis. Shown without its password: only [`RedisUrl::expose`] returns it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The whole URL, password included: for connecting, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the connections use TLS.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("rediss")
    }

    /// Whether Sentinels name the server.
    pub fn has_sentinels(&self) -> bool {
        self.0.split_once("://").is_some_and(|(scheme, _)| scheme.ends_with("+sentinel"))
    }

    /// Whether it names servers of a Cluster.
    pub fn is_cluster(&self) -> bool {
        self.0.split_once("://").is_some_and(|(scheme, _)| scheme.ends_with("+cluster"))
    }

    /// Whether it holds a password.
    pub fn has_password(&self) -> bool {
        let after_scheme = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let login = after_scheme.rsplit_once('@').map_or("", |(login, _)| login);
        login.contains(':') || after_scheme.contains("pass=")
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    /// No refusal repeats it, since it may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        Kind::read(text, None, None).map(|_| RedisUrl(text.to_owned()))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password stands before the last '@', or in the query of unix://.
        let shown = self.0.split(['?', '#']).next().unwrap_or_default();
        match (shown.split_once("://"), shown.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => write!(f, "{scheme}://***@{place}"),
            _ => f.write_str(shown),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
