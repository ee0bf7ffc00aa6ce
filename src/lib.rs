//! Whimbrel: a push service. (tour to be written once the rooms stand)
mod backoff;
pub mod cli;
pub mod client;
pub mod config;
pub mod model;
pub mod store;
