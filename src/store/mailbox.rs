//! A subscription's queue in this process: bounded, and ended rather than stretched.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ChannelMessage;

/// Most bytes that wait in one queue. A node that is this far behind is better served by one sync of its
/// streams than by more memory; Redis cuts a slow subscriber off at a like amount.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a waiting message costs beside its data, so that many small ones are bounded too.
const OVERHEAD: usize = 256;

/// Messages on their way from a channel to the node, one writer's order kept, for a single reader.
#[derive(Default)]
pub(super) struct Mailbox {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<ChannelMessage>,
    bytes: usize,
    closed: bool,
}

impl Mailbox {
    /// Puts a message in. `false`: the mailbox is closed, or was closed now because it is full.
    pub(super) fn push(&self, message: ChannelMessage) -> bool {
        let open = {
            let mut queue = self.queue.lock();
            queue.bytes += cost(&message);
            // Leaving one message out and going on would be a silent hole: what overflows ends.
            queue.closed |= queue.bytes > MAX_BYTES;
            if !queue.closed {
                queue.messages.push_back(message);
            }
            !queue.closed
        };
        self.arrived.notify_one();
        open
    }

    /// Ends it; what is inside can still be taken.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Whether nothing can be put in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// Waits for messages and takes at most `limit`; `None` when it is closed and empty. Cancel safe:
    /// messages leave the queue only in the poll that returns them.
    pub(super) async fn take(&self, limit: usize) -> Option<Vec<ChannelMessage>> {
        loop {
            {
                let mut queue = self.queue.lock();
                if !queue.messages.is_empty() {
                    let count = limit.max(1).min(queue.messages.len());
                    let taken: Vec<_> = queue.messages.drain(..count).collect();
                    queue.bytes = queue.bytes.saturating_sub(taken.iter().map(cost).sum());
                    return Some(taken);
                }
                if queue.closed {
                    return None;
                }
            }
            // notify_one leaves a permit behind, so a message that came since the lock is not slept through.
            self.arrived.notified().await;
        }
    }
}

fn cost(message: &ChannelMessage) -> usize {
    OVERHEAD
        + match message {
            ChannelMessage::Event(_, event) | ChannelMessage::Ephemeral(_, event) => event.data.len(),
            ChannelMessage::Control(control) => control.word.len() + control.rest.len(),
            ChannelMessage::Erased(_) | ChannelMessage::Moved(_) | ChannelMessage::Beat => 0,
        }
}
