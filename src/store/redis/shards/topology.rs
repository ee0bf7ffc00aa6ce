//! Which master of a Cluster has which slots, as its nodes say.
//!
//! Nodes learn of a change one after another, and one that is cut off keeps an old view. Each claim carries the
//! epoch of its master's configuration, by which Redis itself settles such conflicts: the greatest counts.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use redis::Value;

use super::slot::SLOTS;

/// Where a node of a Cluster is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::store::redis) struct Address {
    pub(in crate::store::redis) host: String,
    pub(in crate::store::redis) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// Reads `HOST:PORT`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        (!host.is_empty()).then_some(Address { host: host.to_owned(), port: port.parse().ok()? })
    }
}

/// A run of slots, and its master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: Address,
    epoch: u64,
}

/// A view of the Cluster: one node's, or what several agree on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// In order of slots, without overlap.
    pub(super) claims: Vec<Claim>,
    /// All nodes that serve slots, replicas included.
    pub(super) members: BTreeSet<Address>,
}

impl View {
    /// Reads the answers to CLUSTER SLOTS, which has addresses as clients should use them, and CLUSTER NODES, which
    /// has the epochs. `asked` is the host that answered: some nodes leave out their own.
    pub(super) fn read(slots: &Value, nodes: &str, asked: &str) -> Option<Self> {
        let epochs: HashMap<&str, u64> = nodes.lines().filter_map(epoch).collect();
        let Value::Array(ranges) = slots else { return None };
        let mut view = View::default();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = &range[..] else { return None };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            let mut nodes = nodes.iter().map(|node| member(node, asked));
            // A master without an address is of no use, and neither is a range that makes no sense.
            if let Some(Some((master, id))) = nodes.next()
                && first <= last
                && last < SLOTS
            {
                view.members.insert(master.clone());
                let epoch = epochs.get(id.as_str()).copied().unwrap_or(0);
                view.claims.push(Claim { first, last, master, epoch });
            }
            view.members.extend(nodes.flatten().map(|(address, _)| address));
        }
        Some(view)
    }

    /// Of several views, for each slot what is newest.
    pub(super) fn merged<'a>(views: impl IntoIterator<Item = &'a View>) -> Self {
        let mut newest: Vec<Option<&Claim>> = vec![None; usize::from(SLOTS)];
        let mut members = BTreeSet::new();
        for view in views {
            members.extend(view.members.iter().cloned());
            for claim in &view.claims {
                for known in &mut newest[usize::from(claim.first)..=usize::from(claim.last)] {
                    if known.is_none_or(|known| known.epoch < claim.epoch) {
                        *known = Some(claim);
                    }
                }
            }
        }
        let mut claims: Vec<Claim> = Vec::new();
        for (slot, claim) in (0..SLOTS).zip(newest) {
            let Some(claim) = claim else { continue };
            match claims.last_mut() {
                Some(before)
                    if before.last + 1 == slot && before.master == claim.master && before.epoch == claim.epoch =>
                {
                    before.last = slot;
                }
                _ => claims.push(Claim { first: slot, last: slot, ..claim.clone() }),
            }
        }
        View { claims, members }
    }

    /// How many slots have no master.
    pub(super) fn uncovered(&self) -> u16 {
        SLOTS - self.claims.iter().map(|claim| claim.last - claim.first + 1).sum::<u16>()
    }
}

/// A node's address and its id.
fn member(node: &Value, asked: &str) -> Option<(Address, String)> {
    let Value::Array(node) = node else { return None };
    let [host, Value::Int(port), rest @ ..] = &node[..] else { return None };
    let host = match host {
        Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
        Value::SimpleString(host) => host.clone(),
        _ => String::new(),
    };
    let host = match host.as_str() {
        // It does not know how clients should name it.
        "?" => return None,
        "" => asked.to_owned(),
        _ => host,
    };
    let id = match rest.first() {
        Some(Value::BulkString(id)) => String::from_utf8(id.clone()).ok()?,
        _ => String::new(),
    };
    Some((Address { host, port: u16::try_from(*port).ok()? }, id))
}

/// A node's id and the epoch of its configuration, out of a line of CLUSTER NODES.
fn epoch(line: &str) -> Option<(&str, u64)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.nth(5)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "10.0.0.1".to_owned(), port }
    }

    fn view(claims: &[(u16, u16, u16, u64)]) -> View {
        let claim = |(first, last, port, epoch): &(u16, u16, u16, u64)| Claim {
            first: *first,
            last: *last,
            master: at(*port),
            epoch: *epoch,
        };
        let members = claims.iter().map(|(_, _, port, _)| at(*port)).collect();
        View { claims: claims.iter().map(claim).collect(), members }
    }

    #[test]
    fn a_view_has_addresses_of_one_answer_and_epochs_of_the_other() {
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host, port, id: &str| Value::Array(vec![host, Value::Int(port), text(id), Value::Array(vec![])]);
        let range =
            |first, last, nodes: Vec<Value>| Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat());
        let slots = Value::Array(vec![
            range(0, 99, vec![node(text("10.0.0.1"), 1, "aa"), node(text("10.0.0.1"), 4, "dd")]),
            range(100, 16383, vec![node(Value::Nil, 2, "bb")]),
            range(7, 9, vec![node(text("?"), 3, "cc")]),
        ]);
        let nodes = "aa 10.0.0.1:1@11 master - 0 1 7 connected 0-99\n\
                     bb 10.0.0.1:2@12 myself,master - 0 1 9 connected 100-16383\n";
        let mut wanted = view(&[(0, 99, 1, 7), (100, 16383, 2, 9)]);
        wanted.members.insert(at(4));
        assert_eq!(View::read(&slots, nodes, "10.0.0.1"), Some(wanted));
        assert_eq!(View::read(&Value::Nil, nodes, "a"), None);
    }

    #[test]
    fn of_several_views_the_newest_counts_for_each_slot() {
        let old = view(&[(0, 8000, 1, 1), (8001, 16383, 2, 2)]);
        // 3 took over from 1, and 2 has some of the slots.
        let new = view(&[(0, 99, 2, 5), (100, 8000, 3, 4), (8001, 16383, 2, 5)]);
        for views in [[&old, &new], [&new, &old]] {
            let merged = View::merged(views);
            assert_eq!(merged.claims, new.claims);
            assert_eq!(merged.members.len(), 3);
        }
        assert_eq!((old.uncovered(), View::default().uncovered()), (0, SLOTS));
        assert_eq!(View::merged([&view(&[(0, 9, 1, 1)]), &view(&[(20, 29, 1, 1)])]).uncovered(), SLOTS - 20);
    }

    #[test]
    fn an_address_may_be_of_version_6() {
        assert_eq!(Address::read("::1:7000"), Some(Address { host: "::1".to_owned(), port: 7000 }));
        assert_eq!(Address::read(":7000"), None);
    }
}
