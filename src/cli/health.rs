//! `whimbrel health`: does the node on this machine live? For `HEALTHCHECK` and others that run a program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Flags, Settings};
use crate::transport::Endpoint;

use super::{Failure, print};

pub const NOTES: &str = "\
Takes all settings of `whimbrel serve`, as flags or variables, so that it can be run as the node is; those above say \
where it asks: at the first address of WHIMBREL_LISTEN. `whimbrel serve --help` lists them all. The exit code is 0 if it answers that all is well, and 1 if it does not, or not in time.";

/// The settings that say where the node is asked.
pub const SETTINGS: &[&str] = &["listen", "tls_cert_file", "tls_key_file"];

#[derive(clap::Args)]
pub struct Arguments {
    /// Ask whether it is ready for clients (/health/ready), not only whether it lives (/health/live)
    #[arg(long)]
    ready: bool,
    /// How long the answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    #[command(flatten)]
    flags: Flags,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (settings, _) = arguments.flags.validate(std::env::vars_os())?;
    let node = Node::of(&settings)?;
    let path = if arguments.ready { "/health/ready" } else { "/health/live" };
    let mut client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(arguments.timeout))
        // The certificate names the service, not this machine, and nothing secret is sent.
        .danger_accept_invalid_certs(true);
    if let Some(socket) = node.socket {
        client = client.unix_socket(socket);
    }
    let failed = |error: reqwest::Error| Failure::failed(format!("{}: {}", node.origin, error.without_url()));
    let answer = client.build().map_err(failed)?.get(format!("{}{path}", node.origin)).send().await.map_err(failed)?;
    let status = answer.status();
    let body = answer.text().await.map_err(failed)?;
    print(body.trim_end())?;
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where a node with these settings is reached from its own machine.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    origin: String,
    socket: Option<PathBuf>,
}

impl Node {
    fn of(settings: &Settings) -> Result<Self, Failure> {
        let first = settings.listen.first().ok_or_else(|| Failure::usage("WHIMBREL_LISTEN names no place"))?;
        Self::at(first, settings.tls_files().is_some())
    }

    fn at(place: &Endpoint, tls: bool) -> Result<Self, Failure> {
        match place {
            // Unix sockets stay plain.
            Endpoint::Path(path) => Ok(Node { origin: "http://localhost".into(), socket: Some(path.clone()) }),
            Endpoint::Address(address) if address.port() == 0 => {
                Err(Failure::usage("WHIMBREL_LISTEN (--listen) has port 0, so nobody knows which port the node took"))
            }
            Endpoint::Address(address) => {
                let scheme = if tls { "https" } else { "http" };
                Ok(Node { origin: format!("{scheme}://{}", reachable(*address)), socket: None })
            }
        }
    }
}

/// A listener at every address is reached over loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_asked_where_its_own_machine_reaches_it() {
        for (place, tls, origin) in [
            ("0.0.0.0:8080", false, "http://127.0.0.1:8080"),
            ("[::]:8080", false, "http://[::1]:8080"),
            ("10.0.0.5:8443", true, "https://10.0.0.5:8443"),
        ] {
            let node = Node::at(&place.parse().unwrap(), tls).unwrap();
            assert_eq!((node.origin.as_str(), node.socket), (origin, None));
        }
        let node = Node::at(&"unix:/run/whimbrel/http.sock".parse().unwrap(), true).unwrap();
        assert_eq!((node.origin.as_str(), node.socket), ("http://localhost", Some("/run/whimbrel/http.sock".into())));
        assert!(Node::at(&"127.0.0.1:0".parse().unwrap(), false).is_err());
    }
}
