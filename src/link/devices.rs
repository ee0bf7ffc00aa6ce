//! What the store remembers of publishing devices: read when one comes, written when it has sent something.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::prediction::predict;
use super::routes::Common;
use crate::model::{NodeId, StreamName};
use crate::store::Store;

/// Most devices that wait. When thousands come at once, links open for the first of them, and the others find
/// those, or use the channels.
const MAX_WAITING: usize = 4096;

/// Questions to the store at once.
const AT_ONCE: usize = 16;

/// A device, and what it sent since the last time.
type Task = (StreamName, Vec<(NodeId, f64)>);

/// Where devices are announced.
pub struct Devices(mpsc::Sender<Task>);

/// What waits for the store.
pub struct Memory(mpsc::Receiver<Task>);

impl Devices {
    /// The two ends.
    pub fn new() -> (Devices, Memory) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Devices(sender), Memory(receiver))
    }

    /// A device has come.
    pub fn came(&self, device: &StreamName) {
        self.sent(device, Vec::new());
    }

    /// A device sent something. When too many wait it is forgotten: nothing but a guess depends on it.
    pub fn sent(&self, device: &StreamName, sent: Vec<(NodeId, f64)>) {
        let _ = self.0.try_send((device.clone(), sent));
    }
}

impl Memory {
    /// Does what comes in; runs until it is dropped.
    pub async fn serve_for_ever(self, store: Arc<dyn Store>, common: Arc<Common>) {
        let tasks = stream::unfold(self.0, |mut tasks| async move { tasks.recv().await.map(|task| (task, tasks)) });
        let serve = |(device, sent): Task| {
            let (store, common) = (store.clone(), common.clone());
            async move {
                match store.send_history(&device, &sent).await {
                    Ok(send_history) if sent.is_empty() => common.expect(predict(&send_history)),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "the send history of a device is not known"),
                }
            }
        };
        tasks.for_each_concurrent(AT_ONCE, serve).await;
    }
}
