//! Producers that publish steadily, and write down the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use whimbrel::history::{Outcome, Record};
use whimbrel::model::StreamName;

use super::listener::Doors;
use super::recorder::Recorder;
use crate::support::node::events_path;

/// A producer's own limit: where a node gives no answer at all, because it is dead or stopped.
const NO_ANSWER: Duration = Duration::from_secs(12);

/// How a producer behaves.
#[derive(Debug, Clone)]
pub struct Work {
    pub streams: Vec<StreamName>,
    /// From one publish to the next.
    pub pace: Duration,
    /// Bytes of padding.
    pub padding: usize,
    /// The door that it tries first. It goes to the next one when it gets no answer.
    pub door: usize,
    /// Gives a publish up after so long.
    pub patience: Duration,
}

/// What a producer found out.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    pub ok: usize,
    pub failed: usize,
    pub unknown: usize,
    /// The longest that a node took to answer.
    pub slowest: Duration,
    /// All status codes but 201, once each.
    pub statuses: Vec<u16>,
}

impl Findings {
    fn add(&mut self, outcome: Outcome, status: Option<u16>, took: Duration) {
        match outcome {
            Outcome::Ok { .. } => self.ok += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        let Some(status) = status else { return };
        self.slowest = self.slowest.max(took);
        if status != 201 && !self.statuses.contains(&status) {
            self.statuses.push(status);
        }
    }
}

pub struct Producer {
    stop: Arc<AtomicBool>,
    findings: Arc<Mutex<Findings>>,
    task: JoinHandle<()>,
}

impl Producer {
    pub fn start(name: String, work: Work, doors: Arc<Doors>, recorder: Arc<Recorder>) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (stop, findings) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Findings>>::default());
        let task = tokio::spawn(run(name, work, doors, recorder, stop.clone(), findings.clone()));
        Producer { stop, findings, task }
    }

    pub fn findings(&self) -> Findings {
        self.findings.lock().clone()
    }

    /// Lets it finish what it is at.
    pub async fn stop(self) -> Findings {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.findings.lock().clone()
    }
}

async fn run(
    name: String,
    work: Work,
    doors: Arc<Doors>,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    findings: Arc<Mutex<Findings>>,
) {
    let http = reqwest::Client::builder().timeout(work.patience.min(NO_ANSWER)).build().unwrap();
    let mut door = work.door;
    let mut counts = vec![0; work.streams.len()];
    for sequence in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        let at = sequence as usize % work.streams.len();
        let stream = &work.streams[at];
        counts[at] += 1;
        let payload = format!(r#"{{"by":"{name}","n":{sequence},"pad":"{}"}}"#, "x".repeat(work.padding));
        recorder.note(Record::Publish {
            producer: name.clone(),
            sequence,
            stream: stream.clone(),
            stream_sequence: counts[at],
            payload: payload.clone(),
        });
        let (_, address) = doors.get(door);
        let url = format!("http://{address}{}", events_path(stream.as_str()));
        let (outcome, status) = publish(&http, &url, payload).await;
        recorder.note(Record::Outcome { producer: name.clone(), sequence, outcome });
        findings.lock().add(outcome, status, begun.elapsed());
        if status.is_none() {
            door += 1;
        }
        tokio::time::sleep_until(begun + work.pace).await;
    }
}

/// What became of it, with the status code if there was an answer.
async fn publish(http: &reqwest::Client, url: &str, payload: String) -> (Outcome, Option<u16>) {
    let answer = match http.post(url).body(payload).send().await {
        Ok(answer) => answer,
        // Nothing was sent.
        Err(error) if error.is_connect() => return (Outcome::Failed, None),
        Err(_) => return (Outcome::Unknown, None),
    };
    let status = answer.status().as_u16();
    let outcome = match status {
        200 | 201 => {
            let id = answer.json::<serde_json::Value>().await.ok().and_then(|body| body["id"].as_str()?.parse().ok());
            // An answer that breaks off after its head: stored, but the producer does not know as what.
            id.map_or(Outcome::Unknown, |id| Outcome::Ok { id })
        }
        504 => Outcome::Unknown,
        503 => Outcome::Failed,
        other => panic!("a publish under faults is answered by 201, 503 or 504, not by {other}"),
    };
    (outcome, Some(status))
}
