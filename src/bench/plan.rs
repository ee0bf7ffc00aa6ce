//! A run: connect, idle, publish, count, and perhaps a storm.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::listener::{Listener, Tally};
use super::process::{Usage, usage};
use super::publisher::{Poster, data};
use super::report::{Latency, Report, Server};

/// Connections that are being opened at once.
const OPENING: usize = 128;

/// Connections that publish.
const POSTERS: usize = 32;

/// Between connecting and publishing the server gets this long to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(2);

/// When nothing more was received for this long, the rest is lost.
const QUIET: Duration = Duration::from_secs(5);

/// Events that each client of a storm has missed.
const STORM_EVENTS: u64 = 10;

/// How the load generator listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Server-Sent Events
    Sse,
    /// WebSocket
    #[value(name = "websocket")]
    WebSocket,
}

/// Who hears what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pattern {
    /// All follow one topic
    Topic,
    /// Each has a device inbox of its own
    Devices,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub server: SocketAddr,
    /// How to listen.
    pub transport: Transport,
    /// Who hears what.
    pub pattern: Pattern,
    /// Listening connections.
    pub connections: usize,
    /// Events a second in all; as fast as they are taken when `None`.
    pub rate: Option<f64>,
    /// Bytes of an event's data.
    pub event_bytes: usize,
    /// Events a request.
    pub batch: usize,
    /// How long to publish.
    pub time: Duration,
    /// The server's process, on this machine.
    pub pid: Option<u32>,
    /// Afterwards, cut all listeners at once and let them resume.
    pub storm: bool,
}

/// Where a run is, for people who wait.
pub trait Progress: Sync {
    /// A part of the run began; it is done when `total` is reached.
    fn part(&self, name: &'static str, total: u64);
    /// So much of it is done.
    fn done(&self, count: u64);
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A listener was not accepted.
    #[error("listener {number} was not accepted: {error}")]
    Listen { number: usize, error: io::Error },
    /// A client of the storm did not get what it had missed.
    #[error("listener {number} resumed, but got only {received} of the {STORM_EVENTS} events it had missed")]
    Storm { number: usize, received: u64 },
    /// Nothing could be published.
    #[error("publishing failed: {0}")]
    Publish(io::Error),
    /// There is no such process.
    #[error("there is no process {0} to look at")]
    Process(u32),
}

/// Measures.
pub async fn run(plan: &Plan, progress: &dyn Progress) -> Result<Report, BenchError> {
    let names = Names(format!("bench-{}", uuid::Uuid::new_v4().simple()));
    let before = look(plan)?;
    let connecting = Instant::now();
    let listeners = connect(plan, &names, None, progress).await?;
    let connect_seconds = connecting.elapsed().as_secs_f64();
    if before.is_some() {
        tokio::time::sleep(REST).await;
    }
    let idle = look(plan)?;

    let tally = Tally::new(Instant::now());
    let (stop, stopped) = watch::channel(false);
    let mut listening = spawn_listeners(listeners, &tally, u64::MAX, &stopped);
    let publishing = Instant::now();
    let (published, publish_errors) = publish(plan, &names, &tally, progress).await?;
    let publish_seconds = publishing.elapsed().as_secs_f64();
    let expected = if plan.pattern == Pattern::Topic { published * plan.connections as u64 } else { published };
    let seconds = wait_for(&tally, expected, publishing, progress).await;
    let after = look(plan)?;
    let _ = stop.send(true);
    let mut listeners = Vec::with_capacity(plan.connections);
    while let Some(listener) = listening.join_next().await {
        listeners.extend(listener.ok());
    }
    let received = tally.received.load(Ordering::Relaxed);
    let connections_lost = tally.ended.load(Ordering::Relaxed);
    let latency = Latency::from(&tally.latency());
    let storm_seconds = match plan.storm {
        true => Some(storm(plan, &names, listeners, progress).await?),
        false => None,
    };
    let server = before.zip(idle).zip(after).map(|((before, idle), after)| {
        let cpu_seconds = (after.cpu - idle.cpu).as_secs_f64();
        let grown = idle.rss_bytes.saturating_sub(before.rss_bytes) as f64;
        Server {
            cpu_seconds,
            cpu_us_per_event: cpu_seconds * 1e6 / received.max(published).max(1) as f64,
            bytes_per_connection: grown / plan.connections.max(1) as f64,
            rss_mib: after.rss_bytes as f64 / 1024.0 / 1024.0,
        }
    });
    Ok(Report {
        transport: if plan.transport == Transport::Sse { "sse" } else { "websocket" },
        pattern: if plan.pattern == Pattern::Topic { "one topic" } else { "a device each" },
        connections: plan.connections,
        event_bytes: plan.event_bytes,
        seconds,
        connect_seconds,
        published,
        publish_errors,
        published_per_second: published as f64 / publish_seconds,
        expected,
        received,
        received_per_second: received as f64 / seconds,
        connections_lost,
        latency,
        server,
        storm_seconds,
    })
}

fn look(plan: &Plan) -> Result<Option<Usage>, BenchError> {
    plan.pid.map(|pid| usage(pid).ok_or(BenchError::Process(pid))).transpose()
}

/// The streams of a run: nobody else's.
struct Names(String);

impl Names {
    fn path(&self, pattern: Pattern, number: u64) -> String {
        match pattern {
            Pattern::Topic => format!("/v1/topics/{}/events", self.0),
            Pattern::Devices => format!("/v1/devices/{}-{number}/events", self.0),
        }
    }

    fn query(&self, plan: &Plan, number: usize, after: Option<&str>) -> String {
        let path = if plan.transport == Transport::Sse { "/v1/sse" } else { "/v1/ws" };
        let stream = match plan.pattern {
            Pattern::Topic => format!("topic={}", self.0),
            Pattern::Devices => format!("device={}-{number}", self.0),
        };
        format!("{path}?{stream}{}", after.map(|id| format!("&after={id}")).unwrap_or_default())
    }

    fn entry(&self, pattern: Pattern, number: u64, data: &str) -> String {
        match pattern {
            Pattern::Topic => format!("{{\"topic\":\"{}\",\"data\":{data}}}\n", self.0),
            Pattern::Devices => format!("{{\"device\":\"{}-{number}\",\"data\":{data}}}\n", self.0),
        }
    }
}

async fn connect(
    plan: &Plan,
    names: &Names,
    after: Option<&[String]>,
    progress: &dyn Progress,
) -> Result<Vec<Listener>, BenchError> {
    progress.part("connecting", plan.connections as u64);
    let mut opening = stream::iter(0..plan.connections)
        .map(|number| {
            let target = names.query(plan, number, after.map(|ids| ids[number].as_str()));
            async move {
                Listener::connect(plan.server, plan.transport, &target)
                    .await
                    .map_err(|error| BenchError::Listen { number, error })
            }
        })
        .buffered(OPENING);
    let mut listeners = Vec::with_capacity(plan.connections);
    while let Some(listener) = opening.next().await {
        listeners.push(listener?);
        progress.done(listeners.len() as u64);
    }
    Ok(listeners)
}

fn spawn_listeners(
    listeners: Vec<Listener>,
    tally: &Arc<Tally>,
    enough: u64,
    stopped: &watch::Receiver<bool>,
) -> JoinSet<Listener> {
    let mut listening = JoinSet::new();
    for mut listener in listeners {
        let (tally, stopped) = (tally.clone(), stopped.clone());
        listening.spawn(async move {
            listener.listen(&tally, enough, stopped).await;
            listener
        });
    }
    listening
}

/// Publishes for the plan's time. Returns how many events were taken, and how many requests were not.
async fn publish(
    plan: &Plan,
    names: &Names,
    tally: &Arc<Tally>,
    progress: &dyn Progress,
) -> Result<(u64, u64), BenchError> {
    progress.part("publishing", plan.time.as_millis() as u64);
    let begin = tally.now();
    let end = begin + plan.time.as_nanos() as u64;
    let next = AtomicU64::new(0);
    let taken = AtomicU64::new(0);
    let errors = AtomicU64::new(0);
    let post = async || -> io::Result<()> {
        let mut poster = Poster::connect(plan.server).await?;
        loop {
            let first = next.fetch_add(plan.batch as u64, Ordering::Relaxed);
            let due = match plan.rate {
                Some(rate) => begin + (first as f64 / rate * 1e9) as u64,
                None => tally.now(),
            };
            if due >= end {
                return Ok(());
            }
            let wait = due.saturating_sub(tally.now());
            if wait > 0 {
                tokio::time::sleep(Duration::from_nanos(wait)).await;
            }
            let device = |number: u64| number % plan.connections.max(1) as u64;
            let status = if plan.batch == 1 {
                let path = names.path(plan.pattern, device(first));
                poster.post(&path, "application/json", data(due, plan.event_bytes).as_bytes()).await?
            } else {
                let numbers = first..first + plan.batch as u64;
                let entries: String = numbers
                    .map(|number| names.entry(plan.pattern, device(number), &data(due, plan.event_bytes)))
                    .collect();
                poster.post("/v1/events", "application/x-ndjson", entries.as_bytes()).await?
            };
            if matches!(status, 200 | 201) {
                taken.fetch_add(plan.batch as u64, Ordering::Relaxed);
            } else {
                errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let posters = futures_util::future::join_all((0..POSTERS).map(|_| post()));
    tokio::pin!(posters);
    let outcomes = loop {
        tokio::select! {
            outcomes = &mut posters => break outcomes,
            () = tokio::time::sleep(Duration::from_millis(200)) => progress.done((tally.now() - begin) / 1_000_000),
        }
    };
    outcomes.into_iter().collect::<io::Result<Vec<()>>>().map_err(BenchError::Publish)?;
    Ok((taken.load(Ordering::Relaxed), errors.load(Ordering::Relaxed)))
}

/// Waits until everything was received, or nothing more comes. Returns the seconds since `begin` until
/// the last of it.
async fn wait_for(tally: &Tally, expected: u64, begin: Instant, progress: &dyn Progress) -> f64 {
    progress.part("receiving", expected);
    let (mut count, mut changed) = (0, Instant::now());
    loop {
        let received = tally.received.load(Ordering::Relaxed);
        if received != count {
            (count, changed) = (received, Instant::now());
            progress.done(count);
        }
        if received >= expected || changed.elapsed() >= QUIET {
            return changed.duration_since(begin).as_secs_f64();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Cuts all listeners at once, publishes what they miss, and lets them resume together. Returns the
/// seconds until the last has caught up.
async fn storm(
    plan: &Plan,
    names: &Names,
    listeners: Vec<Listener>,
    progress: &dyn Progress,
) -> Result<f64, BenchError> {
    let ids: Vec<String> = listeners.iter().map(|listener| listener.last_id().to_owned()).collect();
    let plan = Plan { connections: ids.len(), ..plan.clone() };
    drop(listeners);
    let mut poster = Poster::connect(plan.server).await.map_err(BenchError::Publish)?;
    for number in 0..if plan.pattern == Pattern::Topic { 1 } else { ids.len() as u64 } {
        let entries: String =
            (0..STORM_EVENTS).map(|_| names.entry(plan.pattern, number, &data(0, plan.event_bytes))).collect();
        poster.post("/v1/events", "application/x-ndjson", entries.as_bytes()).await.map_err(BenchError::Publish)?;
    }
    let begin = Instant::now();
    let tally = Tally::new(begin);
    let (_stop, stopped) = watch::channel(false);
    progress.part("storm", plan.connections as u64);
    let resumed = stream::iter(ids.iter().enumerate())
        .map(|(number, id)| {
            let target = names.query(&plan, number, Some(id));
            let (tally, stopped, plan) = (tally.clone(), stopped.clone(), &plan);
            async move {
                let mut listener = Listener::connect_early(plan.server, plan.transport, &target)
                    .await
                    .map_err(|error| BenchError::Listen { number, error })?;
                match listener.listen(&tally, STORM_EVENTS, stopped).await {
                    STORM_EVENTS.. => Ok(listener),
                    received => Err(BenchError::Storm { number, received }),
                }
            }
        })
        .buffer_unordered(plan.connections.max(1));
    tokio::pin!(resumed);
    let mut back = Vec::with_capacity(plan.connections);
    while let Some(listener) = resumed.next().await {
        back.push(listener?);
        progress.done(back.len() as u64);
    }
    Ok(begin.elapsed().as_secs_f64())
}
