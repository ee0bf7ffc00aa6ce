//! What a caller may do: decided once for a request or connection, then asked for each stream.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Patterns;
use crate::model::{Info, StreamName};

/// Who a grant was given to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// Everybody: no key or secret is set.
    Open,
    /// Whoever brings no token, where streams are open to all.
    Anonymous,
    /// The bearer of a device token.
    Token {
        /// The token's id, `jti`.
        id: Option<Box<str>>,
    },
    /// A producer with this key.
    Key {
        /// The key's name.
        name: Box<str>,
        /// Events a second that it may publish, if that is limited.
        rate: Option<u32>,
    },
    /// A client for which the application's backend answered.
    Backend,
}

/// What a request or a connection may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grant {
    /// Who has it.
    pub holder: Holder,
    /// The inbox of the device that the caller is.
    pub device: Option<StreamName>,
    /// Streams that may be followed, and whose events may be read.
    pub subscribe: Patterns,
    /// Streams that anyone may follow and read, this caller too.
    #[serde(default)]
    pub public: Patterns,
    /// Streams to which events may be published.
    pub publish: Patterns,
    /// Streams of which may be read who is connected and where they stand.
    pub inspect: Patterns,
    /// Streams that may be erased, moved and disconnected.
    pub manage: Patterns,
    /// What is shown beside the connection.
    pub info: Option<Info>,
    /// When it was issued, in milliseconds since 1970. Without: before any revocation.
    pub issued_ms: Option<u64>,
    /// Until when it holds, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// Nothing: anyone may.
    Nothing,
    /// Some grant; what it has to cover shows when the rest of the request is read.
    Caller,
    /// To follow something; what, shows when the rest of the request is read.
    Listen,
    /// To follow a stream or read its events.
    Subscribe(&'a StreamName),
    /// To publish to a stream.
    Publish(&'a StreamName),
    /// To acknowledge what a device was sent.
    Acknowledge(&'a StreamName),
    /// To see who is connected to a stream, or to anything.
    Inspect(Option<&'a StreamName>),
    /// To erase, move or disconnect a stream, or to manage the service.
    Manage(Option<&'a StreamName>),
}

/// Why something is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody said who asks.
    #[error("{0}")]
    Unknown(String),
    /// It is known who asks, and they may not.
    #[error("{0}")]
    Forbidden(String),
}

impl Grant {
    /// Everything, for everybody.
    pub fn open() -> Arc<Self> {
        Arc::new(Grant {
            subscribe: Patterns::all(),
            publish: Patterns::all(),
            inspect: Patterns::all(),
            manage: Patterns::all(),
            ..Grant::nothing(Holder::Open)
        })
    }

    /// Nothing at all, as a start.
    pub fn nothing(holder: Holder) -> Self {
        Grant {
            holder,
            device: None,
            subscribe: Patterns::default(),
            public: Patterns::default(),
            publish: Patterns::default(),
            inspect: Patterns::default(),
            manage: Patterns::default(),
            info: None,
            issued_ms: None,
            expires_ms: None,
        }
    }

    /// Whether it covers a need.
    pub fn covers(&self, need: Need<'_>) -> bool {
        let own = |stream: &StreamName| self.device.as_ref() == Some(stream);
        match need {
            Need::Nothing => true,
            Need::Caller => self.holder != Holder::Anonymous,
            Need::Listen => self.holder != Holder::Anonymous || !self.public.is_empty(),
            Need::Subscribe(stream) => own(stream) || self.subscribe.cover(stream) || self.public.cover(stream),
            Need::Publish(stream) => self.publish.cover(stream),
            Need::Acknowledge(stream) => own(stream) || (self.is_producer() && self.publish.cover(stream)),
            Need::Inspect(Some(stream)) => own(stream) || self.inspect.cover(stream),
            Need::Inspect(None) => !self.inspect.is_empty(),
            Need::Manage(Some(stream)) => self.manage.cover(stream),
            // What concerns no stream in particular concerns all of them.
            Need::Manage(None) => self.manage.cover_everything(),
        }
    }

    /// Checks a need; the refusal names the stream, and nothing that only the store knows.
    pub fn check(&self, need: Need<'_>) -> Result<(), Denied> {
        if self.covers(need) {
            return Ok(());
        }
        let wish = need.wish();
        Err(match &self.holder {
            Holder::Anonymous => Denied::Unknown(format!("a token or key is needed to {wish}")),
            Holder::Key { name, .. } => Denied::Forbidden(format!("the key '{name}' does not allow to {wish}")),
            Holder::Token { .. } => Denied::Forbidden(format!("the token does not allow to {wish}")),
            Holder::Backend | Holder::Open => Denied::Forbidden(format!("it is not allowed to {wish}")),
        })
    }

    /// Whether it stands for a program rather than a device: only that publishes and acknowledges for others.
    fn is_producer(&self) -> bool {
        matches!(self.holder, Holder::Key { .. } | Holder::Open)
    }

    /// The device that the caller is known to be. A producer is none, and may stand in for any.
    pub fn identity(&self) -> Identity<'_> {
        match (self.is_producer(), &self.device) {
            (true, _) => Identity::Any,
            (false, Some(device)) => Identity::Device(device),
            (false, None) => Identity::Nobody,
        }
    }

    /// As `GET /v1/whoami` shows it.
    pub fn shown(&self) -> Shown<'_> {
        let (kind, name, token) = match &self.holder {
            Holder::Open => ("open", None, None),
            Holder::Anonymous => ("anonymous", None, None),
            Holder::Token { id } => ("token", None, id.as_deref()),
            Holder::Key { name, .. } => ("key", Some(&**name), None),
            Holder::Backend => ("backend", None, None),
        };
        let scopes: Vec<_> = [("publish", &self.publish), ("read", &self.inspect), ("admin", &self.manage)]
            .into_iter()
            .filter(|(_, streams)| !streams.is_empty())
            .map(|(scope, _)| scope)
            .collect();
        Shown {
            kind,
            name,
            token,
            device: self.device.as_ref().and_then(StreamName::device),
            scopes: self.is_producer().then_some(scopes),
            subscribe: &self.subscribe,
            publish: &self.publish,
            info: self.info.as_ref(),
            issued: self.issued_ms.map(seconds),
            expires: self.expires_ms.map(seconds),
        }
    }
}

fn seconds(ms: u64) -> u64 {
    ms / 1000
}

/// Which device a caller can be connected as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// Whichever it asks for.
    Any,
    /// This one.
    Device(&'a StreamName),
    /// None.
    Nobody,
}

/// What may be shown of a grant.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    device: Option<&'a str>,
    /// Of a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<&'static str>>,
    subscribe: &'a Patterns,
    publish: &'a Patterns,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a Info>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<u64>,
    expires: Option<u64>,
}

impl Need<'_> {
    /// In words, after "to".
    fn wish(self) -> String {
        match self {
            Need::Nothing | Need::Caller => "do this".into(),
            Need::Listen => "listen".into(),
            Need::Subscribe(stream) => format!("read {stream}"),
            Need::Publish(stream) => format!("publish to {stream}"),
            Need::Acknowledge(stream) => format!("acknowledge events of {stream}"),
            Need::Inspect(Some(stream)) => format!("see the state of {stream}, which needs the scope read"),
            Need::Inspect(None) => "see the state of the service, which needs the scope read".into(),
            Need::Manage(Some(stream)) => format!("manage {stream}, which needs the scope admin"),
            Need::Manage(None) => "manage the service, which needs the scope admin for all streams".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamName {
        name.parse().unwrap()
    }

    #[test]
    fn a_device_reads_and_acknowledges_its_own_inbox_and_publishes_only_where_that_is_said() {
        let own = stream("device:42");
        let grant = Grant { device: Some(own.clone()), ..Grant::nothing(Holder::Token { id: None }) };
        assert!(grant.covers(Need::Subscribe(&own)) && grant.covers(Need::Acknowledge(&own)));
        assert!(!grant.covers(Need::Publish(&own)) && !grant.covers(Need::Manage(Some(&own))));
        assert!(!grant.covers(Need::Subscribe(&stream("device:7"))) && !grant.covers(Need::Inspect(None)));
        let chatty = Grant { publish: "device:7".parse().unwrap(), ..grant };
        assert!(chatty.covers(Need::Publish(&stream("device:7"))));
        assert!(!chatty.covers(Need::Acknowledge(&stream("device:7"))), "that is a producer's to do");
    }

    #[test]
    fn a_denial_names_the_stream_and_an_anonymous_caller_is_asked_for_credentials() {
        let (news, nobody) = (stream("topic:news"), Grant::nothing(Holder::Anonymous));
        assert!(
            matches!(nobody.check(Need::Subscribe(&news)), Err(Denied::Unknown(why)) if why.contains("topic:news"))
        );
        let key = Grant::nothing(Holder::Key { name: "shop".into(), rate: None });
        let denied = key.check(Need::Publish(&news)).unwrap_err();
        assert!(matches!(&denied, Denied::Forbidden(why) if why.contains("shop") && why.contains("topic:news")));
    }

    #[test]
    fn managing_the_service_takes_more_than_some_of_its_streams() {
        let orders = Grant { manage: "topic:orders:*".parse().unwrap(), ..Grant::nothing(Holder::Open) };
        assert!(orders.covers(Need::Manage(Some(&stream("topic:orders:1")))) && !orders.covers(Need::Manage(None)));
        assert!(Grant::open().covers(Need::Manage(None)));
    }
}
