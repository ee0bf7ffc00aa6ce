//! Stream names: whose events.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name of a device or topic, in characters.
const MAX_NAME: usize = 200;

/// Names that begin so belong to the service itself.
const RESERVED: &str = "whimbrel:";

/// The one of them that others may follow.
const LIFECYCLE: &str = "whimbrel:lifecycle";

/// Whether a stream is a device's inbox or a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// An inbox of one device.
    Device,
    /// A stream that many devices may follow.
    Topic,
}

impl StreamKind {
    /// The word before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            StreamKind::Device => "device",
            StreamKind::Topic => "topic",
        }
    }

    /// What begins its path: `devices` of `/v1/devices/42`.
    pub const fn plural(self) -> &'static str {
        match self {
            StreamKind::Device => "devices",
            StreamKind::Topic => "topics",
        }
    }
}

/// The name of a stream, `device:NAME` or `topic:NAME`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The stream of the device or topic called `name`.
    pub fn new(kind: StreamKind, name: &str) -> Result<Self, NameError> {
        if (kind, name) != (StreamKind::Topic, LIFECYCLE) {
            check_name(name)?;
        }
        Ok(StreamName(format!("{}:{name}", kind.as_str()).into()))
    }

    /// Whether a name may hold this character.
    pub fn allows(c: char) -> bool {
        c.is_ascii_alphanumeric() || "-._~:@|=".contains(c)
    }

    /// The topic of connects and disconnects of devices.
    pub fn lifecycle() -> Self {
        StreamName(format!("{}:{LIFECYCLE}", StreamKind::Topic.as_str()).into())
    }

    /// Whether only the service itself publishes to it.
    pub fn is_reserved(&self) -> bool {
        self.name().starts_with(RESERVED)
    }

    /// Device inbox or topic.
    pub fn kind(&self) -> StreamKind {
        if self.0.starts_with("device:") { StreamKind::Device } else { StreamKind::Topic }
    }

    /// The name without the kind: `42` of `device:42`.
    pub fn name(&self) -> &str {
        &self.0[self.kind().as_str().len() + 1..]
    }

    /// The device whose inbox this is.
    pub fn device(&self) -> Option<&str> {
        (self.kind() == StreamKind::Device).then(|| self.name())
    }

    /// As it is written everywhere: `device:42`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its path in the API, without its host: `/v1/devices/42`.
    pub fn path(&self) -> String {
        // '|' is the one character of names that a URL has to encode.
        format!("/v1/{}/{}", self.kind().plural(), self.name().replace('|', "%7C"))
    }

    /// A fingerprint that is the same on every node and in every version (FNV-1a, 64 bits): cursors of
    /// several streams carry it in place of the name.
    pub fn fingerprint(&self) -> u64 {
        self.0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

fn check_name(name: &str) -> Result<(), NameError> {
    let fault = if name.is_empty() {
        NameFault::Empty
    } else if let Some(bad) = name.chars().find(|c| !StreamName::allows(*c)) {
        NameFault::Character(bad)
    } else if name.len() > MAX_NAME {
        NameFault::Long(name.len())
    } else if name == "." || name == ".." {
        NameFault::Dots
    } else if name.starts_with(RESERVED) {
        NameFault::Reserved
    } else {
        return Ok(());
    };
    Err(NameError { name: name.escape_debug().take(64).collect(), fault })
}

/// Why a text can't be the name of a device or topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    name: String,
    fault: NameFault,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NameFault {
    Empty,
    Long(usize),
    Character(char),
    Dots,
    Reserved,
    Kind,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NameError { name, fault } = self;
        match fault {
            NameFault::Empty => write!(f, "the name is empty")?,
            NameFault::Long(n) => write!(f, "the name '{name}…' has {n} characters")?,
            NameFault::Character(c) => write!(f, "the name '{name}' has the character {c:?}")?,
            NameFault::Dots => write!(f, "the name is '{name}'")?,
            NameFault::Reserved => write!(f, "the name '{name}' begins with '{RESERVED}'")?,
            NameFault::Kind => {
                return write!(f, "'{name}' is not a stream: expected device:NAME or topic:NAME");
            }
        }
        write!(
            f,
            "; allowed are 1 to {MAX_NAME} characters out of A-Z a-z 0-9 - . _ ~ : @ | =, not '.' or '..', \
             not beginning with '{RESERVED}'"
        )
    }
}

impl std::error::Error for NameError {}

impl FromStr for StreamName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = match text.split_once(':') {
            Some(("device", name)) => Some((StreamKind::Device, name)),
            Some(("topic", name)) => Some((StreamKind::Topic, name)),
            _ => None,
        };
        match kind {
            Some((kind, name)) => StreamName::new(kind, name),
            None => Err(NameError { name: text.chars().take(64).collect(), fault: NameFault::Kind }),
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for StreamName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_kind_and_a_name() {
        let stream: StreamName = "device:a:b@c".parse().unwrap();
        assert_eq!((stream.kind(), stream.name()), (StreamKind::Device, "a:b@c"));
        assert_eq!(stream.to_string(), "device:a:b@c");
    }

    #[test]
    fn a_bad_name_is_refused_with_what_is_allowed() {
        let long = "x".repeat(201);
        for name in ["", ".", "..", "a b", "ä", "a/b", "a\n", "a{b}", "whimbrel:x", &long] {
            let refusal = StreamName::new(StreamKind::Topic, name).unwrap_err().to_string();
            assert!(refusal.contains("allowed are"), "{refusal}");
        }
        assert!(StreamName::new(StreamKind::Topic, &"x".repeat(200)).is_ok());
        assert!(StreamName::new(StreamKind::Device, LIFECYCLE).is_err());
        assert!("queue:x".parse::<StreamName>().unwrap_err().to_string().contains("device:NAME or topic:NAME"));
    }

    #[test]
    fn of_the_services_own_names_one_can_be_followed() {
        let stream: StreamName = "topic:whimbrel:lifecycle".parse().unwrap();
        assert_eq!((&stream, stream.is_reserved()), (&StreamName::lifecycle(), true));
        assert!(!"topic:lifecycle".parse::<StreamName>().unwrap().is_reserved());
    }

    #[test]
    fn the_fingerprint_never_changes_between_versions() {
        let stream: StreamName = "topic:news".parse().unwrap();
        assert_eq!(stream.fingerprint(), 0xf6f0_10bf_e5ae_00d5);
    }
}
