//! All crews of a run, as one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::crew::{Answer, Order};
use super::hand::Hand;
use super::tally::Figures;
use super::{BenchError, Plan, Progress, clock};

/// How often it is looked whether everything was received.
const LOOK: Duration = Duration::from_millis(20);

/// When nothing more was received for this long, the rest is lost.
const QUIET: Duration = Duration::from_secs(5);

pub struct Crews {
    hands: Vec<Hand>,
    connections: usize,
}

impl Crews {
    pub async fn start(plan: &Plan) -> Result<Self, BenchError> {
        let hands = match plan.processes {
            1 => vec![Hand::here(plan.target.clone())],
            several => try_join_all((0..several).map(|_| Hand::there(&plan.target))).await?,
        };
        Ok(Crews { hands, connections: plan.connections })
    }

    /// Opens all connections.
    pub async fn open(&mut self, progress: &dyn Progress) -> Result<(), BenchError> {
        progress.part("connecting", self.connections as u64);
        let (count, crews) = (self.connections, self.hands.len());
        let share = |crew: usize| count * crew / crews;
        self.all(|crew| Order::Open(share(crew)..share(crew + 1)), progress).await.map(|_| ())
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
            let Answer::Figures(one) = answer else { continue };
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
            let received =
                answers.iter().map(|answer| if let Answer::Count(count) = answer { *count } else { 0 }).sum();
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
            let Answer::Resumed { times, retries } = answer else { continue };
            all.extend(times);
            failed += retries;
        }
        Ok((seconds, all, failed))
    }

    /// Connections come and go. Returns how many came, and how many could not.
    pub async fn churn(&mut self, time: Duration, rate: f64) -> Result<(u64, u64), BenchError> {
        let rate = rate / self.hands.len() as f64;
        let answers = self.all(|_| Order::Churn(time.as_secs(), rate), &Silent).await?;
        Ok(answers.iter().fold((0, 0), |sum, answer| match answer {
            Answer::Churned { opened, failed } => (sum.0 + opened, sum.1 + failed),
            _ => sum,
        }))
    }

    async fn all(
        &mut self,
        order: impl Fn(usize) -> Order,
        progress: &dyn Progress,
    ) -> Result<Vec<Answer>, BenchError> {
        let done: Vec<AtomicU64> = self.hands.iter().map(|_| AtomicU64::new(0)).collect();
        let working =
            self.hands.iter_mut().zip(&done).enumerate().map(|(crew, (hand, done))| hand.order(order(crew), done));
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
