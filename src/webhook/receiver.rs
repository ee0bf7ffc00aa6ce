//! The receiver, as this side sees it: one request, and what its answer means.

use std::time::{Duration, SystemTime};

use hyper::{HeaderMap, StatusCode, header};
use reqwest::redirect;

use super::Format;
use super::batch::Batch;
use super::signing::{SigningKeys, signed};
use super::target::Target;
use crate::client;

/// Longest that a receiver may ask to be left alone. More is a mistake, and what waits would be trimmed.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// How long the rest of an answer is read, and how much of it, so that the connection can be used again.
const REST_TIME: Duration = Duration::from_secs(1);
const REST_BYTES: usize = 64 * 1024;

/// Where requests go, and how they are signed.
pub struct Receiver {
    http: reqwest::Client,
    target: Target,
    keys: SigningKeys,
    format: Format,
}

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client can't be set up: {0}")]
pub struct ReceiverError(String);

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It was taken.
    Taken,
    /// The receiver refuses all further requests.
    Gone,
    /// It was not taken, as far as is known.
    Failed(Failure),
}

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// For the metrics.
    pub kind: &'static str,
    /// For people.
    pub reason: String,
    /// For how long the receiver asked to be left alone.
    pub rest: Option<Duration>,
}

impl Receiver {
    /// A receiver that has so long to answer.
    pub fn new(target: Target, keys: SigningKeys, format: Format, timeout: Duration) -> Result<Self, ReceiverError> {
        let http = client::builder()
            // The specification wants the address to be changed instead; and what is signed for one place is
            // nothing to another.
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .build()
            .map_err(|error| ReceiverError(client::cause(&error)))?;
        Ok(Receiver { http, target, keys, format })
    }

    /// Where it is, as far as that may be shown.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What it is sent.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Sends a batch once.
    pub async fn post(&self, batch: &Batch) -> Reaction {
        let now = SystemTime::now();
        let request = self.http.post(self.target.expose().clone());
        let request = signed(request, Some(&self.keys), &batch.id, self.format.media_type(), batch.body.clone());
        match request.send().await {
            Ok(mut response) => {
                let answer = judge(response.status(), response.headers(), now);
                let rest = async {
                    let mut bytes = 0;
                    while let Ok(Some(chunk)) = response.chunk().await
                        && bytes < REST_BYTES
                    {
                        bytes += chunk.len();
                    }
                };
                let _ = tokio::time::timeout(REST_TIME, rest).await;
                answer
            }
            Err(error) => {
                let kind = if error.is_timeout() { "timeout" } else { "unreachable" };
                Reaction::Failed(Failure { kind, reason: client::cause(&error), rest: None })
            }
        }
    }
}

/// What an answer means, by the specification.
fn judge(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Reaction {
    if status.is_success() {
        return Reaction::Taken;
    }
    if status == StatusCode::GONE {
        return Reaction::Gone;
    }
    let hint = match status.is_redirection() {
        true => "; redirects are not followed",
        false => "",
    };
    Reaction::Failed(Failure {
        kind: "status",
        reason: format!("the answer was {status}{hint}"),
        rest: rest(headers, now),
    })
}

/// What `Retry-After` asks for, in either of its forms.
fn rest(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let rest = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(rest.min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn judged(status: u16, retry_after: Option<&str>) -> Reaction {
        let headers = retry_after.map(|value| (header::RETRY_AFTER, value.parse().unwrap()));
        let now = UNIX_EPOCH + Duration::from_secs(60);
        judge(StatusCode::from_u16(status).unwrap(), &headers.into_iter().collect(), now)
    }

    fn rested(retry_after: &str) -> Option<Duration> {
        match judged(503, Some(retry_after)) {
            Reaction::Failed(failure) => failure.rest,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_2xx_is_success_and_410_ends_it() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status, None), Reaction::Taken);
        }
        assert_eq!(judged(410, Some("1")), Reaction::Gone);
        for status in [301, 304, 307, 400, 401, 404, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(judged(status, None), Reaction::Failed(Failure { kind: "status", rest: None, .. })));
        }
    }

    #[test]
    fn a_receiver_that_asks_for_rest_gets_it_within_reason() {
        assert_eq!(rested("7"), Some(Duration::from_secs(7)));
        assert_eq!(rested("Thu, 01 Jan 1970 00:02:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(rested("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(rested("999999999"), Some(LONGEST_REST));
        assert_eq!((rested("soon"), rested("-1"), rested("99999999999999999999")), (None, None, None));
    }
}
