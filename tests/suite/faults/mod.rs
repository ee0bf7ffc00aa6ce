//! The promises under faults: real nodes and real redis-servers, broken on purpose while producers
//! publish and clients listen, then judged by the history that both wrote.
//!
//! `lab` is what is broken; `producer` and `listener` use it and write into the `recorder`; the judge is
//! the library's `history`. One module a theme: what happens to the `channel`, to the `store`, between `linked`
//! nodes, in a `failover`, behind a `sentinel`, in a Redis `cluster`, to `nodes`, to `clients`, and everything `mixed` at random.

mod by_hand;
mod channel;
mod cleanup;
mod clients;
mod cluster;
mod failover;
mod lab;
mod linked;
pub mod listener;
mod memory;
mod mixed;
mod nodes;
pub mod producer;
pub mod recorder;
mod replica;
mod sentinel;
mod store;
mod wire;
