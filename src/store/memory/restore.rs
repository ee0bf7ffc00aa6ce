//! The store's state out of the journal, and what goes there of it.

use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::entry::Entry;
use super::journal::{Compacting, Contents, DataDirError, Fsync, Journal, Record};
use super::{MemoryStore, RetentionRules, State, StoreError, StreamLog, StreamName, now_ms};
use crate::model::{NodeId, Part};

/// How much of the state one step records once more at least, in bytes, while the journal is compacted.
const COMPACTED_AT_ONCE: usize = 64 * 1024;

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Streams that are known.
    pub streams: usize,
    /// Bytes of events and what goes with them, in memory.
    pub bytes: usize,
    /// Bytes of the files.
    pub disk_bytes: u64,
    /// Bytes at the end that were not acknowledged, and are cut.
    pub torn: u64,
    /// How long reading took.
    pub took: Duration,
}

/// Reads a data directory, changing nothing in it.
///
/// # Errors
/// When another process uses it, or it can't be read.
pub fn inspect(directory: &Path) -> Result<Restored, DataDirError> {
    let began = Instant::now();
    let mut state = State::default();
    let (rules, time) = (RetentionRules::default(), Duration::from_secs(u32::MAX.into()));
    let contents = Journal::inspect(directory, |record| state.replay(record, &rules, time))?;
    Ok(restored(&state, &contents, began))
}

fn restored(state: &State, contents: &Contents, began: Instant) -> Restored {
    Restored {
        streams: state.streams.len(),
        bytes: state.bytes,
        disk_bytes: contents.bytes(),
        torn: contents.torn,
        took: began.elapsed(),
    }
}

impl MemoryStore {
    /// A store that is kept in a directory, with what is there. Blocks while that is read.
    ///
    /// # Errors
    /// When another process uses the directory, when the system refuses, and when something in it that was acknowledged
    /// can't be read.
    pub fn open(
        rules: RetentionRules,
        position_time: Duration,
        max_bytes: usize,
        directory: &Path,
        fsync: Fsync,
    ) -> Result<(Self, Restored), DataDirError> {
        let began = Instant::now();
        let mut state = State::default();
        let (journal, contents) =
            Journal::open(directory, fsync, |record| state.replay(record, &rules, position_time))?;
        state.sweep(now_ms());
        let restored = restored(&state, &contents, began);
        let settling = Some(journal.settling());
        state.journal = Some(journal);
        Ok((MemoryStore { rules, position_time, max_bytes, state: Mutex::new(state), settling }, restored))
    }
}

impl State {
    fn replay(&mut self, record: Record<'_>, rules: &RetentionRules, position_time: Duration) {
        let mut with_log = |stream: &str, operation: &mut dyn FnMut(&mut StreamLog)| {
            // Only names that were checked are recorded.
            if let Ok(stream) = stream.parse::<StreamName>() {
                self.with_log(&stream, || StreamLog::new(rules.of(&stream), position_time), operation);
            }
        };
        match record {
            Record::Reset { stream } => {
                with_log(&stream, &mut |log| log.reset());
            }
            Record::Position { stream, position } => with_log(&stream, &mut |log| log.restore_position(position)),
            Record::Event { stream, event } => {
                let mut event = Some(event);
                with_log(&stream, &mut |log| event.take().into_iter().for_each(|event| log.restore_event(event, &[])));
            }
            Record::EventWith { stream, event, fields } => {
                let mut event = Some(event);
                with_log(&stream, &mut |log| {
                    event.take().into_iter().for_each(|event| log.restore_event(event, &fields));
                });
            }
            Record::Key { stream, key, id, digest, until_ms } => {
                with_log(&stream, &mut |log| log.restore_key(key.to_string(), id.into(), digest, until_ms));
            }
            Record::Revocations { json } => self.revocations.restore(&json, now_ms()),
            Record::Session { node, session } => self.sessions.restore(NodeId::from(node.into_owned()), session),
            Record::Connection { node, connection, open } => {
                self.sessions.restore_connection(&NodeId::from(node.into_owned()), connection, open.as_deref());
            }
            Record::Lease { stream, lease } => {
                stream.parse().into_iter().for_each(|stream| self.producers.restore(&stream, Some(lease.clone())));
            }
            Record::LeaseGone { stream } => {
                stream.parse().into_iter().for_each(|stream| self.producers.restore(&stream, None));
            }
            Record::Compacted { .. } => {}
        }
    }

    /// Sets room aside for what a step will record, see [`Journal::reserve`].
    pub(super) fn reserve(&mut self, data: usize) -> Result<(), StoreError> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.reserve(data))
    }

    /// Records the event that was just stored in a stream, and its key.
    pub(super) fn record_event(&mut self, stream: &StreamName, key: Option<&str>, now_ms: u64) {
        if let (Some(journal), Some(log)) = (&mut self.journal, self.streams.get(stream)) {
            let key = key.and_then(|key| log.key_record(stream.as_str(), key));
            log.newest_record(stream.as_str(), now_ms).iter().chain(&key).for_each(|record| journal.record(record));
        }
    }

    /// Records a part that was taken over from another store.
    pub(super) fn record_part(&mut self, stream: &StreamName, part: &Part, now_ms: u64) {
        if let (Some(journal), Some(log)) = (&mut self.journal, self.streams.get(stream)) {
            let name = stream.as_str();
            part.events.iter().for_each(|event| journal.record(&Entry::of(event).record(name, now_ms)));
            // Behind the events, as the stream may stand further than the newest of them.
            log.position_record(name).iter().for_each(|record| journal.record(record));
        }
    }

    /// Records some of the state once more, if the journal has much garbage.
    pub(super) fn compact(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let mut done = 0;
        while done < COMPACTED_AT_ONCE {
            match journal.next_to_compact(self.bytes, || self.streams.keys().cloned().collect()) {
                Compacting::Nothing => return,
                Compacting::Begin => {
                    journal.record(&self.revocations.record());
                    let records = self.sessions.records().chain(self.producers.records());
                    records.for_each(|record| journal.record(&record));
                    journal.seal();
                }
                Compacting::Stream(stream) => {
                    let Some(log) = self.streams.get(&stream).filter(|log| !log.is_blank()) else { continue };
                    if journal.reserve(log.records_bytes()).is_err() {
                        return journal.put_back(stream);
                    }
                    log.records(stream.as_str()).for_each(|record| journal.record(&record));
                    done += log.records_bytes();
                    journal.seal();
                }
                Compacting::End => return journal.end_compaction(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
