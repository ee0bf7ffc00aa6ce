//! The lease that a producer holds of a stream.

use hyper::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;
use warp::reply::Response;

use super::body::{self, Kind};
use super::events::idempotency_key;
use super::parameters::Parameters;
use super::{Api, Problem, Request, json, reply};
use crate::model::{LeaseId, LeaseTime, StreamName};

/// Most bytes of the body of a request for a lease.
const LEASE_BYTES: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    seconds: Number,
    /// The lease to renew; a new one is taken without.
    #[serde(default, deserialize_with = "given")]
    lease: Option<String>,
}

/// A value that is there: serde takes a `null` for one that is not.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// The time, which JSON may also write as `5.0`.
fn time(seconds: &Number) -> Result<LeaseTime, Problem> {
    let whole = seconds.as_f64().filter(|seconds| seconds.fract() == 0.0).map(|seconds| format!("{seconds:.0}"));
    let time = whole.unwrap_or_else(|| seconds.to_string()).parse::<LeaseTime>();
    time.map_err(|error| Problem::bad_request(error.to_string()))
}

#[derive(Serialize)]
struct Shown {
    lease: LeaseId,
    stream: StreamName,
    seconds: LeaseTime,
}

/// `PUT …/lease`
pub async fn take(api: &Api, stream: StreamName, request: Request) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    let key = idempotency_key(&request.headers)?;
    if body::kind(&request.headers)? != Kind::Json {
        return Err(Problem::unsupported_media("a lease is asked for with a JSON object"));
    }
    let (body, _held) = api.bodies.read(&request.headers, request.body, LEASE_BYTES).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("the body has to be {{\"seconds\": N}}, to renew with \"lease\": {error}"))
    })?;
    let seconds = time(&asked.seconds)?;
    let (lease, status) = match asked.lease {
        None => {
            let (lease, again) = api.hub.take_lease(&stream, seconds, key.as_deref()).await?;
            (lease, if again { StatusCode::OK } else { StatusCode::CREATED })
        }
        Some(lease) => {
            let lease: LeaseId = lease.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
            api.hub.renew_lease(&stream, lease, seconds).await?;
            (lease, StatusCode::OK)
        }
    };
    Ok(json(status, &Shown { lease, stream, seconds }))
}

/// `DELETE …/lease`
pub async fn end(api: &Api, stream: &StreamName, query: &str) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["lease"])?;
    let lease = parameters.parsed::<LeaseId>("lease")?;
    let lease = lease.ok_or_else(|| Problem::bad_request("say with the parameter 'lease' which lease is to end"))?;
    api.hub.end_lease(stream, lease).await?;
    Ok(reply(StatusCode::NO_CONTENT, &[], ""))
}
