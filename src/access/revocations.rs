//! Tokens that are refused before their time.
//!
//! A node holds all revocations there are, and asks the store several times a second whether there are others. What
//! it has seen stands until its time is over, whatever the store loses; what the store lacks is put back.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Grant, Holder};
pub use crate::store::revocations::{Revocation, Subject};

impl Revocation {
    /// Those of `known` that others don't have, or have not lifted yet.
    pub fn missing_from(known: &[Revocation], others: &[Revocation]) -> Vec<Revocation> {
        let theirs: HashMap<Uuid, bool> = others.iter().map(|entry| (entry.id, entry.lifted)).collect();
        let is_known = |entry: &&Revocation| theirs.get(&entry.id).is_some_and(|lifted| *lifted || !entry.lifted);
        known.iter().filter(|entry| !is_known(entry)).cloned().collect()
    }
}

/// All revocations that a node knows, for looking up.
#[derive(Debug, Clone, Default)]
pub struct RevocationSet {
    entries: HashMap<Uuid, Revocation>,
    /// For each subject, before which time tokens must not have been issued, in milliseconds since 1970.
    before: HashMap<Subject, u64>,
}

impl RevocationSet {
    /// Adds what is new, and forgets what is over. False when that changes nothing.
    pub fn merge(&mut self, entries: impl IntoIterator<Item = Revocation>, now_ms: u64) -> bool {
        let mut changed = false;
        for entry in entries.into_iter().filter(|entry| entry.expires_ms > now_ms) {
            match self.entries.get_mut(&entry.id) {
                Some(known) if known.lifted || !entry.lifted => {}
                Some(known) => {
                    known.lifted = true;
                    changed = true;
                }
                None => {
                    self.entries.insert(entry.id, entry);
                    changed = true;
                }
            }
        }
        let count = self.entries.len();
        self.entries.retain(|_, entry| entry.expires_ms > now_ms);
        changed |= self.entries.len() != count;
        if changed {
            self.before.clear();
            for entry in self.entries.values().filter(|entry| !entry.lifted) {
                let before = self.before.entry(entry.subject.clone()).or_default();
                *before = entry.before_ms.max(*before);
            }
        }
        changed
    }

    /// Whether a grant is revoked. Producers have keys, which are taken out of their file instead.
    pub fn names(&self, grant: &Grant) -> bool {
        if self.before.is_empty() {
            return false;
        }
        let issued_ms = grant.issued_ms.unwrap_or_default();
        let named = |subject: Subject| self.before.get(&subject).is_some_and(|before_ms| issued_ms < *before_ms);
        let by_device = || {
            let device = grant.device.as_ref().and_then(|stream| stream.device());
            device.is_some_and(|device| named(Subject::Device(device.into())))
        };
        match &grant.holder {
            Holder::Token { id } => by_device() || id.clone().is_some_and(|id| named(Subject::Token(id))),
            Holder::Backend => by_device(),
            Holder::Open | Holder::Anonymous | Holder::Key { .. } => false,
        }
    }

    /// All of them, lifted ones too.
    pub fn all(&self) -> Vec<Revocation> {
        self.entries.values().cloned().collect()
    }

    /// The one that is called so, unless it was lifted.
    pub fn get(&self, id: Uuid) -> Option<&Revocation> {
        self.entries.get(&id).filter(|entry| !entry.lifted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(subject: Subject, before_ms: u64) -> Revocation {
        Revocation { id: Uuid::new_v4(), subject, before_ms, created_ms: 0, expires_ms: 1000, lifted: false }
    }

    fn token(device: &str, id: Option<&str>, issued_ms: Option<u64>) -> Grant {
        let device = Some(format!("device:{device}").parse().unwrap());
        Grant { device, issued_ms, ..Grant::nothing(Holder::Token { id: id.map(Box::from) }) }
    }

    #[test]
    fn a_device_loses_the_tokens_that_were_issued_before() {
        let mut set = RevocationSet::default();
        assert!(set.merge([revocation(Subject::Device("42".into()), 500)], 1));
        assert!(set.names(&token("42", None, Some(499))) && !set.names(&token("42", None, Some(500))));
        assert!(set.names(&token("42", None, None)), "who does not say when counts as issued before");
        assert!(!set.names(&token("7", None, Some(1))));
        let key = Grant { holder: Holder::Key { name: "k".into(), rate: None }, ..token("42", None, None) };
        assert!(!set.names(&key));
        assert!(set.merge([revocation(Subject::Device("42".into()), 300)], 1), "an older one takes nothing back");
        assert!(set.names(&token("42", None, Some(400))));
    }

    #[test]
    fn a_token_is_revoked_by_its_id_whenever_it_was_issued() {
        let mut set = RevocationSet::default();
        set.merge([revocation(Subject::Token("t".into()), u64::MAX)], 1);
        assert!(set.names(&token("42", Some("t"), Some(900))) && !set.names(&token("42", Some("u"), None)));
        assert!(!set.names(&token("42", None, None)));
    }

    #[test]
    fn what_is_lifted_or_over_stands_no_more_and_does_not_come_back() {
        let mut set = RevocationSet::default();
        let entry = revocation(Subject::Device("42".into()), 500);
        set.merge([entry.clone()], 1);
        assert!(!set.merge([entry.clone()], 1), "nothing new");
        assert!(set.merge([Revocation { lifted: true, ..entry.clone() }], 1));
        assert!(!set.names(&token("42", None, None)) && set.get(entry.id).is_none());
        assert!(!set.merge([entry.clone()], 1), "an old copy");
        let copy = [entry];
        assert_eq!(Revocation::missing_from(&set.all(), &copy).len(), 1, "others learn that it is lifted");
        assert!(Revocation::missing_from(&copy, &set.all()).is_empty());
        assert!(set.merge([], 1000) && set.all().is_empty());
    }
}
