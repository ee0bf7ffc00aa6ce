//! Problems: every error answer, as RFC 9457 has it.

use std::fmt;

use hyper::{Method, StatusCode, header};
use serde::Serialize;
use uuid::Uuid;
use warp::reply::Response;

use super::reply;
use crate::access::rates::TooFast;
use crate::access::{Denied, Refusal};
use crate::cloudevents::CloudEventError;
use crate::hub::{AckError, ImportError, LeaseError, OptionError, PublishError, WaitError};
use crate::model::{EventId, NameError, Reached, Receipt};
use crate::presence::RenewError;
use crate::store::StoreError;
use crate::store::revocations::MOST_REVOCATIONS;

/// Seconds after which a refused client had better try again.
const RETRY_SECONDS: u16 = 1;

/// Titles of what happens to requests that read as well as to those that store something.
const AWAY: &str = "The store is away; nothing was stored";
const REFUSED: &str = "The store refuses it; nothing was stored";
const UNKNOWN: &str = "Whether it was stored is not known";

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    slug: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: String,
    allow: Option<&'static str>,
    /// After how many seconds to try again, where that makes sense.
    retry_seconds: u16,
    /// Of an event that is stored, but not as durable as asked.
    stored: Option<(EventId, Reached)>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<Reached>,
}

impl Problem {
    fn new(slug: &'static str, title: &'static str, status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { slug, title, status, detail: detail.into(), allow: None, retry_seconds: RETRY_SECONDS, stored: None }
    }

    /// Something in the request is not valid.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new("bad-request", "The request is not valid", StatusCode::BAD_REQUEST, detail)
    }

    /// A device or topic can't be called so.
    pub fn invalid_name(error: &NameError) -> Self {
        Problem::new("invalid-name", "The name is not allowed", StatusCode::BAD_REQUEST, error.to_string())
    }

    /// A parameter or header that this version does not support yet.
    pub fn unsupported(what: &str) -> Self {
        let detail = format!("{what} is not supported by this version");
        Problem::new("unsupported", "Not supported by this version", StatusCode::BAD_REQUEST, detail)
    }

    /// The request has no credentials, or ones that are not valid.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Problem::new("unauthorized", "A token or key is needed", StatusCode::UNAUTHORIZED, detail)
    }

    /// A page of another origin, a request for another host, or what a caller may not do.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Problem::new("forbidden", "Not allowed", StatusCode::FORBIDDEN, detail)
    }

    /// Nothing is there.
    pub fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let detail = format!("nothing is at {path}; the paths are described at /openapi.json");
        Problem::new("not-found", "Not found", StatusCode::NOT_FOUND, detail)
    }

    /// The event is not kept, or never was.
    pub fn no_such_event(detail: impl Into<String>) -> Self {
        Problem::new("not-found", "Not found", StatusCode::NOT_FOUND, detail)
    }

    /// Nothing was revoked by this name, or no longer is.
    pub fn no_such_revocation(id: Uuid) -> Self {
        Problem::new("not-found", "Not found", StatusCode::NOT_FOUND, format!("there is no revocation {id}"))
    }

    /// There are as many revocations as there may be.
    pub fn too_many_revocations() -> Self {
        let detail = format!("there are {MOST_REVOCATIONS} revocations, as many as there may be");
        Problem::new("too-many-revocations", "Too many revocations", StatusCode::TOO_MANY_REQUESTS, detail)
    }

    /// The path does not take this method.
    pub fn method_not_allowed(method: &Method, allow: &'static str) -> Self {
        let detail = format!("{method} is not allowed here; allowed are {allow}");
        let problem =
            Problem::new("method-not-allowed", "The method is not allowed", StatusCode::METHOD_NOT_ALLOWED, detail);
        Problem { allow: Some(allow), ..problem }
    }

    /// No region is called so.
    pub fn unknown_region(name: &str) -> Self {
        let detail = format!("this node knows no region '{name}'");
        Problem::new("unknown-region", "There is no such region", StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// The body is larger than it may be.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Problem::new("too-large", "Too large", StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// There is no room for it now. Nothing was stored.
    pub fn overload(detail: impl Into<String>) -> Self {
        Problem::new("overload", "Too much at once; nothing was stored", StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Somebody did it more often than they may.
    pub fn too_fast(refusal: &TooFast) -> Self {
        let problem =
            Problem::new("rate", "Too many in too short a time", StatusCode::TOO_MANY_REQUESTS, refusal.to_string());
        Problem { retry_seconds: u16::try_from(refusal.retry_seconds()).unwrap_or(u16::MAX), ..problem }
    }

    /// The body is of a kind that is not taken.
    pub fn unsupported_media(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Problem::new("unsupported-media-type", "The body is of a kind that is not taken", status, detail)
    }

    /// Our own fault.
    pub fn internal() -> Self {
        let detail = "something went wrong on the server; its log has the details";
        Problem::new("internal", "Internal error", StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Whether the same request may succeed a moment later.
    pub fn passes(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// The methods allowed, of a 405.
    pub fn allow(&self) -> Option<&'static str> {
        self.allow
    }

    /// The answer.
    pub fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("urn:whimbrel:problem:{}", self.slug),
            title: self.title,
            status: self.status(),
            detail: &self.detail,
            id: self.stored.map(|(id, _)| id),
            reached: self.stored.map(|(_, reached)| reached),
        };
        let body = serde_json::to_vec(&body).expect("a problem holds only strings and numbers");
        let retry = self.retry_seconds.to_string();
        let mut headers = vec![(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
        headers.extend(self.allow.map(|allow| (header::ALLOW, allow)));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.push((header::RETRY_AFTER, &retry));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.push((header::WWW_AUTHENTICATE, "Bearer"));
        }
        reply(self.status, &headers, body)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown(detail) => Problem::unauthorized(detail),
            Denied::Forbidden(detail) => Problem::forbidden(detail),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(detail) | Refusal::Foreign(detail) => Problem::unauthorized(detail),
            Refusal::Forbidden(detail) => Problem::forbidden(detail),
            Refusal::Unavailable(detail) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Problem::new("unavailable", "Access can't be checked now", status, detail)
            }
        }
    }
}

impl From<RenewError> for Problem {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::OtherDevice => Problem::forbidden(error.to_string()),
            RenewError::Missing => Problem::new("not-found", "Not found", StatusCode::NOT_FOUND, error.to_string()),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let (title, status) = match &error {
            PublishError::Reserved(_) => ("Only the service itself publishes there", StatusCode::FORBIDDEN),
            PublishError::Json(_) => ("The data is not JSON that an event may carry", StatusCode::BAD_REQUEST),
            PublishError::TooLarge { .. } => ("Too large", StatusCode::PAYLOAD_TOO_LARGE),
            PublishError::Key => ("The idempotency key is not allowed", StatusCode::BAD_REQUEST),
            PublishError::Collapse => ("The collapse key is not allowed", StatusCode::BAD_REQUEST),
            PublishError::Ephemeral(_) => ("Not with an ephemeral event", StatusCode::UNPROCESSABLE_ENTITY),
            PublishError::NotDurable(_) => ("Stored, but not as durable as asked", StatusCode::GATEWAY_TIMEOUT),
            PublishError::Store(error) => of_store(error),
        };
        let problem = Problem::new(error.slug(), title, status, error.to_string());
        match error {
            PublishError::NotDurable(Receipt { published, reached, .. }) => {
                Problem { stored: Some((published.id, reached)), ..problem }
            }
            _ => problem,
        }
    }
}

impl From<CloudEventError> for Problem {
    fn from(error: CloudEventError) -> Self {
        Problem::bad_request(error.to_string())
    }
}

impl From<OptionError> for Problem {
    fn from(error: OptionError) -> Self {
        match (error.option(), error) {
            (_, OptionError::Event(error)) => error.into(),
            (option, error) => Problem::bad_request(format!("the parameter '{}': {error}", option.unwrap_or_default())),
        }
    }
}

impl From<AckError> for Problem {
    fn from(error: AckError) -> Self {
        let (title, status) = match &error {
            AckError::Topic(_) => ("Topics are not acknowledged", StatusCode::BAD_REQUEST),
            AckError::Ahead { .. } => ("Nothing so new was published", StatusCode::UNPROCESSABLE_ENTITY),
            AckError::Store(error) => of_store(error),
        };
        Problem::new(error.slug(), title, status, error.to_string())
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let (title, status) = match &error {
            ImportError::Part(_) => ("Not a part of a stream", StatusCode::UNPROCESSABLE_ENTITY),
            ImportError::InUse { .. } => ("The stream is in use", StatusCode::CONFLICT),
            ImportError::Store(error) => of_store(error),
        };
        Problem::new(error.slug(), title, status, error.to_string())
    }
}

impl From<LeaseError> for Problem {
    fn from(error: LeaseError) -> Self {
        let (title, status) = match &error {
            LeaseError::Held { .. } => ("Another producer has the lease", StatusCode::CONFLICT),
            LeaseError::Lost { .. } => ("The lease is over", StatusCode::CONFLICT),
            LeaseError::TooMany => ("There are too many leases", StatusCode::TOO_MANY_REQUESTS),
            LeaseError::Key => ("The idempotency key is not allowed", StatusCode::BAD_REQUEST),
            LeaseError::Reserved(_) => ("Only the service itself publishes there", StatusCode::FORBIDDEN),
            LeaseError::Store(error) => of_store(error),
        };
        Problem::new(error.slug(), title, status, error.to_string())
    }
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TooMany => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                Problem::new("too-many-waits", "Too many requests wait", status, error.to_string())
            }
            WaitError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        PublishError::Store(error).into()
    }
}

impl Problem {
    /// The problem of a request that only reads: nothing was to be stored, so it is no question whether it was.
    pub fn of_reading(self) -> Self {
        match self.title {
            UNKNOWN | REFUSED | AWAY => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Problem { slug: "unavailable", title: "The store can't be read now", status, ..self }
            }
            _ => self,
        }
    }
}

fn of_store(error: &StoreError) -> (&'static str, StatusCode) {
    match error {
        StoreError::Unavailable(_) => (AWAY, StatusCode::SERVICE_UNAVAILABLE),
        StoreError::Refused(_) => (REFUSED, StatusCode::SERVICE_UNAVAILABLE),
        StoreError::Misplaced(_) => {
            ("The stream's home is another region; nothing was stored", StatusCode::SERVICE_UNAVAILABLE)
        }
        StoreError::Full(_) => ("The store is full; nothing was stored", StatusCode::SERVICE_UNAVAILABLE),
        StoreError::Unsupported(_) => ("This store can't do that", StatusCode::BAD_REQUEST),
        StoreError::KeyReused => ("The idempotency key was used", StatusCode::UNPROCESSABLE_ENTITY),
        StoreError::Unknown(_) | StoreError::Protocol(_) => (UNKNOWN, StatusCode::GATEWAY_TIMEOUT),
    }
}
