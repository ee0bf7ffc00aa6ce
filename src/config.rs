//! Settings: what an operator can set, where it is read from, and what is refused.
//!
//! Every setting is an environment variable `WHIMBREL_X` and a flag `--x`; the flag wins, and a variable
//! that is set but empty counts as not set. Reading has two steps: [`Flags`] takes texts from the command
//! line, [`Flags::validate`] joins them with the environment and turns them into [`Settings`], or refuses
//! with one line that names the setting. Nothing that was set is ever quietly ignored: what this version
//! can't do yet is refused by name, and an unknown variable is a warning.

mod access;
mod flags;
mod kubernetes;
mod redis;
mod settle;
mod spelling;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::origins::Origins;
use crate::access::proxies::TrustedProxies;
use crate::access::throttle::ThrottleSettings;
use crate::access::{KeySources, Patterns, PublicKeys, Secrets};
use crate::directory::{FollowRule, RegionRules};
use crate::model::Secret;
use crate::store::RetentionRules;
use crate::store::memory::Fsync;
use crate::store::presence::Overflow;
use crate::store::redis::RedisUrl;
use crate::transport::{Door, Endpoint};
use crate::webhook::{self, SigningKeys, Target};

pub use flags::Flags;
pub use value::RegionUrls;

/// One setting, as the help and `.env.example` show it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in [`Settings`], from which [`Setting::variable`] and [`Setting::flag`] follow.
    pub field: &'static str,
    /// What holds when it is not set; empty for none.
    pub default: &'static str,
    /// What its value is called in the help.
    pub value: &'static str,
    /// What it means, line by line.
    pub help: &'static [&'static str],
}

impl Setting {
    /// Its environment variable: `WHIMBREL_LEASE_SECONDS`.
    pub fn variable(&self) -> String {
        variable(self.field)
    }

    /// Its flag, without the dashes in front: `lease-seconds`.
    pub fn flag(&self) -> String {
        flag(self.field)
    }
}

fn variable(field: &str) -> String {
    format!("{VARIABLE}{}", field.to_uppercase())
}

fn flag(field: &str) -> String {
    field.replace('_', "-")
}

/// Events that a device may publish a second where access is closed.
const RATE_DEVICE: u32 = 20;

/// Shorter ones can be guessed.
const LEAST_LINK_SECRET: usize = 16;

/// What the names of all variables begin with.
const VARIABLE: &str = "WHIMBREL_";

/// Declares each setting once: the field with its documentation, type, default, the name of its value and
/// how a text becomes one. The struct, the list behind the help and the reader all come from here, so
/// that none can miss a setting.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $default:literal, $value:literal, $parse:expr;)+) => {
        /// Everything that can be set, in working order.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        /// All settings, in the order in which the help shows them.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { field: stringify!($field), default: $default, value: $value, help: &[$($doc),+] },)+
        ];

        fn read(given: &BTreeMap<&'static str, String>) -> Result<Settings, SettingError> {
            Ok(Settings {
                $($field: {
                    let text = given.get(stringify!($field)).map_or($default, String::as_str);
                    ($parse)(text).map_err(|reason| SettingError::new(stringify!($field), reason))?
                },)+
            })
        }
    };
}

settings! {
    /// Where to listen: an IP address with a port, the path of a Unix socket (unix:/PATH), or
    /// several, space-separated. While access is open, any address but loopback needs
    /// WHIMBREL_INSECURE=true; access to a Unix socket is up to its directory.
    listen: Vec<Endpoint> = "127.0.0.1:8080", "PLACES", value::endpoints;
    /// The certificate, with its chain, as PEM: then clients of every address to listen at speak
    /// TLS 1.2 or 1.3, and HTTP/2 or HTTP/1.1 on it. It is read again on SIGHUP and when the file
    /// changes. Unix sockets stay plain.
    tls_cert_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The certificate's private key, as PEM; read again together with it.
    tls_key_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// Where to listen for operators, in the form of WHIMBREL_LISTEN. The page, /metrics and what
    /// erases, kicks or moves are then there only, and the rest of the API too. When not set, all
    /// of that is at WHIMBREL_LISTEN.
    admin_listen: Option<Vec<Endpoint>> = "", "PLACES", value::optional(value::endpoints);
    /// The Redis (7.0 or newer) or Valkey that all nodes share: redis://, rediss:// (TLS),
    /// unix:// or redis+unix://; or the master of this name that Sentinels know:
    /// redis+sentinel://HOST:PORT,HOST:PORT/MASTER, or rediss+sentinel:// (TLS); or some servers
    /// of a Cluster: redis+cluster://HOST:PORT,HOST:PORT, or rediss+cluster:// (TLS). Without one
    /// this is a single node that keeps events in its own memory.
    redis_url: Option<RedisUrl> = "", "URL", value::optional(value::from_str);
    /// A file that holds the Redis URL, so that its password stands neither in the
    /// environment nor on the command line.
    redis_url_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// A file that holds the password of Redis, for URLs that have none. It is read again for each
    /// new connection, so that a rotated password needs no restart.
    redis_password_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// Certificates, as PEM, of the authorities that may have signed the certificate of a Redis
    /// over TLS (rediss://); when not set, the authorities that browsers trust. It is read again
    /// for each new connection, and so are the two files below.
    redis_ca_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The client's certificate for a Redis over TLS that asks for one, with its chain, as PEM.
    redis_cert_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The private key of that certificate, as PEM.
    redis_key_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The user at Sentinels, if they have users of their own. The login in the URL is for the
    /// servers behind them.
    sentinel_user: Option<String> = "", "NAME", value::optional(value::from_str);
    /// The password at Sentinels, if they ask for one.
    sentinel_password: Option<Secret> = "", "SECRET", value::optional(value::secret(1));
    /// A file that holds the password at Sentinels, read again for each new connection.
    sentinel_password_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The region that this node calls home. With several regions, one of WHIMBREL_REGIONS.
    region: String = "local", "NAME", value::region;
    /// All regions with their Redis: 'eu=redis://… us=redis://…', the same on all nodes. Each
    /// stream has one of them as its home.
    regions: Option<RegionUrls> = "", "NAME=URL …", value::optional(value::regions);
    /// A file that holds the regions, so that their passwords stand neither in the
    /// environment nor on the command line.
    regions_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The Redis that knows which region is the home of which stream: one for all regions, so
    /// it is the same on all nodes. When not set, the Redis of this node's region, which is
    /// right only where all nodes are of one region.
    directory_url: Option<RedisUrl> = "", "URL", value::optional(value::from_str);
    /// A file that holds the directory's URL.
    directory_url_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// In which region streams begin that nobody assigned: PATTERN=REGION, space-separated,
    /// the first match wins: 'device:us-*=us topic:*=eu'. Where no rule matches, in the region
    /// of the node that touches the stream first.
    region_rules: RegionRules = "", "RULES", value::region_rules;
    /// Move a device to the region where it keeps connecting: after so many connections in a
    /// row at nodes of that region, from the first to the last of them at least so many
    /// seconds: '10/3600'. Never when not set, and never where a rule names its region.
    region_follow: Option<FollowRule> = "", "CONNECTIONS/SECONDS", value::optional(value::from_str);
    /// What all keys and channels in Redis begin with.
    prefix: String = "whimbrel", "TEXT", value::prefix;
    /// How much history streams keep: PATTERN=EVENTS/SECONDS, space-separated, the first
    /// match wins: 'topic:llm:*=50000/3600 *=1000/86400'. Never fewer events than that.
    retention: RetentionRules = "*=1000/86400", "RULES", value::retention;
    /// How long a stream's position outlives its last event, in seconds.
    position_seconds: u64 = "2592000", "SECONDS", value::seconds(1);
    /// How long a node counts as alive after its last sign of life, in seconds.
    lease_seconds: u64 = "15", "SECONDS", value::seconds(1);
    /// How often each live stream is compared with the store, in seconds: the repair of
    /// whatever was lost on the way.
    sync_seconds: u64 = "30", "SECONDS", value::seconds(1);
    /// What may wait for one slow connection, in bytes, before it falls back to reading
    /// from the stream at its own pace.
    outbox_bytes: usize = "65536", "BYTES", value::bytes(1);
    /// Memory for the newest events of all streams on this node, in bytes.
    ring_bytes: usize = "67108864", "BYTES", value::bytes(0);
    /// How often an idle connection gets a sign of life (SSE comment, WebSocket ping), in
    /// seconds.
    ping_seconds: u64 = "25", "SECONDS", value::seconds(1);
    /// On SIGTERM: how long the node is already unready but still accepts, in seconds, so
    /// that load balancers notice first.
    drain_delay_seconds: u64 = "5", "SECONDS", value::seconds(0);
    /// Then: over how many seconds its clients are let go.
    drain_seconds: u64 = "10", "SECONDS", value::seconds(0);
    /// Most event connections open at once; probes and metrics are not counted. When not
    /// set, 90% of the descriptor limit.
    max_connections: Option<usize> = "", "COUNT", value::optional(value::count(1, usize::MAX));
    /// How long a client may take to begin a request, and then to send its head, in seconds.
    header_seconds: u64 = "10", "SECONDS", value::seconds(1);
    /// How long it may take to send a request's body, in seconds.
    body_seconds: u64 = "30", "SECONDS", value::seconds(1);
    /// Most data of one event, in bytes.
    max_event_bytes: usize = "65536", "BYTES", value::event_bytes;
    /// Most streams that one connection may follow, at most 64.
    max_streams: usize = "64", "COUNT", value::count(1, 64);
    /// Most connections of one device, on all nodes together.
    connections_per_device: usize = "16", "COUNT", value::count(1, 1000);
    /// Events that one device may publish a second, by its token; as many at once. When not set, 20,
    /// or any number where access is open: there it counts for the device of a WebSocket.
    rate_device: Option<u32> = "", "COUNT", value::optional(value::rate);
    /// New event connections of one address a second; as many at once. Not limited when not set:
    /// behind a balancer all come from one, unless WHIMBREL_TRUSTED_PROXIES names it.
    rate_connect: Option<u32> = "", "COUNT", value::optional(value::rate);
    /// Messages that one WebSocket client may send a second, of any kind; as many at once.
    /// A client that goes on sending beyond that is closed.
    rate_messages: u32 = "1000", "COUNT", value::rate;
    /// Event connections of one address on this node. Not limited when not set, for the same
    /// reason.
    connections_per_address: Option<usize> = "", "COUNT", value::optional(value::count(1, usize::MAX));
    /// Proxies whose X-Forwarded-For is believed: IP addresses and networks (10.0.0.0/8),
    /// space-separated, and unix for all clients of a Unix socket.
    trusted_proxies: TrustedProxies = "", "PROXIES", value::from_str;
    /// Which connection of a device goes when there are more: 'newest' is refused, or
    /// 'oldest' gives way.
    device_overflow: Overflow = "newest", "WHICH", value::overflow;
    /// The secret shared with the issuer of device tokens (HS256), at least 16 characters;
    /// several, of which any will do, with a blank line between them. Any key or secret set
    /// closes access. See docs/access.md.
    jwt_secret: Option<Secrets> = "", "SECRET", value::optional(value::from_str);
    /// A file that holds the secret of device tokens.
    jwt_secret_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The public key of the issuer of device tokens, in PEM: RSA (RS256 to PS512), EC (ES256,
    /// ES384) or Ed25519 (EdDSA); several, of which any will do, one after another.
    jwt_public_key: Option<PublicKeys> = "", "PEM", value::optional(value::from_str);
    /// A file that holds the public key of device tokens.
    jwt_public_key_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// Key sets (JWKS) with more such keys, space-separated, each URL or ISSUER=URL: https:// or
    /// file://. The keys of ISSUER=URL are for its tokens alone. A set is kept as long as its
    /// Cache-Control says, and read again, once a minute at most, for an unknown kid.
    jwks_url: Option<KeySources> = "", "URLS", value::optional(value::from_str);
    /// A backend of the application that is asked about each listener without a token, and says what
    /// it may follow: an http:// or https:// URL. Questions are signed with
    /// WHIMBREL_WEBHOOK_SECRET if that is set. See docs/access.md.
    authorize_url: Option<Target> = "", "URL", value::optional(value::from_str);
    /// A file that holds the URL of that backend, in case it says more than where.
    authorize_url_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// What device tokens must have as their audience (aud): one of these, space-separated.
    jwt_audience: Vec<String> = "", "TEXT", value::words;
    /// What device tokens must have as their issuer (iss): one of these, space-separated.
    jwt_issuer: Vec<String> = "", "TEXT", value::words;
    /// A file with the keys of producers, a JSON array of {"name", "key" or "sha256", "scopes",
    /// "streams", "rate"}; it is read again on SIGHUP and when it changes.
    api_keys_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// Streams that anyone may read without a token while access is closed, such as 'topic:news
    /// topic:public:*'.
    anonymous: Patterns = "", "PATTERNS", value::from_str;
    /// Allow a listener that other machines reach although access is open.
    insecure: bool = "false", "BOOL", value::switch;
    /// Web origins whose pages may use the service, space-separated: https://app.example.com,
    /// https://*.example.com for all below a domain, or * for every page, whose cookies then do
    /// not count. The service's own pages always may; every other origin is refused.
    origins: Origins = "", "ORIGINS", value::from_str;
    /// For development on this machine: pages of every loopback origin may use the service.
    /// Refused unless every address to listen at is a loopback one.
    dev: bool = "false", "BOOL", value::switch;
    /// Report unready (503) while the store is away. Otherwise a node that once reached its
    /// store stays ready and keeps its clients.
    ready_strict: bool = "false", "BOOL", value::switch;
    /// Take what producers write straight into Redis: the node takes its turns at the
    /// ingress stream, and loads the function library. When not set, true with a Redis. The
    /// embedded store has no ingress.
    ingress: Option<bool> = "", "BOOL", value::optional(value::switch);
    /// Memory that events may take in the embedded store, in bytes. Unused with a Redis.
    embedded_bytes: usize = "268435456", "BYTES", value::bytes(1);
    /// A directory in which a node without Redis keeps events, positions and what else it would
    /// forget when it ends. It is created if need be; one node at a time can use it. See
    /// docs/data-dir.md.
    data_dir: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// When what is acknowledged is on the disk of WHIMBREL_DATA_DIR: always, before it is
    /// acknowledged; or everysec, within about a second, so that a power failure can lose that
    /// much. Unused without a data directory.
    fsync: Fsync = "always", "WHEN", value::from_str;
    /// Address on which other nodes reach this one for links, which take events past Redis
    /// from node to node; port 0 takes any. Links are off unless it is set, the same way on
    /// all nodes. See docs/links.md.
    link_listen: Option<SocketAddr> = "", "ADDRESS", value::optional(value::address);
    /// Where other nodes reach it, if they have to use another address: HOST:PORT.
    link_advertise: Option<String> = "", "HOST:PORT", value::optional(value::host_and_port);
    /// The secret with which nodes that link know each other, the same on all nodes, at
    /// least 16 characters. Needed for links.
    link_secret: Option<Secret> = "", "SECRET", value::optional(value::secret(LEAST_LINK_SECRET));
    /// A file that holds the secret of links.
    link_secret_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// Most links that this node opens; the least useful gives way.
    max_links: usize = "32", "COUNT", value::count(1, 1024);
    /// After how long a link that carries nothing is closed, in seconds.
    link_idle_seconds: u64 = "60", "SECONDS", value::seconds(1);
    /// Where connects and disconnects are sent, as signed POST requests: an http:// or https://
    /// URL, the same on all nodes. It needs WHIMBREL_WEBHOOK_SECRET. See docs/webhooks.md.
    webhook_url: Option<Target> = "", "URL", value::optional(value::from_str);
    /// A file that holds the URL of the webhook, in case it holds a secret.
    webhook_url_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// The secret with which webhooks are signed: whsec_ and 24 to 64 random bytes in base64.
    /// While one is replaced, the new one and the old one, space-separated.
    webhook_secret: Option<SigningKeys> = "", "SECRET", value::optional(value::from_str);
    /// A file that holds the secret of webhooks.
    webhook_secret_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// What webhooks hold: whimbrel, cloudevents (one a request), or cloudevents-batch.
    webhook_format: webhook::Format = "whimbrel", "FORMAT", value::from_str;
    /// How long the receiver of webhooks may take to answer, in seconds.
    webhook_timeout_seconds: u64 = "20", "SECONDS", value::seconds(1);
    /// An OpenTelemetry collector that takes spans of sampled publishes, over HTTP with protobuf:
    /// http://collector:4318; without a path, /v1/traces below it. See docs/tracing.md.
    otlp_url: Option<Target> = "", "URL", value::optional(value::from_str);
    /// A file that holds the URL of the collector, in case it holds a secret.
    otlp_url_file: Option<PathBuf> = "", "PATH", value::optional(value::path);
    /// Of publishes without a trace, the share for which one is begun: 0 to 1. Whether a publish
    /// that comes with a trace is recorded is up to that. Unused without a collector.
    trace_ratio: f64 = "0", "SHARE", value::share;
    /// What is logged: error, warn, info, debug, trace, or a filter such as
    /// 'info,whimbrel=debug'.
    log: String = "info", "FILTER", value::log_filter;
    /// Log one JSON object a line instead of text.
    log_json: bool = "false", "BOOL", value::switch;
}

impl Settings {
    /// How long a stream's position outlives its last event.
    pub fn position(&self) -> Duration {
        Duration::from_secs(self.position_seconds)
    }

    /// The origins whose pages may use the service.
    pub fn origins(&self) -> Origins {
        let origins = self.origins.clone();
        if self.dev { origins.with_loopback() } else { origins }
    }

    /// What one client may take.
    pub fn throttle(&self) -> ThrottleSettings {
        ThrottleSettings {
            proxies: self.trusted_proxies.clone(),
            connects: self.rate_connect,
            connections: self.connections_per_address,
            publishes: self.rate_device.or(self.access().is_closed().then_some(RATE_DEVICE)),
        }
    }

    /// All places to listen at, and which listener each belongs to.
    pub fn places(&self) -> impl Iterator<Item = (Door, &Endpoint)> {
        let public = self.listen.iter().map(|place| (Door::Public, place));
        public.chain(self.admin_listen.iter().flatten().map(|place| (Door::Admin, place)))
    }

    /// The files of the certificate and its key, where clients speak TLS.
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        self.tls_cert_file.as_deref().zip(self.tls_key_file.as_deref())
    }

    /// The term of a node's lease.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// The interval of the repair read.
    pub fn sync(&self) -> Duration {
        Duration::from_secs(self.sync_seconds)
    }

    /// The interval of signs of life on idle connections.
    pub fn ping(&self) -> Duration {
        Duration::from_secs(self.ping_seconds)
    }

    /// How long a request's head may take.
    pub fn header(&self) -> Duration {
        Duration::from_secs(self.header_seconds)
    }

    /// How long a request's body may take.
    pub fn body(&self) -> Duration {
        Duration::from_secs(self.body_seconds)
    }

    /// After how long a link that carries nothing is closed.
    pub fn link_idle(&self) -> Duration {
        Duration::from_secs(self.link_idle_seconds)
    }

    /// How long a webhook's receiver may take to answer.
    pub fn webhook_timeout(&self) -> Duration {
        Duration::from_secs(self.webhook_timeout_seconds)
    }

    /// How long a draining node still accepts.
    pub fn drain_delay(&self) -> Duration {
        Duration::from_secs(self.drain_delay_seconds)
    }

    /// Over how long a draining node lets its clients go.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

impl Default for Settings {
    fn default() -> Self {
        read(&BTreeMap::new()).expect("the defaults are checked by a test")
    }
}

/// A setting that can't work, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// As the message begins with it.
    name: String,
    reason: String,
}

impl SettingError {
    fn new(field: &str, reason: String) -> Self {
        SettingError { name: format!("{} (--{})", variable(field), flag(field)), reason }
    }

    /// Of a variable that is no setting, and so has no flag.
    fn unknown(variable: &str, reason: String) -> Self {
        SettingError { name: variable.to_owned(), reason }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the value held.
        let reason = self.reason.replace(['\n', '\r'], " ");
        write!(f, "{}: {reason}", self.name)
    }
}

impl std::error::Error for SettingError {}

#[cfg(test)]
mod tests;
