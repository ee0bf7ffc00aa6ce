//! Another token for a connection that can't take it itself.

use std::sync::Arc;

use hyper::StatusCode;
use uuid::Uuid;
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Api, Problem, json};
use crate::access::Grant;

/// `POST /v1/connections/{connection}/renew`
pub async fn renew(api: &Api, connection: Uuid, grant: &Arc<Grant>, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let expires_ms = api.hub.presence().renewals().renew(connection, grant).await??;
    let expires = expires_ms.map(|ms| ms / 1000);
    Ok(json(StatusCode::OK, &serde_json::json!({"connection": connection, "expires": expires})))
}
