//! A listener that is one stream of an HTTP/2 connection: its "socket" is the body of an answer.
//!
//! What is written waits in a small buffer until HTTP/2 lets it go, and the writer waits while the buffer is full, as
//! with a socket of its own.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};
use parking_lot::Mutex;

/// Bytes that may wait. An empty buffer takes as much at once, and no more until some are gone.
const BUFFER: usize = 16 * 1024;

/// The end that is written to.
#[derive(Debug)]
pub struct Streamed(Arc<Mutex<State>>);

/// The end that HTTP/2 reads.
#[derive(Debug)]
pub struct StreamedBody(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: BytesMut,
    /// Nothing more will be written.
    ended: bool,
    /// The client has left.
    gone: bool,
    /// HTTP/2, while there is nothing to read.
    reader: Option<Waker>,
    /// The task that waits for room.
    writer: Option<Waker>,
    /// The task that waits for the client to leave.
    watcher: Option<Waker>,
}

/// Both ends.
pub fn streamed() -> (Streamed, StreamedBody) {
    let state = Arc::<Mutex<State>>::default();
    (Streamed(state.clone()), StreamedBody(state))
}

impl Streamed {
    /// Takes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(BUFFER.saturating_sub(state.waiting.len()));
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.waiting.extend_from_slice(&bytes[..count]);
        wake(&mut state.reader);
        Ok(count)
    }

    /// Reads the end when the client has left; a client sends nothing on this connection.
    pub fn try_read(&self) -> io::Result<usize> {
        if self.0.lock().gone { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Ready when there is room, or never will be.
    pub fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.gone || state.waiting.len() < BUFFER {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when the client has left.
    pub fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.gone {
            return Poll::Ready(Ok(()));
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says that nothing more will come.
    pub fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        wake(&mut state.reader);
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.end();
    }
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = self.0.lock();
        if !state.waiting.is_empty() {
            let bytes = std::mem::take(&mut state.waiting).freeze();
            wake(&mut state.writer);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for StreamedBody {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone = true;
        state.waiting = BytesMut::new();
        wake(&mut state.writer);
        wake(&mut state.watcher);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_in_order_and_a_full_buffer_waits_for_the_reader() {
        let (stream, mut body) = streamed();
        assert_eq!(stream.try_write(b"a").unwrap(), 1);
        assert_eq!(stream.try_write(&[b'b'; 2 * BUFFER]).unwrap(), BUFFER - 1);
        assert_eq!(stream.try_write(b"c").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let writer = tokio::spawn(async move {
            poll_fn(|cx| stream.poll_write_ready(cx)).await.unwrap();
            stream.try_write(b"c").unwrap()
        });
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.len() == BUFFER && first.starts_with(b"ab"));
        assert_eq!(writer.await.unwrap(), 1);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "c");
        assert!(body.frame().await.is_none(), "the writer has ended");
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_by_reader_and_writer() {
        let (stream, body) = streamed();
        assert_eq!(stream.try_read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let leaving = tokio::spawn(async move { drop(body) });
        poll_fn(|cx| stream.poll_read_ready(cx)).await.unwrap();
        leaving.await.unwrap();
        assert_eq!(stream.try_read().unwrap(), 0);
        assert_eq!(stream.try_write(b"a").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
