//! From a device's send history to the links that it will need.

use crate::model::NodeId;

/// Events that a device which connects is expected to send before long. With this, a node that gets a
/// sixteenth of its events or more is worth a link.
const EXPECTED: f64 = 8.0;

/// Of a device that has hardly sent anything, nothing is expected.
const LEAST_KNOWN: f64 = 0.5;

/// What a device that has just connected is expected to send to which node.
pub fn predict(send_history: &[(NodeId, f64)]) -> impl Iterator<Item = (&NodeId, f64)> {
    let known: f64 = send_history.iter().map(|(_, amount)| amount).sum();
    send_history
        .iter()
        .filter(move |_| known >= LEAST_KNOWN)
        .map(move |(node, amount)| (node, EXPECTED * amount / known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_divided_as_it_was_before() {
        let (one, two) = (NodeId::from("one".to_owned()), NodeId::from("two".to_owned()));
        let send_history = [(one.clone(), 30.0), (two.clone(), 10.0)];
        assert_eq!(predict(&send_history).collect::<Vec<_>>(), [(&one, 6.0), (&two, 2.0)]);
        assert_eq!(predict(&[(one, 0.25)]).count(), 0);
    }
}
