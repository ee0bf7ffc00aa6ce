//! From the store to the connections of this node: who follows what, and what comes next for each.
//!
//! An event reaches a [`Dispatcher`] as a channel message, is judged by the chain rule ([`chain`]) in the
//! stream's state machine ([`live`]), and is offered to the sinks of all connections that follow the
//! stream. A connection that is behind, because it resumes or because it is slow, is fed by a temporary
//! dispatcher ([`catch_up`]) out of shared page reads ([`pages`]) until it joins the live end.
//!
//! [`chain`], [`ring`], [`live`] and [`catch_up::Reader`] are plain values: no sockets, no store, no
//! clock. [`dispatcher`] and [`registry`] put locks, tasks and the store around them.

pub mod catch_up;
pub mod chain;
mod dispatcher;
mod flush;
pub mod live;
mod pages;
mod registry;
pub mod ring;
#[cfg(test)]
mod simulation;
mod sink;

pub use chain::Delivery;
pub use dispatcher::Dispatcher;
pub use flush::Flush;
pub use registry::{Attached, Registry, RegistrySettings};
pub use sink::{Offer, Sink, Slot};
