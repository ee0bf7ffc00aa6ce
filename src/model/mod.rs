//! The vocabulary, without I/O: what a stream, an event, an id, a cursor and a gap are.
//!
//! Everything else speaks in these words; nothing here knows of Redis, HTTP or time.

mod attributes;
mod cursor;
mod durability;
mod event;
mod gap;
mod id;
mod inbox;
mod info;
pub mod json;
mod lease;
mod marks;
mod member;
mod node;
mod observer;
mod page;
mod part;
mod route;
mod secret;
mod shown;
mod stream;
mod time;
mod trace_parent;
mod type_filter;
pub mod weight;

pub use attributes::Attributes;
pub use cursor::{Cursor, CursorError, MAX_CURSOR_BYTES};
pub use durability::{Durability, DurabilityError, Reached, Receipt};
pub use event::{Draft, Encoding, Event, EventType, EventTypeError, Published, Ttl, TtlError};
pub use gap::{Gap, GapReason};
pub use id::{EventId, EventIdError};
pub use inbox::{Inbox, Progress, Standing};
pub use info::{INFO_BYTES, Info, InfoError};
pub use json::{JsonError, MAX_NESTING};
pub use lease::{LeaseId, LeaseIdError, LeaseTime, LeaseTimeError};
pub use marks::{Marks, MarksError};
pub use member::MemberNotice;
pub use node::NodeId;
pub use observer::Observer;
pub use page::{Fork, Page, Start};
pub use part::{Imported, Part, PartError};
pub use route::Route;
pub use secret::Secret;
pub use shown::ShownEvent;
pub use stream::{NameError, StreamKind, StreamName};
pub use time::{Time, TimeError};
pub use trace_parent::TraceParent;
pub use type_filter::{MAX_TYPES, TypeFilter, TypeFilterError, TypeFilters};
