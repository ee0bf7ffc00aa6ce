//! The nodes of the region.

use hyper::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Api, Problem, json};
use crate::presence::Report;

#[derive(Serialize)]
struct ShownNodes<'a> {
    nodes: Vec<ShownNode<'a>>,
    silent: Vec<&'a str>,
}

#[derive(Serialize)]
struct ShownNode<'a> {
    node: &'a str,
    region: &'a str,
    address: &'a str,
    version: &'a str,
    connections: usize,
    streams: usize,
}

impl<'a> From<&'a Report> for ShownNode<'a> {
    fn from(report: &'a Report) -> Self {
        let Report { node, region, address, version, connections, streams, followers: _ } = report;
        ShownNode { node, region, address, version, connections: *connections, streams: *streams }
    }
}

/// `GET /v1/nodes`
pub async fn list(api: &Api, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let known = api.hub.reports(None).await?;
    let shown = ShownNodes {
        nodes: known.reports.iter().map(ShownNode::from).collect(),
        silent: known.silent.iter().map(|node| node.as_str()).collect(),
    };
    Ok(json(StatusCode::OK, &shown))
}
