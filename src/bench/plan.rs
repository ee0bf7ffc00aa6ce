//! What to measure.

use std::io;
use std::time::Duration;

use super::Target;

/// How many events a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many.
    Fixed(f64),
    /// As many as the server takes, each publisher waiting for its answers.
    Max,
    /// Look for the highest rate at which everything is delivered within a bound.
    Find,
}

/// A run. Its parts follow each other as they stand here; those whose time is nought are left out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which server to load, and with which streams.
    pub target: Target,
    /// Listening connections.
    pub connections: usize,
    /// Processes that hold them: 1 is this one, more are children.
    pub processes: usize,
    /// The server's processes, on this machine.
    pub pids: Vec<u32>,
    /// The Redis behind it, on this machine.
    pub redis_pids: Vec<u32>,
    /// How long to only watch the idle connections.
    pub idle: Duration,
    /// How long to publish; with [`Rate::Find`], how long each trial takes.
    pub time: Duration,
    /// Events a second, all together.
    pub rate: Rate,
    /// The latency that 99% of the deliveries have to keep, for [`Rate::Find`].
    pub within: Duration,
    /// Events a request.
    pub batch: usize,
    /// Most connections that publish.
    pub publishers: usize,
    /// Cut all listeners at once, and have each miss so many events.
    pub storm: Option<u64>,
    /// How long connections come and go.
    pub churn: Duration,
    /// Connections closed, and others opened, a second of that.
    pub churn_rate: f64,
}

/// The progress of a run, for people.
pub trait Progress: Sync {
    /// A part of the run began; it is done when `total` is reached.
    fn part(&self, name: &str, total: u64);
    /// So much of it is done.
    fn done(&self, count: u64);
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A listener was not accepted, or did not get what it should have.
    #[error("{0}")]
    Listeners(String),
    /// Nothing could be published.
    #[error("publishing failed: {0}")]
    Publish(io::Error),
    /// Not even the lowest rate was kept.
    #[error("even {0:.2} events a second are not all delivered in time")]
    TooSlow(f64),
    /// There is no such process.
    #[error("process {0} can't be looked at: it is not there, or this is not Linux")]
    Process(u32),
    /// A process of the load generator.
    #[error("a child process of the bench: {0}")]
    Child(io::Error),
}
