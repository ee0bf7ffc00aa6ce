//! CloudEvents 1.0: what comes as one becomes an event, and any event can be written as one.
//!
//! ```text
//! headers and body (binary) \
//!                             context -> CloudEvent -> draft -> store -> event -> written
//! JSON (structured, batch)  /
//! ```
//!
//! An event keeps its data where all events have it, so that whoever knows nothing of CloudEvents sees the data alone.
//! Type and data apart, what the CloudEvent said is kept beside it as [`Attributes`].

mod binary;
mod context;
mod structured;
mod written;

use bytes::Bytes;

use crate::model::{Attributes, EventType, EventTypeError};

pub use binary::{Carried, binary, is_binary};
pub use structured::structured;
pub use written::{batch, event, gap};

/// The media type of one CloudEvent in JSON.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The media type of several.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// The attribute that names an event's stream.
const STREAM: &str = "whimbrelstream";

/// The attribute that holds an event's id in its stream.
const ID: &str = "whimbrelid";

/// The attribute that names the trace in which an event was made: the extension for distributed tracing.
const TRACE: &str = "traceparent";

/// What the attributes that are the service's own begin with.
const OWN: &str = "whimbrel";

/// A member of [`Attributes`] that no attribute can be called: how the data is carried, where it is not JSON.
const DATA: &str = "data";
const NO_DATA: &str = "none";
const BASE64_DATA: &str = "base64";

/// A CloudEvent that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// Its `type`.
    pub kind: EventType,
    /// An idempotency key, made of `source` and `id`: both together identify it.
    pub key: String,
    /// Its `whimbrelstream`: the stream that it is for, unless its address says that.
    pub stream: Option<String>,
    /// Its `traceparent`, an attribute as well.
    pub traceparent: Option<String>,
    /// Its data, as JSON.
    pub data: Bytes,
    /// All other attributes.
    pub attributes: Attributes,
}

/// Why something is no CloudEvent that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudEventError {
    /// It is not a JSON object.
    #[error("not a CloudEvent in JSON: {0}")]
    Json(String),
    /// It is of another version of the specification.
    #[error("the attribute 'specversion' is '{0}'; CloudEvents of version 1.0 are taken")]
    Version(String),
    /// A required attribute is not there.
    #[error("the attribute '{0}' is missing; a CloudEvent has specversion, id, source and type")]
    Missing(&'static str),
    /// An attribute can't be called so.
    #[error("'{0}' can't be an attribute's name; allowed are 1 to 64 characters out of a-z 0-9")]
    Name(String),
    /// An attribute can't have this value.
    #[error("the attribute '{0}' {1}")]
    Value(String, &'static str),
    /// The type is no event type.
    #[error("the attribute 'type': {0}")]
    Type(#[from] EventTypeError),
    /// The attributes are too long.
    #[error("the attributes take more than {limit} bytes", limit = Attributes::MOST_BYTES)]
    Long,
    /// The data is not what it is said to be.
    #[error("the data {0}")]
    Data(String),
}
