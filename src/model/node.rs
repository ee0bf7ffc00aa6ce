//! The id of a node.

use std::fmt;

/// The name of one running process, new at every start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// A name that no node ever had.
    pub fn random() -> Self {
        NodeId(uuid::Uuid::new_v4().simple().to_string())
    }

    /// As it stands in keys, channels and answers.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for NodeId {
    fn from(text: String) -> Self {
        NodeId(text)
    }
}
