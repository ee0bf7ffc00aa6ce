//! From the store to the connections of this node: which follow a stream, and what comes next for each.
//!
//! An event reaches a [`Dispatcher`] as a channel message, is judged by the chain rule ([`chain`]) in the
//! stream's state machine ([`merge`]), and is offered to the sinks of all connections that follow the
//! stream. What is missing goes to the repair scheduler of the stream's region ([`schedule`], [`repairs`]), which says
//! when the store is asked. A connection that is behind, because it resumes or because it is slow, is fed by a
//! temporary dispatcher ([`catch_up`]) out of shared page reads ([`pages`]) until it joins the live end.
//!
//! All of these are values that are given the time and the answers: no sockets, no store, no clock. [`registry`] puts
//! tasks and the store around them, and [`simulation`] a world in which everything goes wrong.

pub mod budget;
pub mod catch_up;
pub mod chain;
mod dispatcher;
mod early;
#[cfg(test)]
mod fixtures;
mod flush;
pub mod merge;
mod pages;
mod path;
mod reader;
mod registry;
mod repairs;
pub mod ring;
mod schedule;
#[cfg(test)]
mod simulation;
mod sink;

pub use chain::Delivery;
pub use dispatcher::Dispatcher;
pub use flush::Flush;
pub use path::Path;
pub use registry::{Attached, Registry, RegistrySettings};
pub use sink::{Offer, Sink, Slot};
