//! The links of a node, from its settings to their start.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::ServeError;
use crate::config::Settings;
use crate::dispatch::Registry;
use crate::link::{self, Key, LinkSettings, Links};
use crate::metrics::Metrics;
use crate::store::Store;

/// Links that are not in use yet: the store has to know of them before it is opened, and they need the store.
pub struct Linking {
    /// The links.
    pub links: Arc<Links>,
    /// Where other nodes reach this one.
    pub address: String,
    listener: TcpListener,
    key: Key,
}

/// Listens for links, if the settings say so.
pub async fn set_up(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Option<Linking>, ServeError> {
    let (Some(address), Some(secret)) = (settings.link_listen, &settings.link_secret) else { return Ok(None) };
    let failed = |error| ServeError::LinkListen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let key = Key::new(secret.expose());
    let kept = LinkSettings { key: key.clone(), most: settings.max_links, idle: settings.link_idle() };
    let address = settings.link_advertise.clone().unwrap_or_else(|| bound.to_string());
    tracing::info!("links are on: listening on {bound}, told to others as {address}");
    Ok(Some(Linking { links: Links::new(kept, metrics.clone()), address, listener, key }))
}

impl Linking {
    /// Accepts links, and opens them.
    pub fn start(self, store: Arc<dyn Store>, registry: Arc<Registry>) -> Arc<Links> {
        tokio::spawn(link::accept_for_ever(self.listener, self.key, registry.clone()));
        self.links.start(store, registry);
        self.links
    }
}
