//! The test suite: one binary of modules, against the real library and real redis-servers.
//!
//! A test's name is the promise that it checks. Waiting is always for a condition, never for a time.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod acknowledge;
mod asyncapi;
mod beginnings;
mod bench;
mod collapse;
mod commands;
mod conformance;
mod device_connections;
mod durability;
mod dying_nodes;
mod ephemeral;
mod erase;
mod exclude;
mod expiry;
mod fan_out;
mod faults;
mod fcall;
mod forks;
mod gaps;
mod history;
mod hostile;
mod idle;
mod ingress;
mod js_client;
mod lifecycle;
mod lifecycle_store;
mod links;
mod links_cost;
mod listening;
mod log_pipe;
mod openapi;
mod origins;
mod positions;
mod presence;
mod presence_store;
mod producer_cost;
mod producer_leases;
mod progress;
mod publish_api;
mod publish_batch;
mod redis_store;
mod regions;
mod repair;
mod resume;
mod slow_reader;
mod sse;
mod store_loss;
mod stores_agree;
mod support;
mod token_stream;
mod tour;
mod webhooks;
mod websocket;
