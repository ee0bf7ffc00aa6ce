//! Topics: their followers and members.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Api, Problem, json};
use crate::model::{StreamKind, StreamName, Time};
use crate::presence::{Follower, MAX_FOLLOWERS, Reports, Wanted};
use crate::store::members::Member;

#[derive(Serialize)]
struct ShownTopic<'a> {
    topic: &'a str,
    connections: u64,
    nodes: usize,
    silent: Vec<&'a str>,
}

/// `GET /v1/topics/{topic}`
pub async fn topic(api: &Api, topic: StreamName, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let wanted = Wanted { topic, after: None, limit: 0 };
    let known = api.hub.reports(Some(&wanted)).await?;
    let counts = || known.reports.iter().filter_map(|report| Some(report.followers.as_ref()?.count));
    let shown = ShownTopic {
        topic: wanted.topic.name(),
        connections: counts().sum(),
        nodes: counts().filter(|count| *count > 0).count(),
        silent: silent(&known),
    };
    Ok(json(StatusCode::OK, &shown))
}

#[derive(Serialize)]
struct ShownFollowers<'a> {
    connections: Vec<ShownFollower<'a>>,
    next: Option<Uuid>,
    silent: Vec<&'a str>,
}

#[derive(Serialize)]
struct ShownFollower<'a> {
    node: &'a str,
    #[serde(flatten)]
    follower: &'a Follower,
}

/// `GET /v1/topics/{topic}/connections`
pub async fn followers(api: &Api, topic: StreamName, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["after", "limit"])?;
    let limit = parameters.limit(MAX_FOLLOWERS)?;
    // One more than asked for shows whether there is more.
    let wanted = Wanted { topic, after: parameters.parsed("after")?, limit: limit + 1 };
    let known = api.hub.reports(Some(&wanted)).await?;
    let of_node = known.reports.iter().filter_map(|report| Some((&report.node, report.followers.as_ref()?)));
    let mut connections: Vec<_> = of_node
        .flat_map(|(node, followers)| followers.some.iter().map(move |follower| ShownFollower { node, follower }))
        .collect();
    connections.sort_by_key(|shown| shown.follower.id);
    let more = connections.len() > limit;
    connections.truncate(limit);
    let next = more.then(|| connections.last().map(|shown| shown.follower.id)).flatten();
    Ok(json(StatusCode::OK, &ShownFollowers { connections, next, silent: silent(&known) }))
}

/// Most members in one answer.
const MAX_MEMBERS: usize = 1000;

#[derive(Serialize)]
struct ShownMembers<'a> {
    members: Vec<ShownMember<'a>>,
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct ShownMember<'a> {
    device: &'a str,
    info: Option<&'a RawValue>,
    connections: u64,
    since: String,
}

impl<'a> From<&'a Member> for ShownMember<'a> {
    fn from(member: &'a Member) -> Self {
        // What is no JSON was put there past the service.
        let info = member.info.as_deref().and_then(|info| serde_json::from_str(info).ok());
        let since = Time::from_ms(member.since_ms).to_string();
        ShownMember { device: &member.device, info, connections: member.connections, since }
    }
}

/// `GET /v1/topics/{topic}/members`
pub async fn members(api: &Api, topic: &StreamName, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["after", "limit"])?;
    let limit = parameters.limit(MAX_MEMBERS)?;
    let named = |name: &str| StreamName::new(StreamKind::Device, name).map_err(|error| Problem::invalid_name(&error));
    let after = parameters.one("after")?.map(named).transpose()?;
    let page = api.hub.members(topic, after.as_ref().map(StreamName::name), limit).await?;
    let members = page.members.iter().map(ShownMember::from).collect();
    Ok(json(StatusCode::OK, &ShownMembers { members, next: page.next.as_deref() }))
}

fn silent(known: &Reports) -> Vec<&str> {
    known.silent.iter().map(|node| node.as_str()).collect()
}
