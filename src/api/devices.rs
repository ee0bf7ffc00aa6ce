//! Devices: their connections and inboxes.

use hyper::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Api, Problem, json};
use crate::model::StreamName;

#[derive(Serialize)]
struct Kicked<'a> {
    device: &'a str,
    closed: u32,
}

/// `DELETE /v1/devices/{device}/connections`
pub async fn kick(api: &Api, device: &StreamName, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let closed = api.hub.kick(device).await?;
    Ok(json(StatusCode::OK, &Kicked { device: device.name(), closed }))
}
