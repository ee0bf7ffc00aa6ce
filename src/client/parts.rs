//! Streams on their way from one server to another.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::publish::{Publisher, REQUEST_TIMEOUT};
use super::{BodyError, ClientError, Failure, below, place, read_at_most};
use crate::model::StreamName;

/// Most of a part that is read: its largest event may have 64 MiB, and be half as long again as a text in JSON.
const MAX_PART_BYTES: usize = 128 * 1024 * 1024;

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedPart {
    /// As the server gave it: one line.
    pub json: String,
    /// Of which stream.
    pub stream: StreamName,
    /// How many events it has.
    pub events: usize,
    /// Where the stream stands then.
    pub last: String,
    /// Whether another follows.
    pub more: bool,
}

impl ExportedPart {
    fn read(json: String) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Part {
            stream: StreamName,
            events: Vec<IgnoredAny>,
            last: String,
            more: bool,
        }
        let Part { stream, events, last, more } = serde_json::from_str(&json)?;
        Ok(ExportedPart { json, stream, events: events.len(), last, more })
    }
}

impl Publisher {
    /// The part of a stream behind a position, or the first one.
    pub async fn export(&self, stream: &StreamName, after: Option<&str>) -> Result<ExportedPart, ClientError> {
        let mut url = self.log_url(stream);
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let mut tries = self.tries();
        loop {
            let answer = match self.http.get(url.clone()).timeout(REQUEST_TIMEOUT).send().await {
                Ok(answer) if answer.status().is_success() => {
                    read_at_most(answer, MAX_PART_BYTES).await.map_err(|error| match error {
                        BodyError::Broken(error) => Failure::transport(&url, &error),
                        large @ BodyError::Large(_) => Failure::lasting(self.nonsense(&large)),
                    })
                }
                Ok(answer) => Err(Failure::refused(&url, answer).await),
                Err(error) => Err(Failure::transport(&url, &error)),
            };
            match answer {
                Ok(body) => {
                    let json = String::from_utf8(body).map_err(|error| self.nonsense(&error))?;
                    return ExportedPart::read(json).map_err(|error| self.nonsense(&error));
                }
                Err(failure) => tries.wait(failure).await?,
            }
        }
    }

    /// Hands a part over that another server exported. One that is there already changes nothing.
    pub async fn import(&self, json: String) -> Result<ExportedPart, ClientError> {
        let wrong = |error| ClientError::Request(format!("this is no part of an exported stream: {error}"));
        let part = ExportedPart::read(json).map_err(wrong)?;
        let mut tries = self.tries();
        loop {
            let request = self.http.post(self.log_url(&part.stream)).header("content-type", "application/json");
            match self.send(request.body(part.json.clone())).await {
                Ok(_) => return Ok(part),
                Err(failure) => tries.wait(failure).await?,
            }
        }
    }

    fn log_url(&self, stream: &StreamName) -> reqwest::Url {
        below(&self.base, &["v1", stream.kind().plural(), stream.name(), "log"])
    }

    fn nonsense(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Answer { place: place(&self.base), reason: reason.to_string() }
    }
}
