//! Whimbrel: a push service. (tour to be written once the rooms stand)
#![forbid(unsafe_code)]
pub mod api;
mod backoff;
pub mod cli;
pub mod client;
pub mod config;
pub mod dispatch;
mod health;
pub mod history;
pub mod hub;
pub mod metrics;
pub mod model;
pub mod node;
pub mod store;
pub mod transport;
