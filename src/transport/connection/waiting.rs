//! What a connection's task waits for.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Connection, Phase};

/// What there is to do for the connection's task.
#[derive(Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// The client said something.
    Read,
    /// The socket that was full has room.
    Write,
    /// The connection is closing, and something is still to be written.
    Closing,
    /// Nothing: it is over.
    Over,
}

/// How things stand between a connection and its socket.
struct Stand {
    phase: Phase,
    blocked: bool,
    empty: bool,
    full: bool,
}

impl Connection {
    /// The socket that was full has room again.
    pub(in crate::transport) fn unblock(&self) {
        let mut inner = self.inner.lock();
        inner.blocked = false;
        self.write_out(&mut inner);
    }

    /// Does something that may take a while without holding up what waits for a full socket.
    pub(in crate::transport) async fn writing_during(&self, mut work: impl Future<Output = ()> + Unpin) {
        poll_fn(|cx| {
            if Pin::new(&mut work).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            while self.stand(cx).blocked && matches!(self.socket.poll_write_ready(cx), Poll::Ready(Ok(()))) {
                self.unblock();
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until there is something to do for the connection's task. `closing`: whether the task knows
    /// already that the connection is.
    pub(in crate::transport) async fn step(&self, closing: bool) -> Wakeup {
        poll_fn(|cx| {
            let stand = self.stand(cx);
            match stand.phase {
                Phase::Ended(_) => return Poll::Ready(Wakeup::Over),
                Phase::Closing(_) if stand.empty => return Poll::Ready(Wakeup::Over),
                Phase::Closing(_) if !closing => return Poll::Ready(Wakeup::Closing),
                Phase::Open | Phase::Closing(_) => {}
            }
            if stand.blocked
                && let Poll::Ready(ready) = self.socket.poll_write_ready(cx)
            {
                return Poll::Ready(ready.map_or(Wakeup::Over, |()| Wakeup::Write));
            }
            // A client that does not take what is waiting can't ask for more.
            if !(stand.blocked && stand.full)
                && let Poll::Ready(ready) = self.socket.poll_read_ready(cx)
            {
                return Poll::Ready(ready.map_or(Wakeup::Over, |()| Wakeup::Read));
            }
            Poll::Pending
        })
        .await
    }

    /// How things stand. The task is woken when that changes.
    fn stand(&self, cx: &Context<'_>) -> Stand {
        let mut inner = self.inner.lock();
        if !inner.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            inner.task = Some(cx.waker().clone());
        }
        Stand {
            phase: inner.phase,
            blocked: inner.blocked,
            empty: inner.outbox.is_empty() && !inner.blocked,
            full: inner.outbox.is_full(),
        }
    }
}
