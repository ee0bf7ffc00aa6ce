//! Private redis-servers.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;
use whimbrel::store::redis::{RedisUrl, ServerConfig};

use super::node::program;
use super::{PATIENCE, Signal, blocking_eventually, send};

/// A redis-server of one test, killed when dropped.
pub struct RedisServer {
    port: u16,
    dir: TempDir,
    environment: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    process: Child,
}

impl RedisServer {
    /// Starts one as the program expects it to be set up, and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments, such as `--maxmemory-policy allkeys-lru`.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(Vec::new(), arguments)
    }

    fn start_in(environment: Vec<(&'static str, String)>, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let alone = is_cluster() && !arguments.iter().any(|argument| argument == "--cluster-enabled");
        if alone {
            let bus = super::free_port().to_string();
            arguments.extend(["--cluster-enabled", "yes", "--cluster-port", &bus].map(str::to_owned));
        }
        // A port that is free now may be taken by the time the server binds it: then try another.
        for _ in 0..20 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if let Some(process) = launch(port, &dir, &environment, &arguments) {
                let server = RedisServer { port, dir, environment, arguments, process };
                if alone {
                    server.take_all_slots();
                }
                return server;
            }
        }
        panic!("no redis-server came up");
    }

    /// Makes it a Cluster of its own.
    fn take_all_slots(&self) {
        let mut server = redis::Client::open(self.admin_url()).unwrap().get_connection_with_timeout(PATIENCE).unwrap();
        let mut take = redis::cmd("CLUSTER");
        let () = take.arg("ADDSLOTSRANGE").arg(0).arg(16_383).query(&mut server).unwrap();
        blocking_eventually("the Cluster is up", || {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut server).unwrap();
            info.contains("cluster_state:ok").then_some(())
        });
    }

    /// Starts one whose clock is off, by `-30s` for instance. `None` without libfaketime.
    pub fn start_with_clock(offset: &str) -> Option<Self> {
        let library = std::fs::read_dir("/usr/lib").ok()?.chain(std::fs::read_dir("/usr/lib64").into_iter().flatten());
        let library = library
            .filter_map(Result::ok)
            .flat_map(|dir| [dir.path().join("faketime/libfaketime.so.1"), dir.path().join("libfaketime.so.1")])
            .find(|path| path.exists());
        let everything = std::env::var_os("WHIMBREL_TEST_EVERYTHING").is_some();
        assert!(library.is_some() || !everything, "all tests have to run, and libfaketime is missing");
        let library = library?;
        let environment = vec![
            // With the allocator of the C library, as Redis's own reads the time before libfaketime is ready.
            ("LD_PRELOAD", format!("{} libc.so.6", library.display())),
            ("FAKETIME", offset.to_owned()),
            // Its timers go on as they are.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Some(Self::start_in(environment, &[]))
    }

    /// Where nodes and stores find it.
    pub fn url(&self) -> String {
        let login = if least_rights(false).is_empty() { "" } else { "whimbrel-node:node@" };
        let scheme = if is_cluster() { "redis+cluster" } else { "redis" };
        format!("{scheme}://{login}127.0.0.1:{}/", self.port)
    }

    /// Where a test may do all.
    fn admin_url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    pub fn signal(&self, signal: Signal) {
        send(self.process.id(), signal);
    }

    /// For how long it has waited for a processor that others had.
    pub fn waited_for_processor(&self) -> Duration {
        let stats = std::fs::read_to_string(format!("/proc/{}/schedstat", self.process.id())).unwrap();
        Duration::from_nanos(stats.split(' ').nth(1).unwrap().parse().unwrap())
    }

    /// Microseconds of processor time that it has used.
    pub async fn cpu_us(&self) -> f64 {
        let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut self.raw().await).await.unwrap();
        let used = info.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            ["used_cpu_user", "used_cpu_sys"].contains(&name).then(|| value.trim().parse::<f64>().unwrap() * 1e6)
        });
        used.sum()
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Kills it as a power failure would. It keeps nothing by default.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub fn revive(&mut self) {
        self.process =
            launch(self.port, &self.dir, &self.environment, &self.arguments).expect("the port is still free");
    }

    /// The answer to a command; `None` when there is none, as Sentinels close connections to a server that they make
    /// a replica.
    pub async fn try_ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> Option<T> {
        let mut raw = try_raw(&self.admin_url()).await.ok()?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut raw).await.ok()
    }

    /// A connection to do with the data what the store would not.
    pub async fn raw(&self) -> redis::aio::MultiplexedConnection {
        raw(&self.admin_url()).await
    }

    /// Publishes events that no node is sent, as all routes are dropped in the same moment: a node only finds them when
    /// it syncs.
    pub async fn publish_unrouted(&self, stream: &str, data: std::ops::Range<u32>) {
        let key = |part: &str| format!("whimbrel:{{{stream}}}:{part}");
        let keys = ["events", "nodes", "meta", "collapse", "once:-"].map(key);
        let mut publishing = redis::pipe();
        publishing.atomic().cmd("DEL").arg(&keys[1]);
        for n in data {
            publishing.cmd("FCALL").arg("whimbrel_publish").arg(keys.len()).arg(&keys).arg(n);
        }
        let answers: Vec<redis::Value> = publishing.query_async(&mut self.raw().await).await.unwrap();
        assert_eq!(answers[0], redis::Value::Int(1), "{stream} had routes");
    }

    /// Fails the test if the user of nodes lacked a right.
    fn check_refusals(&self) {
        if least_rights(false).is_empty() || std::thread::panicking() {
            return;
        }
        let refused = || -> redis::RedisResult<Vec<HashMap<String, String>>> {
            let mut server = redis::Client::open(self.admin_url())?.get_connection_with_timeout(PATIENCE)?;
            server.set_read_timeout(Some(Duration::from_secs(1)))?;
            redis::cmd("ACL").arg("LOG").query(&mut server)
        };
        // It may have been killed or stopped.
        if let Ok(refused) = refused() {
            let is_right = |entry: &&HashMap<_, _>| entry["username"] == "whimbrel-node" && entry["reason"] != "auth";
            let missing: Vec<_> = refused.iter().filter(is_right).collect();
            assert!(missing.is_empty(), "the user of nodes lacks rights: {missing:#?}");
        }
    }
}

/// With `WHIMBREL_TEST_KIND=cluster` each server is a Cluster of its own: whatever a test does crosses no slot.
fn is_cluster() -> bool {
    std::env::var_os("WHIMBREL_TEST_KIND").is_some_and(|kind| kind == "cluster")
}

/// With `WHIMBREL_TEST_RIGHTS=least` the rules of `whimbrel check --acl`, as arguments of a server, of a Cluster or not.
/// The password of each user is what it is for.
pub fn least_rights(cluster: bool) -> &'static [String] {
    static RIGHTS: [OnceLock<Vec<String>>; 2] = [const { OnceLock::new() }; 2];
    RIGHTS[usize::from(cluster)].get_or_init(|| {
        if std::env::var_os("WHIMBREL_TEST_RIGHTS").is_none_or(|rights| rights != "least") {
            return Vec::new();
        }
        let url = if cluster { "redis+cluster://host" } else { "redis://host" };
        let printed = program().args(["check", "--acl", "--redis-url", url]).output().unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let rules = printed.lines().filter(|line| line.contains(" reset "));
        let rules = rules.filter_map(|line| line.strip_prefix("ACL SETUSER "));
        rules
            .flat_map(|rule| {
                let name = rule.split(' ').next().unwrap();
                let rule = rule.replace("PASSWORD", name.strip_prefix("whimbrel-").unwrap());
                let words: Vec<_> = rule.split(' ').map(str::to_owned).collect();
                std::iter::once("--user".to_owned()).chain(words)
            })
            .collect()
    })
}

/// A Redis with nothing special but its URL.
pub fn config(url: &str) -> ServerConfig {
    ServerConfig::from(url.parse::<RedisUrl>().unwrap())
}

/// A connection of the test's own, which waits as long as tests do.
pub async fn raw(url: &str) -> redis::aio::MultiplexedConnection {
    try_raw(url).await.unwrap()
}

pub async fn try_raw(url: &str) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    let config =
        redis::AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.check_refusals();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `None`: it ended before it answered, most likely for its port.
fn launch(port: u16, dir: &TempDir, environment: &[(&str, String)], arguments: &[String]) -> Option<Child> {
    let mut process = Command::new(server_program())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(dir.path())
        .args(["--save", "", "--appendonly", "no", "--stream-node-max-bytes", "512"])
        .args(least_rights(arguments.iter().any(|argument| argument == "--cluster-enabled")))
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    blocking_eventually("redis-server answers, or has ended", || {
        (answers(port) || process.try_wait().unwrap().is_some()).then_some(())
    });
    // Another's server may be what answered.
    process.try_wait().unwrap().is_none().then_some(process)
}

/// The server that tests run: redis-server, or the one that `WHIMBREL_TEST_REDIS` names.
pub fn server_program() -> OsString {
    std::env::var_os("WHIMBREL_TEST_REDIS").unwrap_or_else(|| "redis-server".into())
}

pub fn answers(port: u16) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        socket.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG\r\n")
    };
    ping().unwrap_or(false)
}
