//! What can only be judged with several settings in view, and settings that are read from files.

use std::path::PathBuf;

use super::{LEAST_LINK_SECRET, SettingError, Settings, value, variable};
use crate::transport::{Door, Endpoint, Reach};

impl Settings {
    /// What can only be judged with several settings in view.
    pub(super) fn settle(mut self) -> Result<Self, SettingError> {
        from_file("redis_url", &self.redis_url_file, &mut self.redis_url, value::from_str)?;
        from_file("regions", &self.regions_file, &mut self.regions, value::regions)?;
        from_file("directory_url", &self.directory_url_file, &mut self.directory_url, value::from_str)?;
        self.settle_sentinels()?;
        self.settle_regions()?;
        self.settle_redis_files()?;
        if self.ingress == Some(true) && self.redis_url.is_none() {
            let reason = "the embedded store has no ingress: nobody but this node reaches it; set WHIMBREL_REDIS_URL";
            return Err(SettingError::new("ingress", reason.into()));
        }
        if self.data_dir.is_some() && self.redis_url.is_some() {
            let reason =
                "is for a node without Redis, and WHIMBREL_REDIS_URL is set: with a Redis, events are kept there";
            return Err(SettingError::new("data_dir", reason.into()));
        }
        self.settle_links()?;
        self.settle_webhook()?;
        from_file("otlp_url", &self.otlp_url_file, &mut self.otlp_url, value::from_str)?;
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => {
                return Err(SettingError::new("tls_cert_file", "needs WHIMBREL_TLS_KEY_FILE".into()));
            }
            (None, Some(_)) => {
                return Err(SettingError::new("tls_key_file", "needs WHIMBREL_TLS_CERT_FILE".into()));
            }
            _ => {}
        }
        if self.dev && self.places().any(|(_, place)| place.reach() != Reach::Loopback) {
            let reason = "is for development on this machine: WHIMBREL_LISTEN may name only loopback addresses with it";
            return Err(SettingError::new("dev", reason.into()));
        }
        self.settle_access()?;
        let open = self.places().find(|(_, place)| place.reach() == Reach::Network);
        if let Some((door, Endpoint::Address(address))) = open.filter(|_| !self.insecure && !self.access().is_closed())
        {
            let reason = format!(
                "{address} can be reached from other machines while access is open to everyone; set a key or secret, \
                 such as WHIMBREL_JWT_SECRET, use a loopback address, or allow it with WHIMBREL_INSECURE=true \
                 (--insecure)"
            );
            let field = if door == Door::Admin { "admin_listen" } else { "listen" };
            return Err(SettingError::new(field, reason));
        }
        Ok(self)
    }

    /// Links need a secret and a store that nodes share, and an address that others can use.
    fn settle_links(&mut self) -> Result<(), SettingError> {
        let secret = value::secret(LEAST_LINK_SECRET);
        from_file("link_secret", &self.link_secret_file, &mut self.link_secret, secret)?;
        let Some(address) = self.link_listen else { return Ok(()) };
        let refuse = |reason: &str| Err(SettingError::new("link_listen", reason.into()));
        if self.link_secret.is_none() {
            return refuse(
                "links need a secret that all nodes share: WHIMBREL_LINK_SECRET or WHIMBREL_LINK_SECRET_FILE",
            );
        }
        if self.redis_url.is_none() {
            return refuse("links are between nodes that share a Redis, and WHIMBREL_REDIS_URL is not set");
        }
        // Routes name nodes as each region knows them, and times are those of its store: links know neither.
        if self.regions.is_some() {
            return refuse("this version has links where there is one region only, and WHIMBREL_REGIONS is set");
        }
        if address.ip().is_unspecified() && self.link_advertise.is_none() {
            return refuse("others can't reach that address: say where they do with WHIMBREL_LINK_ADVERTISE");
        }
        Ok(())
    }

    /// The regions among each other, and the home region's Redis.
    fn settle_regions(&mut self) -> Result<(), SettingError> {
        let Some(regions) = &self.regions else {
            if self.directory_url.is_some() {
                return Err(SettingError::new("directory_url", "needs WHIMBREL_REGIONS".into()));
            }
            if self.region_rules.regions().next().is_some() {
                return Err(SettingError::new("region_rules", "needs WHIMBREL_REGIONS".into()));
            }
            if self.region_follow.is_some() {
                return Err(SettingError::new("region_follow", "needs WHIMBREL_REGIONS".into()));
            }
            return Ok(());
        };
        let url = regions
            .of(&self.region)
            .ok_or_else(|| SettingError::new("region", format!("'{}' is not one of WHIMBREL_REGIONS", self.region)))?;
        if let Some(unknown) = self.region_rules.regions().find(|region| regions.of(region).is_none()) {
            return Err(SettingError::new("region_rules", format!("'{unknown}' is not one of WHIMBREL_REGIONS")));
        }
        // The node may have a shorter way to its own Redis than others have.
        if self.redis_url.is_none() {
            self.redis_url = Some(url.clone());
        }
        Ok(())
    }

    /// Without a secret the receiver could not know the sender; and a secret alone has nothing to sign.
    fn settle_webhook(&mut self) -> Result<(), SettingError> {
        from_file("webhook_url", &self.webhook_url_file, &mut self.webhook_url, value::from_str)?;
        from_file("webhook_secret", &self.webhook_secret_file, &mut self.webhook_secret, value::from_str)?;
        from_file("authorize_url", &self.authorize_url_file, &mut self.authorize_url, value::from_str)?;
        match (&self.webhook_url, &self.webhook_secret) {
            (Some(_), None) => {
                let reason = "webhooks are signed: set WHIMBREL_WEBHOOK_SECRET or WHIMBREL_WEBHOOK_SECRET_FILE";
                Err(SettingError::new("webhook_url", reason.into()))
            }
            (None, Some(_)) if self.authorize_url.is_none() => {
                let reason =
                    "nothing is signed with it: neither WHIMBREL_WEBHOOK_URL nor WHIMBREL_AUTHORIZE_URL is set";
                Err(SettingError::new("webhook_secret", reason.into()))
            }
            _ => Ok(()),
        }
    }
}

/// Takes a setting from a file that holds it, if one is named.
pub(super) fn from_file<T>(
    field: &str,
    path: &Option<PathBuf>,
    setting: &mut Option<T>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), SettingError> {
    let Some(path) = path else { return Ok(()) };
    let refuse = |reason| SettingError::new(&format!("{field}_file"), reason);
    if setting.is_some() {
        return Err(refuse(format!("{} is set too; give only one of them", variable(field))));
    }
    // The path is not shown: the secret itself ends up here by mistake.
    let text = std::fs::read_to_string(path).map_err(|e| refuse(format!("the file can't be read: {e}")))?;
    *setting = Some(parse(text.trim()).map_err(|e| refuse(format!("in the file: {e}")))?);
    Ok(())
}
