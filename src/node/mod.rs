//! A node's life: start, membership in its region, orderly stop.
//!
//! [`serve`] puts the rooms together: store, dispatchers, hub, HTTP side, transport. `membership` keeps
//! the node registered and subscribed, in each region (`memberships`) for the streams of that region
//! (`scope`); `drain` closes connections when it is stopped.

mod cleanup;
mod descriptors;
mod drain;
mod linking;
mod membership;
mod memberships;
mod scope;
mod starting;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::sync::watch;

use crate::access::crowded::Crowded;
use crate::access::throttle::Throttle;
use crate::access::{Access, AccessError};
use crate::api::{self, Api, Bodies, Gate, Refusals};
use crate::backoff::Backoff;
use crate::config::Settings;
use crate::directory::{RegionalStore, Regions, RegionsError, RegionsSettings};
use crate::dispatch::{Registry, RegistrySettings};
use crate::health::Health;
use crate::hub::{Hub, Limits};
use crate::ingress;
use crate::leader::Election;
use crate::metrics::Metrics;
use crate::model::{NodeId, TypeFilters};
use crate::panics;
use crate::presence::Presence;
use crate::producers;
use crate::spans::{self, CollectorError, Exporting};
use crate::store::memory::{DataDirError, MemoryStore, Restored};
use crate::store::presence::DeviceLimit;
use crate::store::redis::{ConnectError, RedisStore, RedisUrl, ServerConfig};
use crate::store::{NodeInfo, RetentionRules, Store};
use crate::sweep;
use crate::transport::{
    CloseReason, Connections, Door, Endpoint, Endpoints, ListenerSettings, Open, Reach, Tls, TlsError, listen,
};
use crate::webhook::{self, Receiver, ReceiverError};

use descriptors::Descriptors;
use drain::StopSignals;
use linking::Linking;
use memberships::Memberships;

/// What a WebSocket client's message may have around its data, in bytes.
const MESSAGE_OVERHEAD: usize = 4096;

/// How long a node that never joined waits for its lease to be given back. Otherwise it lapses by itself.
const RELEASE_TIME: Duration = Duration::from_secs(2);

/// How long the end of a stop may take, once clients are let go: requests under way, links, leases, the webhook. With
/// the defaults the whole of a stop fits the 30 s that Kubernetes grants.
const END_TIME: Duration = Duration::from_secs(10);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A place can't be listened at.
    #[error("WHIMBREL_LISTEN (--listen): can't listen on {place}: {error}")]
    Listen {
        /// The place.
        place: Endpoint,
        /// The system's error.
        error: std::io::Error,
    },
    /// The address for links can't be listened on.
    #[error("WHIMBREL_LINK_LISTEN (--link-listen): can't listen on {address}: {error}")]
    LinkListen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        error: std::io::Error,
    },
    /// The certificate can't be used.
    #[error("WHIMBREL_TLS_CERT_FILE (--tls-cert-file), WHIMBREL_TLS_KEY_FILE (--tls-key-file): {0}")]
    Tls(#[from] TlsError),
    /// This Redis can't be worked with.
    #[error("WHIMBREL_REDIS_URL (--redis-url): {0}")]
    Store(#[from] ConnectError),
    /// The data directory can't be used.
    #[error("WHIMBREL_DATA_DIR (--data-dir): {0}")]
    DataDir(#[from] DataDirError),
    /// The regions can't be worked with.
    #[error(transparent)]
    Regions(#[from] RegionsError),
    /// Callers can't be judged as the settings say.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Nothing can be sent to the collector of spans.
    #[error("WHIMBREL_OTLP_URL (--otlp-url): {0}")]
    Collector(#[from] CollectorError),
    /// Nothing can be sent to the webhook.
    #[error("WHIMBREL_WEBHOOK_URL (--webhook-url): {0}")]
    Webhook(#[from] ReceiverError),
}

/// Runs a node until SIGTERM or SIGINT, and closes its connections. The log begins with what is
/// started, and with `warnings` about the settings.
pub async fn serve(settings: Settings, warnings: &[String]) -> Result<(), ServeError> {
    let mut signals = StopSignals::listen();
    let tls = settings.tls_files().map(|(certificate, key)| Tls::load(certificate, key)).transpose()?;
    let descriptors = Descriptors::raised(settings.max_connections);
    let endpoints = Endpoints::bind(settings.places(), tls.clone(), descriptors.http(settings.header()))
        .map_err(|(place, error)| ServeError::Listen { place, error })?;
    introduce(&settings, &endpoints);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let metrics = Metrics::new();
    metrics.connections_limit.set(i64::try_from(descriptors.streams).unwrap_or(i64::MAX));
    panics::report(metrics.panics.clone());
    let access = Access::new(settings.access())?;
    // While the store is opened, too: those who wait for it have tokens.
    tokio::spawn(access.clone().keep_key_sets(metrics.clone()));
    let links = linking::set_up(&settings, &metrics).await?;
    let receiver = receiver(&settings)?;
    let tracing = settings
        .otlp_url
        .as_ref()
        .map(|url| spans::begin(url.expose().clone(), settings.trace_ratio, &metrics))
        .transpose()?;
    if let Some(tls) = tls {
        tokio::spawn(tls.keep_fresh());
    }
    let throttle = Arc::new(Throttle::new(settings.throttle()));
    let node = NodeId::random();
    let gate = Arc::new(Gate {
        origins: settings.origins(),
        access: access.clone(),
        has_admin_door: settings.admin_listen.is_some(),
        throttle: throttle.clone(),
        metrics: metrics.clone(),
    });
    let opened = wait_for_store(&settings, &endpoints, &node, links.as_ref(), &metrics, &gate, &mut signals).await?;
    let Some(opened) = opened else { return Ok(()) };
    let store = opened.store.clone();

    let registry_settings =
        RegistrySettings { sync: settings.sync(), lease: settings.lease(), ring_bytes: settings.ring_bytes };
    let registry = Registry::new(store.clone(), node.clone(), registry_settings, metrics.clone());
    let exporting = tracing.map(|(tracer, exporting)| {
        registry.trace_with(tracer);
        exporting
    });
    let limit = DeviceLimit { most: settings.connections_per_device, overflow: settings.device_overflow };
    let connections = Connections::new(descriptors.streams);
    let info = NodeInfo {
        region: settings.region.clone(),
        address: address(&endpoints),
        version: env!("CARGO_PKG_VERSION").into(),
        link: links.as_ref().and_then(|links| links.address()).map(str::to_owned),
    };
    let presence = Presence::new(store.clone(), registry.clone(), limit, info.clone(), connections.clone());
    let links = links.map(|links| links.start(store.clone(), registry.clone()));
    let limits = Limits { event_bytes: settings.max_event_bytes };
    let hub = Hub::new(store.clone(), registry.clone(), presence.clone(), links.clone(), access.clone(), limits);
    let health = match store.regions() {
        // What other regions' stores do is no part of the node's own health.
        Some(regions) => regions.home().health().clone(),
        None => Arc::new(Health::new(store_name(&settings))),
    };

    let memberships = Memberships {
        registry: registry.clone(),
        presence: presence.clone(),
        health: health.clone(),
        info,
        lease: settings.lease(),
        leavings: Arc::default(),
    };
    // A store that is reached but takes nothing, such as a replica, lets nobody join.
    let joining = memberships.begin(opened, node.clone());
    if starting::meanwhile(joining, &endpoints, &health, &node, &metrics, &gate, &mut signals).await.is_none() {
        // It may hold a part of its lease already.
        let _ = tokio::time::timeout(RELEASE_TIME, store.coordination().release(&node)).await;
        return Ok(());
    }
    if !access.is_open() {
        follow_access(&access, &store, &connections, &registry).await;
    }
    let sweeping = sweep::begin(store.clone(), registry.clone(), settings.lease());
    let looking = producers::begin(store.clone(), hub.clone(), settings.lease());
    let draining =
        settings.ingress.unwrap_or(true).then(|| ingress::begin(store.clone(), hub.clone(), settings.lease()));
    let delivering =
        receiver.map(|receiver| webhook::begin(store.clone(), registry.clone(), receiver, settings.lease()));
    tokio::spawn(registry.clone().tidy_for_ever());
    tokio::spawn(presence.clone().keep_for_ever());
    tokio::spawn(presence.clone().publish_lifecycle());
    tokio::spawn(presence.members().clone().update_for_ever());
    tokio::spawn(connections.clone().ping_for_ever(settings.ping()));
    tokio::spawn(access.clone().keep_keys());

    let api = Arc::new(Api {
        hub: hub.clone(),
        access: access.clone(),
        health: health.clone(),
        connections: connections.clone(),
        ready_strict: settings.ready_strict,
        max_streams: settings.max_streams,
        throttle,
        crowded: Crowded::default(),
        bodies: Bodies::new(settings.body()),
        filters: TypeFilters::default(),
        refusals: Refusals::default(),
    });
    let service = api::service(api.clone(), gate);
    let listener_settings = ListenerSettings {
        ping: settings.ping(),
        outbox_bytes: settings.outbox_bytes,
        max_message_bytes: settings.max_event_bytes + MESSAGE_OVERHEAD,
        max_streams: settings.max_streams,
        messages: settings.rate_messages,
    };
    let (open, opened) = watch::channel(Open::All);
    if access.is_open() {
        warn_of_open_access(&endpoints);
    }
    let places: Vec<_> = endpoints.shown().collect();
    let accepting =
        tokio::spawn(listen(endpoints, service, listener_settings, hub.clone(), connections.clone(), api, opened));
    for (door, place) in &places {
        let audience = if *door == Door::Admin { " for operators" } else { "" };
        tracing::info!(node = registry.node().as_str(), "listening{audience} on {place}");
    }

    let stopped_by = signals.next().await;
    signals.exit_at_next();
    let close = || _ = open.send(Open::Operators);
    // Another node takes over what this one leads, while balancers notice.
    tokio::join!(
        drain::let_go(stopped_by, &settings, &health, &hub, &connections, close),
        OptionFuture::from(draining.map(Election::end)),
        OptionFuture::from(sweeping.map(Election::end)),
        looking.end(),
    );
    let ending = async {
        // Requests that are under way are answered.
        let _ = open.send(Open::None);
        let _ = accepting.await;
        if let Some(links) = links {
            links.end().await;
        }
        let end_moves = async {
            if let Some(regions) = store.regions() {
                regions.end_moves().await;
            }
        };
        tokio::join!(end_moves, memberships.leave());
        // Last, so that the receiver gets the last disconnects as well.
        if let Some(delivering) = delivering {
            delivering.end().await;
        }
        OptionFuture::from(exporting.map(Exporting::end)).await;
    };
    if tokio::time::timeout(END_TIME, ending).await.is_err() {
        tracing::warn!("stopping takes too long: what is left lapses by itself");
    }
    tracing::info!("stopped");
    Ok(())
}

/// What the store is, for people: `embedded`, or where its Redis is.
fn store_name(settings: &Settings) -> String {
    settings.redis_url.as_ref().map_or_else(|| "embedded".to_owned(), ToString::to_string)
}

/// The first line of the log: what starts, and on what.
fn introduce(settings: &Settings, endpoints: &Endpoints) {
    let store = store_name(settings);
    let address = endpoints.shown().map(|(_, place)| place).collect::<Vec<_>>().join(" ");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %store,
        prefix = %settings.prefix,
        access = if settings.access().is_closed() { "closed" } else { "open" },
        %address,
        "whimbrel starts"
    );
}

/// The store, and the regions behind it with the position from which their directory is followed.
struct Opened {
    store: Arc<dyn Store>,
    regions: Option<(Arc<Regions>, String)>,
}

/// Opens the store, and answers requests meanwhile. `None` after a signal to stop.
async fn wait_for_store(
    settings: &Settings,
    endpoints: &Endpoints,
    node: &NodeId,
    links: Option<&Linking>,
    metrics: &Arc<Metrics>,
    gate: &Arc<Gate>,
    signals: &mut StopSignals,
) -> Result<Option<Opened>, ServeError> {
    let health = Arc::new(Health::new(store_name(settings)));
    let opening = open_store(settings, &health, endpoints, node, links, metrics);
    starting::meanwhile(opening, endpoints, &health, node, metrics, gate, signals).await.transpose()
}

async fn open_store(
    settings: &Settings,
    health: &Health,
    endpoints: &Endpoints,
    node: &NodeId,
    links: Option<&Linking>,
    metrics: &Arc<Metrics>,
) -> Result<Opened, ServeError> {
    let rules = settings.retention.clone();
    let position_time = Duration::from_secs(settings.position_seconds);
    let server = |url: &RedisUrl| ServerConfig { metrics: metrics.store.clone(), ..settings.server(url) };
    let Some(url) = &settings.redis_url else {
        let store = Arc::new(open_embedded(settings, rules, position_time).await?);
        return Ok(Opened { store, regions: None });
    };
    if let Some(urls) = &settings.regions {
        let of = |(name, given): &(String, RedisUrl)| {
            (name.clone(), server(if *name == settings.region { url } else { given }))
        };
        let regions = RegionsSettings {
            home: settings.region.clone(),
            all: urls.iter().map(of).collect(),
            directory: server(settings.directory_url.as_ref().unwrap_or(url)),
            rules: settings.region_rules.clone(),
            follow: settings.region_follow,
            prefix: settings.prefix.clone(),
            retention: rules,
            position_time,
        };
        let (regions, position) = Regions::open(regions, node.clone(), metrics.clone(), health).await?;
        let store = Arc::new(RegionalStore::open(regions.clone(), health).await);
        return Ok(Opened { store, regions: Some((regions, position)) });
    }
    let server = server(url);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match RedisStore::connect(&server, &settings.prefix, rules.clone(), position_time).await {
            Ok(store) => {
                let store = match links {
                    Some(linking) => store.with_direct_path(linking.links.clone()),
                    None => store,
                };
                return Ok(Opened { store: Arc::new(store), regions: None });
            }
            // A node and its Redis may be started together, in any order.
            Err(ConnectError::Unreachable(error)) => {
                let wait = backoff.next_wait();
                health.store_is_down(&error.to_string());
                let places = endpoints.shown().map(|(_, place)| place).collect::<Vec<_>>().join(" and ");
                tracing::warn!(%error, wait_ms = wait.as_millis(), "{url} can't be used yet; trying again, and answering probes on {places}");
                tokio::time::sleep(wait).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The store of a node that is alone.
async fn open_embedded(
    settings: &Settings,
    rules: RetentionRules,
    position_time: Duration,
) -> Result<MemoryStore, DataDirError> {
    let (most, fsync) = (settings.embedded_bytes, settings.fsync);
    let Some(directory) = settings.data_dir.clone() else {
        tracing::info!(
            "no Redis is set: a single node with the embedded in-memory store, for demos and development; \
             its events end with it. WHIMBREL_DATA_DIR=/path keeps them, WHIMBREL_REDIS_URL=redis://host:6379 makes it \
             one of many"
        );
        return Ok(MemoryStore::new(rules, position_time, most));
    };
    let shown = directory.display().to_string();
    let opening = tokio::task::spawn_blocking(move || MemoryStore::open(rules, position_time, most, &directory, fsync));
    let (store, restored) = opening.await.expect("reading it neither panics nor is cancelled")?;
    let Restored { streams, bytes, disk_bytes, torn, took } = restored;
    if torn > 0 {
        tracing::warn!(bytes = torn, "the last write to the data directory had not been completed: it was cut off");
    }
    let took_ms = took.as_millis();
    tracing::info!(data_dir = shown, %fsync, streams, bytes, disk_bytes, took_ms, "a single node that keeps its events in a directory");
    Ok(store)
}

/// The receiver of webhooks, if one is set.
fn receiver(settings: &Settings) -> Result<Option<Receiver>, ReceiverError> {
    let (Some(target), Some(keys)) = (&settings.webhook_url, &settings.webhook_secret) else { return Ok(None) };
    let receiver = Receiver::new(target.clone(), keys.clone(), settings.webhook_format, settings.webhook_timeout())?;
    tracing::info!("connects and disconnects are sent to {target}");
    Ok(Some(receiver))
}

/// Has connections end when their grants do, or are revoked. Revocations are known before anybody comes in, if they
/// can be.
async fn follow_access(
    access: &Arc<Access>,
    store: &Arc<dyn Store>,
    connections: &Arc<Connections>,
    registry: &Arc<Registry>,
) {
    if let Err(error) = access.read_revocations(&**store, &mut None).await {
        tracing::warn!(%error, "revocations can't be read yet; until they can, no token is accepted");
    }
    let revoke = {
        let (access, connections) = (access.clone(), connections.clone());
        move || _ = connections.close_where(CloseReason::Revoked, |grant| access.is_revoked(grant))
    };
    tokio::spawn(access.clone().follow_revocations(store.clone(), revoke));
    tokio::spawn(connections.clone().expire_for_ever(registry.clone()));
}

/// Open access is for this machine; a wider address is warned of.
fn warn_of_open_access(endpoints: &Endpoints) {
    let places = [Door::Public, Door::Admin].into_iter().flat_map(|door| endpoints.places(door));
    for place in places.filter(|place| place.reach() == Reach::Network) {
        tracing::warn!(
            "access is open to everyone who reaches {place}: they can read every inbox, and erase and disconnect \
             everything; set WHIMBREL_JWT_SECRET or another key to close it"
        );
    }
}

/// Where other nodes and people find this one: its first address, or its Unix socket when it has nothing else.
fn address(endpoints: &Endpoints) -> String {
    let address = endpoints.places(Door::Public).find_map(|place| match place {
        Endpoint::Address(address) => Some(address.to_string()),
        Endpoint::Path(_) => None,
    });
    address.or_else(|| endpoints.places(Door::Public).next().map(Endpoint::to_string)).unwrap_or_default()
}
