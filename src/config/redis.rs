//! How Redis is reached: URLs, logins and certificates.

use super::settle::from_file;
use super::{RegionUrls, SettingError, Settings, value};
use crate::metrics::StoreMetrics;
use crate::store::redis::{CredentialFiles, RedisUrl, ServerConfig};

impl Settings {
    /// How the Redis of a URL is reached.
    pub fn server(&self, url: &RedisUrl) -> ServerConfig {
        ServerConfig {
            url: url.clone(),
            sentinel_user: self.sentinel_user.clone(),
            sentinel_password: self.sentinel_password.clone(),
            credentials: self.credential_files(),
            metrics: StoreMetrics::default(),
        }
    }

    /// Whether Sentinels name a master.
    pub fn has_sentinels(&self) -> bool {
        self.redis_urls().any(RedisUrl::has_sentinels)
    }

    /// Whether one of them is a Cluster.
    pub fn has_cluster(&self) -> bool {
        self.redis_urls().any(RedisUrl::is_cluster)
    }

    /// The URLs of all servers.
    fn redis_urls(&self) -> impl Iterator<Item = &RedisUrl> {
        let regions = self.regions.iter().flat_map(RegionUrls::iter).map(|(_, url)| url);
        self.redis_url.iter().chain(&self.directory_url).chain(regions)
    }

    fn credential_files(&self) -> CredentialFiles {
        CredentialFiles {
            password: self.redis_password_file.clone(),
            sentinel_password: self.sentinel_password_file.clone(),
            authorities: self.redis_ca_file.clone(),
            identity: self.redis_cert_file.clone().zip(self.redis_key_file.clone()),
        }
    }

    /// Sentinels' login, out of its file if it has one.
    pub(super) fn settle_sentinels(&mut self) -> Result<(), SettingError> {
        let password = value::secret(1);
        from_file("sentinel_password", &self.sentinel_password_file, &mut self.sentinel_password, password)?;
        if self.sentinel_user.is_some() && self.sentinel_password.is_none() {
            let reason = "needs a password: WHIMBREL_SENTINEL_PASSWORD or WHIMBREL_SENTINEL_PASSWORD_FILE";
            return Err(SettingError::new("sentinel_user", reason.into()));
        }
        Ok(())
    }

    /// The password and the certificates for Redis: each has a URL that uses it, and can be read.
    pub(super) fn settle_redis_files(&self) -> Result<(), SettingError> {
        let refuse = |field: &str, reason: &str| Err(SettingError::new(field, reason.into()));
        if self.redis_password_file.is_some() && self.redis_urls().all(RedisUrl::has_password) {
            return refuse("redis_password_file", "no URL of a Redis is without a password; give only one of them");
        }
        let certificates = [
            ("redis_ca_file", &self.redis_ca_file),
            ("redis_cert_file", &self.redis_cert_file),
            ("redis_key_file", &self.redis_key_file),
        ];
        let given = certificates.into_iter().find(|(_, path)| path.is_some());
        if let (Some((field, _)), false) = (given, self.redis_urls().any(RedisUrl::is_secure)) {
            return refuse(field, "is for Redis over TLS, and no URL begins with rediss://");
        }
        match (&self.redis_cert_file, &self.redis_key_file) {
            (Some(_), None) => return refuse("redis_cert_file", "needs WHIMBREL_REDIS_KEY_FILE"),
            (None, Some(_)) => return refuse("redis_key_file", "needs WHIMBREL_REDIS_CERT_FILE"),
            _ => {}
        }
        self.credential_files().check().map_err(|error| SettingError::new(error.field, error.to_string()))
    }
}
