//! The socket of a connection: TCP or a Unix one, perhaps with TLS on it, or one stream of an HTTP/2 connection.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::streamed::Streamed;
use super::tls_socket::TlsSocket;

/// A client's socket as the system has it.
#[derive(Debug)]
pub enum Raw {
    /// Over the network, or from this machine by way of it.
    Tcp(TcpStream),
    /// From this machine.
    Unix(UnixStream),
}

/// What a client is reached by.
pub enum Socket {
    /// Its socket.
    Plain(Raw),
    /// Its socket, with TLS on it.
    Tls(Box<TlsSocket>),
    /// One stream of an HTTP/2 connection.
    Streamed(Streamed),
}

/// The same of either kind.
macro_rules! either {
    ($socket:expr, $stream:ident => $do:expr) => {
        match $socket {
            Raw::Tcp($stream) => $do,
            Raw::Unix($stream) => $do,
        }
    };
}

impl Raw {
    /// Makes it ready for pushing: small frames leave at once, and a client that vanished without a word is
    /// found when what was sent to it stays unacknowledged for `give_up`.
    pub fn prepare(&self, give_up: Duration) -> io::Result<()> {
        match self {
            Raw::Tcp(stream) => {
                stream.set_nodelay(true)?;
                SockRef::from(stream).set_tcp_user_timeout(Some(give_up))
            }
            // It holds nothing back, and its client can't vanish without this machine.
            Raw::Unix(_) => Ok(()),
        }
    }

    /// Reads what is there.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_read(buffer))
    }

    /// Writes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(bytes))
    }

    /// Writes what there is room for.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, stream => stream.try_write_vectored(slices))
    }

    /// Ready when there may be something to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read_ready(cx))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_write_ready(cx))
    }

    fn shut_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}

impl AsyncRead for Raw {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Socket {
    /// Reads what is there.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(raw) => raw.try_read(buffer),
            Socket::Tls(socket) => socket.try_read(buffer),
            Socket::Streamed(stream) => stream.try_read(),
        }
    }

    /// Writes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(raw) => raw.try_write(bytes),
            Socket::Tls(socket) => socket.try_write(bytes),
            Socket::Streamed(stream) => stream.try_write(bytes),
        }
    }

    /// Writes what there is room for.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Plain(raw) => raw.try_write_vectored(slices),
            Socket::Tls(socket) => socket.try_write_vectored(slices),
            Socket::Streamed(stream) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                first.map_or(Ok(0), |slice| stream.try_write(slice))
            }
        }
    }

    /// Hands on what was written and is still held here.
    pub fn try_flush(&self) -> io::Result<()> {
        match self {
            Socket::Tls(socket) => socket.try_flush(),
            Socket::Plain(_) | Socket::Streamed(_) => Ok(()),
        }
    }

    /// Ready when there may be something to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(raw) => raw.poll_read_ready(cx),
            Socket::Tls(socket) => socket.poll_read_ready(cx),
            Socket::Streamed(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Ready when there may be room to write.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(raw) => raw.poll_write_ready(cx),
            Socket::Tls(socket) => socket.raw().poll_write_ready(cx),
            Socket::Streamed(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Waits until there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Says that nothing more will come.
    pub fn shut_write(&self) -> io::Result<()> {
        match self {
            Socket::Plain(raw) => raw.shut_write(),
            Socket::Tls(socket) => {
                let _ = socket.try_close();
                socket.raw().shut_write()
            }
            Socket::Streamed(stream) => {
                stream.end();
                Ok(())
            }
        }
    }
}

/// For HTTP, until a listener is handed over.
impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        // It can read into a buffer as it is. Below, all of the buffer is zeroed first, which is 8 KiB for each read.
        if let Socket::Plain(raw) = socket {
            return Pin::new(raw).poll_read(cx, buffer);
        }
        loop {
            match socket.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(socket.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_until(cx, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_until(cx, Socket::try_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Socket::Tls(socket) = &*self {
            let _ = socket.try_close();
        }
        ready!(self.poll_until(cx, Socket::try_flush))?;
        Poll::Ready(self.shut_write())
    }
}

impl Socket {
    /// Does what may have to wait for room.
    fn poll_until<T>(&self, cx: &mut Context<'_>, mut work: impl FnMut(&Self) -> io::Result<T>) -> Poll<io::Result<T>> {
        loop {
            match work(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(cx))?,
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_that_vanished_is_given_up_by_the_system() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = Raw::Tcp(stream);
        socket.prepare(Duration::from_secs(7)).unwrap();
        assert_eq!(SockRef::from(&socket).tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    }
}
