//! Judging what happened: were the promises kept?
//!
//! Producers and clients write down what they did and saw, one [`Record`] after another, in the order in
//! which they saw it ([`record`]). [`judge`] reads such a history and finds the promises that it breaks
//! ([`verdict`], [`violation`]): [`ledger`] is what all records together show of every stream, and [`follower`] goes with
//! one client from session to session. Nothing here depends on the service; the history alone decides.

mod follower;
mod ledger;
pub mod record;
pub mod verdict;
mod violation;

pub use record::{Outcome, Place, Record, read};
pub use verdict::{Summary, Verdict, judge};
pub use violation::Violation;

#[cfg(test)]
mod tests;
