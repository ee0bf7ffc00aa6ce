//! A TCP proxy that does what networks do: delays, stalls, cuts, refuses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What happens to bytes in one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// Each byte comes so much later.
    Late(Duration),
    /// Nothing comes through, not even an end: a half-open connection.
    Stall,
    /// So many bytes a second.
    Slow(u32),
}

/// Which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the client sends.
    ToServer,
    ToClient,
    Both,
}

/// How a connection is ended on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Reset,
    Fin,
}

/// A proxy; its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Accepting>,
}

/// Either somebody accepts, or the port is only held, so that connecting to it is refused.
enum Accepting {
    Yes(AbortHandle),
    No { _holds: Socket },
}

struct Shared {
    target: Mutex<SocketAddr>,
    flows: Mutex<[Flow; 2]>,
    connections: Mutex<Vec<Arc<Connection>>>,
}

/// One connection through the proxy.
pub struct Connection {
    /// To the server, to the client.
    flows: [watch::Sender<Flow>; 2],
    cut: watch::Sender<Option<Cut>>,
    /// What the client sent first.
    opening: Mutex<Vec<u8>>,
}

/// Bytes of an opening that are kept, to know connections by.
const OPENING: usize = 4096;

impl Proxy {
    /// A proxy in front of `target`.
    pub fn to(target: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            flows: Mutex::new([Flow::Pass; 2]),
            connections: Mutex::default(),
        });
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let accepting = Mutex::new(Accepting::Yes(accept(socket, shared.clone())));
        Proxy { address, shared, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections go elsewhere from now on; those that are open stay.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// What happens to the bytes of all connections, those to come included.
    pub fn set(&self, direction: Direction, flow: Flow) {
        let mut flows = self.shared.flows.lock();
        for side in sides(direction) {
            flows[*side] = flow;
        }
        self.each(|connection| connection.set(direction, flow));
    }

    /// Ends all connections that are open.
    pub fn cut(&self, how: Cut) {
        self.each(|connection| connection.cut(how));
    }

    /// Refuses new connections, or accepts them again. Waits for the task that accepts, so the runtime has to
    /// have another thread.
    pub fn refuse(&self, refuse: bool) {
        let mut accepting = self.accepting.lock();
        match (&mut *accepting, refuse) {
            (Accepting::Yes(task), true) => {
                task.abort();
                *accepting = Accepting::No { _holds: bind_soon(self.address) };
            }
            (Accepting::No { .. }, false) => {
                // Closed first; what is bound here anew listens.
                *accepting = Accepting::No { _holds: Socket::new(Domain::IPV4, Type::STREAM, None).unwrap() };
                *accepting = Accepting::Yes(accept(bind_soon(self.address), self.shared.clone()));
            }
            _ => {}
        }
    }

    /// As if nothing had ever been wrong. Open connections go on where they are.
    pub fn heal(&self) {
        self.set(Direction::Both, Flow::Pass);
        self.refuse(false);
    }

    /// Open connections whose opening holds `words`: `SUBSCRIBE`, `GET /v1/sse`.
    pub fn connections(&self, words: &str) -> Vec<Arc<Connection>> {
        let mut found = self.shared.connections.lock().clone();
        found.retain(|connection| {
            connection.opening.lock().windows(words.len().max(1)).any(|part| part == words.as_bytes())
        });
        found
    }

    fn each(&self, act: impl Fn(&Connection)) {
        self.shared.connections.lock().iter().for_each(|connection| act(connection));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Accepting::Yes(task) = &*self.accepting.lock() {
            task.abort();
        }
        self.cut(Cut::Reset);
    }
}

impl Connection {
    /// What happens to this connection's bytes.
    pub fn set(&self, direction: Direction, flow: Flow) {
        for side in sides(direction) {
            self.flows[*side].send_replace(flow);
        }
    }

    /// Ends it.
    pub fn cut(&self, how: Cut) {
        self.cut.send_replace(Some(how));
    }
}

fn sides(direction: Direction) -> &'static [usize] {
    match direction {
        Direction::ToServer => &[0],
        Direction::ToClient => &[1],
        Direction::Both => &[0, 1],
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The listener that had the port is closed by its task, which ends a moment after it was stopped.
fn bind_soon(address: SocketAddr) -> Socket {
    super::blocking_eventually("the proxy's port is free", || bind(address).ok())
}

fn accept(socket: Socket, shared: Arc<Shared>) -> AbortHandle {
    socket.listen(4096).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let task = async move {
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            let flows = shared.flows.lock().map(watch::Sender::new);
            let connection = Arc::new(Connection { flows, cut: watch::Sender::new(None), opening: Mutex::default() });
            shared.connections.lock().push(connection.clone());
            let shared = shared.clone();
            tokio::spawn(async move {
                let target = *shared.target.lock();
                if let Ok(server) = TcpStream::connect(target).await {
                    let _ = carry(client, server, &connection).await;
                }
                shared.connections.lock().retain(|open| !Arc::ptr_eq(open, &connection));
            });
        }
    };
    tokio::spawn(task).abort_handle()
}

async fn carry(client: TcpStream, server: TcpStream, connection: &Connection) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // They keep the sockets open until it is decided how they end.
    let handles: [OwnedFd; 2] = [client.as_fd().try_clone_to_owned()?, server.as_fd().try_clone_to_owned()?];
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let [flow_to_server, flow_to_client] = &connection.flows;
    let up = pump(&mut from_client, &mut to_server, flow_to_server.subscribe(), Some(&connection.opening));
    let down = pump(&mut from_server, &mut to_client, flow_to_client.subscribe(), None);
    let mut cut = connection.cut.subscribe();
    let how = tokio::select! {
        // When one side breaks, the other gets an end, though it may have nothing to send.
        ended = async { tokio::try_join!(up, down) } => if ended.is_ok() { Cut::Fin } else { Cut::Reset },
        cut = cut.wait_for(Option::is_some) => cut.ok().and_then(|cut| *cut).unwrap_or(Cut::Reset),
    };
    for handle in &handles {
        match how {
            Cut::Reset => SockRef::from(handle).set_linger(Some(Duration::ZERO))?,
            Cut::Fin => _ = SockRef::from(handle).shutdown(std::net::Shutdown::Write),
        }
    }
    Ok(())
}

/// Moves bytes one way until there are no more.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut flow: watch::Receiver<Flow>,
    opening: Option<&Mutex<Vec<u8>>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let now = *flow.borrow_and_update();
        let most = match now {
            Flow::Stall => {
                // The sender is gone only together with the proxy.
                if flow.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Flow::Slow(rate) => (rate as usize / 20).clamp(1, buffer.len()),
            Flow::Pass | Flow::Late(_) => buffer.len(),
        };
        let count = tokio::select! {
            count = from.read(&mut buffer[..most]) => count?,
            _ = flow.changed() => continue,
        };
        if count == 0 {
            return to.shutdown().await;
        }
        if let Some(opening) = opening {
            let mut opening = opening.lock();
            let room = OPENING.saturating_sub(opening.len()).min(count);
            opening.extend_from_slice(&buffer[..room]);
        }
        let arrived = Instant::now();
        loop {
            let now = *flow.borrow_and_update();
            match now {
                Flow::Stall => {
                    if flow.changed().await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                Flow::Late(time) => tokio::time::sleep_until(arrived + time).await,
                Flow::Slow(rate) => tokio::time::sleep(Duration::from_secs(1) * count as u32 / rate.max(1)).await,
                Flow::Pass => {}
            }
            break;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::in_time;
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn say(socket: &mut TcpStream, words: &str) -> io::Result<String> {
        socket.write_all(words.as_bytes()).await?;
        let mut answer = vec![0; words.len()];
        socket.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn a_stalled_direction_holds_what_is_sent_and_goes_on_when_healed() {
        let proxy = Proxy::to(echo().await);
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut socket, "one").await.unwrap(), "one");
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.set(direction, Flow::Stall);
            let stalled = tokio::time::timeout(Duration::from_millis(50), say(&mut socket, "two")).await;
            assert!(stalled.is_err(), "{direction:?}");
            proxy.heal();
            let mut answer = [0; 3];
            in_time("what was held", socket.read_exact(&mut answer)).await.unwrap();
            assert_eq!(&answer, b"two");
        }
    }

    #[tokio::test]
    async fn a_cut_ends_a_connection_with_an_end_or_an_error() {
        let proxy = Proxy::to(echo().await);
        for (how, wanted) in [(Cut::Fin, Ok(0)), (Cut::Reset, Err(io::ErrorKind::ConnectionReset))] {
            let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(say(&mut socket, "one").await.unwrap(), "one");
            assert_eq!(proxy.connections("one").len(), 1);
            proxy.cut(how);
            let ended = in_time("the end", socket.read(&mut [0; 8])).await;
            assert_eq!(ended.map_err(|error| error.kind()), wanted);
            super::super::eventually("it is forgotten", async || proxy.connections("one").is_empty().then_some(()))
                .await;
        }
    }

    #[tokio::test]
    async fn a_server_that_breaks_is_heard_of_by_a_client_that_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap());
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        socket.write_all(b"one").await.unwrap();
        server.read_exact(&mut [0; 3]).await.unwrap();
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        let ended = in_time("the end", socket.read(&mut [0; 8])).await;
        assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    }

    // Two threads: the listener that held the port is closed by its own task.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_proxy_refuses_and_accepts_again() {
        let proxy = Proxy::to(echo().await);
        for _ in 0..3 {
            proxy.refuse(true);
            let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            proxy.heal();
            let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(say(&mut socket, "one").await.unwrap(), "one");
        }
    }

    #[tokio::test]
    async fn late_and_slow_take_their_time_and_lose_nothing() {
        let proxy = Proxy::to(echo().await);
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        for (flow, least) in [(Flow::Late(Duration::from_millis(40)), 40), (Flow::Slow(10_000), 90)] {
            proxy.set(Direction::ToClient, flow);
            let begun = Instant::now();
            let words = "0123456789".repeat(100);
            assert_eq!(in_time("the answer", say(&mut socket, &words)).await.unwrap(), words);
            assert!(begun.elapsed() >= Duration::from_millis(least), "{flow:?}: {:?}", begun.elapsed());
        }
    }
}
