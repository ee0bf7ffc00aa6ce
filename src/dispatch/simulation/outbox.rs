//! The receiving end of a simulated connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::chain::Delivery;
use super::super::sink::{Offer, Sink, Slot};
use crate::model::StreamName;

/// Takes so many deliveries.
pub struct Outbox {
    pub number: u64,
    pub queue: Mutex<VecDeque<Delivery>>,
    pub capacity: usize,
    pub closed: AtomicBool,
    /// The world's time, as nodes know it.
    pub now: Arc<AtomicU64>,
}

#[async_trait]
impl Sink for Outbox {
    fn number(&self) -> u64 {
        self.number
    }

    fn wants(&self, _slot: Slot) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    fn offer(&self, slot: Slot, _stream: &StreamName, delivery: &Delivery) -> Offer {
        let mut queue = self.queue.lock();
        if !self.wants(slot) {
            Offer::Closed
        } else if queue.len() >= self.capacity {
            Offer::Full
        } else {
            // As a real connection does.
            queue.push_back(match delivery {
                Delivery::Event(event) if event.is_expired(self.now.load(Ordering::Relaxed)) => {
                    Delivery::Passed(event.id)
                }
                delivery => delivery.clone(),
            });
            Offer::Taken { flush: false }
        }
    }

    fn flush(&self) {}

    async fn room(&self) {}

    async fn left(&self, _slot: Slot) {
        std::future::pending().await
    }
}

impl Outbox {
    /// Whether there is room for another delivery.
    pub fn has_room(&self) -> bool {
        self.queue.lock().len() < self.capacity
    }
}
