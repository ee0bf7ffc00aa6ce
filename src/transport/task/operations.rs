//! What WebSocket clients can ask for, and the answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::access::rates::TooFast;
use crate::access::{Action, Denied, Grant, Need, Question, Refusal};
use crate::dispatch::Sink as _;
use crate::hub::{
    Accepted, AckError, After, Hub, ListenError, OptionError, PublishError, PublishOptions, PublishRequest,
};
use crate::model::{Draft, EventId, StreamKind, StreamName};
use crate::presence::RenewError;
use crate::transport::context::Context;
use crate::transport::{Connection, websocket};

/// The first message: the connection, its node, its device and its positions.
pub fn ready(connection: &Connection, hub: &Hub, complete: bool) -> String {
    let following = connection.following();
    let positions: serde_json::Map<_, _> =
        following.iter().map(|f| (f.stream.to_string(), f.position.to_string().into())).collect();
    let mut ready = serde_json::json!({
        "op": "ready",
        "connection": connection.id(),
        "node": hub.registry().node().as_str(),
        "device": connection.device().and_then(|stream| stream.device()),
        "positions": positions,
    });
    note_missing(&mut ready, complete);
    ready.to_string()
}

/// Adds `"complete":false` where the client asked for the oldest events and older ones than those kept had existed.
fn note_missing(answer: &mut serde_json::Value, complete: bool) {
    if !complete {
        answer["complete"] = false.into();
    }
}

// A field that is not known is refused, as a misspelt one would do something else than was meant. What all have in
// common was read by then.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    stream: String,
    after: Option<String>,
    /// Allows this one stream, where the connection's own token does not.
    token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    stream: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    stream: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish<'a> {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    stream: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(rename = "type")]
    kind: Option<String>,
    key: Option<String>,
    #[serde(borrow)]
    ttl: Option<&'a RawValue>,
    collapse: Option<String>,
    #[serde(default)]
    ephemeral: bool,
    durable: Option<String>,
    /// False: everyone but this connection is given the event.
    #[serde(default = "yes")]
    echo: bool,
}

const fn yes() -> bool {
    true
}

/// What every operation may carry: it comes back with the answer.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    op: Option<String>,
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

#[derive(Serialize)]
struct Fault {
    code: &'static str,
    detail: String,
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        Fault { code: error.slug(), detail: error.to_string() }
    }
}

impl From<OptionError> for Fault {
    fn from(error: OptionError) -> Self {
        match error {
            OptionError::Event(error) => error.into(),
            error => Fault::bad(error),
        }
    }
}

impl From<AckError> for Fault {
    fn from(error: AckError) -> Self {
        Fault { code: error.slug(), detail: error.to_string() }
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Unknown(_) => "unauthorized",
            Denied::Forbidden(_) => "forbidden",
        };
        Fault { code, detail: denied.to_string() }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Invalid(_) | Refusal::Foreign(_) => "unauthorized",
            Refusal::Forbidden(_) => "forbidden",
            Refusal::Unavailable(_) => "unavailable",
        };
        Fault { code, detail: refusal.to_string() }
    }
}

impl From<RenewError> for Fault {
    fn from(error: RenewError) -> Self {
        Fault { code: "forbidden", detail: error.to_string() }
    }
}

impl From<TooFast> for Fault {
    fn from(error: TooFast) -> Self {
        Fault { code: "rate", detail: error.to_string() }
    }
}

impl Fault {
    fn bad(detail: impl ToString) -> Self {
        Fault { code: "bad-request", detail: detail.to_string() }
    }

    fn internal() -> Self {
        Fault { code: "internal", detail: "something went wrong on the server; its log has the details".into() }
    }
}

/// Answers a message that came too soon after others.
pub fn refuse(connection: &Connection, text: &str, rate: u32) {
    let reference = serde_json::from_str::<Head<'_>>(text).ok().and_then(|head| head.reference);
    let detail = format!("more than {rate} messages a second; a client that goes on is let go");
    answer(connection, reference, "error", Fault { code: "rate", detail });
}

/// Carries out one message of a client.
pub async fn run(connection: &Arc<Connection>, context: &Context, text: &str) {
    let head: Head<'_> = match serde_json::from_str(text) {
        Ok(head) => head,
        Err(error) => return answer(connection, None, "error", Fault::bad(format!("not an operation: {error}"))),
    };
    let reference = head.reference;
    if head.op.as_deref() == Some("ping") {
        return answer(connection, reference, "pong", serde_json::json!({}));
    }
    let carried_out = AssertUnwindSafe(carry_out(connection, context, head, text)).catch_unwind().await;
    // A panic was logged and counted where it happened.
    match carried_out.unwrap_or_else(|_| Err(Fault::internal())) {
        Ok(Some(content)) => answer(connection, reference, "ok", content),
        Ok(None) => {}
        Err(fault) => answer(connection, reference, "error", fault),
    }
}

// Not one enum with `op` for its tag: serde buffers what is tagged so, and raw JSON can't be buffered.
async fn carry_out(connection: &Arc<Connection>, context: &Context, head: Head<'_>, text: &str) -> Outcome {
    match head.op.as_deref() {
        Some("subscribe") => {
            let wanted = read::<Subscribe>(text)?;
            subscribe(connection, context, head.reference, &wanted).await
        }
        Some("renew") => renew(connection, context, &read::<Renew>(text)?.token).await,
        Some("unsubscribe") => unsubscribe(connection, context, &read::<Unsubscribe>(text)?.stream),
        Some("ack") => acknowledge(connection, context, &read::<Ack>(text)?).await,
        Some("publish") => publish(connection, context, read::<Publish<'_>>(text)?).await,
        Some(op) => Err(Fault::bad(format!("the op '{op}' is not known; known are {}", OPERATIONS.join(", ")))),
        None => Err(Fault::bad(format!("the op is missing; known are {}", OPERATIONS.join(", ")))),
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(Fault::bad)
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
    context: &Context,
    reference: Option<&RawValue>,
    wanted: &Subscribe,
) -> Outcome {
    let stream: StreamName = wanted.stream.parse().map_err(Fault::bad)?;
    may_subscribe(connection, context, &stream, wanted.token.as_deref()).await?;
    let after: After = wanted.after.as_deref().unwrap_or("now").parse().map_err(Fault::bad)?;
    if after == After::Ack && stream.kind() == StreamKind::Topic {
        return Err(AckError::Topic(stream).into());
    }
    if connection.following().iter().any(|following| following.stream == stream) {
        return Err(Fault::bad(format!("{stream} is followed already")));
    }
    let listening = context.hub.listen(vec![(stream.clone(), after)]).await.map_err(|error| match error {
        ListenError::Store(error) => Fault { code: "unavailable", detail: error.for_client() },
        ListenError::Draining => Fault { code: "drain", detail: "this node is being stopped".into() },
    })?;
    for listening in listening {
        let position = listening.position;
        let mut content = serde_json::json!({"stream": stream, "position": position});
        note_missing(&mut content, listening.complete);
        let Some(slot) = connection.follow(stream.clone(), position, context.settings.max_streams) else {
            let detail = format!("a connection may follow {} streams", context.settings.max_streams);
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
    context: &Context,
    stream: &StreamName,
    token: Option<&str>,
) -> Result<(), Fault> {
    let need = Need::Subscribe(stream);
    let Err(denied) = connection.check(need) else { return Ok(()) };
    let grant = match token {
        Some(token) => context.hub.access().token(token).await?,
        None => ask_backend(connection, context, Action::Subscribe, stream, denied).await?,
    };
    check_device(connection, &grant)?;
    grant.check(need)?;
    connection.allow(stream.clone(), grant);
    context.connections.expect_end(connection);
    Ok(())
}

/// Checks that events may be published to a stream.
async fn may_publish(connection: &Connection, context: &Context, stream: &StreamName) -> Result<(), Fault> {
    let need = Need::Publish(stream);
    let Err(denied) = connection.check(need) else { return Ok(()) };
    let grant = ask_backend(connection, context, Action::Publish, stream, denied).await?;
    check_device(connection, &grant)?;
    Ok(grant.check(need)?)
}

/// What the backend says about a client that came without a token. `denied` stands where there is nobody to ask.
async fn ask_backend(
    connection: &Connection,
    context: &Context,
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
    Ok(context.hub.access().ask_backend(&question, &context.hub.metrics().access).await?)
}

/// Whoever else it is for, it is nothing to this connection.
fn check_device(connection: &Connection, grant: &Grant) -> Result<(), Fault> {
    match grant.device.is_some() && grant.device != connection.grant().device {
        true => Err(RenewError::OtherDevice.into()),
        false => Ok(()),
    }
}

/// Another token takes the place of the one with which the client came.
async fn renew(connection: &Arc<Connection>, context: &Context, token: &str) -> Outcome {
    let grant = context.hub.access().token(token).await?;
    let expires_ms = context.connections.renew_connection(connection, grant, context.hub.registry())?;
    Ok(Some(serde_json::json!({"expires": expires_ms.map(|ms| ms / 1000)})))
}

fn unsubscribe(connection: &Connection, context: &Context, stream: &str) -> Outcome {
    let stream: StreamName = stream.parse().map_err(Fault::bad)?;
    let Some(slot) = connection.unfollow(&stream) else {
        return Err(Fault::bad(format!("{stream} is not followed")));
    };
    if let Some(members) = connection.members() {
        members.leave(&stream);
    }
    context.hub.registry().leave(&stream, connection.number(), slot);
    Ok(Some(serde_json::json!({"stream": stream})))
}

async fn acknowledge(connection: &Connection, context: &Context, wanted: &Ack) -> Outcome {
    let stream: StreamName = wanted.stream.parse().map_err(Fault::bad)?;
    connection.check(Need::Acknowledge(&stream))?;
    let id: EventId = wanted.id.parse().map_err(Fault::bad)?;
    let acked = context.hub.acknowledge(&stream, id).await?.acked;
    Ok(Some(serde_json::json!({"stream": stream, "acked": acked})))
}

async fn publish(connection: &Connection, context: &Context, wanted: Publish<'_>) -> Outcome {
    let stream: StreamName = wanted.stream.parse().map_err(Fault::bad)?;
    may_publish(connection, context, &stream).await?;
    let options = PublishRequest::read(PublishOptions {
        kind: wanted.kind.as_deref(),
        ttl: wanted.ttl.map(RawValue::get),
        collapse: wanted.collapse.as_deref(),
        key: wanted.key.as_deref(),
        durable: wanted.durable.as_deref(),
        exclude: None,
        ephemeral: wanted.ephemeral,
    })?;
    let options = options.excluding((!wanted.echo).then(|| connection.known_as()));
    let allowed = context.throttle.publish(&connection.grant(), connection.device(), 1);
    allowed.inspect_err(|_| context.hub.metrics().refused("rate"))?;
    let draft = Draft { from: connection.device().cloned(), ..options.draft(wanted.data.get().to_owned()) };
    let (published, durable) = match context.hub.carry_out(&stream, &options, &draft).await? {
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
