//! A run, phase by phase: connect, idle, publish and count, a storm, churn.

use std::time::Duration;

use tokio::time::Instant;

use super::publisher::{Pace, publish, publish_each};
use super::report::{Churn, Cost, Idle, Latency, Load, Memory, Publishing, Report, Storm, Trial};
use super::search::Search;
use super::stats::joined;
use super::usage::{Usage, usage};
use super::workers::Workers;
use super::{BenchError, Pattern, Plan, Progress, Rate};

/// After connecting, the server gets this long to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(3);

/// How long after the end of publishing events that are late are still published.
const LATE: Duration = Duration::from_secs(5);

/// The search for the highest rate begins here, in deliveries a second.
const FIRST_DELIVERIES: f64 = 20_000.0;

/// Measures.
pub async fn run(plan: &Plan, progress: &dyn Progress) -> Result<Report, BenchError> {
    let before = Look::take(plan)?;
    let mut workers = Workers::start(plan).await?;
    let connecting = Instant::now();
    workers.open(progress).await?;
    let connect_seconds = connecting.elapsed().as_secs_f64();
    if before.server.is_some() || before.redis.is_some() {
        tokio::time::sleep(REST).await;
    }
    let connected = Look::take(plan)?;
    let mut report = Report {
        transport: plan.target.transport,
        pattern: plan.target.pattern,
        connections: plan.connections,
        processes: plan.processes,
        event_bytes: plan.target.event_bytes,
        connect_seconds,
        server: memory(before.server, connected.server, plan.connections),
        redis: memory(before.redis, connected.redis, plan.connections),
        idle: None,
        publishing: None,
        trials: Vec::new(),
        storm: None,
        churn: None,
        connections_lost: 0,
    };
    if !plan.idle.is_zero() {
        report.idle = Some(idle(plan, connected, progress).await?);
    }
    if !plan.time.is_zero() {
        report.publishing = Some(match plan.rate {
            Rate::Fixed(rate) => publishing(plan, &mut workers, Pace::Rate(rate), LATE, progress).await?,
            Rate::Max => publishing(plan, &mut workers, Pace::Max, LATE, progress).await?,
            Rate::Find => find(plan, &mut workers, &mut report.trials, progress).await?,
        });
    }
    if let Some(events) = plan.storm {
        report.storm = Some(storm(plan, &mut workers, events, progress).await?);
    }
    if !plan.churn.is_zero() {
        report.churn = Some(churn(plan, &mut workers, progress).await?);
    }
    report.connections_lost = workers.figures().await?.ended;
    Ok(report)
}

/// What the processes had used at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    server: Option<Usage>,
    redis: Option<Usage>,
}

impl Look {
    fn take(plan: &Plan) -> Result<Self, BenchError> {
        Ok(Look { at: Instant::now(), server: together(&plan.pids)?, redis: together(&plan.redis_pids)? })
    }
}

fn together(pids: &[u32]) -> Result<Option<Usage>, BenchError> {
    let all = pids.iter().map(|pid| usage(*pid).ok_or(BenchError::Process(*pid))).collect::<Result<Vec<_>, _>>()?;
    Ok((!all.is_empty()).then(|| all.into_iter().sum()))
}

fn memory(before: Option<Usage>, connected: Option<Usage>, connections: usize) -> Option<Memory> {
    let (before, connected) = before.zip(connected)?;
    let mib = |usage: Usage| usage.memory_bytes as f64 / 1024.0 / 1024.0;
    Some(Memory {
        mib_before: mib(before),
        mib_connected: mib(connected),
        bytes_per_connection: (connected - before).memory_bytes as f64 / connections.max(1) as f64,
    })
}

async fn idle(plan: &Plan, before: Look, progress: &dyn Progress) -> Result<Idle, BenchError> {
    wait(plan.idle, "idle", progress).await;
    let after = Look::take(plan)?;
    let seconds = (after.at - before.at).as_secs_f64();
    let percent = |before: Option<Usage>, after: Option<Usage>| {
        before.zip(after).map(|(before, after)| (after - before).cpu.as_secs_f64() / seconds * 100.0)
    };
    Ok(Idle {
        seconds,
        server_cpu_percent: percent(before.server, after.server),
        redis_cpu_percent: percent(before.redis, after.redis),
    })
}

async fn wait(time: Duration, name: &str, progress: &dyn Progress) {
    progress.part(name, time.as_millis() as u64);
    let begin = Instant::now();
    while let Some(rest) = time.checked_sub(begin.elapsed()).filter(|rest| !rest.is_zero()) {
        tokio::time::sleep(rest.min(Duration::from_millis(200))).await;
        progress.done(begin.elapsed().as_millis() as u64);
    }
}

async fn publishing(
    plan: &Plan,
    workers: &mut Workers,
    pace: Pace,
    late: Duration,
    progress: &dyn Progress,
) -> Result<Publishing, BenchError> {
    workers.reset().await?;
    let before = Look::take(plan)?;
    let begin = super::clock::now();
    progress.part("publishing", plan.time.as_millis() as u64);
    let published = publish(plan, pace, plan.time, late, |ms| progress.done(ms)).await?;
    let expected = match (plan.target.pattern, plan.connections) {
        (_, 0) => 0,
        (Pattern::Topic, connections) => published.taken * connections as u64,
        (Pattern::Devices, _) => published.taken,
    };
    workers.wait_for(expected, progress).await?;
    let after = Look::take(plan)?;
    let figures = workers.figures().await?;
    let seconds = (figures.last_at.max(begin) - begin) as f64 / 1e6;
    let cost = |before: Option<Usage>, after: Option<Usage>| {
        before.zip(after).map(|(before, after)| {
            let cpu = (after - before).cpu.as_secs_f64();
            let each = |count: u64| (count > 0).then(|| cpu * 1e6 / count as f64);
            Cost {
                cpu_seconds: cpu,
                cpu_us_per_delivery: each(figures.received),
                cpu_us_per_publish: each(published.taken),
            }
        })
    };
    let histogram = joined(&figures.latency);
    let part = |count: u64, of: f64| if of > 0.0 { count as f64 / of } else { 0.0 };
    Ok(Publishing {
        rate: match pace {
            Pace::Rate(rate) => Some(rate),
            Pace::Max => None,
        },
        published: published.taken,
        publish_errors: published.errors,
        unsent: published.unsent,
        published_per_second: part(published.taken, published.seconds),
        expected,
        received: figures.received,
        received_per_second: part(figures.received, seconds),
        events_per_read: part(figures.received, figures.reads as f64),
        bytes_per_event: part(figures.bytes, figures.received as f64),
        latency: (figures.received > 0).then(|| Latency::from(&histogram)),
        load: Load { server: cost(before.server, after.server), redis: cost(before.redis, after.redis) },
    })
}

/// The highest rate at which everything is delivered, 99% of it within the plan's bound.
async fn find(
    plan: &Plan,
    workers: &mut Workers,
    trials: &mut Vec<Trial>,
    progress: &dyn Progress,
) -> Result<Publishing, BenchError> {
    let fan_out = if plan.target.pattern == Pattern::Topic { plan.connections.max(1) } else { 1 };
    let mut search = Search::new(FIRST_DELIVERIES / fan_out as f64);
    let mut best = None;
    while let Some(rate) = search.next_rate() {
        let outcome = publishing(plan, workers, Pace::Rate(rate), plan.within, progress).await?;
        let p99 = outcome.latency.as_ref().map(|latency| latency.p99);
        let kept = outcome.is_whole() && p99.is_none_or(|p99| p99 <= plan.within.as_secs_f64() * 1e3);
        search.learn(kept);
        trials.push(Trial { rate, kept, received: outcome.received, expected: outcome.expected, p99 });
        if kept {
            best = Some(outcome);
        }
    }
    best.ok_or(BenchError::TooSlow(trials.last().map_or(0.0, |trial| trial.rate)))
}

/// Cuts all listeners at once, publishes what they miss, and lets them resume together.
async fn storm(plan: &Plan, workers: &mut Workers, events: u64, progress: &dyn Progress) -> Result<Storm, BenchError> {
    progress.part("cutting", 1);
    workers.cut().await?;
    publish_each(&plan.target, plan.connections, events).await?;
    let before = Look::take(plan)?;
    let (seconds, times, retries) = workers.resume(events, progress).await?;
    let after = Look::take(plan)?;
    let cpu = |before: Option<Usage>, after: Option<Usage>| {
        before.zip(after).map(|(before, after)| (after - before).cpu.as_secs_f64())
    };
    Ok(Storm {
        events_behind: events,
        seconds,
        caught_up: Latency::from(&joined(&times)),
        retries,
        server_cpu_seconds: cpu(before.server, after.server),
        redis_cpu_seconds: cpu(before.redis, after.redis),
    })
}

/// Connections come and go while events are published; memory is looked at each second.
async fn churn(plan: &Plan, workers: &mut Workers, progress: &dyn Progress) -> Result<Churn, BenchError> {
    let pace = match plan.rate {
        Rate::Fixed(rate) => Pace::Rate(rate),
        Rate::Max | Rate::Find => Pace::Rate(1.0),
    };
    let begin = Instant::now();
    let mut samples = Vec::new();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    progress.part("churn", plan.churn.as_millis() as u64);
    let both = async {
        let publishing = publish(plan, pace, plan.churn, LATE, |ms| progress.done(ms));
        tokio::try_join!(workers.churn(plan.churn, plan.churn_rate), publishing)
    };
    tokio::pin!(both);
    let ((opened, failed), _) = loop {
        tokio::select! {
            outcome = &mut both => break outcome?,
            _ = seconds.tick() => {
                let server = Look::take(plan)?.server;
                samples.extend(server.map(|usage| (begin.elapsed().as_secs_f64(), usage.memory_bytes as f64)));
            }
        }
    };
    Ok(Churn::new(begin.elapsed().as_secs_f64(), opened, failed, &samples))
}
