//! The names of keys and channels.

use crate::model::{NodeId, StreamName};
use crate::store::JobKind;

/// All names, behind one prefix.
pub(super) struct Keys {
    prefix: String,
    channels: String,
}

/// The keys of one stream. They share a hash tag, so that a script stays within one Cluster slot.
pub(super) struct StreamKeys {
    pub(super) events: String,
    pub(super) nodes: String,
    pub(super) meta: String,
    pub(super) collapse: String,
    /// The connections of the device.
    pub(super) connections: String,
    once: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Keys { prefix: prefix.to_owned(), channels: format!("{prefix}:node:") }
    }

    pub(super) fn of(&self, stream: &StreamName) -> StreamKeys {
        // Joined, not formatted: they are made for every operation.
        let name = |key: &str| [&self.prefix, ":{", stream.as_str(), "}:", key].concat();
        StreamKeys {
            events: name("events"),
            nodes: name("nodes"),
            meta: name("meta"),
            collapse: name("collapse"),
            connections: name("connections"),
            once: name("once:"),
        }
    }

    /// The members of a topic, and their names in order. They lie beside the topic's other keys.
    pub(super) fn members(&self, topic: &StreamName) -> [String; 2] {
        ["members", "roster"].map(|key| format!("{}:{{{topic}}}:{key}", self.prefix))
    }

    /// What producers add by themselves.
    pub(super) fn ingress(&self) -> String {
        format!("{}:ingress", self.prefix)
    }

    /// Up to which id its entries are being added once more. In the same slot.
    pub(super) fn lifting(&self) -> String {
        format!("{}:{{{}}}:lifting", self.prefix, self.ingress())
    }

    /// Which rejected entries were written down last. In the slot of those.
    pub(super) fn rejected_ids(&self) -> String {
        format!("{}:{{{}}}:ids", self.prefix, self.rejected())
    }

    /// What of it can't be events.
    pub(super) fn rejected(&self) -> String {
        format!("{}:ingress:rejected", self.prefix)
    }

    /// The leader of a job.
    pub(super) fn leader(&self, job: JobKind) -> String {
        match job {
            JobKind::Ingress => format!("{}:ingress:drainer", self.prefix),
            // In one slot with how far it got.
            JobKind::Producers => format!("{}:{{producers}}:looker", self.prefix),
            JobKind::Webhook => format!("{}:{{{}}}:webhook", self.prefix, StreamName::lifecycle()),
            JobKind::Directory => format!("{}:sweeper", self.prefix),
        }
    }

    /// The leases of producers, by stream.
    pub(super) fn leases(&self) -> String {
        format!("{}:{{producers}}:leases", self.prefix)
    }

    /// When each of them lapses.
    pub(super) fn deadlines(&self) -> String {
        format!("{}:{{producers}}:deadlines", self.prefix)
    }

    /// Which tokens are refused before their time.
    pub(super) fn revocations(&self) -> String {
        format!("{}:revocations", self.prefix)
    }

    /// Which function library was loaded last.
    pub(super) fn library(&self) -> String {
        format!("{}:library", self.prefix)
    }

    /// The same, on whichever server of a Cluster has this tag.
    pub(super) fn library_at(&self, tag: u16) -> String {
        format!("{}:{{{tag}}}:library", self.prefix)
    }

    /// The nodes' lifecycle sessions. They are kept beside the lifecycle topic.
    pub(super) fn sessions(&self) -> String {
        format!("{}:{{{}}}:sessions", self.prefix, StreamName::lifecycle())
    }

    /// Connections of a node whose connect is published there, and whose disconnect is not.
    pub(super) fn open(&self, node: &NodeId) -> String {
        format!("{}:{{{}}}:open:{node}", self.prefix, StreamName::lifecycle())
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// To which nodes a device's events go.
    pub(super) fn send_history(&self, device: &StreamName) -> String {
        format!("{}:{{{device}}}:send_history", self.prefix)
    }

    /// The directory's changes. In a Cluster all of the directory is in one slot, as a script writes a part of it
    /// together with the change; elsewhere it has the names that it always had.
    pub(super) fn changes(&self, in_cluster: bool) -> String {
        if in_cluster { format!("{}:{{directory}}", self.prefix) } else { format!("{}:directory", self.prefix) }
    }

    /// A part of the directory.
    pub(super) fn bucket(&self, in_cluster: bool, number: u64) -> String {
        format!("{}:{number}", self.changes(in_cluster))
    }

    /// The server's own identity, where there are several.
    pub(super) fn identity(&self) -> String {
        format!("{}:identity", self.prefix)
    }

    /// What every node's channel begins with.
    pub(super) fn channels(&self) -> &str {
        &self.channels
    }

    pub(super) fn channel(&self, node: &NodeId) -> String {
        format!("{}{node}", self.channels)
    }

    /// The region's nodes, with when their leases end.
    pub(super) fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    pub(super) fn lease(&self, node: &NodeId) -> String {
        format!("{}:{{node:{node}}}:lease", self.prefix)
    }

    /// The node that cleans up after it.
    pub(super) fn cleaner(&self, node: &NodeId) -> String {
        format!("{}:{{node:{node}}}:cleaner", self.prefix)
    }

    /// Streams that may have a route to the node.
    pub(super) fn streams(&self, node: &NodeId) -> String {
        format!("{}:{{node:{node}}}:streams", self.prefix)
    }
}

impl StreamKeys {
    /// Where the idempotency key is remembered; without one, the name that stands for none.
    pub(super) fn once(&self, key: &str) -> String {
        format!("{}{}", self.once, if key.is_empty() { "-" } else { key })
    }
}
