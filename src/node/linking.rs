//! The ways around the store's channels, from a node's settings to their start.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::ServeError;
use crate::config::Settings;
use crate::dispatch::Registry;
use crate::link::{self, Key, LinkSettings, Links};
use crate::metrics::Metrics;
use crate::store::Store;

/// Ways that are not in use yet: the store has to know of them before it is opened, and they need the store.
pub struct Linking {
    /// The ways.
    pub links: Arc<Links>,
    listening: Option<Listening>,
}

/// Where links from other nodes are awaited.
struct Listening {
    /// Where other nodes reach this one.
    address: String,
    listener: TcpListener,
    key: Key,
}

/// Listens for links, if the settings say so. `None` where there is no way around the channels, because nodes
/// share no store or several.
pub async fn set_up(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Option<Linking>, ServeError> {
    if settings.redis_url.is_none() || settings.regions.is_some() {
        return Ok(None);
    }
    let listening = listen(settings).await?;
    let kept = listening.as_ref().map(|listening| LinkSettings {
        key: listening.key.clone(),
        most: settings.max_links,
        idle: settings.link_idle(),
    });
    Ok(Some(Linking { links: Links::new(kept, metrics.clone()), listening }))
}

async fn listen(settings: &Settings) -> Result<Option<Listening>, ServeError> {
    let (Some(address), Some(secret)) = (settings.link_listen, &settings.link_secret) else { return Ok(None) };
    let failed = |error| ServeError::LinkListen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let key = Key::new(secret.expose());
    let address = settings.link_advertise.clone().unwrap_or_else(|| bound.to_string());
    tracing::info!("links are on: listening on {bound}, announced to other nodes as {address}");
    Ok(Some(Listening { address, listener, key }))
}

impl Linking {
    /// Where other nodes reach this one, if links are on.
    pub fn address(&self) -> Option<&str> {
        self.listening.as_ref().map(|listening| listening.address.as_str())
    }

    /// Accepts links, and opens them.
    pub fn start(self, store: Arc<dyn Store>, registry: Arc<Registry>) -> Arc<Links> {
        if let Some(Listening { listener, key, .. }) = self.listening {
            tokio::spawn(link::accept_for_ever(listener, key, registry.clone()));
        }
        self.links.start(store, registry);
        self.links
    }
}
