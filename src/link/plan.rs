//! Which links should be open, as a function.

use std::collections::HashSet;

use crate::model::NodeId;

/// Less than this counts for nothing: about one event within a half-life.
pub const WORTH_OPENING: f64 = 0.5;

/// How much more useful a newcomer has to be than the link that gives way to it. With less, two nodes of
/// like use would take the place from each other for ever.
const CLEARLY_MORE: f64 = 1.5;

/// A link that is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The node at its other end.
    pub node: NodeId,
    /// What it is expected to carry.
    pub worth: f64,
    /// Whether it has carried nothing for as long as a link may.
    pub idle: bool,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Links to open, the most useful first.
    pub open: Vec<NodeId>,
    /// Links to close because nobody needs them.
    pub close: Vec<NodeId>,
    /// Links to close because others are more useful.
    pub evict: Vec<NodeId>,
}

/// Compares the links that are open or being opened with the nodes that would be worth one, under a bound
/// of `most` links in all. `opening` are the ones on their way: they hold a place, and can't be evicted.
pub fn plan(open: &[Standing], opening: &HashSet<NodeId>, candidates: &[(NodeId, f64)], most: usize) -> Plan {
    let mut plan = Plan::default();
    let (idle, mut kept): (Vec<_>, Vec<_>) = open.iter().partition(|standing| standing.idle);
    plan.close.extend(idle.iter().map(|standing| standing.node.clone()));
    // The least useful last, to be taken from there.
    kept.sort_by(|a, b| b.worth.total_cmp(&a.worth));
    let mut taken = kept.len() + opening.len();
    while taken > most {
        let Some(least) = kept.pop() else { break };
        plan.evict.push(least.node.clone());
        taken -= 1;
    }
    let mut wanted: Vec<_> = candidates
        .iter()
        .filter(|(node, worth)| {
            *worth >= WORTH_OPENING && !opening.contains(node) && !open.iter().any(|standing| standing.node == *node)
        })
        .collect();
    wanted.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (node, worth) in wanted {
        if taken >= most {
            match kept.last() {
                Some(least) if *worth > least.worth * CLEARLY_MORE => {
                    plan.evict.push(least.node.clone());
                    kept.pop();
                }
                _ => break,
            }
        } else {
            taken += 1;
        }
        plan.open.push(node.clone());
    }
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: usize) -> NodeId {
        NodeId::from(format!("n{number}"))
    }

    fn standing(number: usize, worth: f64) -> Standing {
        Standing { node: node(number), worth, idle: false }
    }

    fn none() -> HashSet<NodeId> {
        HashSet::new()
    }

    #[test]
    fn the_most_useful_nodes_get_the_places_there_are() {
        let candidates = [(node(1), 1.0), (node(2), 5.0), (node(3), 0.1), (node(4), 3.0)];
        let plan = plan(&[], &none(), &candidates, 2);
        assert_eq!(plan, Plan { open: vec![node(2), node(4)], ..Plan::default() });
    }

    #[test]
    fn the_least_useful_link_gives_way_only_to_one_that_is_clearly_more() {
        let open = [standing(1, 4.0), standing(2, 2.0)];
        assert_eq!(plan(&open, &none(), &[(node(3), 2.5)], 2), Plan::default());
        let evicting = plan(&open, &none(), &[(node(3), 3.5)], 2);
        assert_eq!(evicting, Plan { open: vec![node(3)], evict: vec![node(2)], ..Plan::default() });
    }

    #[test]
    fn idle_links_close_and_leave_their_places_to_others() {
        let open = [Standing { idle: true, ..standing(1, 9.0) }, standing(2, 1.0)];
        let closing = plan(&open, &none(), &[(node(3), 1.0)], 2);
        assert_eq!(closing, Plan { open: vec![node(3)], close: vec![node(1)], ..Plan::default() });
    }

    #[test]
    fn a_link_that_is_being_opened_is_not_opened_again_and_holds_its_place() {
        let opening = HashSet::from([node(1)]);
        assert_eq!(plan(&[], &opening, &[(node(1), 9.0), (node(2), 9.0)], 1), Plan::default());
    }

    proptest! {
        #[test]
        fn a_plan_keeps_the_bound_and_touches_no_link_twice(
            open in prop::collection::btree_map(0..30usize, (0.0..10.0f64, any::<bool>()), 0..12),
            opening in prop::collection::btree_set(30..40usize, 0..4),
            candidates in prop::collection::btree_map(0..60usize, 0.0..10.0f64, 0..40),
            most in 1..12usize,
        ) {
            let open: Vec<_> =
                open.into_iter().map(|(number, (worth, idle))| Standing { node: node(number), worth, idle }).collect();
            let opening: HashSet<_> = opening.into_iter().map(node).collect();
            let candidates: Vec<_> = candidates.into_iter().map(|(number, worth)| (node(number), worth)).collect();
            let plan = plan(&open, &opening, &candidates, most);
            let gone = plan.close.len() + plan.evict.len();
            let after = open.len() - gone + opening.len() + plan.open.len();
            prop_assert!(after <= most.max(opening.len()));
            let touched: HashSet<_> = plan.open.iter().chain(&plan.close).chain(&plan.evict).collect();
            prop_assert_eq!(touched.len(), plan.open.len() + gone);
            prop_assert!(plan.open.iter().all(|node| !opening.contains(node)));
        }
    }
}
