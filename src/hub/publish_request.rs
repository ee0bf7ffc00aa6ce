//! A publish as a producer asks for it: one validation of its options for every way in, which are HTTP, batches,
//! WebSocket and the ingress stream. The functions in Redis (`lua/library.lua`) check the same; a test compares.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use uuid::Uuid;

use super::Hub;
use super::publish::{PublishError, is_collapse_key, is_key};
use crate::model::{
    Draft, Durability, DurabilityError, EventType, EventTypeError, Published, Reached, StreamName, TraceParent, Ttl,
    TtlError,
};

/// The options of an event as they were written, before any of them is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct PublishOptions<'a> {
    /// The event's type.
    pub kind: Option<&'a str>,
    /// Its time to live, in seconds.
    pub ttl: Option<&'a str>,
    /// Its collapse key.
    pub collapse: Option<&'a str>,
    /// Its idempotency key.
    pub key: Option<&'a str>,
    /// The durability to wait for.
    pub durable: Option<&'a str>,
    /// The connection to leave out.
    pub exclude: Option<&'a str>,
    /// It is not to be stored.
    pub ephemeral: bool,
    /// The trace that the publish belongs to, as a W3C `traceparent`. An invalid one is ignored: no event is lost for it.
    pub traceparent: Option<&'a [u8]>,
    /// When the request came, see [`Hub::received`].
    pub received: Option<SystemTime>,
}

/// Why the options can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The type is not one.
    #[error(transparent)]
    Type(#[from] EventTypeError),
    /// The time to live is not one.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// The durability is not one.
    #[error(transparent)]
    Durable(#[from] DurabilityError),
    /// The connection to leave out is no id of one.
    #[error("'{0}' is not the id of a connection, which is a UUID")]
    Exclude(String),
    /// A key is not one, or an option does not go with an ephemeral event.
    #[error(transparent)]
    Event(#[from] PublishError),
}

impl OptionError {
    /// The name of the option, where its text could not be read.
    pub const fn option(&self) -> Option<&'static str> {
        match self {
            OptionError::Type(_) => Some("type"),
            OptionError::Ttl(_) => Some("ttl"),
            OptionError::Durable(_) => Some("durable"),
            OptionError::Exclude(_) => Some("exclude"),
            OptionError::Event(_) => None,
        }
    }
}

/// How an event is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Stored,
    Durably(Durability),
    Ephemeral,
}

/// A publish with sound options. The same for all streams and data that it is used with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    kind: EventType,
    ttl: Option<Duration>,
    collapse: Option<String>,
    key: Option<String>,
    exclude: Option<Uuid>,
    trace: Option<TraceParent>,
    received: Option<SystemTime>,
    manner: Manner,
}

/// What became of a publish.
#[derive(Debug)]
pub enum Accepted {
    /// It is stored.
    Stored {
        /// The event.
        published: Published,
        /// The durability that was reached, where one was asked for.
        durable: Option<Reached>,
    },
    /// It was ephemeral.
    Sent {
        /// The nodes that it was sent to.
        nodes: u32,
    },
}

impl PublishRequest {
    /// Checks options.
    pub fn read(given: PublishOptions<'_>) -> Result<Self, OptionError> {
        let kind = given.kind.map_or(Ok(EventType::MESSAGE), str::parse)?;
        let ttl = given.ttl.map(str::parse::<Ttl>).transpose()?.map(Ttl::time);
        let durability = given.durable.map(str::parse::<Durability>).transpose()?;
        let exclude = given.exclude.map(connection).transpose()?;
        let manner = match (given.ephemeral, durability) {
            (false, None) => Manner::Stored,
            (false, Some(durability)) => Manner::Durably(durability),
            (true, _) => {
                let needs_storing = [
                    ("a ttl", ttl.is_some()),
                    ("a collapse key", given.collapse.is_some()),
                    ("a durability", durability.is_some()),
                    ("an idempotency key", given.key.is_some()),
                ];
                if let Some((option, _)) = needs_storing.into_iter().find(|(_, given)| *given) {
                    return Err(PublishError::Ephemeral(option).into());
                }
                Manner::Ephemeral
            }
        };
        if !given.key.is_none_or(is_key) {
            return Err(PublishError::Key.into());
        }
        if !given.collapse.is_none_or(is_collapse_key) {
            return Err(PublishError::Collapse.into());
        }
        let (collapse, key) = (given.collapse.map(str::to_owned), given.key.map(str::to_owned));
        let trace = given.traceparent.and_then(TraceParent::read);
        Ok(PublishRequest { kind, ttl, collapse, key, exclude, trace, received: given.received, manner })
    }

    /// Leaves a connection out.
    pub fn excluding(self, connection: Option<Uuid>) -> Self {
        PublishRequest { exclude: connection.or(self.exclude), ..self }
    }

    /// Whether the event is not to be stored.
    pub fn is_ephemeral(&self) -> bool {
        self.manner == Manner::Ephemeral
    }

    /// The event with this data.
    pub fn draft(&self, data: impl Into<Bytes>) -> Draft {
        Draft {
            key: self.key.clone(),
            ttl: self.ttl,
            collapse: self.collapse.clone(),
            exclude: self.exclude,
            trace: self.trace,
            received: self.received,
            ..Draft::new(self.kind.clone(), data)
        }
    }
}

impl Hub {
    /// Publishes the draft of a request in the way that the request asks for.
    pub async fn carry_out(
        &self,
        stream: &StreamName,
        request: &PublishRequest,
        draft: &Draft,
    ) -> Result<Accepted, PublishError> {
        match request.manner {
            Manner::Stored => {
                self.publish(stream, draft).await.map(|published| Accepted::Stored { published, durable: None })
            }
            Manner::Durably(durability) => {
                let receipt = self.publish_durably(stream, draft, durability).await?;
                Ok(Accepted::Stored { published: receipt.published, durable: Some(receipt.reached) })
            }
            Manner::Ephemeral => self.publish_ephemeral(stream, draft).await.map(|nodes| Accepted::Sent { nodes }),
        }
    }
}

fn connection(text: &str) -> Result<Uuid, OptionError> {
    text.parse().map_err(|_| OptionError::Exclude(text.chars().take(64).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: PublishOptions<'_>) -> Result<PublishRequest, String> {
        PublishRequest::read(given).map_err(|error| error.to_string())
    }

    #[test]
    fn an_ephemeral_event_has_no_option_that_needs_storing() {
        let ephemeral = PublishOptions { ephemeral: true, kind: Some("typing"), ..Default::default() };
        assert!(read(ephemeral).unwrap().is_ephemeral());
        for (given, named) in [
            (PublishOptions { ttl: Some("5"), ..ephemeral }, "a ttl"),
            (PublishOptions { collapse: Some("c"), ..ephemeral }, "a collapse key"),
            (PublishOptions { durable: Some("disk"), ..ephemeral }, "a durability"),
            (PublishOptions { key: Some("k"), ..ephemeral }, "an idempotency key"),
        ] {
            assert!(read(given).unwrap_err().ends_with(named), "{given:?}");
        }
    }

    #[test]
    fn an_invalid_trace_is_ignored() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace_of = |given: &str| {
            let given = PublishOptions { traceparent: Some(given.as_bytes()), ..Default::default() };
            read(given).unwrap().draft("1").trace.map(|trace| trace.to_string())
        };
        assert_eq!((trace_of(text).as_deref(), trace_of("00-0af7-b7ad-01")), (Some(text), None));
    }

    #[test]
    fn an_option_that_can_not_be_read_is_named() {
        let none = PublishOptions::default();
        for (given, option) in [
            (PublishOptions { kind: Some("open"), ..none }, "type"),
            (PublishOptions { ttl: Some("0"), ..none }, "ttl"),
            (PublishOptions { durable: Some("tape"), ..none }, "durable"),
            (PublishOptions { exclude: Some("me"), ..none }, "exclude"),
        ] {
            assert_eq!(PublishRequest::read(given).unwrap_err().option(), Some(option), "{given:?}");
        }
    }
}
