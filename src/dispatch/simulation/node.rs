//! A simulated node: real dispatchers and their real driver, over a channel that loses, repeats and reorders.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::dispatcher::{Dispatcher, Memory};
use super::super::repairs::{Asking, Repairs};
use crate::model::{Event, EventId, NodeId, Page};
use crate::store::StoreError;

/// Longer than anything else that a node waits for.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(3600);

pub struct Node {
    pub id: NodeId,
    pub dispatcher: Option<Arc<Dispatcher>>,
    pub channel: Vec<Arc<Event>>,
    pub repairs: Repairs,
    pub memory: Memory,
    /// Pages that others at the same position may be given.
    pub pages: HashMap<EventId, Arc<Page>>,
    /// Questions that are under way, and answers.
    pub under_way: VecDeque<UnderWay>,
}

pub struct UnderWay {
    pub asking: Asking,
    pub answer: Option<Result<Page, StoreError>>,
}

impl Node {
    pub fn new(number: usize, life: u64, ring: usize, now: Instant) -> Self {
        Node {
            id: NodeId::from(format!("node-{number}-{life}")),
            dispatcher: None,
            channel: Vec::new(),
            repairs: Repairs::new(0, SYNC_INTERVAL, life, now),
            memory: Memory::new(ring),
            pages: HashMap::new(),
            under_way: VecDeque::new(),
        }
    }
}
