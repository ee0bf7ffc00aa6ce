//! A stream's log as the journal has it.

use std::borrow::Cow;

use super::{Once, Position, StreamLog};
use crate::model::{EventId, Fork};
use crate::store::memory::entry::Entry;
use crate::store::memory::journal::{EventRecord, Field, Id, PositionRecord, Record};
use crate::store::{Checkpoint, millis};

/// How often it is recorded that a position is held for longer: so many times in the time that it is held for.
const HOLDS: u64 = 16;

/// What of a log is recorded when it changes. Events and keys are recorded one by one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recorded {
    position: Option<Position>,
    held: u64,
}

impl StreamLog {
    /// What is recorded now. Each event brings `last` along, and that it alone has changed makes no difference.
    pub fn recorded(&self) -> Recorded {
        let position = self.position.map(|position| Position { last: EventId::ZERO, ..position });
        Recorded { position, held: self.position_until / (self.position_ms / HOLDS).max(1) }
    }

    /// The record of where it stands, unless it has no position.
    pub fn position_record<'a>(&self, stream: &'a str) -> Option<Record<'a>> {
        let position = self.position?;
        let fork = |fork: Fork| [fork.ancestor, fork.head, fork.before, fork.mark, fork.next].map(Id::from);
        let checkpoint = |at: Checkpoint| (at.position.into(), at.sent.map(Id::from));
        let record = PositionRecord {
            until_ms: self.position_until,
            last: position.last.into(),
            epoch: position.epoch.into(),
            fork: position.fork.map(fork),
            told: position.told.map(Id::from),
            acked: position.acked.map(Id::from),
            erased: position.erased.map(Id::from),
            checkpoint: position.checkpoint.map(checkpoint),
        };
        Some(Record::Position { stream: Cow::Borrowed(stream), position: record })
    }

    /// The record of its newest event, which was appended when the clock showed `at_ms`.
    pub fn newest_record<'a>(&'a self, stream: &'a str, at_ms: u64) -> Option<Record<'a>> {
        self.events.back().map(|entry| entry.record(stream, at_ms))
    }

    /// The record of a key that it remembers.
    pub fn key_record<'a>(&self, stream: &'a str, key: &'a str) -> Option<Record<'a>> {
        self.once.get(key).map(|once| once.record(stream, key))
    }

    /// All that there is of it.
    pub fn records<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = Record<'a>> {
        // The time of the newest event is the only one that is known, and the only one that counts.
        let at_ms = self.events_until.saturating_sub(millis(self.retention.time));
        let events = self.events.iter().map(move |entry| entry.record(stream, at_ms));
        let keys = self.once.iter().map(move |(key, once)| once.record(stream, key));
        let reset = Record::Reset { stream: Cow::Borrowed(stream) };
        std::iter::once(reset).chain(events).chain(self.position_record(stream)).chain(keys)
    }

    /// What its records take at most, in bytes.
    pub fn records_bytes(&self) -> usize {
        // Beside its texts an entry holds more numbers than its record takes bytes.
        self.bytes() + self.events.len() * 256
    }

    /// Forgets all of it that is recorded.
    pub fn reset(&mut self) {
        self.forget_events();
        self.once.clear();
        (self.events_until, self.position, self.position_until) = (0, None, 0);
    }

    /// Takes over where it stood.
    pub fn restore_position(&mut self, record: PositionRecord) {
        let PositionRecord { until_ms, last, epoch, fork, told, acked, erased, checkpoint } = record;
        let id = |id: Option<Id>| id.map(EventId::from);
        let fork = fork.map(|ids| {
            let [ancestor, head, before, mark, next] = ids.map(EventId::from);
            Fork { ancestor, head, before, mark, next }
        });
        let checkpoint = checkpoint.map(|(at, sent)| Checkpoint { position: at.into(), sent: id(sent) });
        let position = Position {
            last: last.into(),
            epoch: epoch.into(),
            fork,
            told: id(told),
            acked: id(acked),
            erased: id(erased),
            checkpoint,
        };
        let begins_anew = self.position.is_some_and(|before| before.epoch != position.epoch);
        let is_erased = |event: &Entry| position.erased.is_some_and(|erased| event.id <= erased);
        if begins_anew || self.events.back().is_some_and(is_erased) {
            self.forget_events();
        }
        self.position = Some(position);
        self.position_until = until_ms;
    }

    /// Takes an event over, as the newest, with its further fields.
    pub fn restore_event(&mut self, record: EventRecord<'_>, fields: &[Field<'_>]) {
        let at_ms = record.at_ms;
        if self.events_until <= at_ms {
            self.forget_events();
        }
        let entry = Entry::restored(record, fields);
        if let Some(position) = &mut self.position {
            position.last = entry.id;
        }
        self.append(entry, at_ms);
    }

    /// Takes a key over.
    pub fn restore_key(&mut self, key: String, id: EventId, digest: u64, until: u64) {
        self.once.insert(key, Once { id, digest, until });
    }
}

impl Once {
    fn record<'a>(&self, stream: &'a str, key: &'a str) -> Record<'a> {
        let (stream, key) = (Cow::Borrowed(stream), Cow::Borrowed(key));
        Record::Key { stream, key, id: self.id.into(), digest: self.digest, until_ms: self.until }
    }
}
