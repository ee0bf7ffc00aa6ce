//! Real balancers in front of nodes, with the configurations that the documents give.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::http::Http;
use super::{eventually, free_port};

/// A balancer, killed when dropped.
pub struct Balancer {
    address: SocketAddr,
    process: Child,
    _dir: TempDir,
}

impl Balancer {
    /// nginx, with `deploy/proxies/nginx.conf`.
    pub async fn nginx(nodes: &[SocketAddr]) -> Self {
        let config = std::fs::read_to_string(in_project("deploy/proxies/nginx.conf")).unwrap();
        let given = |line: &&str| line.trim_start().starts_with("server 10.");
        assert_eq!(config.lines().filter(given).count(), 2);
        let servers = |line: &str| {
            let rest = line.split_once(":8080").unwrap().1;
            nodes.iter().map(|node| format!("server {node}{rest}\n")).collect::<String>()
        };
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let mut first = true;
        let mut own = String::new();
        for line in config.lines() {
            if given(&line) {
                own += &if std::mem::take(&mut first) { servers(line) } else { String::new() };
            } else if line.trim() == "listen 80;" {
                own += &format!("listen 127.0.0.1:{port};\n");
            } else {
                own += &format!("{line}\n");
            }
            if line == "http {" {
                let temporary = |what| format!("{what}_temp_path {}/{what};\n", dir.path().display());
                own += "access_log off;\n";
                own.extend(["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temporary));
            }
        }
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, own).unwrap();
        let globals = format!("daemon off; pid {}/pid; error_log {0}/log;", dir.path().display());
        let mut command = Command::new("nginx");
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file).args(["-g", &globals]);
        Balancer::start(command, port, dir).await
    }

    /// HAProxy, with `deploy/proxies/haproxy.cfg`, which finds its nodes by name instead of by DNS.
    pub async fn haproxy(nodes: &[SocketAddr]) -> Self {
        let text = std::fs::read_to_string(in_project("deploy/proxies/haproxy.cfg")).unwrap();
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let (before, rest) = text.split_once("resolvers docker").unwrap();
        let (_, after) = rest.split_once("frontend public").unwrap();
        let mut own = format!("{before}frontend public{after}");
        for (given, wanted) in [
            ("bind :8080", format!("bind 127.0.0.1:{port}")),
            (" resolvers docker init-addr none resolve-prefer ipv4", String::new()),
            ("log stdout format raw local0 info", String::new()),
            ("maxconn 30000", "maxconn 2000".to_owned()),
        ] {
            assert!(own.contains(given), "{given}");
            own = own.replace(given, &wanted);
        }
        let template = own.lines().find(|line| line.trim_start().starts_with("server-template")).unwrap().to_owned();
        let servers = nodes.iter().enumerate().map(|(number, node)| format!("    server node-{number} {node}\n"));
        own = own.replace(&template, &servers.collect::<String>());
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, own).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file);
        Balancer::start(command, port, dir).await
    }

    /// Caddy, with `deploy/proxies/Caddyfile`, over HTTP.
    pub async fn caddy(nodes: &[SocketAddr]) -> Self {
        let text = std::fs::read_to_string(in_project("deploy/proxies/Caddyfile")).unwrap();
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let servers = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let mut own = format!("{{\n\tadmin off\n}}\n{text}");
        for (given, wanted) in
            [("events.example.com", format!("http://127.0.0.1:{port}")), ("10.0.0.11:8080 10.0.0.12:8080", servers)]
        {
            assert!(own.contains(given), "{given}");
            own = own.replace(given, &wanted);
        }
        let file = dir.path().join("Caddyfile");
        std::fs::write(&file, own).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file).env("HOME", dir.path());
        Balancer::start(command, port, dir).await
    }

    async fn start(mut command: Command, port: u16, dir: TempDir) -> Self {
        let program = command.get_program().to_owned();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| panic!("scripts/test installs {program:?}: {error}"));
        let balancer = Balancer { address: ([127, 0, 0, 1], port).into(), process, _dir: dir };
        eventually("the balancer reaches a node", async || {
            drop(tokio::net::TcpStream::connect(balancer.address).await.ok()?);
            let mut http = Http::connect(balancer.address).await;
            let answer = http.call("GET", "/health/ready", &[("Connection", "close")], b"").await;
            (answer.status == 200).then_some(())
        })
        .await;
        balancer
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Its workers end with it.
        super::send(self.process.id(), super::Signal::TERM);
        let _ = self.process.wait();
    }
}

fn in_project(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
