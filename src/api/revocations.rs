//! Refusing tokens before their time.

use std::time::Duration;

use hyper::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Number;
use uuid::Uuid;
use warp::reply::Response;

use super::body::{self, Kind};
use super::lease::given;
use super::parameters::Parameters;
use super::{Api, Problem, Request, json, reply};
use crate::access::{Revocation, Subject, TOKEN_ID_LENGTH, is_token_id};
use crate::model::{StreamKind, StreamName};
use crate::store::now_ms;
use crate::transport::CloseReason;

/// Most bytes of a request.
const BODY_BYTES: usize = 4096;

/// How long a revocation stands unless another time is given: tokens are rarely made for longer.
const DEFAULT_SECONDS: u64 = 86_400;

/// Ten years.
const MOST_SECONDS: u64 = 10 * 365 * 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default, deserialize_with = "given")]
    device: Option<String>,
    #[serde(default, deserialize_with = "given")]
    token: Option<String>,
    #[serde(default, deserialize_with = "given")]
    before: Option<f64>,
    #[serde(default, deserialize_with = "given")]
    seconds: Option<Number>,
}

#[derive(Serialize)]
struct Shown<'a> {
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Number>,
    created: u64,
    expires: u64,
}

impl<'a> From<&'a Revocation> for Shown<'a> {
    fn from(revocation: &'a Revocation) -> Self {
        let (device, token) = match &revocation.subject {
            Subject::Device(device) => (Some(&**device), None),
            Subject::Token(token) => (None, Some(&**token)),
        };
        let before = device.and_then(|_| seconds(revocation.before_ms));
        let (created, expires) = (revocation.created_ms / 1000, revocation.expires_ms / 1000);
        Shown { id: revocation.id, device, token, before, created, expires }
    }
}

/// Seconds, with a fraction where there is one.
fn seconds(ms: u64) -> Option<Number> {
    if ms.is_multiple_of(1000) { Some((ms / 1000).into()) } else { Number::from_f64(ms as f64 / 1000.0) }
}

/// A whole number, which JSON may also write as `5.0`.
fn whole(number: &Number) -> Option<u64> {
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..1e15).contains(float));
    number.as_u64().or_else(|| float().map(|float| float as u64))
}

#[derive(Serialize)]
struct ShownAll<'a> {
    revocations: Vec<Shown<'a>>,
}

/// `POST /v1/revocations`
pub async fn revoke(api: &Api, request: Request) -> Result<Response, Problem> {
    Parameters::read(&request.query, &[])?;
    if body::kind(&request.headers)? != Kind::Json {
        return Err(Problem::unsupported_media("a revocation is a JSON object"));
    }
    let (body, _held) = api.bodies.read(&request.headers, request.body, BODY_BYTES).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body has to be {{\"device\": NAME}}, {{\"token\": JTI}} or {{\"device\": NAME, \"before\": SECONDS}}, \
             with \"seconds\" if it is to stand for another time than a day: {error}"
        ))
    })?;
    let revocation = revocation(asked, now_ms())?;
    put(api, &revocation).await?;
    tracing::info!(id = %revocation.id, "tokens were revoked");
    let mut response = json(StatusCode::CREATED, &Shown::from(&revocation));
    if let Ok(location) = format!("/v1/revocations/{}", revocation.id).parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn revocation(asked: Asked, now_ms: u64) -> Result<Revocation, Problem> {
    let bad = |detail: String| Err(Problem::bad_request(detail));
    let seconds = match &asked.seconds {
        None => DEFAULT_SECONDS,
        Some(seconds) => match whole(seconds).filter(|seconds| (1..=MOST_SECONDS).contains(seconds)) {
            Some(seconds) => seconds,
            None => {
                return bad(format!("\"seconds\" is {seconds}; allowed are whole numbers from 1 to {MOST_SECONDS}"));
            }
        },
    };
    let (subject, before_ms) = match (asked.device, asked.token, asked.before) {
        (Some(device), None, before) => {
            StreamName::new(StreamKind::Device, &device).map_err(|error| Problem::invalid_name(&error))?;
            let before_ms = match before {
                None => now_ms,
                Some(before) if (0.0..=1e12).contains(&before) => Duration::from_secs_f64(before).as_millis() as u64,
                Some(_) => return bad("\"before\" is not a time in seconds since 1970".into()),
            };
            (Subject::Device(device.into()), before_ms)
        }
        (None, Some(token), None) if !token.is_empty() && is_token_id(&token) => {
            (Subject::Token(token.into()), u64::MAX)
        }
        (None, Some(_), None) => {
            return bad(format!(
                "a token's jti has 1 to {TOKEN_ID_LENGTH} characters, none of them a control character"
            ));
        }
        _ => return bad("give either \"device\", perhaps with \"before\", or \"token\"".into()),
    };
    let (id, expires_ms) = (Uuid::new_v4(), now_ms + seconds * 1000);
    Ok(Revocation { id, subject, before_ms, created_ms: now_ms, expires_ms, lifted: false })
}

/// Has the store keep it, and applies it here at once; other nodes see it in the store.
async fn put(api: &Api, revocation: &Revocation) -> Result<(), Problem> {
    if !api.hub.store_revocation(revocation).await? {
        return Err(Problem::too_many_revocations());
    }
    api.access.learn(vec![revocation.clone()]);
    api.connections.close_where(CloseReason::Revoked, |grant| api.access.is_revoked(grant));
    Ok(())
}

/// `GET /v1/revocations`
pub async fn list(api: &Api, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    api.hub.read_revocations().await?;
    let mut all = api.access.revocations();
    all.retain(|revocation| !revocation.lifted);
    all.sort_by_key(|revocation| (revocation.created_ms, revocation.id));
    Ok(json(StatusCode::OK, &ShownAll { revocations: all.iter().map(Shown::from).collect() }))
}

/// `GET /v1/revocations/{id}`
pub async fn one(api: &Api, id: Uuid, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    Ok(json(StatusCode::OK, &Shown::from(&known(api, id).await?)))
}

/// `DELETE /v1/revocations/{id}`
pub async fn lift(api: &Api, id: Uuid, query: &str) -> Result<Response, Problem> {
    Parameters::read(query, &[])?;
    let revocation = Revocation { lifted: true, ..known(api, id).await? };
    put(api, &revocation).await?;
    tracing::info!(%id, "a revocation was lifted");
    Ok(reply(StatusCode::NO_CONTENT, &[], ""))
}

async fn known(api: &Api, id: Uuid) -> Result<Revocation, Problem> {
    api.hub.read_revocations().await?;
    api.access.revocation(id).ok_or_else(|| Problem::no_such_revocation(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Revocation, String> {
        let asked = serde_json::from_str(text).map_err(|error: serde_json::Error| error.to_string())?;
        revocation(asked, 5_500).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_revocation_is_of_a_device_or_of_a_token_and_of_nothing_else() {
        let device = read(r#"{"device":"42"}"#).unwrap();
        assert_eq!((device.before_ms, device.expires_ms), (5_500, 5_500 + 86_400_000));
        assert_eq!(read(r#"{"device":"42","before":3,"seconds":10.0}"#).unwrap().before_ms, 3_000);
        assert_eq!(read(r#"{"token":"t"}"#).unwrap().subject, Subject::Token("t".into()));
        for text in [
            "{}",
            r#"{"device":"a b"}"#,
            r#"{"device":"42","token":"t"}"#,
            r#"{"token":""}"#,
            r#"{"token":"t","before":5}"#,
            r#"{"device":"42","before":-1}"#,
            r#"{"device":"42","before":1e300}"#,
            r#"{"device":"42","seconds":0}"#,
            r#"{"device":"42","second":1}"#,
            r#"{"device":"42","seconds":null}"#,
            r#"{"device":"42","seconds":1.5}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
