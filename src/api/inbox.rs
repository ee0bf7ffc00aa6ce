//! A device's inbox, what it acknowledges, and erasing a stream.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use warp::reply::Response;

use super::body::{self, Kind};
use super::parameters::Parameters;
use super::{Api, Problem, Request, json, reply};
use crate::model::{EventId, Info, StreamName, Time};
use crate::store::presence::SlotHolder;

/// Most bytes of an acknowledgement.
const ACK_BYTES: usize = 1024;

#[derive(Serialize)]
struct ShownDevice<'a> {
    device: &'a str,
    region: &'a str,
    online: bool,
    connections: Vec<ShownConnection>,
    last: EventId,
    acked: Option<EventId>,
    pending: u64,
}

#[derive(Serialize)]
struct ShownConnection {
    id: Uuid,
    node: String,
    transport: String,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info>,
}

impl From<SlotHolder> for ShownConnection {
    fn from(holder: SlotHolder) -> Self {
        let SlotHolder { connection, node, transport, info, slot } = holder;
        let since = Time::from_ms(slot.since_ms).to_string();
        ShownConnection { id: connection, node: node.as_str().to_owned(), transport, since, info }
    }
}

/// `GET /v1/devices/{device}`
pub async fn device(api: &Api, stream: &StreamName, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let (inbox, state) = tokio::try_join!(api.hub.inbox(stream), api.hub.device(stream))?;
    // That the inbox was read made its home known.
    let home = api.hub.regions().and_then(|regions| regions.home_of(stream));
    let shown = ShownDevice {
        device: stream.name(),
        region: home.as_deref().unwrap_or(api.hub.region()),
        online: !state.connections.is_empty(),
        connections: state.connections.into_iter().map(ShownConnection::from).collect(),
        last: inbox.standing.last,
        acked: inbox.standing.acked,
        pending: inbox.pending,
    };
    Ok(json(StatusCode::OK, &shown))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    id: String,
}

#[derive(Serialize)]
struct ShownAck {
    stream: StreamName,
    acked: Option<EventId>,
}

/// `POST /v1/devices/{device}/ack`
pub async fn acknowledge(api: &Api, stream: StreamName, request: Request) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    if body::kind(&request.headers)? != Kind::Json {
        return Err(Problem::unsupported_media("an acknowledgement is a JSON object"));
    }
    let (body, _held) = api.bodies.read(&request.headers, request.body, ACK_BYTES).await?;
    let ack: Ack = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body has to be {{\"id\": ID}}: {error}")))?;
    let id = ack.id.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
    let acked = api.hub.acknowledge(&stream, id).await?.acked;
    Ok(json(StatusCode::OK, &ShownAck { stream, acked }))
}

/// `DELETE` of a device or a topic
pub async fn erase(api: &Api, stream: &StreamName, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    api.hub.erase(stream).await?;
    Ok(reply(StatusCode::NO_CONTENT, &[], ""))
}
