//! A subscription's queue in this process: bounded. What has no room is dropped, and its streams are named.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{ChannelMessage, Missed};
use crate::model::StreamName;

/// Most bytes that wait in one queue. A node that is this far behind is better served by one sync of a stream than by
/// more memory; Redis cuts a slow subscriber off at a like amount.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What is no event has room beyond that: no sync would bring it. Beyond this, the mailbox ends.
const MAX_BYTES_OF_OTHERS: usize = 17 * 1024 * 1024;

/// Most streams that are named. Beyond that, all are taken to have missed something.
const MAX_MISSED: usize = 4096;

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
    dropped: Dropped,
}

/// What had no room.
#[derive(Default)]
struct Dropped {
    messages: u64,
    streams: HashSet<StreamName>,
    too_many: bool,
}

impl Dropped {
    fn note(&mut self, stream: StreamName) {
        self.messages += 1;
        if self.streams.len() < MAX_MISSED || self.streams.contains(&stream) {
            self.streams.insert(stream);
        } else {
            self.too_many = true;
        }
    }

    fn take(&mut self) -> Option<Missed> {
        let Dropped { messages, streams, too_many } = std::mem::take(self);
        let streams = (!too_many).then(|| streams.into_iter().collect());
        (messages > 0).then_some(Missed { messages, streams })
    }
}

impl Mailbox {
    /// Puts a message in, or notes that it was dropped. `false`: the mailbox is closed.
    pub(super) fn push(&self, message: ChannelMessage) -> bool {
        let open = {
            let mut queue = self.queue.lock();
            let bytes = queue.bytes + cost(&message);
            match message {
                _ if queue.closed => {}
                // Leaving one out without a word would be a silent hole.
                ChannelMessage::Event(stream, _) if bytes > MAX_BYTES => queue.dropped.note(stream),
                // Nobody misses it for good.
                ChannelMessage::Ephemeral(..) if bytes > MAX_BYTES => {}
                _ if bytes > MAX_BYTES_OF_OTHERS => queue.closed = true,
                message => {
                    queue.bytes = bytes;
                    queue.messages.push_back(message);
                }
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
                    let mut taken: Vec<_> = queue.messages.drain(..count).collect();
                    queue.bytes -= taken.iter().map(cost).sum::<usize>();
                    // While it is full, a sync would only be followed by the next.
                    if queue.bytes < MAX_BYTES / 2 {
                        taken.extend(queue.dropped.take().map(ChannelMessage::Missed));
                    }
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
            ChannelMessage::Event(_, event) | ChannelMessage::Ephemeral(_, event) => event.payload_bytes(),
            ChannelMessage::Control(control) => control.word.len() + control.rest.len(),
            // A flag for each slot.
            ChannelMessage::Interrupted(_) => 16 * 1024,
            ChannelMessage::Erased(_) | ChannelMessage::Moved(_) | ChannelMessage::Missed(_) | ChannelMessage::Beat => {
                0
            }
        }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Event, EventId, EventType};
    use crate::store::Control;

    const BIG: usize = 1024 * 1024;

    fn event(stream: &str) -> ChannelMessage {
        let event = Event::new(EventId::new(2, 1), EventId::new(1, 1), EventType::MESSAGE, "1".repeat(BIG).into());
        ChannelMessage::Event(stream.parse().unwrap(), Arc::new(event))
    }

    async fn take_all(mailbox: &Mailbox) -> Vec<ChannelMessage> {
        let mut taken = Vec::new();
        while !mailbox.queue.lock().messages.is_empty() {
            taken.extend(mailbox.take(4).await.unwrap());
        }
        taken
    }

    #[tokio::test]
    async fn a_full_mailbox_drops_messages_names_their_streams_and_goes_on() {
        let mailbox = Mailbox::default();
        for _ in 0..20 {
            assert!(mailbox.push(event("topic:busy")));
        }
        mailbox.push(event("topic:quiet"));
        mailbox.push(ChannelMessage::Beat);
        mailbox.push(ChannelMessage::Control(Control::new("kick", "device:7 1 0")));
        let taken = take_all(&mailbox).await;
        let events = taken.iter().filter(|message| matches!(message, ChannelMessage::Event(..))).count();
        let others =
            taken.iter().filter(|message| matches!(message, ChannelMessage::Beat | ChannelMessage::Control(_)));
        assert_eq!((events, others.count()), (15, 2), "no sync would bring what is no event");
        let missed: Vec<_> = taken
            .into_iter()
            .filter_map(|message| if let ChannelMessage::Missed(missed) = message { Some(missed) } else { None })
            .collect();
        let [missed] = &missed[..] else { panic!("{missed:?}") };
        let mut streams: Vec<_> = missed.streams.iter().flatten().map(ToString::to_string).collect();
        streams.sort();
        assert_eq!((missed.messages, streams), (6, vec!["topic:busy".to_owned(), "topic:quiet".to_owned()]));
        mailbox.push(event("topic:busy"));
        assert_eq!(take_all(&mailbox).await.len(), 1);
    }

    #[tokio::test]
    async fn more_streams_than_can_be_named_are_all() {
        let mailbox = Mailbox::default();
        for _ in 0..16 {
            mailbox.push(event("topic:busy"));
        }
        for n in 0..=MAX_MISSED {
            mailbox.push(event(&format!("topic:{n}")));
        }
        let taken = take_all(&mailbox).await;
        let all = |message: &ChannelMessage| matches!(message, ChannelMessage::Missed(Missed { streams: None, .. }));
        assert_eq!(taken.iter().filter(|message| all(message)).count(), 1);
    }
}
