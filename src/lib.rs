//! Whimbrel: a push service. (tour to be written once the rooms stand)
pub mod config;
pub mod model;
pub mod store;
