//! The receiving end of a link: frames become messages, as if a channel had brought them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::time::timeout;

use super::LOOK_AGAIN;
use super::frame::{Ack, Frame};
use super::wire::Wire;
use crate::dispatch::{Flush, Path, Registry};
use crate::metrics::LinkMetrics;
use crate::model::StreamName;

/// Frames that are dealt with before one acknowledgement goes back for all of them.
const BATCH: usize = 256;

/// A link that is silent for so long, pings included, leads to nobody.
const SILENCE: Duration = Duration::from_secs(10);

/// Streams that are remembered as fed by one link. Beyond that, all are synced when it ends.
const MAX_FED: usize = 4096;

/// Takes what comes in until the link ends. When it ends other than in good order, the streams that it fed
/// are synced: what was on its way is lost, and the sender may not live to send it again.
pub async fn receive(mut wire: Wire, registry: Arc<Registry>, metrics: &LinkMetrics) {
    let mut fed = Fed::default();
    if take_all(&mut wire, &registry, metrics, &mut fed).await == End::GoodOrder {
        return;
    }
    drop(wire);
    fed.sync(&registry);
    // What the sender had sent to the store just before may come there only now.
    tokio::time::sleep(LOOK_AGAIN).await;
    fed.sync(&registry);
}

#[derive(PartialEq, Eq)]
enum End {
    GoodOrder,
    Broken,
}

async fn take_all(wire: &mut Wire, registry: &Arc<Registry>, metrics: &LinkMetrics, fed: &mut Fed) -> End {
    let mut flush = Flush::default();
    loop {
        let Ok(mut next) = timeout(SILENCE, wire.next()).await else { return End::Broken };
        let mut reached = None;
        let mut end = None;
        for _ in 0..BATCH {
            let frame = next.and_then(Result::ok).and_then(|bytes| Frame::decode(bytes.freeze()));
            match frame {
                Some(Frame::Event(number, stream, event)) => {
                    metrics.received.inc();
                    registry.message(&stream, event, Path::Link, &mut flush);
                    fed.by(stream);
                    reached = Some(number);
                }
                Some(Frame::Look(number, stream)) => {
                    registry.sync_followed(&stream);
                    reached = Some(number);
                }
                Some(Frame::Ping(number)) => reached = Some(number),
                Some(Frame::Bye) => end = Some(End::GoodOrder),
                None => end = Some(End::Broken),
            }
            if end.is_some() {
                break;
            }
            match wire.next().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        registry.flush(&mut flush);
        if let Some(end) = end {
            return end;
        }
        if let Some(number) = reached {
            match timeout(SILENCE, wire.send(Ack(number).encode())).await {
                Ok(Ok(())) => {}
                _ => return End::Broken,
            }
        }
    }
}

/// The streams that a link fed.
#[derive(Default)]
struct Fed {
    streams: HashSet<StreamName>,
    /// There were too many to remember.
    all: bool,
}

impl Fed {
    fn by(&mut self, stream: StreamName) {
        if self.streams.len() < MAX_FED {
            self.streams.insert(stream);
        } else if !self.streams.contains(&stream) {
            self.all = true;
        }
    }

    fn sync(&self, registry: &Arc<Registry>) {
        // Where there are few, the first event of a stream may have been lost too.
        if self.all || registry.streams() <= MAX_FED {
            registry.mark_all();
        } else {
            self.streams.iter().for_each(|stream| registry.sync_followed(stream));
        }
    }
}
