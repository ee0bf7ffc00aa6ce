//! The load generator behind `whimbrel bench`: many listeners, publishers at a rate of their own, and honest
//! figures.
//!
//! Events carry the time at which they were *due*, not the one at which they were sent, so that a stall of
//! the server, or of this program, shows as latency instead of hiding as a lower rate.
//!
//! - [`Plan`] and [`Target`] say what to do; [`run`] does it, phase by phase; [`Report`] is what came out.
//! - `listeners` are those of one process. A `worker` holds them: this process, or one of several child processes,
//!   because a process has only so many descriptors. `workers` gives all of them the same orders.
//! - A `wire` reads what one listener gets; `stats` count it.
//! - `publisher` sends events when they are due, whatever became of those before.
//! - `usage` looks at the server's processes.

mod chunks;
mod clock;
mod listener;
mod listeners;
mod plan;
mod publisher;
mod report;
mod run;
mod search;
mod socket;
mod stats;
mod target;
mod usage;
mod wire;
mod worker;
mod workers;

pub use plan::{BenchError, Plan, Progress, Rate};
pub use report::Report;
pub use run::run;
pub use socket::Trust;
pub use target::{Dialect, Pattern, Server, Target, Transport};
pub use worker::serve as serve_worker;
