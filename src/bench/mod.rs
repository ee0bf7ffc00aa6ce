//! The load generator behind `whimbrel bench`: many listeners, publishers at a rate of their own, and honest
//! figures.
//!
//! Events carry the time at which they were *due*, not the one at which they were sent, so that a stall of
//! the server, or of this program, shows as latency instead of hiding as a lower rate.
//!
//! - [`Plan`] and [`Target`] say what to do; [`run`] does it, phase by phase; [`Report`] is what came out.
//! - A `crew` holds listeners. There is one in this process, or one in each of several child processes,
//!   which are told the same orders (`hand`), because a process has only so many descriptors.
//! - A `wire` reads what one listener gets; a `tally` counts it.
//! - `publisher` sends events when they are due, whatever became of those before.
//! - `usage` looks at the server's processes.

mod clock;
mod crew;
mod crews;
mod hand;
mod listener;
mod plan;
mod publisher;
mod report;
mod run;
mod search;
mod tally;
mod target;
mod usage;
mod wire;

pub use hand::serve as serve_crew;
pub use plan::{BenchError, Plan, Progress, Rate};
pub use report::Report;
pub use run::run;
pub use target::{Dialect, Pattern, Server, Target, Transport};
