//! Admission of a listener: its streams with positions, its place among the connections of its device, and its part in
//! the presence of its topics.

use uuid::Uuid;

use super::{After, Hub, ListenError, Listening};
use crate::access::{Grant, Identity};
use crate::model::StreamName;
use crate::presence::{Eviction, PresenceGuard, TopicPresence};

/// A listener that may follow its streams and asks to be let in.
pub struct Admission<'a> {
    /// What the client may do.
    pub grant: &'a Grant,
    /// The id of the connection that is to be.
    pub connection: Uuid,
    /// How it is connected.
    pub transport: &'static str,
    /// The streams, and where it begins in each.
    pub streams: Vec<(StreamName, After)>,
    /// Whether it takes part in the presence of its topics.
    pub members: bool,
}

/// A listener whose streams are attached. What it takes part in ends when this is dropped.
pub struct Admitted {
    /// The streams, with the positions to go on from.
    pub streams: Vec<Listening>,
    /// The device that it is connected as.
    pub device: Option<StreamName>,
    /// Its place among the connections of its device, or why it has none and is to be closed.
    pub place: Result<PresenceGuard, Eviction>,
    /// Its part in the presence of its topics, if it asked for one.
    pub members: Option<Box<TopicPresence>>,
}

impl Hub {
    /// Lets a listener in: attaches its streams first, as the node's route to a device is what makes a place there
    /// count.
    pub async fn admit(&self, admission: Admission<'_>) -> Result<Admitted, ListenError> {
        let Admission { grant, connection, transport, streams, members } = admission;
        let streams = self.listen(streams).await?;
        let device = device_of(grant, &streams);
        let place = self.presence.enter(device.clone(), connection, transport, grant.info.as_ref()).await;
        let members = if members && place.is_ok() { Some(Box::new(self.join(grant, &streams).await)) } else { None };
        Ok(Admitted { streams, device, place, members })
    }

    async fn join(&self, grant: &Grant, streams: &[Listening]) -> TopicPresence {
        let device = match grant.identity() {
            Identity::Device(own) => Some(own.clone()),
            Identity::Any | Identity::Nobody => device_of(grant, streams),
        };
        let members = self.presence.members().topic_presence(device, grant.info.clone());
        members.join(streams.iter().map(Listening::stream)).await;
        members
    }
}

/// The device of a connection. With a token it is the token's device, once the connection follows its inbox.
fn device_of(grant: &Grant, streams: &[Listening]) -> Option<StreamName> {
    let mut devices = streams.iter().map(Listening::stream).filter(|stream| stream.device().is_some());
    match grant.identity() {
        Identity::Any => devices.next().cloned(),
        Identity::Device(own) => devices.find(|device| *device == own).cloned(),
        Identity::Nobody => None,
    }
}
