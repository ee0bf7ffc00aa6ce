//! One client, from session to session: did it get everything, once, in order, and nothing else?

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ledger::{Fate, Ledger, Moment};
use super::record::{Place, Record};
use super::violation::Violation;
use crate::model::{Cursor, EventId, Gap, GapReason, StreamName};

/// What a client has seen of one stream, as long as each session went on where the one before ended.
#[derive(Debug)]
struct Chain {
    /// Where it began, and when.
    from: EventId,
    since: Moment,
    position: EventId,
    seen: HashSet<EventId>,
    /// The holes of which it got notices.
    holes: Vec<(EventId, EventId)>,
    /// When it got the notice that the store lost something.
    loss_notices: Vec<Moment>,
    /// In which session it got the last of these.
    notified_in: u64,
    /// And got that one again in a later one.
    notified_again: bool,
    /// Where a notice put it back to, until it gets an event.
    put_back: Option<EventId>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    streams: Vec<StreamName>,
    after: Option<Place>,
    /// It got the position where it begins.
    placed: bool,
    /// Notices that wait for what comes after the hole, and when they came.
    pending: HashMap<StreamName, (Gap, Moment)>,
}

/// One client.
#[derive(Debug)]
pub struct Follower<'a> {
    ledger: &'a Ledger,
    client: &'a str,
    chains: BTreeMap<StreamName, Chain>,
    session: Option<Session>,
    /// Lost events of which nobody that lives could know.
    pub unknowable: HashSet<(StreamName, EventId)>,
    pub read_to_end: bool,
}

impl<'a> Follower<'a> {
    pub fn new(ledger: &'a Ledger, client: &'a str) -> Self {
        Follower {
            ledger,
            client,
            chains: BTreeMap::new(),
            session: None,
            unknowable: HashSet::new(),
            read_to_end: false,
        }
    }

    /// One record of this client's sessions.
    pub fn record(&mut self, moment: Moment, record: &Record, found: &mut Vec<Violation>) {
        if let Record::Session { session, streams, after, .. } = record {
            self.session = Some(Session {
                number: *session,
                streams: streams.clone(),
                after: after.clone(),
                placed: false,
                pending: HashMap::new(),
            });
            return;
        }
        // A session that is over gets nothing any more.
        let Some(mut session) = self.session.take_if(|session| Some(session.number) == record.session()) else {
            return found.push(self.unusable(moment, "the session is over"));
        };
        match record {
            Record::Position { at, .. } if !session.placed => self.begin(&mut session, at, moment, found),
            Record::Position { at, .. } => self.moved(&mut session, at, moment, found),
            Record::Event { stream, id, cursor, .. } => {
                self.event(&mut session, stream, *id, moment, found);
                if let Some(cursor) = cursor {
                    self.check_cursor(&session, cursor, stream, found);
                }
            }
            Record::Gap { stream, after, next, reason, .. } => {
                let gap = Gap { after: *after, next: *next, reason: *reason };
                if let Some((before, _)) = session.pending.insert(stream.clone(), (gap, moment)) {
                    // Nothing came after the hole of the first notice.
                    found.push(self.inexact(&session, stream, &before, *after));
                }
            }
            Record::End { .. } => return,
            _ => {}
        }
        self.session = Some(session);
    }

    /// The session got the position where it begins: in each stream it goes on with what the client has seen, or
    /// the client begins anew.
    fn begin(&mut self, session: &mut Session, at: &Place, moment: Moment, found: &mut Vec<Violation>) {
        session.placed = true;
        for stream in &session.streams {
            let Some(placed) = at.position(stream) else {
                found.push(self.unusable(moment, &format!("it has no position in {stream}")));
                continue;
            };
            let asked = session.after.as_ref().and_then(|after| after.position(stream));
            if let Some(asked) = asked.filter(|asked| *asked != placed) {
                let (session, stream) = (session.number, stream.clone());
                found.push(Violation::Misplaced { client: self.client.to_owned(), session, stream, asked, placed });
            }
            if self.chains.get(stream).is_none_or(|chain| chain.position != placed) {
                let chain = Chain {
                    from: placed,
                    since: moment,
                    position: placed,
                    seen: HashSet::new(),
                    holes: Vec::new(),
                    loss_notices: Vec::new(),
                    notified_in: session.number,
                    notified_again: false,
                    put_back: None,
                };
                self.chains.insert(stream.clone(), chain);
            }
        }
    }

    /// A position without an event: where a stream has moved, nothing may be left out either.
    fn moved(&mut self, session: &mut Session, at: &Place, moment: Moment, found: &mut Vec<Violation>) {
        for stream in session.streams.clone() {
            let to = at.position(&stream);
            let chain = self.chains.get(&stream);
            if let Some((to, _)) = to.zip(chain).filter(|(to, chain)| *to != chain.position) {
                self.advance(session, &stream, to, false, moment, found);
            }
        }
    }

    fn event(
        &mut self,
        session: &mut Session,
        stream: &StreamName,
        id: EventId,
        moment: Moment,
        found: &mut Vec<Violation>,
    ) {
        if !session.placed || !session.streams.contains(stream) {
            return found.push(self.unusable(moment, "an event that the session can't have"));
        }
        self.advance(session, stream, id, true, moment, found);
    }

    fn advance(
        &mut self,
        session: &mut Session,
        stream: &StreamName,
        to: EventId,
        is_event: bool,
        moment: Moment,
        found: &mut Vec<Violation>,
    ) {
        let (gap, notified) = session.pending.remove(stream).unzip();
        let Some(chain) = self.chains.get(stream) else { return };
        let at = chain.position;
        let lost = gap.as_ref().is_some_and(|gap| gap.reason == GapReason::Lost);
        let (client, number) = (self.client.to_owned(), session.number);
        if is_event && chain.seen.contains(&to) {
            found.push(Violation::Again { client, session: number, stream: stream.clone(), id: to });
        } else if to <= at && !lost {
            // Only a store that went back in time makes ids fall, and that is reported.
            found.push(Violation::Backwards { client, session: number, stream: stream.clone(), ids: [at, to] });
        }
        let mut missing = self.ledger.missing(stream, at, to, moment);
        if !is_event && self.ledger.known(stream, to).is_some() {
            missing.push(to);
        }
        missing.retain(|id| !chain.seen.contains(id));
        match &gap {
            Some(gap) => self.judge_gap(session, stream, gap, to, &missing, moment, found),
            None => {
                // What the store lost is reported as soon as a node can know it, which is judged in the end.
                missing.retain(|id| self.ledger.fate(stream, *id) != Fate::Lost);
                if !missing.is_empty() {
                    let (client, session) = (self.client.to_owned(), session.number);
                    found.push(Violation::Hole { client, session, stream: stream.clone(), at: [at, to], missing });
                }
            }
        }
        let known_already = gap.as_ref().is_some_and(|gap| self.left_before_the_mark(session, stream, gap, moment));
        let Some(chain) = self.chains.get_mut(stream) else { return };
        chain.position = to;
        if is_event {
            chain.seen.insert(to);
        }
        let was_put_back = gap.as_ref().is_some_and(|gap| chain.put_back == Some(gap.after));
        chain.put_back = gap.as_ref().filter(|gap| !is_event && gap.next < gap.after).map(|gap| gap.next);
        chain.holes.extend(gap.map(|gap| (gap.after, gap.next)));
        if lost && known_already {
            chain.notified_again = true;
        } else if lost && !was_put_back {
            chain.loss_notices.push(notified.unwrap_or(moment));
            (chain.notified_in, chain.notified_again) = (session.number, false);
        }
    }

    /// Whether it got notices of all losses, but of the last one in an earlier session that ended among events which were
    /// published before the first notice of it. The mark that notifies the rest comes behind those, and a
    /// position before the mark does not show whether its owner got the notice already: it gets it again, once.
    fn left_before_the_mark(&self, session: &Session, stream: &StreamName, gap: &Gap, moment: Moment) -> bool {
        let chain = &self.chains[stream];
        let published = self.ledger.known(stream, gap.after).map(|known| self.ledger.publish(known).begun);
        gap.reason == GapReason::Lost
            && chain.loss_notices.len() == self.ledger.losses_before(stream, moment).count()
            && chain.notified_in != session.number
            && !chain.notified_again
            && published
                .zip(self.ledger.first_notice(stream, moment))
                .is_some_and(|(published, notice)| published < notice)
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where all of this meets")]
    fn judge_gap(
        &self,
        session: &Session,
        stream: &StreamName,
        gap: &Gap,
        to: EventId,
        missing: &[EventId],
        moment: Moment,
        found: &mut Vec<Violation>,
    ) {
        let chain = &self.chains[stream];
        let (client, number) = (self.client.to_owned(), session.number);
        // A loss that was found after the client had passed its place.
        let passed = gap.reason == GapReason::Lost
            && gap.after < gap.next
            && (chain.seen.contains(&gap.next) || gap.next <= chain.from);
        let mut kept = missing.to_vec();
        if passed {
            // It says nothing of the way from there to here.
            let fate = |id: &EventId| self.ledger.fate(stream, *id);
            let left_out: Vec<_> = missing.iter().copied().filter(|id| fate(id) != Fate::Lost).collect();
            if !left_out.is_empty() {
                let (client, stream, at) = (client.clone(), stream.clone(), [chain.position, to]);
                found.push(Violation::Hole { client, session: number, stream, at, missing: left_out });
            }
            kept = self.ledger.missing(stream, gap.after, gap.next, moment);
        } else if gap.after != chain.position || gap.next != to {
            found.push(self.inexact(session, stream, gap, to));
        }
        kept.retain(|id| self.ledger.fate(stream, *id) == Fate::Kept);
        if !kept.is_empty() {
            let gap = gap.clone();
            found.push(Violation::GapOverKept { client, session: number, stream: stream.clone(), gap, kept });
            return;
        }
        let justified = match gap.reason {
            GapReason::Trimmed | GapReason::Expired => !missing.is_empty() || self.ledger.has_open_publishes(stream),
            // After each loss every client gets one notice: one that saw the lost tail too, as it is no longer true. One that
            // comes back with a lost position before any node has reported the loss is put back to what is
            // left; when it is reported, nobody can know that there it was no news.
            GapReason::Lost => {
                chain.loss_notices.len() < self.ledger.losses_before(stream, moment).count()
                    || chain.put_back == Some(gap.after)
                    || self.left_before_the_mark(session, stream, gap, moment)
            }
        };
        let justified = justified && (!passed || self.ledger.lost_behind(stream, gap.after));
        if !justified {
            let gap = gap.clone();
            found.push(Violation::FalseAlarm { client, session: number, stream: stream.clone(), gap });
        }
    }

    /// The cursor after an event is where the session stands in all of its streams.
    fn check_cursor(&self, session: &Session, cursor: &str, stream: &StreamName, found: &mut Vec<Violation>) {
        let parsed = cursor.parse::<Cursor>().ok();
        let wrong = session.streams.iter().any(|stream| {
            let position = parsed.as_ref().and_then(|cursor| cursor.position(stream));
            self.chains.get(stream).is_some_and(|chain| position != Some(chain.position))
        });
        if wrong {
            let (client, session) = (self.client.to_owned(), session.number);
            found.push(Violation::Cursor { client, session, stream: stream.clone(), cursor: cursor.to_owned() });
        }
    }

    /// Everything was read to the end, if the client is still there: has it seen all that it should have?
    pub fn quiet(&mut self, found: &mut Vec<Violation>) {
        let Some(session) = self.session.take() else { return };
        if session.placed {
            self.read_to_end = true;
            for stream in &session.streams {
                self.judge_stream(stream, found);
            }
        }
        self.session = Some(session);
    }

    fn judge_stream(&mut self, stream: &StreamName, found: &mut Vec<Violation>) {
        let Some(chain) = self.chains.get(stream) else { return };
        let (mut missed, mut lost) = (Vec::new(), Vec::new());
        for (id, known) in self.ledger.events(stream) {
            // Ids say what comes after a position. After a store went back in time they need not, but
            // what was published after the client was there is meant for it all the same.
            let meant = id > chain.from || self.ledger.publish(known).begun > chain.since;
            if !meant || chain.seen.contains(&id) {
                continue;
            }
            let covered = chain.holes.iter().any(|(after, next)| *after < id && id < *next);
            match self.ledger.fate(stream, id) {
                Fate::Trimmed if covered => {}
                Fate::Kept | Fate::Trimmed => missed.push(id),
                Fate::Lost => {
                    let begun = self.ledger.publish(known).begun;
                    let was_there = self
                        .ledger
                        .losses_before(stream, Moment::MAX)
                        .any(|lost| chain.since < lost.until && begun < lost.until);
                    let notified = covered
                        || chain
                            .loss_notices
                            .iter()
                            .any(|notice| *notice > chain.since && self.ledger.may_mean(*notice, known));
                    match was_there && !notified {
                        true if known.remembered => lost.push(id),
                        true => _ = self.unknowable.insert((stream.clone(), id)),
                        false => {}
                    }
                }
            }
        }
        let (client, stream) = (self.client.to_owned(), stream.clone());
        if !missed.is_empty() {
            found.push(Violation::Missed { client: client.clone(), stream: stream.clone(), missing: missed });
        }
        if !lost.is_empty() {
            found.push(Violation::LossNotReported { client, stream, missing: lost });
        }
    }

    fn inexact(&self, session: &Session, stream: &StreamName, gap: &Gap, next: EventId) -> Violation {
        let at = self.chains.get(stream).map_or(EventId::ZERO, |chain| chain.position);
        Violation::InexactGap {
            client: self.client.to_owned(),
            session: session.number,
            stream: stream.clone(),
            gap: gap.clone(),
            at: [at, next],
        }
    }

    fn unusable(&self, moment: Moment, why: &str) -> Violation {
        Violation::Unusable { record: moment + 1, why: format!("of {}: {why}", self.client) }
    }
}
