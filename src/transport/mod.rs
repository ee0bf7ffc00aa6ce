//! The socket path: SSE and WebSocket framing, outboxes, sockets and timers.
//!
//! A socket carries HTTP first, as one of a bounded number ([`http_phase`]). It arrives here bare, once a request
//! on it was accepted as a listener's ([`listener`], [`handoff`]). From then on it is a [`Connection`]. Dispatchers
//! fill its outbox, and the last to fill it writes it; its task sleeps until the client sends something or the
//! socket that was full has room again.

mod close;
mod connection;
mod connections;
mod context;
mod endpoint;
mod expiry;
mod frame;
mod framing;
mod handoff;
mod http_phase;
mod listener;
mod liveness;
mod operations;
mod outbox;
mod pings;
mod protocol;
mod queue;
mod request_heads;
mod rights;
mod socket;
pub mod sse;
mod streamed;
mod task;
mod tls;
mod tls_socket;
pub mod websocket;

pub use close::CloseReason;
pub use connection::Connection;
pub use connections::{Connections, Permit, retry_ms};
pub use context::ListenerSettings;
pub use endpoint::{Arrival, Door, Endpoint, EndpointError, Endpoints, Open, Reach};
pub use framing::Framing;
pub use handoff::{Accepted, Handoff, Refused};
pub use http_phase::{HttpLimits, HttpSlot};
pub use listener::{HEAD_BYTES, listen};
pub use operations::Operations;
pub use protocol::Protocol;
pub use request_heads::{Ambiguity, RequestHeads};
pub use rights::Rights;
pub use socket::Socket;
pub use tls::{Tls, TlsError};
