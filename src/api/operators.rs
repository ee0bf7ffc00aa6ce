//! What operators look at: producers' leases, what was refused of the ingress stream, and links between nodes.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Api, Problem, json};
use crate::link::{Listed, State};
use crate::model::{EventId, StreamName, Time};
use crate::store::producers::HeldLease;
use crate::store::{Rejected, now_ms};

/// Most leases, or rejected entries, in one answer.
const MOST: usize = 1000;

#[derive(Serialize)]
struct ShownLeases {
    leases: Vec<ShownLease>,
    total: u64,
}

/// Without its id: whoever knows that can end it.
#[derive(Serialize)]
struct ShownLease {
    stream: StreamName,
    seconds: u64,
    renewed: Time,
    lapses: Time,
    lapsed: bool,
}

impl From<HeldLease> for ShownLease {
    fn from(lease: HeldLease) -> Self {
        let HeldLease { stream, time, renewed_ms, lapses_ms, lapsed } = lease;
        let (renewed, lapses) = (Time::from_ms(renewed_ms), Time::from_ms(lapses_ms));
        ShownLease { stream, seconds: time.as_secs(), renewed, lapses, lapsed }
    }
}

/// `GET /v1/leases`
pub async fn leases(api: &Api, query: &str) -> Result<Response, Problem> {
    let limit = Parameters::read(query, &["limit"])?.limit(MOST)?;
    let known = api.hub.leases(limit).await?;
    let leases = known.leases.into_iter().map(ShownLease::from).collect();
    Ok(json(StatusCode::OK, &ShownLeases { leases, total: known.total }))
}

#[derive(Serialize)]
struct ShownRejections {
    rejected: Vec<ShownRejected>,
    next: Option<EventId>,
}

#[derive(Serialize)]
struct ShownRejected {
    id: EventId,
    time: Time,
    entry: String,
    reason: String,
    fields: Vec<ShownField>,
}

#[derive(Serialize)]
struct ShownField {
    name: String,
    value: String,
}

impl From<Rejected> for ShownRejected {
    fn from(rejected: Rejected) -> Self {
        let Rejected { id, entry, reason, fields } = rejected;
        // Producers may write any bytes.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = fields.iter().map(|(name, value)| ShownField { name: text(name), value: text(value) }).collect();
        ShownRejected { id, time: Time::from_ms(id.ms), entry, reason, fields }
    }
}

/// `GET /v1/ingress/rejected`
pub async fn rejected(api: &Api, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["before", "limit"])?;
    let limit = parameters.limit(MOST)?;
    // One more than asked for shows whether there is more.
    let mut rejected = api.hub.rejected(parameters.parsed("before")?, limit + 1).await?;
    let more = rejected.len() > limit;
    rejected.truncate(limit);
    let next = more.then(|| rejected.last().map(|last| last.id)).flatten();
    let rejected = rejected.into_iter().map(ShownRejected::from).collect();
    Ok(json(StatusCode::OK, &ShownRejections { rejected, next }))
}

#[derive(Serialize)]
struct ShownLinks {
    enabled: bool,
    links: Vec<ShownLink>,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum ShownState {
    Open { since: Time, used: Option<Time>, waiting: usize, ahead: bool },
    Opening,
    Resting { until: Time, reason: &'static str },
}

#[derive(Serialize)]
struct ShownLink {
    node: String,
    #[serde(flatten)]
    state: ShownState,
}

impl ShownLink {
    /// Times are the node's own.
    fn at(now_ms: u64, Listed { node, state }: Listed) -> Self {
        let ago = |time: Duration| Time::from_ms(now_ms.saturating_sub(time.as_millis() as u64));
        let state = match state {
            State::Open { age, idle, waiting, ahead } => {
                ShownState::Open { since: ago(age), used: idle.map(ago), waiting, ahead }
            }
            State::Opening => ShownState::Opening,
            State::Resting { left, reason } => {
                ShownState::Resting { until: Time::from_ms(now_ms + left.as_millis() as u64), reason }
            }
        };
        ShownLink { node: node.as_str().to_owned(), state }
    }
}

/// `GET /v1/links`: those from this node.
pub fn links(api: &Api, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let now_ms = now_ms();
    let links = api.hub.links().filter(|links| links.linking());
    let shown = links.map(|links| links.list().into_iter().map(|link| ShownLink::at(now_ms, link)).collect());
    Ok(json(StatusCode::OK, &ShownLinks { enabled: shown.is_some(), links: shown.unwrap_or_default() }))
}
