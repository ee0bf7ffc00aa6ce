//! What is known of publishing devices, so that links can be opened before they are needed.

use async_trait::async_trait;

use super::StoreError;
use crate::model::{NodeId, StreamName};

/// To which nodes the events of a device go, kept beside the device's state.
#[async_trait]
pub trait SendHistory: Send + Sync {
    /// Adds what went to which node, and returns what counts for each now, the most first; with nothing to add it
    /// only returns. What is long ago counts less. A store that only one node uses keeps nothing.
    async fn send_history(&self, device: &StreamName, sent: &[(NodeId, f64)])
    -> Result<Vec<(NodeId, f64)>, StoreError>;
}
