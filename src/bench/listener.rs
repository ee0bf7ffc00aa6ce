//! A listening connection that costs next to nothing: a raw socket and a [`Wire`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};

use super::Target;
use super::socket::Socket;
use super::wire::{Incoming, Wire};

/// Bytes read at a time, shared by all connections of a thread.
const READ_BYTES: usize = 64 * 1024;

/// How long the server may take to accept a listener.
const ACCEPT_TIME: Duration = Duration::from_secs(30);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One listening connection.
pub struct Listener {
    socket: Socket,
    wire: Wire,
}

impl Listener {
    /// Connects, asks for what listener `number` follows, and waits until the server has accepted it.
    pub async fn connect(target: &Target, number: usize, after: Option<&str>) -> io::Result<Self> {
        let mut incoming = Incoming::default();
        let accepted = async {
            let mut listener = Self::ask(target, number, after).await?;
            while !listener.wire.is_ready() {
                listener.receive(&mut incoming).await?;
            }
            Ok(listener)
        };
        tokio::time::timeout(ACCEPT_TIME, accepted).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Connects and asks, without waiting for the answer: events may follow it at once.
    pub async fn ask(target: &Target, number: usize, after: Option<&str>) -> io::Result<Self> {
        let mut socket = target.trust.connect(target.server(number)).await?;
        socket.write_all(target.listen_request(number, after).as_bytes()).await?;
        socket.flush().await?;
        Ok(Listener { socket, wire: Wire::new(target.dialect, target.transport) })
    }

    /// The position to come back at; empty before the server sent one.
    pub fn last_id(&self) -> &str {
        self.wire.last_id()
    }

    /// Waits for bytes and adds what they held to `incoming`. Returns how many they were.
    pub async fn receive(&mut self, incoming: &mut Incoming) -> io::Result<usize> {
        let count = poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                // Unlike `try_read`, this takes a read that did not fill the buffer for the last one.
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.wire.feed(buffer.filled(), incoming)?;
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            })
        })
        .await?;
        if !incoming.reply.is_empty() {
            self.socket.write_all(&incoming.reply).await?;
            self.socket.flush().await?;
            incoming.reply.clear();
        }
        Ok(count)
    }
}
