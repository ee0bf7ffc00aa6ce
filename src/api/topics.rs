//! Topics: who follows them.

use hyper::StatusCode;
use serde::Serialize;
use uuid::Uuid;
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Api, Problem, json};
use crate::model::StreamName;
use crate::presence::{Follower, MAX_FOLLOWERS, Reports, Wanted};

/// Followers in an answer, unless another number is asked for.
const DEFAULT_LIMIT: usize = 100;

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
    let limit = parameters.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_FOLLOWERS).contains(&limit) {
        return Err(Problem::bad_request(format!("the limit is {limit}; allowed are 1 to {MAX_FOLLOWERS}")));
    }
    // One more than asked for tells whether there is more.
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

fn silent(known: &Reports) -> Vec<&str> {
    known.silent.iter().map(|node| node.as_str()).collect()
}
