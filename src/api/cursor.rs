//! Where streams stand now: for a page that is rendered together with its state, and then goes on live.

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use warp::reply::Response;

use super::parameters::Parameters;
use super::{Api, Problem, json as answer, listen};
use crate::access::Grant;
use crate::model::Cursor;

/// `GET /v1/cursor`
pub async fn cursor(api: &Api, query: &str, grant: &Grant) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["device", "topic"])?;
    let streams = listen::named_streams(&parameters, api.max_streams)?;
    if streams.is_empty() {
        return Err(Problem::bad_request("a cursor of no streams: give device=NAME or topic=NAME, or several"));
    }
    listen::may_follow(grant, &streams)?;
    let positions = api.hub.positions(&streams).await?;
    let cursor = Cursor::of(streams.iter().zip(positions.iter().copied()));
    let positions: Map<String, Value> =
        streams.iter().zip(&positions).map(|(stream, id)| (stream.to_string(), json!(id))).collect();
    Ok(answer(StatusCode::OK, &json!({"cursor": cursor.to_string(), "positions": positions})))
}
