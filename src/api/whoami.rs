//! What the caller's token or key may do.

use hyper::StatusCode;
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Problem, json};
use crate::access::Grant;

/// `GET /v1/whoami`
pub fn whoami(grant: &Grant, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    Ok(json(StatusCode::OK, &grant.shown()))
}
