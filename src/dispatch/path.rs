//! The path that an event took to a dispatcher.

/// How an event reached this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Over the node's channel in the store.
    Channel,
    /// Over a link from the node that published it.
    Link,
    /// It was published on this node.
    Local,
}

impl Path {
    /// All there are, in the order of their declaration.
    pub const ALL: [Path; 3] = [Path::Channel, Path::Link, Path::Local];

    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Path::Channel => "channel",
            Path::Link => "link",
            Path::Local => "local",
        }
    }
}
