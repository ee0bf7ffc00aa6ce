//! The test suite: one binary of modules, against the real library and real redis-servers.
//!
//! A test's name is the promise that it checks. Waiting is always for a condition, never for a time.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod conformance;
mod forks;
mod openapi;
mod redis_store;
mod support;
mod tour;
