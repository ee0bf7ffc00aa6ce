//! Regions: which there are, how this node finds them, and which one is a stream's home.

use futures_util::future::join_all;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use warp::reply::Response;

use super::body::{self, Kind};
use super::parameters::Parameters;
use super::{Api, Problem, Request, json};
use crate::model::StreamName;

/// Most bytes of a request for a region.
const REGION_BYTES: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionBody {
    region: String,
}

#[derive(Serialize)]
struct Moved {
    stream: StreamName,
    region: String,
}

/// `PUT …/region`
pub async fn move_to(api: &Api, stream: StreamName, request: Request) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    if body::kind(&request.headers)? != Kind::Json {
        return Err(Problem::unsupported_media("a region is named in a JSON object"));
    }
    let (body, _held) = api.bodies.read(&request.headers, request.body, REGION_BYTES).await?;
    let RegionBody { region } = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body has to be {{\"region\": NAME}}: {error}")))?;
    let unknown = || Problem::unknown_region(&region);
    match api.hub.regions() {
        None if region != api.hub.region() => return Err(unknown()),
        None => {}
        Some(regions) if regions.named(&region).is_none() => return Err(unknown()),
        Some(regions) => regions.move_to(&stream, &region).await?,
    }
    Ok(json(StatusCode::OK, &Moved { stream, region }))
}

/// `GET /v1/regions`
pub async fn list(api: &Api, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let Some(regions) = api.hub.regions() else {
        let health = api.health.report();
        let only = serde_json::json!({
            "name": api.hub.region(),
            "home": true,
            "store": health.store,
            "up": health.store_error.is_none(),
            "error": health.store_error,
        });
        return Ok(json(StatusCode::OK, &serde_json::json!({"regions": [only], "directory": null})));
    };
    let shown = regions.all().iter().map(async |region| {
        let (nodes, report) = (region.nodes().await, region.report());
        serde_json::json!({
            "name": &*report.name,
            "home": region.name() == regions.home().name(),
            "store": report.store,
            // A region that was not needed so far is neither; one without a membership is judged by its answer.
            "up": match (report.open, report.error.is_some()) {
                (false, false) => None,
                (true, false) => Some(report.member || nodes.is_some()),
                (_, true) => Some(false),
            },
            "error": report.error,
            "down_seconds": report.down_for.map(|time| time.as_secs()),
            "follows": report.member,
            "nodes": nodes,
        })
    });
    let directory = serde_json::json!({
        "store": regions.directory().describe(),
        "streams": regions.replica().len(),
        "lag_milliseconds": regions.lag().as_millis() as u64,
    });
    Ok(json(StatusCode::OK, &serde_json::json!({"regions": join_all(shown).await, "directory": directory})))
}
