//! All workers of a run, as one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::listeners::{Order, Reply};
use super::stats::Figures;
use super::worker::Worker;
use super::{BenchError, Plan, Progress, clock};

/// How often it is looked whether everything was received.
const LOOK: Duration = Duration::from_millis(20);

/// When nothing more was received for this long, the rest is lost.
const QUIET: Duration = Duration::from_secs(5);

pub struct Workers {
    workers: Vec<Worker>,
    connections: usize,
}

impl Workers {
    pub async fn start(plan: &Plan) -> Result<Self, BenchError> {
        let workers = match plan.processes {
            1 => vec![Worker::here(plan.target.clone())],
            several => try_join_all((0..several).map(|_| Worker::there(&plan.target))).await?,
        };
        Ok(Workers { workers, connections: plan.connections })
    }

    /// Opens all connections.
    pub async fn open(&mut self, progress: &dyn Progress) -> Result<(), BenchError> {
        progress.part("connecting", self.connections as u64);
        let (count, workers) = (self.connections, self.workers.len());
        let share = |worker: usize| count * worker / workers;
        self.all(|worker| Order::Open(share(worker)..share(worker + 1)), progress).await.map(|_| ())
    }

    pub async fn reset(&mut self) -> Result<(), BenchError> {
        self.all(|_| Order::Reset, &Silent).await.map(|_| ())
    }

    pub async fn cut(&mut self) -> Result<(), BenchError> {
        self.all(|_| Order::Cut, &Silent).await.map(|_| ())
    }

    /// Everything that was counted, added up.
    pub async fn figures(&mut self) -> Result<Figures, BenchError> {
        let mut sum = Figures::default();
        for answer in self.all(|_| Order::Figures, &Silent).await? {
            let Reply::Figures(one) = answer else { continue };
            sum.received += one.received;
            sum.reads += one.reads;
            sum.bytes += one.bytes;
            sum.ended += one.ended;
            sum.last_at = sum.last_at.max(one.last_at);
            sum.latency.extend(one.latency);
        }
        Ok(sum)
    }

    /// Waits until everything was received, or nothing more comes.
    pub async fn wait_for(&mut self, expected: u64, progress: &dyn Progress) -> Result<(), BenchError> {
        progress.part("receiving", expected);
        let (mut count, mut changed) = (0, Instant::now());
        loop {
            let answers = self.all(|_| Order::Count, &Silent).await?;
            let received = answers.iter().map(|answer| if let Reply::Count(count) = answer { *count } else { 0 }).sum();
            if received != count {
                (count, changed) = (received, Instant::now());
                progress.done(count);
            }
            if received >= expected || changed.elapsed() >= QUIET {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// All resume at once. Returns the seconds until the last had caught up, the times of all, and how many
    /// attempts had failed.
    pub async fn resume(
        &mut self,
        events: u64,
        progress: &dyn Progress,
    ) -> Result<(f64, Vec<(u64, u64)>, u64), BenchError> {
        progress.part("storm", self.connections as u64);
        let begin = clock::now();
        let answers = self.all(|_| Order::Resume(events), progress).await?;
        let seconds = (clock::now() - begin) as f64 / 1e6;
        let (mut all, mut failed) = (Vec::new(), 0);
        for answer in answers {
            let Reply::Resumed { times, retries } = answer else { continue };
            all.extend(times);
            failed += retries;
        }
        Ok((seconds, all, failed))
    }

    /// Connections come and go. Returns how many came, and how many could not.
    pub async fn churn(&mut self, time: Duration, rate: f64) -> Result<(u64, u64), BenchError> {
        let rate = rate / self.workers.len() as f64;
        let answers = self.all(|_| Order::Churn(time.as_secs(), rate), &Silent).await?;
        Ok(answers.iter().fold((0, 0), |sum, answer| match answer {
            Reply::Churned { opened, failed } => (sum.0 + opened, sum.1 + failed),
            _ => sum,
        }))
    }

    async fn all(&mut self, order: impl Fn(usize) -> Order, progress: &dyn Progress) -> Result<Vec<Reply>, BenchError> {
        let done: Vec<AtomicU64> = self.workers.iter().map(|_| AtomicU64::new(0)).collect();
        let working = self
            .workers
            .iter_mut()
            .zip(&done)
            .enumerate()
            .map(|(index, (worker, done))| worker.order(order(index), done));
        let working = try_join_all(working);
        tokio::pin!(working);
        loop {
            tokio::select! {
                answers = &mut working => return answers,
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    progress.done(done.iter().map(|done| done.load(Ordering::Relaxed)).sum());
                }
            }
        }
    }
}

/// Nobody waits for this.
struct Silent;

impl Progress for Silent {
    fn part(&self, _: &str, _: u64) {}
    fn done(&self, _: u64) {}
}
