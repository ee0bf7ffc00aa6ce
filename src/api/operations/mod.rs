//! What WebSocket clients can ask for, and the answers: the same as over REST, on a connection that is open.

mod fault;
mod request;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Api;
use crate::access::{Action, Denied, Grant, Need, Question};
use crate::dispatch::Sink as _;
use crate::hub::{Accepted, AckError, After, PublishOptions, PublishRequest};
use crate::model::{Draft, EventId, StreamKind, StreamName};
use crate::presence::RenewError;
use crate::transport::{Connection, Operations, websocket};
use fault::Fault;
use request::{Ack, Head, Publish, Renew, Subscribe, Unsubscribe};

/// Adds `"complete":false` where the client asked for the oldest events and older ones than those kept had existed.
fn note_missing(answer: &mut serde_json::Value, complete: bool) {
    if !complete {
        answer["complete"] = false.into();
    }
}

/// The operations of api.md that this version answers.
const OPERATIONS: [&str; 6] = ["ack", "ping", "publish", "renew", "subscribe", "unsubscribe"];

#[derive(Serialize)]
struct Reply<'a, T: Serialize> {
    op: &'a str,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a RawValue>,
    #[serde(flatten)]
    content: T,
}

#[async_trait]
impl Operations for Api {
    fn ready(&self, connection: &Connection, complete: bool) -> String {
        let following = connection.following();
        let positions: serde_json::Map<_, _> =
            following.iter().map(|f| (f.stream.to_string(), f.position.to_string().into())).collect();
        let mut ready = serde_json::json!({
            "op": "ready",
            "connection": connection.id(),
            "node": self.hub.registry().node().as_str(),
            "device": connection.device().and_then(|stream| stream.device()),
            "positions": positions,
        });
        note_missing(&mut ready, complete);
        ready.to_string()
    }

    fn refuse(&self, connection: &Connection, text: &str, rate: u32) {
        let reference = serde_json::from_str::<Head<'_>>(text).ok().and_then(|head| head.reference);
        let detail = format!("more than {rate} messages a second; a client that goes on is let go");
        answer(connection, reference, "error", Fault { code: "rate", detail });
    }

    async fn run(&self, connection: &Arc<Connection>, text: &str) {
        let head: Head<'_> = match serde_json::from_str(text) {
            Ok(head) => head,
            Err(error) => return answer(connection, None, "error", Fault::bad(format!("not an operation: {error}"))),
        };
        let reference = head.reference;
        if head.op.as_deref() == Some("ping") {
            return answer(connection, reference, "pong", serde_json::json!({}));
        }
        let carried_out = AssertUnwindSafe(carry_out(connection, self, head, text)).catch_unwind().await;
        // A panic was logged and counted where it happened.
        match carried_out.unwrap_or_else(|_| Err(Fault::internal())) {
            Ok(Some(content)) => answer(connection, reference, "ok", content),
            Ok(None) => {}
            Err(fault) => answer(connection, reference, "error", fault),
        }
    }
}

// Not one enum with `op` for its tag: serde buffers what is tagged so, and raw JSON can't be buffered.
async fn carry_out(connection: &Arc<Connection>, api: &Api, head: Head<'_>, text: &str) -> Outcome {
    match head.op.as_deref() {
        Some("subscribe") => {
            let wanted = read::<Subscribe>(text)?;
            subscribe(connection, api, head.reference, &wanted).await
        }
        Some("renew") => renew(connection, api, &read::<Renew>(text)?.token).await,
        Some("unsubscribe") => unsubscribe(connection, api, &read::<Unsubscribe>(text)?.stream),
        Some("ack") => acknowledge(connection, api, &read::<Ack>(text)?).await,
        Some("publish") => publish(connection, api, read::<Publish<'_>>(text)?).await,
        Some(op) => Err(Fault::bad(format!("the op '{op}' is not known; known are {}", OPERATIONS.join(", ")))),
        None => Err(Fault::bad(format!("the op is missing; known are {}", OPERATIONS.join(", ")))),
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(Fault::bad)
}

/// Reads a message as each of the operations.
#[cfg(any(test, fuzzing))]
pub fn read_any(text: &str) {
    let _ = serde_json::from_str::<Head<'_>>(text);
    let _ = (read::<Subscribe>(text).is_ok(), read::<Renew>(text).is_ok(), read::<Unsubscribe>(text).is_ok());
    let _ = (read::<Ack>(text).is_ok(), read::<Publish<'_>>(text).is_ok());
}

fn answer(connection: &Connection, reference: Option<&RawValue>, op: &str, content: impl Serialize) {
    let json = serde_json::to_string(&Reply { op, reference, content }).expect("answers hold only strings");
    connection.push(websocket::text(json));
    connection.flush();
}

type Outcome = Result<Option<serde_json::Value>, Fault>;

/// The answer goes out before the stream's first event, so it is written here.
async fn subscribe(
    connection: &Arc<Connection>,
    api: &Api,
    reference: Option<&RawValue>,
    wanted: &Subscribe,
) -> Outcome {
    let stream: StreamName = wanted.stream.parse().map_err(Fault::bad)?;
    may_subscribe(connection, api, &stream, wanted.token.as_deref()).await?;
    let after: After = wanted.after.as_deref().unwrap_or("now").parse().map_err(Fault::bad)?;
    if after == After::Ack && stream.kind() == StreamKind::Topic {
        return Err(AckError::Topic(stream).into());
    }
    if connection.following().iter().any(|following| following.stream == stream) {
        return Err(Fault::bad(format!("{stream} is followed already")));
    }
    let listening = api.hub.listen(vec![(stream.clone(), after)]).await?;
    for listening in listening {
        let position = listening.position;
        let mut content = serde_json::json!({"stream": stream, "position": position});
        note_missing(&mut content, listening.complete);
        let Some(slot) = connection.follow(stream.clone(), position, api.max_streams) else {
            let detail = format!("a connection may follow {} streams", api.max_streams);
            return Err(Fault { code: "too-many-streams", detail });
        };
        if let Some(members) = connection.members() {
            members.join(std::iter::once(&stream)).await;
        }
        answer(connection, reference, "ok", content);
        listening.attached.follow(connection.clone(), slot, position);
    }
    connection.flush();
    Ok(None)
}

/// Checks that a stream may be followed, by the token that was brought for it if it takes that.
async fn may_subscribe(
    connection: &Connection,
    api: &Api,
    stream: &StreamName,
    token: Option<&str>,
) -> Result<(), Fault> {
    let need = Need::Subscribe(stream);
    let Err(denied) = connection.check(need) else { return Ok(()) };
    let grant = match token {
        Some(token) => api.access.token(token).await?,
        None => ask_backend(connection, api, Action::Subscribe, stream, denied).await?,
    };
    check_device(connection, &grant)?;
    grant.check(need)?;
    connection.allow(stream.clone(), grant);
    api.connections.expect_end(connection);
    Ok(())
}

/// Checks that events may be published to a stream.
async fn may_publish(connection: &Connection, api: &Api, stream: &StreamName) -> Result<(), Fault> {
    let need = Need::Publish(stream);
    let Err(denied) = connection.check(need) else { return Ok(()) };
    let grant = ask_backend(connection, api, Action::Publish, stream, denied).await?;
    check_device(connection, &grant)?;
    Ok(grant.check(need)?)
}

/// What the backend says about a client that came without a token. `denied` stands where there is nobody to ask.
async fn ask_backend(
    connection: &Connection,
    api: &Api,
    action: Action,
    stream: &StreamName,
    denied: Denied,
) -> Result<Arc<Grant>, Fault> {
    let Some(visitor) = connection.visitor() else { return Err(denied.into()) };
    let question = Question {
        action,
        visitor: &visitor,
        device: connection.device(),
        streams: std::slice::from_ref(stream),
        connection: connection.known_as(),
    };
    Ok(api.access.ask_backend(&question, &api.hub.metrics().access).await?)
}

/// Whoever else it is for, it is nothing to this connection.
fn check_device(connection: &Connection, grant: &Grant) -> Result<(), Fault> {
    match grant.device.is_some() && grant.device != connection.grant().device {
        true => Err(RenewError::OtherDevice.into()),
        false => Ok(()),
    }
}

/// Another token takes the place of the one with which the client came.
async fn renew(connection: &Arc<Connection>, api: &Api, token: &str) -> Outcome {
    let grant = api.access.token(token).await?;
    let expires_ms = api.connections.renew_connection(connection, grant, api.hub.registry())?;
    Ok(Some(serde_json::json!({"expires": expires_ms.map(|ms| ms / 1000)})))
}

fn unsubscribe(connection: &Connection, api: &Api, stream: &str) -> Outcome {
    let stream: StreamName = stream.parse().map_err(Fault::bad)?;
    let Some(slot) = connection.unfollow(&stream) else {
        return Err(Fault::bad(format!("{stream} is not followed")));
    };
    if let Some(members) = connection.members() {
        members.leave(&stream);
    }
    api.hub.registry().leave(&stream, connection.number(), slot);
    Ok(Some(serde_json::json!({"stream": stream})))
}

async fn acknowledge(connection: &Connection, api: &Api, wanted: &Ack) -> Outcome {
    let stream: StreamName = wanted.stream.parse().map_err(Fault::bad)?;
    connection.check(Need::Acknowledge(&stream))?;
    let id: EventId = wanted.id.parse().map_err(Fault::bad)?;
    let acked = api.hub.acknowledge(&stream, id).await?.acked;
    Ok(Some(serde_json::json!({"stream": stream, "acked": acked})))
}

async fn publish(connection: &Connection, api: &Api, wanted: Publish<'_>) -> Outcome {
    let stream: StreamName = wanted.stream.parse().map_err(Fault::bad)?;
    may_publish(connection, api, &stream).await?;
    let options = PublishRequest::read(PublishOptions {
        kind: wanted.kind.as_deref(),
        ttl: wanted.ttl.map(RawValue::get),
        collapse: wanted.collapse.as_deref(),
        key: wanted.key.as_deref(),
        durable: wanted.durable.as_deref(),
        exclude: None,
        ephemeral: wanted.ephemeral,
        traceparent: wanted.traceparent.as_deref().map(str::as_bytes),
        received: api.hub.received(),
    })?;
    let options = options.excluding((!wanted.echo).then(|| connection.known_as()));
    let allowed = api.throttle.publish(&connection.grant(), connection.device(), 1);
    allowed.inspect_err(|_| api.hub.metrics().refused("rate"))?;
    let draft = Draft { from: connection.device().cloned(), ..options.draft(wanted.data.get().to_owned()) };
    let (published, durable) = match api.hub.carry_out(&stream, &options, &draft).await? {
        Accepted::Sent { nodes } => return Ok(Some(serde_json::json!({"stream": stream, "nodes": nodes}))),
        Accepted::Stored { published, durable } => (published, durable),
    };
    let mut answer = serde_json::json!({
        "id": published.id, "stream": published.stream, "duplicate": published.duplicate,
    });
    if let Some(durable) = durable {
        answer["durable"] = serde_json::json!(durable);
    }
    Ok(Some(answer))
}
