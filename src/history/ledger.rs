//! What all records together show of every stream: publishes with their outcomes, ids with their payloads,
//! and what the store kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use super::record::{Loss, Outcome, Record};
use super::violation::Violation;
use crate::model::{EventId, GapReason, StreamName};

/// The place of a record in the history: what happened before what.
pub type Moment = usize;

/// One publish.
#[derive(Debug)]
pub struct Publish {
    pub producer: String,
    pub sequence: u64,
    pub stream: StreamName,
    pub begun: Moment,
    answer: Option<(Moment, Outcome)>,
}

impl Publish {
    /// As people call it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.producer, self.sequence)
    }

    fn id(&self) -> Option<EventId> {
        match self.answer {
            Some((_, Outcome::Ok { id })) => Some(id),
            _ => None,
        }
    }

    fn failed(&self) -> bool {
        matches!(self.answer, Some((_, Outcome::Failed)))
    }
}

/// One event of a stream.
#[derive(Debug)]
pub struct Known {
    pub publish: usize,
    pub acknowledged: bool,
    /// When it was first seen.
    pub since: Moment,
    /// A node showed it to a client and lived on: it notices when the store loses it.
    pub remembered: bool,
    /// How many of the losses are over for it: it was stored in what these left. See [`Ledger::read_sides`].
    outlived: usize,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The store has it, as far as the history shows.
    Kept,
    /// Older than what the store keeps.
    Trimmed,
    /// The store has forgotten it though it keeps older ones, or was emptied after it.
    Lost,
}

#[derive(Debug, Default)]
struct Stream {
    events: BTreeMap<EventId, Known>,
    log: Option<(BTreeSet<EventId>, Option<usize>)>,
    /// Publishes whose outcome is unknown and that were never seen. They may be stored all the same.
    open: usize,
}

/// A time in which the store lost something.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub kind: Loss,
    pub from: Moment,
    pub until: Moment,
}

/// What is known of every stream.
#[derive(Debug, Default)]
pub struct Ledger {
    publishes: Vec<Publish>,
    by_payload: HashMap<String, usize>,
    streams: HashMap<StreamName, Stream>,
    losses: Vec<Lost>,
    /// When clients got the notice that the store lost something of a stream.
    loss_notices: HashMap<StreamName, Vec<Moment>>,
    pub quiet: Option<Moment>,
}

impl Ledger {
    /// Reads a whole history, and finds what is wrong with it for any client.
    pub fn of(records: &[Record], found: &mut Vec<Violation>) -> Self {
        let mut ledger = Ledger::default();
        ledger.read_publishes(records, found);
        ledger.read_sightings(records, found);
        while ledger.read_sides(records) {}
        for stream in ledger.streams.keys().cloned().collect::<Vec<_>>() {
            ledger.check_log(&stream, found);
        }
        ledger.check_order(found);
        ledger
    }

    fn read_publishes(&mut self, records: &[Record], found: &mut Vec<Violation>) {
        let mut by_sequence: HashMap<(String, u64), usize> = HashMap::new();
        for (moment, record) in records.iter().enumerate() {
            match record {
                Record::Publish { producer, sequence, stream, payload, .. } => {
                    let at = self.publishes.len();
                    let twice = by_sequence.insert((producer.clone(), *sequence), at).is_some()
                        || self.by_payload.insert(payload.clone(), at).is_some();
                    if twice {
                        found.push(Violation::Unusable {
                            record: moment + 1,
                            why: format!("{producer}/{sequence} or its payload is there before"),
                        });
                    }
                    self.publishes.push(Publish {
                        producer: producer.clone(),
                        sequence: *sequence,
                        stream: stream.clone(),
                        begun: moment,
                        answer: None,
                    });
                }
                Record::Outcome { producer, sequence, outcome } => {
                    match by_sequence.get(&(producer.clone(), *sequence)) {
                        Some(at) => self.publishes[*at].answer = Some((moment, *outcome)),
                        None => found.push(Violation::Unusable {
                            record: moment + 1,
                            why: format!("the outcome of {producer}/{sequence}, which was never begun"),
                        }),
                    }
                }
                Record::Loss { kind } => self.losses.push(Lost { kind: *kind, from: moment, until: Moment::MAX }),
                Record::LossOver => {
                    if let Some(lost) = self.losses.last_mut() {
                        lost.until = lost.until.min(moment);
                    }
                }
                Record::Log { stream, ids, retention } => {
                    let log = Some((ids.iter().copied().collect(), *retention));
                    self.streams.entry(stream.clone()).or_default().log = log;
                }
                Record::Gap { stream, reason: GapReason::Lost, .. } => {
                    self.loss_notices.entry(stream.clone()).or_default().push(moment);
                }
                Record::Quiet => self.quiet = Some(moment),
                _ => {}
            }
        }
        for (at, publish) in self.publishes.iter().enumerate() {
            let stream = self.streams.entry(publish.stream.clone()).or_default();
            match publish.answer {
                Some((since, Outcome::Ok { id })) => {
                    let known = Known { publish: at, acknowledged: true, since, remembered: false, outlived: 0 };
                    if let Some(other) = stream.events.insert(id, known) {
                        found.push(Violation::OneIdForTwo {
                            stream: publish.stream.clone(),
                            id,
                            publishes: [self.publishes[other.publish].name(), publish.name()],
                        });
                    }
                }
                Some((_, Outcome::Failed)) => {}
                Some((_, Outcome::Unknown)) | None => stream.open += 1,
            }
        }
    }

    fn read_sightings(&mut self, records: &[Record], found: &mut Vec<Violation>) {
        let mut nodes: HashMap<u64, &str> = HashMap::new();
        let mut died: HashMap<&str, Moment> = HashMap::new();
        for (moment, record) in records.iter().enumerate() {
            match record {
                Record::Session { session, node: Some(node), .. } => _ = nodes.insert(*session, node),
                Record::Died { node } => _ = died.insert(node, moment),
                _ => {}
            }
        }
        // Every wrong sighting is reported once, however many clients saw it.
        let mut reported: HashSet<(usize, EventId)> = HashSet::new();
        for (moment, record) in records.iter().enumerate() {
            let Record::Event { session, stream, id, payload, .. } = record else { continue };
            let remembered = nodes.get(session).and_then(|node| died.get(node)).is_none_or(|died| *died < moment);
            let Some(&at) = self.by_payload.get(payload) else {
                found.push(Violation::NobodyPublished { stream: stream.clone(), id: *id, payload: short(payload) });
                continue;
            };
            let publish = &self.publishes[at];
            let mut wrong = |violation: Violation| {
                if reported.insert((at, *id)) {
                    found.push(violation);
                }
            };
            if publish.stream != *stream {
                wrong(Violation::WrongStream { stream: stream.clone(), id: *id, publish: publish.name() });
                continue;
            }
            if publish.failed() {
                wrong(Violation::FailedAppeared { stream: stream.clone(), id: *id, publish: publish.name() });
            }
            if let Some(stored) = publish.id().filter(|stored| stored != id) {
                let ids = [stored, *id];
                wrong(Violation::StoredTwice { stream: stream.clone(), publish: publish.name(), ids });
            }
            let events = &mut self.streams.entry(stream.clone()).or_default().events;
            match events.get_mut(id) {
                Some(known) if known.publish != at => {
                    let publishes = [self.publishes[known.publish].name(), publish.name()];
                    wrong(Violation::OneIdForTwo { stream: stream.clone(), id: *id, publishes });
                }
                Some(known) => {
                    known.since = known.since.min(moment);
                    known.remembered |= remembered;
                }
                None => {
                    let acknowledged = publish.id().is_some();
                    let known = Known { publish: at, acknowledged, since: moment, remembered, outlived: 0 };
                    events.insert(*id, known);
                }
            }
        }
        self.check_unknown(found);
    }

    /// Which events are of the history that a loss left. An old master may take events for as long as it lives, so the
    /// time of a publish does not say it. But where a session got the notice of a loss, or an event that another session
    /// had got behind one, everything that follows in that stream is of that history, and no notice of this loss can mean it. True when
    /// something was found that another look may find more by.
    fn read_sides(&mut self, records: &[Record]) -> bool {
        let mut sides: HashMap<(u64, &StreamName), usize> = HashMap::new();
        let mut found_more = false;
        for record in records {
            match record {
                Record::Gap { session, stream, next, reason: GapReason::Lost, .. } => {
                    // The first event after the place where histories part shows which loss it was.
                    let first = self.known(stream, *next).filter(|_| self.fate(stream, *next) != Fate::Lost);
                    let begun = first.map_or(0, |known| self.publish(known).begun);
                    sides.insert((*session, stream), self.losses.iter().filter(|lost| lost.from < begun).count());
                }
                Record::Event { session, stream, id, .. } => {
                    let side = sides.entry((*session, stream)).or_default();
                    let events = self.streams.get_mut(stream).map(|stream| &mut stream.events);
                    let Some(known) = events.and_then(|events| events.get_mut(id)) else { continue };
                    found_more |= known.outlived < *side;
                    *side = known.outlived.max(*side);
                    known.outlived = *side;
                }
                _ => {}
            }
        }
        found_more
    }

    /// The losses that an event may have fallen victim to.
    fn losses_of(&self, known: &Known) -> impl Iterator<Item = &Lost> {
        let begun = self.publish(known).begun;
        self.losses[known.outlived..].iter().filter(move |lost| begun < lost.until)
    }

    /// What nobody knew the outcome of turns out to be stored once, or not at all.
    fn check_unknown(&mut self, found: &mut Vec<Violation>) {
        for (name, stream) in &mut self.streams {
            let mut seen: HashMap<usize, EventId> = HashMap::new();
            for (id, known) in stream.events.iter().filter(|(_, known)| !known.acknowledged) {
                if let Some(first) = seen.insert(known.publish, *id) {
                    let publish = self.publishes[known.publish].name();
                    found.push(Violation::StoredTwice { stream: name.clone(), publish, ids: [first, *id] });
                }
            }
            stream.open = stream.open.saturating_sub(seen.len());
        }
    }

    /// What was acknowledged as stored is there in the end, or was allowed to go.
    fn check_log(&self, name: &StreamName, found: &mut Vec<Violation>) {
        let stream = &self.streams[name];
        let Some((log, retention)) = &stream.log else { return };
        let mut trimmed = false;
        for (id, known) in &stream.events {
            match self.fate(name, *id) {
                Fate::Kept => {}
                Fate::Trimmed => trimmed = true,
                Fate::Lost if self.losses_of(known).next().is_some() => {}
                Fate::Lost => {
                    let publish = self.publishes[known.publish].name();
                    found.push(Violation::Gone { stream: name.clone(), id: *id, publish });
                }
            }
        }
        if trimmed && retention.is_some_and(|retention| log.len() < retention) {
            let (kept, promised) = (log.len(), retention.unwrap_or_default());
            found.push(Violation::TrimmedEarly { stream: name.clone(), kept, promised });
        }
    }

    /// A producer that waits for each answer before the next publish finds them stored in that order.
    fn check_order(&self, found: &mut Vec<Violation>) {
        let mut newest: HashMap<(&str, &StreamName), &Publish> = HashMap::new();
        for publish in &self.publishes {
            let Some(id) = publish.id() else { continue };
            let before = newest.insert((&publish.producer, &publish.stream), publish);
            let Some((before, before_id)) = before.and_then(|before| Some((before, before.id()?))) else { continue };
            let Some((answered, _)) = before.answer else { continue };
            let stored = publish.answer.map_or(Moment::MAX, |(moment, _)| moment);
            let forked = self.losses.iter().any(|lost| lost.from < stored && before.begun < lost.until);
            if answered < publish.begun && id < before_id && !forked {
                found.push(Violation::StoredOutOfOrder {
                    stream: publish.stream.clone(),
                    publishes: [before.name(), publish.name()],
                    ids: [before_id, id],
                });
            }
        }
    }

    /// What became of an event in the end.
    pub fn fate(&self, name: &StreamName, id: EventId) -> Fate {
        let Some(stream) = self.streams.get(name) else { return Fate::Kept };
        let Some((log, _)) = &stream.log else { return Fate::Kept };
        if log.contains(&id) {
            return Fate::Kept;
        }
        if log.first().is_some_and(|first| *first < id) {
            return Fate::Lost;
        }
        let since = stream.events.get(&id).map_or(0, |known| self.publishes[known.publish].begun);
        let flushed = self.losses.iter().any(|lost| lost.kind == Loss::Flush && since < lost.until);
        if flushed { Fate::Lost } else { Fate::Trimmed }
    }

    /// Events of a stream between two positions, neither included, that are missing for a client that goes from
    /// the one to the other at `moment`. In a store that went back in time events are stored below others
    /// that it lost; a client that got those others did not leave out what did not exist yet.
    pub fn missing(&self, stream: &StreamName, after: EventId, before: EventId, moment: Moment) -> Vec<EventId> {
        if after >= before {
            return Vec::new();
        }
        let Some(events) = self.streams.get(stream).map(|stream| &stream.events) else { return Vec::new() };
        let next = events.get(&before).map(|known| self.publish(known).begun);
        let parted =
            |begun| next.is_some_and(|next| self.losses.iter().any(|lost| next < lost.until && lost.from < begun));
        // What is kept in the end is of one history.
        let kept = |id| self.fate(stream, id) == Fate::Kept;
        let before_is_kept = kept(before);
        events
            .range((Bound::Excluded(after), Bound::Excluded(before)))
            .map(|(id, known)| (*id, self.publish(known).begun))
            .filter(|(id, begun)| *begun < moment && (!parted(*begun) || (before_is_kept && kept(*id))))
            .map(|(id, _)| id)
            .collect()
    }

    /// An event.
    pub fn known(&self, stream: &StreamName, id: EventId) -> Option<&Known> {
        self.streams.get(stream)?.events.get(&id)
    }

    /// All events of a stream.
    pub fn events(&self, stream: &StreamName) -> impl Iterator<Item = (EventId, &Known)> {
        let events = self.streams.get(stream).map(|stream| stream.events.iter());
        events.into_iter().flatten().map(|(id, known)| (*id, known))
    }

    /// The publish behind an event.
    pub fn publish(&self, known: &Known) -> &Publish {
        &self.publishes[known.publish]
    }

    /// Whether a stream may hold events that nobody ever saw.
    pub fn has_open_publishes(&self, stream: &StreamName) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.open > 0)
    }

    /// The times in which the store lost something of `stream`, if they began before `moment`. A failover
    /// that kept all of a stream is none to it; but in which of several an event was lost is not known: nodes that have
    /// it in memory go on to send it.
    pub fn losses_before(&self, stream: &StreamName, moment: Moment) -> impl Iterator<Item = &Lost> {
        let lost_something =
            self.has_open_publishes(stream) || self.events(stream).any(|(id, _)| self.fate(stream, id) == Fate::Lost);
        self.losses.iter().filter(move |lost| lost.from < moment && (lost.kind == Loss::Flush || lost_something))
    }

    /// Whether a notice at `notice` may mean an event that the store lost. While another store takes over, the old one
    /// may still take events, after the first notice of where the two part.
    pub fn may_mean(&self, notice: Moment, known: &Known) -> bool {
        let begun = self.publish(known).begun;
        self.losses_of(known).any(|lost| lost.from < notice && (begun < notice || lost.from < begun))
    }

    /// Whether a store may have lost something of a stream behind `ancestor`.
    pub fn lost_behind(&self, stream: &StreamName, ancestor: EventId) -> bool {
        self.has_open_publishes(stream)
            || self.events(stream).any(|(id, _)| id > ancestor && self.fate(stream, id) == Fate::Lost)
    }

    /// When the first client got the notice of the last of these.
    pub fn first_notice(&self, stream: &StreamName, moment: Moment) -> Option<Moment> {
        let lost = self.losses_before(stream, moment).last()?.from;
        self.loss_notices.get(stream)?.iter().copied().find(|notice| *notice > lost)
    }

    /// Publishes by outcome: ok, failed, unknown.
    pub fn count(&self) -> [usize; 3] {
        let ok = self.publishes.iter().filter(|publish| publish.id().is_some()).count();
        let failed = self.publishes.iter().filter(|publish| publish.failed()).count();
        [ok, failed, self.publishes.len() - ok - failed]
    }
}

/// The beginning of a payload, for a line of text.
fn short(payload: &str) -> String {
    payload.chars().take(80).collect()
}
