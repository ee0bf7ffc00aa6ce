//! What devices sent to which nodes, until it is written down.

use std::collections::HashMap;
use std::time::Instant;

use crate::model::{NodeId, StreamName};

/// Devices that are kept. Of more than that nothing is counted until some are written down.
const MOST: usize = 16_384;

/// Nodes that are kept of each.
const MOST_NODES: usize = 64;

/// What is not written down yet.
#[derive(Debug, Default)]
pub struct Senders(HashMap<StreamName, Sent>);

#[derive(Debug)]
struct Sent {
    since: Instant,
    by_node: HashMap<NodeId, f64>,
}

impl Senders {
    /// An event of `device` went to these nodes.
    pub fn sent<'a>(&mut self, device: &StreamName, nodes: impl Iterator<Item = &'a NodeId>, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(device) {
            return;
        }
        let sent = self.0.entry(device.clone()).or_insert_with(|| Sent { since: now, by_node: HashMap::new() });
        for node in nodes {
            if let Some(count) = sent.by_node.get_mut(node) {
                *count += 1.0;
            } else if sent.by_node.len() < MOST_NODES {
                sent.by_node.insert(node.clone(), 1.0);
            }
        }
    }

    /// Takes what is known of one device.
    pub fn take(&mut self, device: &StreamName) -> Option<Vec<(NodeId, f64)>> {
        self.0.remove(device).map(|sent| sent.by_node.into_iter().collect())
    }

    /// The devices of which something has waited since `before`, at most so many.
    pub fn waiting(&self, before: Instant, most: usize) -> Vec<StreamName> {
        let old = self.0.iter().filter(|(_, sent)| sent.since <= before);
        old.map(|(device, _)| device.clone()).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_device_sent_adds_up_until_it_is_taken() {
        let (mut senders, now) = (Senders::default(), Instant::now());
        let device: StreamName = "device:7".parse().unwrap();
        let (one, two) = (NodeId::from("one".to_owned()), NodeId::from("two".to_owned()));
        senders.sent(&device, [&one, &two].into_iter(), now);
        senders.sent(&device, [&one].into_iter(), now + Duration::from_secs(1));
        assert_eq!(senders.waiting(now, 9), std::slice::from_ref(&device));
        let mut taken = senders.take(&device).unwrap();
        taken.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(taken, [(one, 2.0), (two, 1.0)]);
        assert_eq!(senders.take(&device), None);
    }

    #[test]
    fn there_are_never_more_devices_or_nodes_than_allowed() {
        let (mut senders, now) = (Senders::default(), Instant::now());
        for number in 0..MOST + 10 {
            senders.sent(&format!("device:{number}").parse().unwrap(), std::iter::empty(), now);
        }
        assert_eq!(senders.waiting(now, usize::MAX).len(), MOST);
        let device = "device:1".parse().unwrap();
        let nodes: Vec<_> = (0..MOST_NODES + 10).map(|number| NodeId::from(format!("n{number}"))).collect();
        senders.sent(&device, nodes.iter(), now);
        assert_eq!(senders.take(&device).unwrap().len(), MOST_NODES);
    }
}
