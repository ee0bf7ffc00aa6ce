//! The receiving end of a node's channel: a connection of its own.
//!
//! It does not come back by itself. Its holder subscribes again and syncs, as messages were lost.
//!
//! In a Cluster, what is published with PUBLISH is handed to all servers, so the connection may be to any of them. It
//! ends also when a server of the Cluster is lost, since what that one had to send is. Events come over the
//! [`ShardChannels`] while these are there.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{PushKind, Value};
use tokio::sync::watch;

use super::errors::not_connected;
use super::keys::Keys;
use super::server::{Connection, Server};
use super::shards::{ShardChannels, Shards};
use crate::log_limit::LogLimit;
use crate::model::{Attributes, Event, EventId, EventType, NodeId, StreamName, TraceParent, json};
use crate::store::mailbox::Mailbox;
use crate::store::{ChannelMessage, Control, StoreError, Subscription};

/// Messages that make no sense.
static NONSENSE: LogLimit = LogLimit::new();

/// The payload of a beat. An event's begins with its stream, so the two can't be taken for each other.
pub(super) const BEAT: &str = "beat";

/// Subscribes; confirmed when this returns.
pub(super) async fn subscribe(shards: &Shards, keys: &Keys, node: &NodeId) -> Result<RedisSubscription, StoreError> {
    let channel = keys.channel(node);
    // Before the subscription: a loss in between ends it.
    let losses = shards.losses();
    let mut last = Err(StoreError::Unavailable("no server is known".to_owned()));
    for server in shards.to_subscribe() {
        match subscribe_at(&server, &channel).await {
            Ok((mailbox, connection)) => {
                let sharded = match shards.is_cluster() {
                    true => Some(ShardChannels::open(shards, keys.channels(), node, &mailbox).await),
                    false => None,
                };
                return Ok(RedisSubscription { mailbox, connection, losses, _sharded: sharded });
            }
            Err(error) => last = Err(error),
        }
    }
    last
}

async fn subscribe_at(server: &Server, channel: &str) -> Result<(Arc<Mailbox>, Connection), StoreError> {
    let mailbox = Arc::new(Mailbox::default());
    let inbox = mailbox.clone();
    // The client hands messages over as it reads them, so what waits in this process waits in the
    // mailbox alone, which is bounded.
    let connection = server
        .open(move |push| {
            if push.kind == PushKind::Message {
                deliver(&inbox, push.data);
            }
        })
        .await?;
    connection.io().subscribe(channel).await.map_err(not_connected)?;
    Ok((mailbox, connection))
}

pub(super) struct RedisSubscription {
    mailbox: Arc<Mailbox>,
    /// Closed with the subscription.
    connection: Connection,
    losses: Option<watch::Receiver<()>>,
    /// Closed with the subscription.
    _sharded: Option<ShardChannels>,
}

/// Resolves when a server of a Cluster was lost.
async fn lost(losses: &mut Option<watch::Receiver<()>>) {
    let changed = match losses {
        Some(losses) => losses.changed().await.is_ok(),
        None => false,
    };
    // Without a Cluster, or after it, nothing changes any more.
    if !changed {
        std::future::pending().await
    }
}

#[async_trait]
impl Subscription for RedisSubscription {
    async fn next(&mut self, limit: usize) -> Option<Vec<ChannelMessage>> {
        tokio::select! {
            biased;
            messages = self.mailbox.take(limit) => messages,
            () = self.connection.broken() => None,
            () = lost(&mut self.losses) => None,
        }
    }
}

/// Takes a message of a channel.
pub(super) fn deliver(mailbox: &Mailbox, mut push: Vec<Value>) {
    // Channel and payload.
    let Some(Value::BulkString(payload)) = push.pop() else { return };
    match parse(payload.into()) {
        Some(message) => {
            mailbox.push(message);
        }
        // Anyone with access to Redis can publish here; were it an event, the chain would show it.
        None => {
            if let Some(left_out) = NONSENSE.admit() {
                tracing::warn!(left_out, "a message on the node's channel makes no sense");
            }
        }
    }
}

/// Writes an event as the scripts do, so that links and channels carry the same.
pub(crate) fn encode(stream: &StreamName, event: &Event) -> Vec<u8> {
    let mut message = format!("{stream} {} {} {}", event.id, event.prev, event.kind);
    if let Some(expires_ms) = event.expires_ms {
        message.push_str(&format!(" x={expires_ms}"));
    }
    if let Some(collapse) = &event.collapse {
        message.push_str(&format!(" c={collapse}"));
    }
    if let Some(connection) = event.exclude {
        message.push_str(&format!(" e={connection}"));
    }
    if let Some(trace) = event.trace() {
        message.push_str(&format!(" w={trace}"));
    }
    if let Some(attributes) = &event.attributes {
        message.push_str(&format!(" a={}", attributes.as_str()));
    }
    message.push('\n');
    let mut message = message.into_bytes();
    message.extend_from_slice(&event.data);
    message
}

/// Reads what scripts and nodes write: a control message, or what `publish.lua` writes: a line with stream, id,
/// prev, type and further words, those of a newer version among them, then the data, which is not copied.
pub(crate) fn parse(payload: Bytes) -> Option<ChannelMessage> {
    if payload == BEAT {
        return Some(ChannelMessage::Beat);
    }
    if let Some(control) = Control::parse(&payload) {
        return match control.word.as_str() {
            "now" => ephemeral(&control.rest),
            "erased" => control.text()?.parse().ok().map(ChannelMessage::Erased),
            "moved" => control.text()?.parse().ok().map(ChannelMessage::Moved),
            _ => Some(ChannelMessage::Control(control)),
        };
    }
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&payload[..end]).ok()?.split(' ');
    let stream: StreamName = words.next()?.parse().ok()?;
    let (id, prev): (EventId, EventId) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let kind = EventType::of_store(words.next()?);
    let data = payload.slice(end + 1..);
    if prev >= id || json::check(&data).is_err() {
        return None;
    }
    let mut event = Event::new(id, prev, kind, data);
    for word in words {
        match word.split_once('=') {
            Some(("x", expires_ms)) => event.expires_ms = expires_ms.parse().ok(),
            Some(("c", collapse)) => event.collapse = Some(collapse.into()),
            Some(("e", connection)) => event.exclude = connection.parse().ok(),
            Some(("w", trace)) => event.set_trace(TraceParent::read(trace.as_bytes())),
            Some(("a", attributes)) => event.attributes = Attributes::of_store(attributes),
            _ => {}
        }
    }
    Some(ChannelMessage::Event(stream, Arc::new(event)))
}

/// Reads what `publish_ephemeral.lua` writes behind its word: a line with stream, type and, where there are any, the
/// connection that it excludes, its trace and the attributes of a CloudEvent, then the data.
fn ephemeral(rest: &Bytes) -> Option<ChannelMessage> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&rest[..end]).ok()?.split(' ');
    let (stream, kind) = (words.next()?, words.next()?);
    let data = rest.slice(end + 1..);
    json::check(&data).ok()?;
    let mut event = Event::ephemeral(EventType::of_store(kind), data);
    for word in words {
        match word.split_once('=') {
            Some(("w", trace)) => event.set_trace(TraceParent::read(trace.as_bytes())),
            Some(("a", attributes)) => event.attributes = Attributes::of_store(attributes),
            _ => event.exclude = word.parse().ok(),
        }
    }
    Some(ChannelMessage::Ephemeral(stream.parse().ok()?, Arc::new(event)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_header_line_and_the_data_as_it_is() {
        let message = parse(Bytes::from_static(b"device:42 5-7 5-1 order.paid\n{\"a\":\n1}"));
        let event = Event::new(
            EventId::new(5, 7),
            EventId::new(5, 1),
            "order.paid".parse().unwrap(),
            Bytes::from_static(
                b"{\"a\":
1}",
            ),
        );
        assert_eq!(encode(&"device:42".parse().unwrap(), &event), b"device:42 5-7 5-1 order.paid\n{\"a\":\n1}");
        assert_eq!(message, Some(ChannelMessage::Event("device:42".parse().unwrap(), Arc::new(event))));
        assert_eq!(parse(Bytes::from_static(b"beat")), Some(ChannelMessage::Beat));
        let control = Control::new("kick", "device:42 7 0");
        assert_eq!(parse(Bytes::from_static(b"!kick device:42 7 0")), Some(ChannelMessage::Control(control)));
    }

    #[test]
    fn words_behind_the_type_are_understood_or_passed_over() {
        let Some(ChannelMessage::Event(_, event)) =
            parse(Bytes::from_static(b"topic:a 5-7 5-1 message y=9 x=77 z c=a=b e=not-a-connection\n1"))
        else {
            panic!("no event")
        };
        assert_eq!((event.expires_ms, event.collapse.as_deref()), (Some(77), Some("a=b")));
    }

    #[test]
    fn a_trace_goes_along_and_one_that_is_none_is_passed_over() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace_of = |message: String| match parse(message.into()) {
            Some(ChannelMessage::Event(_, event) | ChannelMessage::Ephemeral(_, event)) => {
                (event.exclude.is_some(), event.trace().map(|trace| trace.to_string()))
            }
            other => panic!("{other:?} is no event"),
        };
        let connection = "5c0f0f9e-7d55-4a53-9a7f-0a4d3b0f7a21";
        let traced = Some(text.to_owned());
        assert_eq!(trace_of(format!("topic:a 5-7 5-1 message w={text}\n1")), (false, traced.clone()));
        assert_eq!(trace_of("topic:a 5-7 5-1 message w=00-1-1-01\n1".into()), (false, None));
        assert_eq!(trace_of(format!("!now topic:a typing w={text}\n1")), (false, traced.clone()));
        assert_eq!(trace_of(format!("!now topic:a typing {connection} w={text}\n1")), (true, traced.clone()));
        let mut event = Event::new(EventId::new(5, 7), EventId::new(5, 1), EventType::MESSAGE, "1".into());
        event.set_trace(TraceParent::read(text.as_bytes()));
        let written = encode(&"topic:a".parse().unwrap(), &event);
        assert_eq!(trace_of(String::from_utf8(written).unwrap()), (false, traced));
    }

    #[test]
    fn an_event_that_is_not_stored_has_no_place() {
        let message = parse(Bytes::from_static(b"!now topic:a typing\n{\n}"));
        let mut event = Event::ephemeral("typing".parse().unwrap(), "{\n}".into());
        assert_eq!(message, Some(ChannelMessage::Ephemeral("topic:a".parse().unwrap(), Arc::new(event.clone()))));
        let message = parse(Bytes::from_static(b"!now topic:a typing 5c0f0f9e-7d55-4a53-9a7f-0a4d3b0f7a21\n{\n}"));
        event.exclude = "5c0f0f9e-7d55-4a53-9a7f-0a4d3b0f7a21".parse().ok();
        assert_eq!(message, Some(ChannelMessage::Ephemeral("topic:a".parse().unwrap(), Arc::new(event.clone()))));
        let message = parse(Bytes::from_static(b"!now topic:a typing a={\"id\":\"a=b\"}\n{\n}"));
        (event.exclude, event.attributes) = (None, Attributes::of_json(r#"{"id":"a=b"}"#));
        assert_eq!(message, Some(ChannelMessage::Ephemeral("topic:a".parse().unwrap(), Arc::new(event))));
    }

    #[test]
    fn what_makes_no_sense_is_no_message() {
        for payload in [
            "",
            "\n",
            "beat\n",
            "device:42 5-7 5-1 x",
            "device:42 5-7\n1",
            "queue:1 5-7 5-1 x\n1",
            "device:42 5-7 5-7 x\n1",
            "device:42 5-7 5-1 x\n{",
            "!now topic:a x\n{",
        ] {
            assert_eq!(parse(Bytes::copy_from_slice(payload.as_bytes())), None, "{payload:?}");
        }
    }
}
