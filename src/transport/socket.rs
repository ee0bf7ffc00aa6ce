//! The socket of a connection, and its options.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Makes a socket ready for pushing: small frames leave at once, and a client that vanished without a
/// word is found when what was sent to it stays unacknowledged for `give_up`.
pub fn prepare(socket: &TcpStream, give_up: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_user_timeout(Some(give_up))
}
