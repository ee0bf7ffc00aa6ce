//! Where a node listens: any number of addresses and Unix sockets.

use std::fmt;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::Tls;
use super::http_phase::{HttpLimits, HttpPhase, HttpSlot};
use super::socket::Raw;
use crate::log_limit::LogLimit;

/// Connections that the system may have accepted before the node does: thousands of clients that come back at
/// once must not be turned away. The system may hold it lower.
const BACKLOG: u32 = 4096;

/// Accepting fails when descriptors run out; trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the name of a Unix socket begins with.
const UNIX: &str = "unix:";

/// One place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address with a port; port 0 takes a free one.
    Address(SocketAddr),
    /// The path of a Unix socket.
    Path(PathBuf),
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address with a port, such as 127.0.0.1:8080, nor unix:/PATH with an absolute path")]
pub struct EndpointError;

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Endpoint::Path(path.into())),
            Some(_) => Err(EndpointError),
            None => text.parse().map(Endpoint::Address).map_err(|_| EndpointError),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Address(address) => write!(f, "http://{address}"),
            Endpoint::Path(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Who can connect here.
    pub fn reach(&self) -> Reach {
        match self {
            // An IPv4 address may come as IPv6: ::ffff:127.0.0.1 is loopback as well.
            Endpoint::Address(address) if address.ip().to_canonical().is_loopback() => Reach::Loopback,
            Endpoint::Address(_) => Reach::Network,
            Endpoint::Path(_) => Reach::Socket,
        }
    }
}

/// Who can have sent a request, by where it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Programs of this machine, browsers with foreign pages among them.
    Loopback,
    /// Other machines.
    Network,
    /// Programs of this machine that may open the socket's file; no browser can.
    Socket,
}

/// Which of a node's listeners a client came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Door {
    /// The one for everybody.
    #[default]
    Public,
    /// The one for operators, where a node has one.
    Admin,
}

/// Which doors are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// All that the node has.
    All,
    /// That for operators: the node lets its clients go, which somebody may want to watch.
    Operators,
    /// None any more.
    None,
}

impl Open {
    /// Whether a door is.
    pub fn admits(self, door: Door) -> bool {
        self == Open::All || (self == Open::Operators && door == Door::Admin)
    }
}

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The listener.
    pub door: Door,
    /// Who can have sent it.
    pub reach: Reach,
    /// The other end's address; `None` of a Unix socket.
    pub peer: Option<IpAddr>,
    /// It came over TLS that this node speaks.
    pub secure: bool,
}

impl Arrival {
    /// What is trusted least.
    pub const STRICTEST: Arrival = Arrival { door: Door::Public, reach: Reach::Loopback, peer: None, secure: true };
}

/// All places at which a node listens.
pub struct Endpoints {
    listeners: Vec<Listener>,
    /// What addresses speak; Unix sockets are plain.
    tls: Option<Arc<Tls>>,
    /// The one that is looked at first, so that a rush at one of them does not shut out the others.
    first: AtomicUsize,
    http: HttpPhase,
    /// Where descriptors run out, each try fails.
    failures: LogLimit,
}

struct Listener {
    /// With the port that was taken.
    place: Endpoint,
    door: Door,
    bound: Bound,
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Endpoints {
    /// Listens at all of these, or at none.
    pub fn bind<'a>(
        places: impl IntoIterator<Item = (Door, &'a Endpoint)>,
        tls: Option<Arc<Tls>>,
        http: HttpLimits,
    ) -> Result<Self, (Endpoint, io::Error)> {
        let bind =
            |(door, place): (Door, &Endpoint)| Listener::bind(door, place).map_err(|error| (place.clone(), error));
        let listeners = places.into_iter().map(bind).collect::<Result<_, _>>()?;
        let first = AtomicUsize::new(0);
        Ok(Endpoints { listeners, tls, first, http: HttpPhase::new(http), failures: LogLimit::new() })
    }

    /// The places of a door, with the ports that were taken.
    pub fn places(&self, door: Door) -> impl Iterator<Item = &Endpoint> {
        self.listeners.iter().filter(move |listener| listener.door == door).map(|listener| &listener.place)
    }

    /// All places, as people write them.
    pub fn shown(&self) -> impl Iterator<Item = (Door, String)> {
        let secure = self.tls.is_some();
        self.listeners.iter().map(move |listener| match &listener.place {
            Endpoint::Address(address) if secure => (listener.door, format!("https://{address}")),
            place => (listener.door, place.to_string()),
        })
    }

    /// What clients of a place that speaks TLS shake hands with.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Listens no more at the places of a door.
    pub fn close(&mut self, door: Door) {
        self.listeners.retain(|listener| listener.door != door);
    }

    /// Waits for the next client, at whichever of them, and for a place for it. Accepting that fails is tried again
    /// after a pause. For one caller at a time; whoever gives the waiting up may lose a client.
    pub async fn accept(&self) -> (Raw, Arrival, HttpSlot) {
        loop {
            match self.accept_now().await {
                Ok((socket, arrival)) => return (socket, arrival, self.http.admit().await),
                Err(error) => {
                    if let Some(left_out) = self.failures.admit() {
                        tracing::warn!(%error, left_out, "can't accept connections; trying again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The next client that has connected by now, if there is one.
    pub async fn accept_waiting(&self) -> Option<(Raw, Arrival, HttpSlot)> {
        let (socket, arrival) = self.accept_now().now_or_never()?.ok()?;
        Some((socket, arrival, self.http.admit().await))
    }

    async fn accept_now(&self) -> io::Result<(Raw, Arrival)> {
        poll_fn(|cx| {
            let count = self.listeners.len();
            let first = self.first.fetch_add(1, Ordering::Relaxed);
            for at in 0..count {
                let listener = &self.listeners[first.wrapping_add(at) % count];
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    return Poll::Ready(accepted.map(|(socket, peer)| {
                        let secure = self.tls.is_some() && matches!(listener.place, Endpoint::Address(_));
                        (socket, Arrival { door: listener.door, reach: listener.place.reach(), peer, secure })
                    }));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Listener {
    fn bind(door: Door, place: &Endpoint) -> io::Result<Self> {
        match place {
            Endpoint::Address(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                // A node that is started again must not wait for the old one's connections to be forgotten.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                let listener = socket.listen(BACKLOG)?;
                Ok(Listener { place: Endpoint::Address(listener.local_addr()?), door, bound: Bound::Tcp(listener) })
            }
            Endpoint::Path(path) => {
                remove_stale(path)?;
                Ok(Listener { place: place.clone(), door, bound: Bound::Unix(UnixListener::bind(path)?) })
            }
        }
    }

    /// The next client's socket, and its address if it has one.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Raw, Option<IpAddr>)>> {
        match &self.bound {
            Bound::Tcp(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, peer)| (Raw::Tcp(stream), Some(peer.ip())))
            }
            Bound::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| (Raw::Unix(stream), None)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Endpoint::Path(path) = &self.place {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the socket that a killed node left behind. One at which somebody still listens stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket
        && matches!(StdUnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_or_an_absolute_path() {
        for place in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:80", "unix:/run/whimbrel.sock"] {
            let shown = place.parse::<Endpoint>().unwrap().to_string();
            assert!(shown == place || shown == format!("http://{place}"), "{shown}");
        }
        for text in ["", "8080", "localhost:8080", "unix:", "unix:whimbrel.sock", "/run/whimbrel.sock", "127.0.0.1"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError), "{text}");
        }
    }

    #[test]
    fn loopback_is_distinguished_from_what_others_reach() {
        for (place, reach) in [
            ("127.0.0.1:1", Reach::Loopback),
            ("[::ffff:127.0.0.1]:1", Reach::Loopback),
            ("0.0.0.0:1", Reach::Network),
            ("unix:/a", Reach::Socket),
        ] {
            assert_eq!(place.parse::<Endpoint>().unwrap().reach(), reach, "{place}");
        }
    }
}
