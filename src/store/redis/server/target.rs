//! What a Redis URL names: one server, or a master that Sentinels know.

use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};

use super::credentials::CredentialFiles;
use crate::config::{RedisUrl, Secret};

/// A Sentinel's default port.
const SENTINEL_PORT: u16 = 26379;

/// Most Sentinels of one URL. All of them are asked before each connection.
const MAX_SENTINELS: usize = 16;

/// How a Redis is reached: its URL, and what is no part of the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// `redis://`, `rediss://`, `unix://`, `redis+unix://`, `redis+sentinel://` or `rediss+sentinel://`.
    pub url: RedisUrl,
    /// The user at Sentinels, if they have users.
    pub sentinel_user: Option<String>,
    /// The password at Sentinels, if they have one.
    pub sentinel_password: Option<Secret>,
    /// What is read from files for each connection.
    pub credentials: CredentialFiles,
}

impl From<RedisUrl> for ServerConfig {
    fn from(url: RedisUrl) -> Self {
        ServerConfig { url, sentinel_user: None, sentinel_password: None, credentials: CredentialFiles::default() }
    }
}

/// Shown without user and password.
impl fmt::Display for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// Refuses what is no URL of a Redis. No refusal repeats it, since it may hold a password.
pub fn check_url(url: &str) -> Result<(), String> {
    Target::read(url, None, None).map(drop)
}

/// A user and a password.
type Login<'a> = (Option<&'a str>, Option<&'a str>);

/// The servers that a URL names. Displayed without user and password.
#[derive(Clone)]
pub(super) enum Target {
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

impl Target {
    pub(super) fn of(config: &ServerConfig) -> Result<Self, String> {
        let password = config.sentinel_password.as_ref().map(Secret::expose);
        Self::read(config.url.expose(), config.sentinel_user.as_deref(), password)
    }

    fn read(url: &str, sentinel_user: Option<&str>, sentinel_password: Option<&str>) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let login = (sentinel_user, sentinel_password);
        match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => server(url).map(Target::Server),
            "redis+sentinel" => sentinels("redis", rest, login),
            "rediss+sentinel" => sentinels("rediss", rest, login),
            "redis+cluster" | "rediss+cluster" => Err(format!("{scheme}:// is not supported by this version yet")),
            _ => Err("is not a URL that begins with redis://, rediss://, redis+sentinel://, rediss+sentinel://, \
                      unix:// or redis+unix://"
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
pub(super) fn at(server: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
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
    let mut sentinels: Vec<ConnectionInfo> = Vec::new();
    for host in hosts.split(',') {
        let sentinel = sentinel(scheme, host, sentinel_login).map_err(|reason| wrong(&reason))?;
        if !sentinels.iter().any(|known| known.addr() == sentinel.addr()) {
            sentinels.push(sentinel);
        }
    }
    if sentinels.len() > MAX_SENTINELS {
        return Err(wrong(&format!("names {} Sentinels, and at most {MAX_SENTINELS} are asked", sentinels.len())));
    }
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    // The host is replaced by the one that Sentinels name.
    let server = server(&format!("{scheme}://{login}master/{database}"))
        .map_err(|_| wrong("has a login or a database number that makes no sense"))?;
    Ok(Target::Sentinels { sentinels, master: master.to_owned(), server })
}

fn sentinel(scheme: &str, host: &str, (user, password): Login<'_>) -> Result<ConnectionInfo, String> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let place = if has_port { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") };
    let wrong = |_| "has a Sentinel that is not HOST:PORT".to_owned();
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(wrong(String::new()));
    }
    let info = server(&format!("{scheme}://{place}")).map_err(wrong)?;
    let mut settings = info.redis_settings().clone();
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    Ok(info.set_redis_settings(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Target {
        Target::read(url, None, None).unwrap()
    }

    fn refusal(url: &str) -> String {
        check_url(url).unwrap_err()
    }

    #[test]
    fn sentinels_are_listed_before_the_name_of_the_master() {
        let url = "redis+sentinel://app:s%40crt@10.0.0.1:26380,sentinel-2,[::1]:7000,[::2],sentinel-2/my.main-1/3";
        let target = Target::read(url, Some("reader"), Some("hidden")).unwrap();
        let Target::Sentinels { sentinels, master, server } = target else { panic!() };
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
    fn a_url_that_names_no_servers_is_refused_without_repeating_it() {
        for (url, reason) in [
            ("http://s3cret@a", "is not a URL that begins with redis://"),
            ("redis://s3cret@", "is not a Redis URL such as"),
            ("redis+sentinel://s3cret@a:1", "names no master"),
            ("redis+sentinel://s3cret@a:1/", "names no master"),
            ("redis+sentinel://s3cret@a:1/m m", "names no master"),
            ("redis+sentinel://s3cret@a:1,/m", "has a Sentinel that is not HOST:PORT"),
            ("redis+sentinel://s3cret@a:b/m", "has a Sentinel that is not HOST:PORT"),
            ("redis+sentinel://s3cret@a:1/m/db", "a database number that makes no sense"),
            ("redis+sentinel://s3cret@a:1/m?x=y", "has a query"),
            ("redis+cluster://s3cret@a:1", "is not supported by this version yet"),
        ] {
            let refusal = refusal(url);
            assert!(refusal.contains(reason), "{url}: {refusal}");
            assert!(!refusal.contains("s3cret"), "{refusal}");
        }
        let many = (0..17).map(|n| format!("s{n}")).collect::<Vec<_>>().join(",");
        assert!(refusal(&format!("redis+sentinel://{many}/m")).contains("names 17 Sentinels, and at most 16"));
    }
}
