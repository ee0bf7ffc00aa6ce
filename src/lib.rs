//! Whimbrel: a push service. Producers publish events over HTTP; devices listen over Server-Sent Events or
//! WebSocket on any node, and one that comes back resumes at the last id it saw.
//!
//! # The way of an event
//!
//! ```text
//! producer -> api -> hub -> store -> channel -> dispatcher -> outbox -> socket
//! ```
//!
//! 1. [`api`] reads the request: which stream, what data. [`hub`] checks the event and publishes it.
//! 2. The [`store`] gives it an id above all others of its stream, appends it to the log, and publishes it on
//!    the channel of every node that has a route for the stream, in one step (`lua/publish.lua`). Only then
//!    is the producer answered.
//! 3. On each of those nodes, [`node`] takes the message from the channel and hands it to the [`dispatch`]
//!    registry, which knows the stream's *dispatcher*. That one checks that the message continues the
//!    chain (each event names the one before it) and reads from the store what is missing.
//! 4. The dispatcher offers it to the outbox of every connection that follows the stream. The task
//!    that filled an empty outbox writes it to the socket at once: [`transport`].
//!
//! A listener comes in through [`api`] too, which reads what it asks for and from where on, has
//! [`hub`] attach the streams, and hands the bare socket to [`transport`]. If its position is behind what
//! the dispatcher has in memory, a *temporary dispatcher* ([`dispatch::catch_up`]) reads pages from the
//! store until it can join.
//!
//! # Where things are
//!
//! - [`model`]: the vocabulary, without I/O: stream, event, id, cursor, page, gap.
//! - [`store`]: what is asked of a store, as traits; `redis` and `memory` are the two there are. The
//!   scripts that run inside Redis are in `lua/`, one operation a file.
//! - [`directory`]: several regions: which one is a stream's home, and the store over all of them.
//! - [`dispatch`]: from channel messages to what each connection gets next. Its state machines are plain
//!   values, and locks, tasks and the store stand around them.
//! - [`hub`]: what can be done with the service. `api` and `transport` call it.
//! - [`ingress`]: takes what producers add straight into Redis.
//! - [`producers`]: leases of producers: a lapse is published in the stream.
//! - [`relay`]: drains an outbox table of PostgreSQL into a server, as a program of its own.
//! - `sweep`: ends the directory's entries of topics with their streams.
//! - [`webhook`]: sends connects and disconnects to a backend. `leader`: jobs that one node does for all.
//! - [`access`]: who may use the service, for what, and how much of it.
//! - [`api`]: HTTP requests and answers, probes, the page.
//! - [`cloudevents`]: CloudEvents, as which events come and go for those who want them.
//! - [`transport`]: accepted listeners: framing, outboxes, sockets, timers.
//! - [`link`]: connections between nodes that take events around the store's channels.
//! - [`presence`]: the connections of devices, in the store and on the lifecycle topic; members of topics.
//! - [`node`]: a node's life: start, lease and channel, cleaning up after others, drain.
//! - [`spans`]: what is recorded of sampled publishes for an OpenTelemetry collector.
//! - [`config`], [`metrics`], `health`, `trouble`, `log_limit`, `backoff`, `panics`, `watch`: what all of them need.
//! - [`cli`]: the commands. [`client`]: the HTTP client of `publish` and `subscribe`. [`bench`]: a load
//!   generator.
//!
//! `docs/architecture.md` shows the same from the outside, with what is in Redis and what happens when
//! something fails. Tests of promises are in `tests/suite/`, tests of values beside the values.
#![forbid(unsafe_code)]
pub mod access;
pub mod api;
mod backoff;
pub mod bench;
pub mod cli;
pub mod client;
pub mod cloudevents;
pub mod config;
pub mod directory;
pub mod dispatch;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
pub mod history;
pub mod hub;
pub mod ingress;
mod leader;
pub mod link;
mod log_limit;
pub mod metrics;
pub mod model;
pub mod node;
mod panics;
pub mod presence;
pub mod producers;
pub mod relay;
pub mod spans;
pub mod store;
mod sweep;
pub mod transport;
mod trouble;
mod watch;
pub mod webhook;
