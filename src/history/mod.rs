//! Judging what happened: were the promises kept?
//!
//! Producers and clients write down what they did and saw, one [`Record`] after another, in the order in
//! which they saw it ([`record`]). [`judge`] reads such a history and says which promises it breaks
//! ([`verdict`]): [`ledger`] is what is known of every stream, whoever saw it, and [`follower`] goes with
//! one client from session to session. Nothing here knows the service; the history alone decides.

mod follower;
mod ledger;
pub mod record;
pub mod verdict;

pub use record::{Outcome, Place, Record, read};
pub use verdict::{Summary, Verdict, Violation, judge};

#[cfg(test)]
mod tests;
