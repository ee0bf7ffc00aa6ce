//! The leases of producers, in this process.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;

use super::journal::{LeaseRecord, Record};
use super::{MemoryStore, State, now_ms};
use crate::model::{LeaseId, LeaseTime, StreamName};
use crate::store::producers::{HeldLease, LOOKS_APART, Lapsed, LeaseList, Look, MOST_LEASES, Producers, Taking};
use crate::store::{StoreError, millis};

/// All leases, by stream and by when they lapse.
#[derive(Default)]
pub(super) struct ProducerLeases {
    leases: HashMap<StreamName, Lease>,
    deadlines: BTreeSet<(u64, StreamName)>,
}

#[derive(Debug, Clone)]
struct Lease {
    id: LeaseId,
    time: Duration,
    key: Option<String>,
    renewed_ms: u64,
    deadline_ms: u64,
    /// Its lapse is being published.
    lapsed: bool,
}

impl Lease {
    fn record(&self) -> LeaseRecord {
        let Lease { id, time, key, renewed_ms, deadline_ms, lapsed } = self.clone();
        LeaseRecord { id: id.to_string(), time_ms: millis(time), key, renewed_ms, deadline_ms, lapsed }
    }
}

impl ProducerLeases {
    fn put(&mut self, stream: &StreamName, lease: Lease) {
        self.remove(stream);
        self.deadlines.insert((lease.deadline_ms, stream.clone()));
        self.leases.insert(stream.clone(), lease);
    }

    fn remove(&mut self, stream: &StreamName) {
        if let Some(lease) = self.leases.remove(stream) {
            self.deadlines.remove(&(lease.deadline_ms, stream.clone()));
        }
    }

    /// The record of whether there is a lease of the stream, and which.
    pub(super) fn record<'a>(&self, stream: &'a StreamName) -> Record<'a> {
        let name = stream.as_str().into();
        match self.leases.get(stream) {
            Some(lease) => Record::Lease { stream: name, lease: lease.record() },
            None => Record::LeaseGone { stream: name },
        }
    }

    /// The records of all.
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.leases
            .iter()
            .map(|(stream, lease)| Record::Lease { stream: stream.as_str().into(), lease: lease.record() })
    }

    /// Takes a lease over, or that there is none.
    pub(super) fn restore(&mut self, stream: &StreamName, record: Option<LeaseRecord>) {
        let lease = record.and_then(|record| {
            let LeaseRecord { id, time_ms, key, renewed_ms, deadline_ms, lapsed } = record;
            let (id, time) = (id.parse().ok()?, Duration::from_millis(time_ms));
            Some(Lease { id, time, key, renewed_ms, deadline_ms, lapsed })
        });
        match lease {
            Some(lease) => self.put(stream, lease),
            None => self.remove(stream),
        }
    }

    fn in_force(&self, stream: &StreamName, id: LeaseId) -> Option<&Lease> {
        self.leases.get(stream).filter(|lease| lease.id == id && !lease.lapsed)
    }

    fn take(
        &mut self,
        stream: &StreamName,
        id: LeaseId,
        time: Duration,
        key: Option<&str>,
        now_ms: u64,
        most: usize,
    ) -> Taking {
        let (id, taking) = match self.leases.get(stream) {
            Some(known) if key.is_some() && known.key.as_deref() == key && !known.lapsed => {
                (known.id, Taking::Again(known.id))
            }
            Some(known) => return Taking::Held(Duration::from_millis(known.deadline_ms.saturating_sub(now_ms))),
            None if self.leases.len() >= most => return Taking::Full,
            None => (id, Taking::Taken),
        };
        let (key, deadline_ms) = (key.map(str::to_owned), now_ms.saturating_add(millis(time)));
        self.put(stream, Lease { id, time, key, renewed_ms: now_ms, deadline_ms, lapsed: false });
        taking
    }

    fn renew(&mut self, stream: &StreamName, id: LeaseId, time: Duration, now_ms: u64) -> bool {
        let Some(lease) = self.in_force(stream, id).cloned() else { return false };
        let deadline_ms = now_ms.saturating_add(millis(time));
        self.put(stream, Lease { time, renewed_ms: now_ms, deadline_ms, ..lease });
        true
    }

    fn list(&self, most: usize) -> LeaseList {
        let found = self.deadlines.iter().take(most).filter_map(|(lapses_ms, stream)| {
            let Lease { time, renewed_ms, lapsed, .. } = *self.leases.get(stream)?;
            Some(HeldLease { stream: stream.clone(), time, renewed_ms, lapses_ms: *lapses_ms, lapsed })
        });
        LeaseList { total: self.leases.len() as u64, leases: found.collect() }
    }

    fn lapsed(&mut self, most: usize, reached: Duration, now_ms: u64) -> Vec<Lapsed> {
        let due: Vec<StreamName> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now_ms).take(most).map(|(_, of)| of.clone()).collect();
        let mut found = Vec::new();
        for stream in due {
            let Some(lease) = self.leases.get(&stream).cloned() else { continue };
            if !lease.lapsed && lease.time > reached {
                let deadline_ms = now_ms.saturating_add(millis(lease.time - reached));
                self.put(&stream, Lease { deadline_ms, ..lease });
                continue;
            }
            found.push(Lapsed { stream: stream.clone(), id: lease.id, time: lease.time, renewed_ms: lease.renewed_ms });
            // Behind all others: one whose lapse can't be published does not hold up those of others.
            self.put(&stream, Lease { lapsed: true, deadline_ms: now_ms, ..lease });
        }
        found
    }
}

#[async_trait]
impl Producers for MemoryStore {
    async fn take_lease(
        &self,
        stream: &StreamName,
        id: LeaseId,
        time: LeaseTime,
        key: Option<&str>,
    ) -> Result<Taking, StoreError> {
        self.step_with_room(|state| {
            let taking = state.producers.take(stream, id, time.time(), key, now_ms(), MOST_LEASES);
            state.record_lease(stream);
            taking
        })
        .await
    }

    async fn renew_lease(&self, stream: &StreamName, id: LeaseId, time: LeaseTime) -> Result<bool, StoreError> {
        self.step_with_room(|state| {
            let renewed = state.producers.renew(stream, id, time.time(), now_ms());
            state.record_lease(stream);
            renewed
        })
        .await
    }

    async fn end_lease(&self, stream: &StreamName, id: LeaseId) -> Result<bool, StoreError> {
        self.step(|state| {
            let in_force = state.producers.in_force(stream, id).is_some();
            if in_force {
                state.producers.remove(stream);
                state.record_lease(stream);
            }
            in_force
        })
        .await
    }

    async fn lapsed(&self, most: usize, reached: Duration, looked_ms: u64) -> Result<Look, StoreError> {
        let now_ms = now_ms();
        // The process was stopped, and renewals were not answered.
        let broken = now_ms.saturating_sub(looked_ms) > millis(LOOKS_APART);
        let reached = if broken { Duration::ZERO } else { reached };
        self.step(|state| {
            let lapsed = state.producers.lapsed(most, reached, now_ms);
            lapsed.iter().for_each(|lapsed| state.record_lease(&lapsed.stream));
            Look { now_ms, lapsed }
        })
        .await
    }

    async fn leases(&self, most: usize) -> Result<LeaseList, StoreError> {
        self.step(|state| state.producers.list(most)).await
    }

    async fn forget_lease(&self, lapsed: &Lapsed) -> Result<(), StoreError> {
        self.step(|state| {
            let leases = &state.producers.leases;
            if leases.get(&lapsed.stream).is_some_and(|lease| lease.id == lapsed.id && lease.lapsed) {
                state.producers.remove(&lapsed.stream);
                state.record_lease(&lapsed.stream);
            }
        })
        .await
    }
}

impl State {
    fn record_lease(&mut self, stream: &StreamName) {
        if let Some(journal) = &mut self.journal {
            journal.record(&self.producers.record(stream));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    fn stream(number: usize) -> StreamName {
        format!("topic:{number}").parse().unwrap()
    }

    fn taken(leases: &mut ProducerLeases, number: usize, now_ms: u64) -> LeaseId {
        let id = LeaseId::random();
        assert_eq!(leases.take(&stream(number), id, TIME, None, now_ms, 100), Taking::Taken);
        id
    }

    #[test]
    fn there_are_only_so_many_leases() {
        let mut leases = ProducerLeases::default();
        for number in 0..3 {
            let taking = leases.take(&stream(number), LeaseId::random(), TIME, None, 0, 2);
            assert_eq!(taking == Taking::Full, number == 2);
        }
    }

    #[test]
    fn many_whose_lapse_cannot_be_told_keep_no_other_from_being_found() {
        let mut leases = ProducerLeases::default();
        for number in 0..10 {
            taken(&mut leases, number, number as u64);
        }
        let mut found: Vec<StreamName> = Vec::new();
        for look in 0..5 {
            found.extend(leases.lapsed(2, TIME, 6000 + look).into_iter().map(|lapsed| lapsed.stream));
        }
        assert_eq!(found, (0..10).map(stream).collect::<Vec<_>>());
        assert_eq!(leases.lapsed(100, TIME, 7000).len(), 10, "they are found until they are forgotten");
    }

    #[test]
    fn what_ended_in_a_break_holds_for_its_whole_time_from_the_end_of_the_break() {
        let mut leases = ProducerLeases::default();
        let id = taken(&mut leases, 1, 0);
        // It is back since a second.
        assert_eq!(leases.lapsed(10, Duration::from_secs(1), 60_000), []);
        assert_eq!(leases.lapsed(10, TIME, 63_999), []);
        assert!(leases.renew(&stream(1), id, TIME, 63_999), "its producer is there");
        assert_eq!(leases.lapsed(10, TIME, 68_998), []);
        assert_eq!(leases.lapsed(10, TIME, 68_999).len(), 1);
        assert!(!leases.renew(&stream(1), id, TIME, 69_000), "it is being published");
    }
}
