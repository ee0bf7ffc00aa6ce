//! What the store refuses for as long as it does: full, a command that its user may not run, a key of a wrong type.
//!
//! A refusal alone is only the answer to one request. One that lasts needs an operator, so it is logged
//! when it begins and when it ends, and shows in the health and the figures of the node meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::StreamName;
use crate::store::StoreError;

/// A trouble ends with a success, but not so soon after a refusal: a store at its limit takes one event and refuses
/// the next, and would fill the log.
const QUIET: Duration = Duration::from_secs(1);

/// A trouble of streams that nobody uses any more is forgotten after this time.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Streams that are remembered of a trouble. With more, it is one of the whole store.
const MAX_STREAMS: usize = 64;

/// What was asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Publishing.
    Publish,
    /// Following streams.
    Listen,
    /// Reading, acknowledging and managing.
    Read,
    /// Draining the ingress stream.
    Ingress,
}

impl Work {
    /// All of them.
    pub const ALL: [Work; 4] = [Work::Publish, Work::Listen, Work::Read, Work::Ingress];

    /// As figures and health show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Work::Publish => "publish",
            Work::Listen => "listen",
            Work::Read => "read",
            Work::Ingress => "ingress",
        }
    }
}

/// Why the store refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// There is no room.
    Full,
    /// Its user may not do it.
    Denied,
    /// What one stream's keys hold makes no sense.
    Data,
}

impl Cause {
    /// `None`: an error that passes, or that the whole store's health shows already.
    fn of(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::Full(_) => Some(Cause::Full),
            StoreError::Refused(reason) if !reason.starts_with("WRONGTYPE") => Some(Cause::Denied),
            StoreError::Refused(_) | StoreError::Protocol(_) => Some(Cause::Data),
            _ => None,
        }
    }
}

/// One of the things that the store refuses.
struct Trouble {
    since: Instant,
    refused: Instant,
    reason: String,
    /// Where it was met; `None` for what concerns the whole store, or too many streams.
    streams: Option<BTreeSet<StreamName>>,
}

/// What the store refuses now.
#[derive(Default)]
pub struct Troubles {
    /// Whether there is any: what works looks no further.
    any: AtomicBool,
    known: Mutex<BTreeMap<(Work, Cause), Trouble>>,
}

/// A look at one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TroubleReport {
    /// What is refused.
    pub work: Work,
    /// Why.
    pub reason: String,
    /// Since when.
    pub lasts: Duration,
}

impl Troubles {
    /// Takes note of what became of something that the store was asked for.
    pub fn note<T>(&self, work: Work, stream: Option<&StreamName>, answer: Result<&T, &StoreError>) {
        self.note_at(work, stream, answer.map(drop), Instant::now());
    }

    fn note_at(&self, work: Work, stream: Option<&StreamName>, answer: Result<(), &StoreError>, now: Instant) {
        match answer {
            Ok(()) if !self.any.load(Ordering::Relaxed) => {}
            Ok(()) => self.succeeded(work, stream, now),
            Err(error) => {
                if let Some(cause) = Cause::of(error) {
                    self.refused(work, cause, stream, error, now);
                }
            }
        }
    }

    fn refused(&self, work: Work, cause: Cause, stream: Option<&StreamName>, error: &StoreError, now: Instant) {
        let mut known = self.known.lock();
        let trouble = known.entry((work, cause)).or_insert_with(|| {
            let (work, stream) = (work.as_str(), stream.map(StreamName::as_str));
            tracing::warn!(work, stream, reason = %error, "the store refuses what it is asked for");
            let streams = (cause == Cause::Data).then(BTreeSet::new);
            Trouble { since: now, refused: now, reason: error.to_string(), streams }
        });
        trouble.refused = now;
        match (&mut trouble.streams, stream) {
            (Some(streams), Some(stream)) if streams.len() < MAX_STREAMS => {
                streams.insert(stream.clone());
            }
            (streams, _) => *streams = None,
        }
        self.any.store(true, Ordering::Relaxed);
    }

    fn succeeded(&self, work: Work, stream: Option<&StreamName>, now: Instant) {
        self.known.lock().retain(|(of, _), trouble| {
            let ends = *of == work
                && match (&mut trouble.streams, stream) {
                    (None, _) => now.saturating_duration_since(trouble.refused) >= QUIET,
                    (Some(streams), Some(stream)) => streams.remove(stream) && streams.is_empty(),
                    (Some(_), None) => false,
                };
            if ends {
                trouble.end(*of, now);
            }
            !ends
        });
        self.settle(now);
    }

    /// A stream was erased: what was wrong with its keys went with them.
    pub fn erased(&self, stream: &StreamName) {
        Work::ALL.into_iter().for_each(|work| self.note_at(work, Some(stream), Ok(()), Instant::now()));
    }

    /// What is refused now.
    pub fn report(&self) -> Vec<TroubleReport> {
        let now = Instant::now();
        self.settle(now);
        let lasts = |trouble: &Trouble| now.saturating_duration_since(trouble.since);
        let report = |((work, _), trouble): (&(Work, Cause), &Trouble)| TroubleReport {
            work: *work,
            reason: trouble.reason.clone(),
            lasts: lasts(trouble),
        };
        self.known.lock().iter().map(report).collect()
    }

    /// Forgets what nobody met for long.
    fn settle(&self, now: Instant) {
        let mut known = self.known.lock();
        known.retain(|(work, _), trouble| {
            let met = now.saturating_duration_since(trouble.refused) < FORGOTTEN;
            if !met {
                trouble.end(*work, now);
            }
            met
        });
        self.any.store(!known.is_empty(), Ordering::Relaxed);
    }
}

impl Trouble {
    fn end(&self, work: Work, now: Instant) {
        let after = now.saturating_duration_since(self.since);
        tracing::warn!(work = work.as_str(), ?after, reason = self.reason, "the store no longer refuses it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamName {
        name.parse().unwrap()
    }

    fn works(troubles: &Troubles) -> Vec<Work> {
        troubles.report().into_iter().map(|report| report.work).collect()
    }

    #[test]
    fn a_full_store_is_a_trouble_until_it_takes_something_and_not_at_once() {
        let (troubles, start) = (Troubles::default(), Instant::now());
        let full = StoreError::Full("full".to_owned());
        troubles.note_at(Work::Publish, Some(&stream("topic:a")), Err(&full), start);
        assert_eq!(works(&troubles), [Work::Publish]);
        troubles.note_at(Work::Publish, Some(&stream("topic:b")), Ok(()), start + QUIET / 2);
        troubles.note_at(Work::Read, Some(&stream("topic:a")), Ok(()), start + QUIET * 2);
        assert_eq!(works(&troubles), [Work::Publish]);
        troubles.note_at(Work::Publish, Some(&stream("topic:b")), Ok(()), start + QUIET);
        assert_eq!(works(&troubles), []);
    }

    #[test]
    fn what_is_wrong_with_one_stream_does_not_end_with_the_success_of_another() {
        let (troubles, start) = (Troubles::default(), Instant::now());
        let wrong = StoreError::Refused("WRONGTYPE".to_owned());
        for name in ["topic:a", "topic:b"] {
            troubles.note_at(Work::Publish, Some(&stream(name)), Err(&wrong), start);
        }
        for name in ["topic:c", "topic:a"] {
            troubles.note_at(Work::Publish, Some(&stream(name)), Ok(()), start + QUIET);
            assert_eq!(works(&troubles), [Work::Publish], "{name}");
        }
        troubles.erased(&stream("topic:b"));
        assert_eq!(works(&troubles), []);
    }

    #[test]
    fn what_passes_by_itself_is_no_trouble() {
        let troubles = Troubles::default();
        for error in [StoreError::KeyReused, StoreError::Unavailable("away".to_owned())] {
            troubles.note_at(Work::Publish, None, Err(&error), Instant::now());
        }
        assert_eq!(works(&troubles), []);
    }
}
