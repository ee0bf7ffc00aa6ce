//! What a Redis URL names: one server, a master that Sentinels know, or some nodes of a Cluster.

use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};

use super::credentials::CredentialFiles;
use super::url::RedisUrl;
use crate::metrics::StoreMetrics;
use crate::model::Secret;

/// A Sentinel's default port, and a server's.
const SENTINEL_PORT: u16 = 26379;
const SERVER_PORT: u16 = 6379;

/// Most Sentinels of one URL, all of which are asked before each connection; and most nodes of a Cluster.
const MAX_PLACES: usize = 16;

/// How a Redis is reached: its URL, and what is no part of the URL.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// `redis://`, `rediss://`, `unix://`, `redis+unix://`, or `redis+sentinel://`, `redis+cluster://` and both with
    /// `rediss`.
    pub url: RedisUrl,
    /// The user at Sentinels, if they have users.
    pub sentinel_user: Option<String>,
    /// The password at Sentinels, if they have one.
    pub sentinel_password: Option<Secret>,
    /// What is read from files for each connection.
    pub credentials: CredentialFiles,
    /// Where its round trips are counted.
    pub metrics: StoreMetrics,
}

impl From<RedisUrl> for ServerConfig {
    fn from(url: RedisUrl) -> Self {
        ServerConfig {
            url,
            sentinel_user: None,
            sentinel_password: None,
            credentials: CredentialFiles::default(),
            metrics: StoreMetrics::default(),
        }
    }
}

/// Shown without user and password.
impl fmt::Display for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// A user and a password.
type Login<'a> = (Option<&'a str>, Option<&'a str>);

/// What a URL names.
#[allow(clippy::large_enum_variant, reason = "it is taken apart as soon as it is read")]
pub(in crate::store::redis) enum Kind {
    /// One master at a time.
    Master(Target),
    /// Some nodes of a Cluster, from which all others are known.
    Cluster(Vec<ConnectionInfo>),
}

/// Where a master is. Displayed without user and password.
#[derive(Clone)]
pub(in crate::store::redis) enum Target {
    /// One server.
    Server(ConnectionInfo),
    /// The master of this name.
    Sentinels {
        /// How each Sentinel is reached.
        sentinels: Vec<ConnectionInfo>,
        /// What they call the master.
        master: String,
        /// How the master is reached, but for its host and port.
        server: ConnectionInfo,
    },
}

impl Kind {
    pub(in crate::store::redis) fn of(config: &ServerConfig) -> Result<Self, String> {
        let password = config.sentinel_password.as_ref().map(Secret::expose);
        Self::read(config.url.expose(), config.sentinel_user.as_deref(), password)
    }

    pub(super) fn read(
        url: &str,
        sentinel_user: Option<&str>,
        sentinel_password: Option<&str>,
    ) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let login = (sentinel_user, sentinel_password);
        match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => server(url).map(Target::Server).map(Kind::Master),
            "redis+sentinel" => sentinels("redis", rest, login).map(Kind::Master),
            "rediss+sentinel" => sentinels("rediss", rest, login).map(Kind::Master),
            "redis+cluster" => cluster("redis", rest).map(Kind::Cluster),
            "rediss+cluster" => cluster("rediss", rest).map(Kind::Cluster),
            _ => Err("is not a URL that begins with redis://, rediss://, unix://, redis+unix://, redis+sentinel://, \
                      rediss+sentinel://, redis+cluster:// or rediss+cluster://"
                .to_owned()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Server(info) => info.addr().fmt(f),
            Target::Sentinels { sentinels, master, .. } => {
                let places: Vec<_> = sentinels.iter().map(|info| info.addr().to_string()).collect();
                write!(f, "{master} of Sentinels {}", places.join(","))
            }
        }
    }
}

/// The same settings for another server.
pub(in crate::store::redis) fn at(server: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let address = match server.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    server.clone().set_addr(address)
}

fn server(url: &str) -> Result<ConnectionInfo, String> {
    let info = url
        .into_connection_info()
        .map_err(|error| format!("is not a Redis URL such as redis://:PASSWORD@HOST:6379/0 ({})", error.category()))?;
    // RESP3, as it alone reports a broken connection at once and brings messages without a task between. The name of
    // the library is left out: `CLIENT SETINFO` is one more right, which Redis 7.0 can't grant.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(settings))
}

/// `[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DB]`; the login is the master's.
fn sentinels(scheme: &str, rest: &str, sentinel_login: Login<'_>) -> Result<Target, String> {
    let wrong = |what: &str| format!("{what}; a URL with Sentinels is {scheme}+sentinel://HOST:PORT,HOST:PORT/MASTER");
    if rest.contains(['?', '#']) {
        return Err(wrong("has a query or a fragment"));
    }
    let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
    let (hosts, path) = rest.split_once('/').ok_or_else(|| wrong("names no master"))?;
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() || !master.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(wrong("names no master as Sentinels call one (A-Z a-z 0-9 . _ -)"));
    }
    let with_login = |info: ConnectionInfo| with_login(info, sentinel_login);
    let sentinels = places(scheme, "", hosts, SENTINEL_PORT).map_err(|reason| wrong(&reason))?;
    let sentinels = sentinels.into_iter().map(with_login).collect();
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    // The host is replaced by the one that Sentinels name.
    let server = server(&format!("{scheme}://{login}master/{database}"))
        .map_err(|_| wrong("has a login or a database number that makes no sense"))?;
    Ok(Target::Sentinels { sentinels, master: master.to_owned(), server })
}

/// `[USER:PASSWORD@]HOST:PORT,HOST:PORT`; the login is that of all servers.
fn cluster(scheme: &str, rest: &str) -> Result<Vec<ConnectionInfo>, String> {
    let wrong = |what: &str| format!("{what}; a URL of a Cluster is {scheme}+cluster://HOST:PORT,HOST:PORT");
    if rest.contains(['?', '#']) {
        return Err(wrong("has a query or a fragment"));
    }
    let (login, hosts) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
    let (hosts, database) = hosts.split_once('/').unwrap_or((hosts, ""));
    if !matches!(database, "" | "0") {
        return Err(wrong("names a database, and a Cluster has only one"));
    }
    let login = if login.is_empty() { String::new() } else { format!("{login}@") };
    places(scheme, &login, hosts, SERVER_PORT).map_err(|reason| wrong(&reason))
}

/// Several servers, each once.
fn places(scheme: &str, login: &str, hosts: &str, default_port: u16) -> Result<Vec<ConnectionInfo>, String> {
    let mut places: Vec<ConnectionInfo> = Vec::new();
    for host in hosts.split(',') {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let place = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
        let info = match host.is_empty() || host.contains(['/', ' ']) {
            true => None,
            false => server(&format!("{scheme}://{login}{place}")).ok(),
        };
        let info = info.ok_or("has a server that is not HOST:PORT, or a login that makes no sense")?;
        if !places.iter().any(|known| known.addr() == info.addr()) {
            places.push(info);
        }
    }
    match places.len() {
        ..=MAX_PLACES => Ok(places),
        many => Err(format!("names {many} servers, and at most {MAX_PLACES} are asked")),
    }
}

fn with_login(info: ConnectionInfo, (user, password): Login<'_>) -> ConnectionInfo {
    let mut settings = info.redis_settings().clone();
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    info.set_redis_settings(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Target {
        let Ok(Kind::Master(target)) = Kind::read(url, None, None) else { panic!("{url}") };
        target
    }

    fn refusal(url: &str) -> String {
        url.parse::<RedisUrl>().unwrap_err()
    }

    #[test]
    fn sentinels_are_listed_before_the_name_of_the_master() {
        let url = "redis+sentinel://app:s%40crt@10.0.0.1:26380,sentinel-2,[::1]:7000,[::2],sentinel-2/my.main-1/3";
        let read = Kind::read(url, Some("reader"), Some("hidden"));
        let Ok(Kind::Master(Target::Sentinels { sentinels, master, server })) = read else { panic!() };
        let places: Vec<_> = sentinels.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(places, ["10.0.0.1:26380", "sentinel-2:26379", "::1:7000", "::2:26379"]);
        assert_eq!(master, "my.main-1");
        for sentinel in &sentinels {
            assert_eq!(sentinel.redis_settings().username(), Some("reader"));
            assert_eq!(sentinel.redis_settings().password(), Some("hidden"));
        }
        let settings = server.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("app"), Some("s@crt"), 3));
        assert_eq!(*at(&server, "10.0.0.7", 6380).addr(), ConnectionAddr::Tcp("10.0.0.7".into(), 6380));
        let shown = parsed("redis+sentinel://:pw@a,b:1/m").to_string();
        assert_eq!(shown, "m of Sentinels a:26379,b:1");
    }

    #[test]
    fn sentinels_over_tls_name_a_master_over_tls() {
        let Target::Sentinels { sentinels, server, .. } = parsed("rediss+sentinel://a:1/m") else { panic!() };
        assert!(matches!(sentinels[0].addr(), ConnectionAddr::TcpTls { .. }));
        assert!(matches!(at(&server, "b", 2).addr(), ConnectionAddr::TcpTls { host, port: 2, .. } if host == "b"));
    }

    #[test]
    fn nodes_of_a_cluster_share_a_login() {
        let Ok(Kind::Cluster(seeds)) = Kind::read("rediss+cluster://app:pw@a:7000,b,[::1]:7001,b:6379", None, None)
        else {
            panic!()
        };
        let places: Vec<_> = seeds.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(places, ["a:7000", "b:6379", "::1:7001"]);
        for seed in &seeds {
            assert!(matches!(seed.addr(), ConnectionAddr::TcpTls { .. }));
            assert_eq!((seed.redis_settings().username(), seed.redis_settings().password()), (Some("app"), Some("pw")));
        }
    }

    #[test]
    fn a_url_that_names_no_servers_is_refused_without_repeating_it() {
        for (url, reason) in [
            ("http://s3cret@a", "is not a URL that begins with redis://"),
            ("redis://s3cret@", "is not a Redis URL such as"),
            ("redis+sentinel://s3cret@a:1", "names no master"),
            ("redis+sentinel://s3cret@a:1/", "names no master"),
            ("redis+sentinel://s3cret@a:1/m m", "names no master"),
            ("redis+sentinel://s3cret@a:1,/m", "has a server that is not HOST:PORT"),
            ("redis+sentinel://s3cret@a:b/m", "has a server that is not HOST:PORT"),
            ("redis+sentinel://s3cret@a:1/m/db", "a database number that makes no sense"),
            ("redis+sentinel://s3cret@a:1/m?x=y", "has a query"),
            ("redis+cluster://s3cret@", "has a server that is not HOST:PORT"),
            ("redis+cluster://s3cret@a:1,b:x", "has a server that is not HOST:PORT"),
            ("redis+cluster://s3cret@a:1/1", "a Cluster has only one"),
            ("rediss+cluster://s3cret@a:1?x=y", "a URL of a Cluster is rediss+cluster://HOST:PORT,HOST:PORT"),
        ] {
            let refusal = refusal(url);
            assert!(refusal.contains(reason), "{url}: {refusal}");
            assert!(!refusal.contains("s3cret"), "{refusal}");
        }
        let many = (0..17).map(|n| format!("s{n}")).collect::<Vec<_>>().join(",");
        assert!(refusal(&format!("redis+sentinel://{many}/m")).contains("names 17 servers, and at most 16"));
    }
}
