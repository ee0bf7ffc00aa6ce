//! Where nodes say something to each other.

use std::sync::Arc;

use crate::dispatch::Registry;
use crate::model::{NodeId, StreamName};
use crate::store::{Store, StoreError};

/// The channels of one region, and this node's id there.
#[derive(Clone)]
pub struct ControlChannel {
    /// The region's store.
    pub store: Arc<dyn Store>,
    /// What this node is called there.
    pub node: Arc<NodeId>,
}

impl ControlChannel {
    /// Where all nodes meet that follow a stream: its home, of which they are members.
    pub async fn of(
        stream: Option<&StreamName>,
        store: &Arc<dyn Store>,
        registry: &Registry,
    ) -> Result<Self, StoreError> {
        match (store.regions(), stream) {
            (Some(regions), Some(stream)) => {
                // Boxed: what waits here stands at the bottom of a listener's very deep future.
                let (store, node) = Box::pin(regions.channel(stream)).await?;
                Ok(ControlChannel { store, node })
            }
            _ => Ok(ControlChannel { store: store.clone(), node: registry.node() }),
        }
    }
}
