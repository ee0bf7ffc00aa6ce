//! The relay: drains an outbox table of PostgreSQL into a server. `whimbrel relay postgres` runs it.
//!
//! ```text
//! table -> session -> round -> client -> server
//! ```
//!
//! - [`table`]: the name of the table, and what it has to be made of;
//! - [`dsn`]: how the database is reached, and which certificates TLS trusts there;
//! - [`session`]: a connection that listens for new rows, and what is asked of the table over it;
//! - [`statements`]: the SQL of that;
//! - [`row`]: what makes an event of a row;
//! - [`settlement`]: what a round leaves to be written into the table;
//! - [`held`]: streams whose rows wait, as the server does not take them for now;
//! - [`faults`]: what failures mean;
//! - [`rounds`]: takes rows, publishes them, settles them, again and again.
//!
//! Order is kept across relays by *lanes*: the streams of a table are spread over a few by their names, and a relay
//! publishes rows of a lane only in a transaction that holds the lane's lock.

mod dsn;
mod faults;
mod held;
mod metrics_listener;
mod rounds;
mod row;
mod session;
mod settlement;
mod statements;
mod table;

pub use dsn::{Dsn, DsnError};
pub use metrics_listener::MetricsListener;
pub use rounds::{Relay, RelayError};
pub use session::TableError;
pub use table::{TableName, TableNameError};

/// Lanes of a table. More would spread rows over more relays, and make each look in more places.
const LANES: i64 = 16;

/// A number that is the same for the same text on every machine and in every version.
fn fingerprint(text: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let first = digest.as_ref().first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first)
}
