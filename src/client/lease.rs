//! Holding the lease of a stream: its readers are notified when this producer is gone.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::model::{LeaseTime, StreamName};

use super::publish::Publisher;
use super::{ClientError, Failure, below};

/// The first wait after a renewal that did not get through.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How long a renewal may take at the least. A third of the lease's time is enough for another one behind it.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// A lease that this producer holds.
#[derive(Debug)]
pub struct Lease {
    publisher: Publisher,
    url: Url,
    id: String,
    time: LeaseTime,
}

#[derive(Serialize)]
struct Asked<'a> {
    seconds: LeaseTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<&'a str>,
}

#[derive(Deserialize)]
struct Taken {
    lease: String,
}

impl Publisher {
    /// Takes the lease of a stream. While another producer has it, this one waits, for as long as its patience
    /// lasts: one that died has it until it lapses.
    pub async fn take_lease(&self, stream: &StreamName, time: LeaseTime) -> Result<Lease, ClientError> {
        let url = below(&self.base, &["v1", stream.kind().plural(), stream.name(), "lease"]);
        let key = uuid::Uuid::new_v4().to_string();
        let mut tries = self.tries();
        loop {
            let request = put(self, &url, &Asked { seconds: time, lease: None });
            match self.send(request.header("idempotency-key", &key)).await {
                Ok(answer) => {
                    let Taken { lease } = self.read(&answer)?;
                    return Ok(Lease { publisher: self.clone(), url, id: lease, time });
                }
                Err(failure) if is_conflict(&failure) => tries.wait(Failure::passing(failure.error)).await?,
                Err(failure) => tries.wait(failure).await?,
            }
        }
    }
}

impl Lease {
    /// Renews the lease, three times in its time, until it is lost, and returns the reason. What may pass is tried
    /// again for as long as it takes, as only the server can say that the lease is over.
    pub async fn keep(&self) -> ClientError {
        let third = self.time.time() / 3;
        let mut backoff = Backoff::new(FIRST_WAIT.min(third), third);
        let mut wait = third;
        loop {
            sleep(wait).await;
            let asked = Asked { seconds: self.time, lease: Some(&self.id) };
            wait = match timeout(third.max(LEAST_TIME), self.publisher.send(put(&self.publisher, &self.url, &asked)))
                .await
            {
                Ok(Ok(_)) => {
                    backoff.reset();
                    third
                }
                Ok(Err(failure)) if !failure.passing => return failure.error,
                Ok(Err(_)) | Err(_) => backoff.next_wait(),
            };
        }
    }

    /// Ends the lease: this producer is done, and nothing is published.
    pub async fn end(self) -> Result<(), ClientError> {
        let mut url = self.url;
        url.query_pairs_mut().append_pair("lease", &self.id);
        let mut tries = self.publisher.tries();
        let mut unheard = false;
        loop {
            match self.publisher.send(self.publisher.http.delete(url.clone())).await {
                Ok(_) => return Ok(()),
                // An earlier try may have ended it, and its answer was lost.
                Err(failure) if unheard && is_conflict(&failure) => return Ok(()),
                Err(failure) => {
                    unheard = true;
                    tries.wait(failure).await?;
                }
            }
        }
    }
}

fn put(publisher: &Publisher, url: &Url, asked: &Asked<'_>) -> RequestBuilder {
    publisher.http.put(url.clone()).json(asked)
}

fn is_conflict(failure: &Failure) -> bool {
    matches!(failure.error, ClientError::Refused { status, .. } if status == StatusCode::CONFLICT.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Server, answer, problem};

    fn taken() -> String {
        answer("201 Created", "application/json", r#"{"lease":"l1"}"#)
    }

    async fn lease(server: &Server) -> Lease {
        let publisher = Publisher::new(&server.url()).unwrap();
        publisher.take_lease(&"topic:a|b".parse().unwrap(), LeaseTime::from_seconds(6).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_lease_that_another_has_is_waited_for_under_one_key() {
        let server = Server::start(vec![problem("409 Conflict", "another has it"), taken()]).await;
        let lease = lease(&server).await;
        assert_eq!(lease.id, "l1");
        let requests = server.requests();
        assert!(requests[0].starts_with("PUT /v1/topics/a|b/lease HTTP/1.1\r\n"), "{}", requests[0]);
        assert!(requests[0].ends_with(r#"{"seconds":6}"#) && requests[0].contains("idempotency-key"));
        assert_eq!(requests[0], requests[1]);
    }

    #[tokio::test]
    async fn it_is_kept_through_what_passes_until_the_server_ends_it() {
        let away = problem("503 Service Unavailable", "away");
        let kept = answer("200 OK", "application/json", r#"{"lease":"l1"}"#);
        let over = problem("409 Conflict", "it lapsed");
        let server = Server::start(vec![taken(), away, kept, over]).await;
        let lost = lease(&server).await.keep().await;
        assert!(lost.to_string().contains("it lapsed"), "{lost}");
        assert!(server.requests()[3].ends_with(r#"{"seconds":6,"lease":"l1"}"#));
    }

    #[tokio::test]
    async fn an_end_whose_answer_was_lost_is_an_end() {
        let (away, over) = (problem("504 Gateway Timeout", "no answer"), problem("409 Conflict", "no such lease"));
        let server = Server::start(vec![taken(), away, over.clone()]).await;
        lease(&server).await.end().await.unwrap();
        assert!(server.requests()[1].starts_with("DELETE /v1/topics/a|b/lease?lease=l1 HTTP/1.1\r\n"));
        let server = Server::start(vec![taken(), over]).await;
        assert!(lease(&server).await.end().await.is_err(), "it was lost before");
    }
}
