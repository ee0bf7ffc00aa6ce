//! The load generator behind `whimbrel bench`: many listeners, a steady or a full-speed publisher, and
//! honest figures.
//!
//! Events carry the time at which they were *due*, not the one at which they were sent, so that a stall of
//! the server, or of this program, shows as latency instead of hiding as a lower rate. Publisher and
//! listeners share one clock: this process's.

mod listener;
mod plan;
mod process;
mod publisher;
mod report;

pub use plan::{BenchError, Pattern, Plan, Progress, Transport, run};
pub use report::Report;
