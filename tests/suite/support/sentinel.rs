//! A master, two replicas, and three Sentinels that watch them.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::redis::{RedisServer, answers, server_program, try_raw};
use super::{blocking_eventually, eventually, free_port};

/// What the Sentinels call the master.
pub const MASTER: &str = "main";

/// A master that is silent for so long is down. Busy machines are silent at times too.
const DOWN_AFTER: &str = "1000";

/// The whole of it.
pub struct Group {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<Sentinel>,
}

/// A Sentinel, killed when dropped.
pub struct Sentinel {
    port: u16,
    dir: TempDir,
    process: Child,
}

impl Group {
    /// Starts all of it, and waits until the Sentinels know each other and the replicas.
    pub async fn start(arguments: &[&str]) -> Self {
        let master = RedisServer::start_with(arguments);
        let port = master.port();
        Self::watching(master, port, arguments).await
    }

    /// The same with a master of one's own, which the others reach at another port.
    pub async fn watching(master: RedisServer, port: u16, arguments: &[&str]) -> Self {
        let master_port = port.to_string();
        let replica = [arguments, &["--replicaof", "127.0.0.1", &master_port, "--repl-diskless-sync-delay", "0"]];
        let replica = replica.concat();
        let servers = vec![master, RedisServer::start_with(&replica), RedisServer::start_with(&replica)];
        let sentinels = (0..3).map(|_| Sentinel::start(port)).collect();
        let group = Group { servers, sentinels };
        group.replicate_from(0, port).await;
        for sentinel in &group.sentinels {
            eventually("the Sentinel has found the others", async || {
                let master: std::collections::HashMap<String, String> =
                    sentinel.ask(&["SENTINEL", "MASTER", MASTER]).await;
                (master["num-slaves"] == "2" && master["num-other-sentinels"] == "2").then_some(())
            })
            .await;
        }
        group
    }

    /// Where nodes find it.
    pub fn url(&self) -> String {
        let places: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("redis+sentinel://{}/{MASTER}", places.join(","))
    }

    /// The place of the server that a majority of the Sentinels that answer call the master.
    pub async fn master(&self) -> Option<usize> {
        let mut named = Vec::new();
        for sentinel in &self.sentinels {
            named.extend(sentinel.master().await);
        }
        let most = named.iter().find(|port| named.iter().filter(|other| other == port).count() > 1)?;
        self.servers.iter().position(|server| server.port() == *most)
    }

    /// The master, once it is another one than `old`.
    pub async fn master_after(&self, old: usize) -> usize {
        eventually("a new master", async || self.master().await.filter(|master| *master != old)).await
    }

    /// Waits until all servers but the master have what it has.
    pub async fn all_replicate(&self) {
        let master = eventually("there is a master", async || self.master().await).await;
        self.replicate_from(master, self.servers[master].port()).await;
    }

    async fn replicate_from(&self, master: usize, port: u16) {
        for (_, server) in self.servers.iter().enumerate().filter(|(place, _)| *place != master) {
            eventually("it replicates from the master", async || {
                let info: String = server.try_ask(&["INFO", "replication"]).await?;
                let in_step = info.contains(&format!("master_port:{port}\r\n"))
                    && info.contains("master_link_status:up")
                    && info.contains("master_sync_in_progress:0");
                in_step.then_some(())
            })
            .await;
        }
    }
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let dir = TempDir::new().unwrap();
        let mut file = std::fs::File::create(dir.path().join("sentinel.conf")).unwrap();
        writeln!(file, "sentinel monitor {MASTER} 127.0.0.1 {master} 2").unwrap();
        writeln!(file, "sentinel down-after-milliseconds {MASTER} {DOWN_AFTER}").unwrap();
        writeln!(file, "sentinel failover-timeout {MASTER} 3000").unwrap();
        for _ in 0..20 {
            let port = free_port();
            if let Some(process) = launch(port, &dir) {
                return Sentinel { port, dir, process };
            }
        }
        panic!("no Sentinel came up");
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with what it wrote down.
    pub fn revive(&mut self) {
        self.process = launch(self.port, &self.dir).expect("the port is still free");
    }

    pub async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).await.unwrap()
    }

    pub async fn try_ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let mut raw = try_raw(&format!("redis://{}/", self.address())).await?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut raw).await
    }

    /// The port of the master; `None` when it does not answer.
    async fn master(&self) -> Option<u16> {
        let named = self.try_ask::<(String, u16)>(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await;
        named.ok().map(|(_, port)| port)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `None`: it ended before it answered, most likely for its port.
fn launch(port: u16, dir: &TempDir) -> Option<Child> {
    let mut process = Command::new(server_program())
        .arg(dir.path().join("sentinel.conf"))
        .args(["--sentinel", "--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    blocking_eventually("the Sentinel answers, or has ended", || {
        (answers(port) || process.try_wait().unwrap().is_some()).then_some(())
    });
    process.try_wait().unwrap().is_none().then_some(process)
}
