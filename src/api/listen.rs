//! Accepting listeners: from a request to streams with positions, and the socket's handoff.

use std::sync::Arc;

use hyper::{HeaderMap, Method, StatusCode, Version, header};
use uuid::Uuid;
use warp::reply::Response;

use super::parameters::{Format, Parameters};
use super::positions::{last_event_id, positions};
use super::route::Route;
use super::wish::{WISH_BYTES, Wish};
use super::{Api, Client, Problem, Request, body, reply};
use crate::access::{Action, Grant, Holder, Need, Question, Visitor};
use crate::hub::{Admission, Admitted, After};
use crate::model::{Cursor, Encoding, StreamKind, StreamName, TypeFilter};
use crate::presence::Eviction;
use crate::transport::{Accepted, CloseReason, Framing, Permit, Protocol, Refused, Rights, retry_ms, sse, websocket};

const PARAMETERS: [&str; 9] =
    ["device", "topic", "after", "types", "envelope", "heartbeat", "members", "trace", "format"];

/// Whether a client of `…/events` wants the live stream.
pub fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("text/event-stream")))
}

/// Whether a request is a listener's.
pub fn listens(route: &Route, headers: &HeaderMap) -> bool {
    match route {
        Route::Sse | Route::SseByBody | Route::WebSocket => true,
        Route::Stream(_) => wants_stream(headers),
        _ => false,
    }
}

/// Whether the request seems to be an EventSource's, which gives up for good at any answer but 200.
pub fn takes_only_streams(route: &Route, headers: &HeaderMap) -> bool {
    *route != Route::WebSocket
        && listens(route, headers)
        && (wants_stream(headers) || headers.contains_key("last-event-id"))
}

/// The answer to a listener that can't be let in for now, and that has to come back by itself.
pub fn come_back() -> Response {
    reply(StatusCode::OK, &sse::HEADERS, sse::close(CloseReason::Unavailable, retry_ms()))
}

/// What a client asks for.
struct Asked {
    streams: Vec<(StreamName, After)>,
    types: Option<TypeFilter>,
    envelope: bool,
    format: Format,
    heartbeat: bool,
    /// Events name the traces that their publishes belong to.
    trace: bool,
    /// It is notified of devices that join and leave its topics, and makes its device a member of them.
    members: bool,
    /// The client must not reconnect, and does so all the same.
    stopped: bool,
}

/// `GET /v1/sse`
pub async fn sse(api: &Api, request: Request, grant: Arc<Grant>) -> Result<Response, Problem> {
    let parameters = Parameters::read(&request.query, &PARAMETERS)?;
    let streams = named_streams(&parameters, api.max_streams)?;
    if streams.is_empty() {
        return Err(Problem::bad_request("nothing to listen to: give device=NAME or topic=NAME, or several"));
    }
    listen_sse(api, request, grant, &parameters, streams).await
}

/// `POST /v1/sse`: the same, with what is wanted in the body.
pub async fn sse_by_body(api: &Api, mut request: Request, grant: Arc<Grant>) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    body::kind(&request.headers)?;
    let body = std::mem::replace(&mut request.body, Box::pin(futures_util::stream::empty()));
    let parameters = {
        let (body, _held) = api.bodies.read(&request.headers, body, WISH_BYTES).await?;
        Wish::read(&body)?.into_parameters()?
    };
    let streams = named_streams(&parameters, api.max_streams)?;
    if streams.is_empty() {
        return Err(Problem::bad_request("nothing to listen to: \"streams\" is empty"));
    }
    listen_sse(api, request, grant, &parameters, streams).await
}

/// `GET …/events` for an event stream
pub async fn sse_of(api: &Api, stream: StreamName, request: Request, grant: Arc<Grant>) -> Result<Response, Problem> {
    let parameters = Parameters::read(&request.query, &PARAMETERS[2..])?;
    let streams = vec![stream];
    listen_sse(api, request, grant, &parameters, streams).await
}

async fn listen_sse(
    api: &Api,
    request: Request,
    grant: Arc<Grant>,
    parameters: &Parameters,
    streams: Vec<StreamName>,
) -> Result<Response, Problem> {
    let visitor = visitor(api, &request, &grant);
    let listener = let_in(api, visitor, grant, &streams).await?;
    let asked = asked(api, parameters, &request.headers, streams)?;
    if asked.stopped {
        api.refusals.hold().await;
        // After any other answer the client would reconnect for ever.
        return Ok(reply(StatusCode::NO_CONTENT, &[(header::CACHE_CONTROL, "no-store")], ""));
    }
    let encoding = match (asked.format, asked.streams.len(), asked.envelope) {
        (Format::CloudEvents, 1, _) => Encoding::SseCloudEvent,
        (Format::CloudEvents, ..) => Encoding::SseSharedCloudEvent,
        (Format::Whimbrel, 1, false) => Encoding::Sse,
        (Format::Whimbrel, 1, true) => Encoding::SseEnvelope,
        (Format::Whimbrel, ..) => Encoding::SseShared,
    };
    if request.method == Method::HEAD {
        return Ok(reply(StatusCode::OK, &sse::HEADERS, ""));
    }
    // Older clients don't know chunks, and HTTP/2 has frames of its own.
    let framing = if request.version == Version::HTTP_11 { Framing::Chunked } else { Framing::Plain };
    let protocol = Protocol::Sse { encoding, trace: asked.trace, heartbeat: asked.heartbeat, framing };
    let head = sse::head(framing, &request.cors.lines());
    // Nothing is decided over SSE later on.
    let listener = Listener { visitor: None, ..listener };
    accept(api, request, listener, protocol, head, asked).await
}

/// `GET /v1/ws`
pub async fn websocket(api: &Api, request: Request, grant: Arc<Grant>) -> Result<Response, Problem> {
    let parameters = Parameters::read(&request.query, &PARAMETERS)?;
    if request.method == Method::HEAD {
        return Err(Problem::bad_request("a WebSocket begins with GET"));
    }
    let key = handshake_key(&request.headers)?;
    let streams = named_streams(&parameters, api.max_streams)?;
    let visitor = visitor(api, &request, &grant);
    let listener = let_in(api, visitor, grant, &streams).await?;
    let asked = asked(api, &parameters, &request.headers, streams)?;
    let head = websocket::head(key, offers_subprotocol(&request.headers), &request.cors.lines());
    let encoding = match asked.format {
        Format::Whimbrel => Encoding::WebSocket,
        Format::CloudEvents => Encoding::WebSocketCloudEvent,
    };
    let protocol = Protocol::WebSocket { encoding, trace: asked.trace };
    accept(api, request, listener, protocol, head, asked).await
}

/// Who listens: decided once it is known to what.
struct Listener {
    grant: Arc<Grant>,
    /// By what the backend knows the client, where that decides.
    visitor: Option<Visitor>,
    /// The id of the connection that is to be.
    connection: Uuid,
}

/// By what the backend knows whoever sent a request, if it is the backend that decides about it.
fn visitor(api: &Api, request: &Request, grant: &Grant) -> Option<Visitor> {
    let with_cookies = request.cors.caller().may_use_cookies();
    let of = || Visitor::of(&request.headers, &request.query, request.client.address, with_cookies);
    (api.access.has_backend() && grant.holder == Holder::Anonymous).then(of)
}

/// Checks that these streams may be followed, as the backend says where it decides.
async fn let_in(
    api: &Api,
    visitor: Option<Visitor>,
    grant: Arc<Grant>,
    streams: &[StreamName],
) -> Result<Listener, Problem> {
    let connection = Uuid::new_v4();
    let grant = match &visitor {
        None => grant,
        Some(visitor) => {
            let device = streams.iter().find(|stream| stream.device().is_some());
            let question = Question { action: Action::Connect, visitor, device, streams, connection };
            match api.access.ask_backend(&question, &api.hub.metrics().access).await {
                Ok(granted) => granted,
                // What anyone may read, they may whatever the backend says.
                Err(_) if !streams.is_empty() && may_follow(&grant, streams).is_ok() => grant,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    };
    may_follow(&grant, streams)?;
    Ok(Listener { grant, visitor, connection })
}

/// Refuses a connection as a whole for one stream that it may not follow.
pub(super) fn may_follow(grant: &Grant, streams: &[StreamName]) -> Result<(), Problem> {
    streams.iter().try_for_each(|stream| grant.check(Need::Subscribe(stream)).map_err(Problem::from))
}

/// Has the listener admitted and hands the socket over. What passes by itself (overload, the store away, a
/// drain) is reported over the accepted connection: an EventSource gives up for good at any other answer.
async fn accept(
    api: &Api,
    request: Request,
    listener: Listener,
    protocol: Protocol,
    head: String,
    asked: Asked,
) -> Result<Response, Problem> {
    let handoff = request.handoff.ok_or_else(Problem::internal)?;
    let Listener { grant, visitor, connection } = listener;
    let permit = if handoff.is_reserved() { None } else { admit(api, request.client) };
    let Asked { streams, members, types, .. } = asked;
    let admission = Admission { grant: &grant, connection, transport: protocol.as_str(), streams, members };
    let admitted = match permit {
        Some(_) => api.hub.admit(admission).await.map_err(|error| CloseReason::from(&error)),
        None => Err(CloseReason::Overload),
    };
    let (streams, device, place, members) = match admitted {
        Ok(Admitted { streams, device, place, members }) => {
            let place = place.map_err(|why| refused(api, device.as_ref(), why));
            (streams, device, place, members)
        }
        Err(reason) => (Vec::new(), None, Err(reason.into()), None),
    };
    if place.is_ok() {
        device.iter().for_each(|device| api.crowded.admitted(device));
    } else if !handoff.is_reserved() {
        api.refusals.hold().await;
    }
    // A client that is turned away is not counted among the listeners.
    let permit = permit.filter(|_| place.is_ok());
    let headers = request.cors.headers();
    let rights = Rights::of_visitor(grant, visitor);
    handoff.leave(Accepted { protocol, head, headers, rights, device, types, streams, place, members, permit }).await
}

/// What a client receives whose device has no place for it.
fn refused(api: &Api, device: Option<&StreamName>, why: Eviction) -> Refused {
    match (why, device) {
        (Eviction::Limit, Some(device)) => {
            Refused { reason: CloseReason::Limit, retry_ms: api.crowded.refused(device) }
        }
        (why, _) => CloseReason::from(why).into(),
    }
}

/// Takes a place among the connections of the node and, where those are limited, of the client's address.
fn admit(api: &Api, client: Client) -> Option<Permit> {
    let Ok(address) = api.throttle.hold(client.address) else {
        api.hub.metrics().refused("address");
        return None;
    };
    api.connections.admit(address)
}

/// The streams that `device` and `topic` name, each once, at most `limit` of them.
pub(super) fn named_streams(parameters: &Parameters, limit: usize) -> Result<Vec<StreamName>, Problem> {
    let mut streams = Vec::new();
    for (parameter, kind) in [("device", StreamKind::Device), ("topic", StreamKind::Topic)] {
        for name in parameters.all(parameter) {
            let stream = StreamName::new(kind, name).map_err(|error| Problem::invalid_name(&error))?;
            if streams.contains(&stream) {
                continue;
            }
            if streams.len() == limit {
                let detail = format!("more than {limit} streams are asked for; a connection may follow {limit}");
                return Err(Problem::bad_request(detail));
            }
            streams.push(stream);
        }
    }
    Ok(streams)
}

fn asked(api: &Api, parameters: &Parameters, headers: &HeaderMap, streams: Vec<StreamName>) -> Result<Asked, Problem> {
    let types = api
        .filters
        .of(parameters.all("types").flat_map(|list| list.split(',')))
        .map_err(|error| Problem::bad_request(format!("the parameter 'types': {error}")))?;
    let last = last_event_id(headers)?;
    let after: Vec<&str> = match last {
        Some(cursor) => vec![cursor],
        // No more than can be of use; one more is refused.
        None => parameters.all("after").take(api.max_streams + 1).collect(),
    };
    if after.len() > api.max_streams {
        let limit = api.max_streams;
        return Err(Problem::bad_request(format!(
            "more than {limit} positions are given; a connection may have {limit}"
        )));
    }
    let stopped = last.and_then(|cursor| cursor.parse::<Cursor>().ok()).is_some_and(|cursor| cursor.unmarked().0);
    let (format, envelope) = (Format::of(parameters)?, parameters.switch("envelope")?);
    if envelope && format == Format::CloudEvents {
        return Err(Problem::bad_request("a CloudEvent is an envelope of its own: leave the parameter 'envelope' out"));
    }
    Ok(Asked {
        streams: positions(streams, &after)?,
        types,
        envelope,
        format,
        heartbeat: parameters.switch("heartbeat")?,
        members: parameters.switch("members")?,
        trace: parameters.switch("trace")?,
        stopped,
    })
}

/// The key of a WebSocket handshake.
fn handshake_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let has = |name: header::HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err(Problem::bad_request("this path speaks WebSocket: the request has to ask for that upgrade"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Problem::bad_request("Sec-WebSocket-Version has to be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    // 16 bytes in base64.
    key.filter(|key| key.len() == 24).ok_or_else(|| Problem::bad_request("Sec-WebSocket-Key is missing or malformed"))
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|offered| offered.split(',').any(|protocol| protocol.trim() == websocket::SUBPROTOCOL))
}
