//! What a WebSocket client can ask for, as it writes it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

// A field that is not known is refused, as a misspelt one would do something else than was meant. What all have in
// common was read by then.

/// Follows a stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    pub stream: String,
    pub after: Option<String>,
    /// Allows this one stream, where the connection's own token does not.
    pub token: Option<String>,
}

/// Another token takes the place of the one with which the client came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    pub token: String,
}

/// Follows a stream no more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    pub stream: String,
}

/// Moves a device's acknowledged position.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    pub stream: String,
    pub id: String,
}

/// Publishes an event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish<'a> {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "ref", default)]
    _reference: IgnoredAny,
    pub stream: String,
    #[serde(borrow)]
    pub data: &'a RawValue,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub key: Option<String>,
    #[serde(borrow)]
    pub ttl: Option<&'a RawValue>,
    pub collapse: Option<String>,
    #[serde(default)]
    pub ephemeral: bool,
    pub durable: Option<String>,
    pub traceparent: Option<String>,
    /// False: everyone but this connection is given the event.
    #[serde(default = "yes")]
    pub echo: bool,
}

const fn yes() -> bool {
    true
}

/// What every operation may carry: it comes back with the answer.
#[derive(Deserialize)]
pub struct Head<'a> {
    #[serde(borrow, rename = "ref")]
    pub reference: Option<&'a RawValue>,
    pub op: Option<String>,
}
