//! Revocations, in this process.

use std::collections::HashMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::journal::Record;
use super::{MemoryStore, now_ms};
use crate::store::StoreError;
use crate::store::revocations::{MOST_REVOCATIONS, Revocation, RevocationList, Revocations};

/// All revocations, and how often they have changed.
#[derive(Default)]
pub(super) struct Kept {
    entries: HashMap<Uuid, Revocation>,
    version: u64,
}

impl Kept {
    fn put(&mut self, entries: &[Revocation], now_ms: u64, most: usize) -> bool {
        self.entries.retain(|_, kept| kept.expires_ms > now_ms);
        let current = || entries.iter().filter(|entry| entry.expires_ms > now_ms);
        let new = current().filter(|entry| !self.entries.contains_key(&entry.id)).count();
        if self.entries.len() + new > most {
            return false;
        }
        self.version += 1;
        for entry in current() {
            self.entries.entry(entry.id).or_insert_with(|| entry.clone()).lifted |= entry.lifted;
        }
        true
    }

    /// The record of all.
    pub(super) fn record(&self) -> Record<'static> {
        record(self.entries.values())
    }

    /// Takes revocations over.
    pub(super) fn restore(&mut self, json: &str, now_ms: u64) {
        // What this version can't read, a newer one wrote, and it had asked for it in another format.
        self.put(&serde_json::from_str::<Vec<Revocation>>(json).unwrap_or_default(), now_ms, MOST_REVOCATIONS);
    }
}

fn record<'a>(entries: impl IntoIterator<Item = &'a Revocation>) -> Record<'static> {
    let entries: Vec<_> = entries.into_iter().collect();
    let json = serde_json::to_string(&entries).expect("revocations are made of numbers and texts");
    Record::Revocations { json: json.into() }
}

#[async_trait]
impl Revocations for MemoryStore {
    async fn put_revocations(&self, entries: &[Revocation]) -> Result<bool, StoreError> {
        self.step(|state| {
            let put = state.revocations.put(entries, now_ms(), MOST_REVOCATIONS);
            if let Some(journal) = state.journal.as_mut().filter(|_| put) {
                journal.record(&record(entries));
            }
            put
        })
        .await
    }

    async fn list_revocations(&self, version: Option<&str>) -> Result<Option<RevocationList>, StoreError> {
        self.step(|state| {
            let Kept { entries, version: current } = &state.revocations;
            let current = current.to_string();
            let entries = (version != Some(&current)).then(|| entries.values().cloned().collect());
            entries.map(|entries| RevocationList { version: current, entries })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::revocations::Subject;

    #[test]
    fn only_so_many_are_kept_and_those_whose_time_is_over_make_room() {
        let of = |expires_ms| Revocation {
            id: Uuid::new_v4(),
            subject: Subject::Token("t".into()),
            before_ms: 0,
            created_ms: 0,
            expires_ms,
            lifted: false,
        };
        let mut kept = Kept::default();
        let (first, second) = (of(10), of(20));
        assert!(kept.put(&[first.clone(), second.clone()], 5, 2));
        assert!(!kept.put(&[of(30)], 5, 2), "there is no room");
        assert!(kept.put(&[Revocation { lifted: true, ..first.clone() }], 5, 2), "what is there can be lifted");
        assert!(kept.entries[&first.id].lifted);
        assert!(kept.put(std::slice::from_ref(&first), 5, 2) && kept.entries[&first.id].lifted, "and stays so");
        assert!(kept.put(&[of(30)], 10, 2));
        assert_eq!(kept.entries.len(), 2);
    }
}
