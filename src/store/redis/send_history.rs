//! The send history of each publishing device, a hash of its own.

use std::time::Duration;

use async_trait::async_trait;

use super::RedisStore;
use super::call::Call;
use super::scripts;
use crate::model::{NodeId, StreamName};
use crate::store::{SendHistory, StoreError, millis};

/// What a device did so long ago counts half. Nodes live for days, and devices come several times a day.
const HALF_LIFE: Duration = Duration::from_secs(6 * 3600);

/// How long the send history is kept of a device that does not publish any more: little counts by then.
const LIFE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Nodes that are kept of each device.
const MOST: usize = 16;

#[async_trait]
impl SendHistory for RedisStore {
    async fn send_history(
        &self,
        device: &StreamName,
        sent: &[(NodeId, f64)],
    ) -> Result<Vec<(NodeId, f64)>, StoreError> {
        let call = Call::script(&scripts::SEND_HISTORY, &[&self.keys.send_history(device)])
            .arg(millis(HALF_LIFE))
            .arg(MOST)
            .arg(millis(LIFE));
        let call = sent.iter().fold(call, |call, (node, amount)| call.arg(node.as_str()).arg(amount));
        scripts::send_history(self.pool.run(call).await?)
    }
}
