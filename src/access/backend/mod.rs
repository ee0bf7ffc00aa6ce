//! A backend decides (`WHIMBREL_AUTHORIZE_URL`): whoever brings no token of this service is asked about there.
//!
//! [`question`] is what is asked, [`decision`] what an answer means, and [`decisions`] keeps answers and lets equal
//! questions be one. Whatever goes wrong, nobody gets in.

mod decision;
mod decisions;
mod question;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::redirect;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Grant, Refusal};
use crate::client::{self, BodyError};
use crate::log_limit::LogLimit;
use crate::metrics::AccessMetrics;
use crate::webhook::{SigningKeys, Target, signed};
use decision::Decision;
use decisions::Decisions;

pub use question::{Action, Question, Visitor};

/// How long an answer may take, the wait for a turn included.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Questions under way at once.
const MOST_QUESTIONS: usize = 256;

/// Where a backend is asked, and how questions are signed.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    /// Where.
    pub target: Target,
    /// With which secrets; without any, questions are not signed.
    pub keys: Option<SigningKeys>,
}

/// Why no backend can be asked at all.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client can't be set up: {0}")]
pub struct BackendError(String);

/// The application's backend.
pub struct Backend {
    http: reqwest::Client,
    settings: BackendSettings,
    answers: Decisions,
    turns: Semaphore,
    failures: LogLimit,
}

impl Backend {
    /// The backend of these settings.
    pub fn new(settings: BackendSettings) -> Result<Self, BackendError> {
        let http = client::builder()
            // Where the answer comes from is the operator's to say, not the answer's.
            .redirect(redirect::Policy::none())
            .timeout(ANSWER_TIME)
            .build()
            .map_err(|error| BackendError(client::cause(&error)))?;
        let turns = Semaphore::new(MOST_QUESTIONS);
        Ok(Backend { http, settings, answers: Decisions::default(), turns, failures: LogLimit::new() })
    }

    /// What the backend answers about a client, now or a moment ago. `is_revoked` is asked of kept answers.
    pub async fn ask(
        &self,
        question: &Question<'_>,
        metrics: &AccessMetrics,
        is_revoked: impl Fn(&Grant) -> bool,
    ) -> Result<Arc<Grant>, Refusal> {
        let (answer, is_kept) =
            self.answers.of(question.key(), Instant::now(), is_revoked, self.send(question, metrics)).await;
        if is_kept {
            metrics.backend_kept.inc();
        }
        match answer {
            Decision::Granted(grant) => Ok(grant),
            Decision::Refused(refusal) => Err(refusal),
        }
    }

    async fn send(&self, question: &Question<'_>, metrics: &AccessMetrics) -> Decision {
        let answered = timeout(ANSWER_TIME, async {
            let _turn = self.turns.acquire().await.expect("it is never closed");
            metrics.backend_waiting.inc();
            let _done = Defer(|| _ = metrics.backend_waiting.dec());
            self.post(question).await
        });
        let answer = answered.await.unwrap_or_else(|_| Err("no answer in time".into()));
        metrics.asked(match &answer {
            Ok(Decision::Granted(_)) => "granted",
            Ok(Decision::Refused(_)) => "refused",
            Err(_) => "failed",
        });
        answer.unwrap_or_else(|reason| {
            if let Some(left_out) = self.failures.admit() {
                let backend = &self.settings.target;
                tracing::warn!(%backend, reason, left_out, "the backend gave no answer; whoever it decides about can't come in");
            }
            Decision::unavailable()
        })
    }

    /// One request; the error says why its answer is none.
    async fn post(&self, question: &Question<'_>) -> Result<Decision, String> {
        let BackendSettings { target, keys } = &self.settings;
        let id = format!("ask_{}", uuid::Uuid::new_v4().simple());
        let request = self.http.post(target.expose().clone()).headers(question.visitor.headers().clone());
        let sent = signed(request, keys.as_ref(), &id, "application/json", question.body()).send().await;
        let response = sent.map_err(|error| client::cause(&error))?;
        let status = response.status();
        let body = client::read_at_most(response, decision::BYTES).await.map_err(|error| match error {
            BodyError::Large(most) => format!("the answer is longer than {most} bytes"),
            broken @ BodyError::Broken(_) => broken.to_string(),
        })?;
        decision::read(status, &body)
    }
}

/// The grant of an answer with this body.
#[cfg(any(test, fuzzing))]
pub fn read_grant(body: &[u8]) -> Option<Grant> {
    match decision::read(hyper::StatusCode::OK, body) {
        Ok(Decision::Granted(grant)) => Some((*grant).clone()),
        _ => None,
    }
}

/// Does something when it is dropped, as a question may be given up at any time.
struct Defer<F: FnMut()>(F);

impl<F: FnMut()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
