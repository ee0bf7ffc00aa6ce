//! The state of a dispatcher, behind its lock.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Memory, Subscriber};
use crate::dispatch::budget::Budget;
use crate::dispatch::early::Early;
use crate::dispatch::merge::{Merge, Question, Urgency};
use crate::model::{EventId, Page};
use crate::store::StoreError;

/// What a dispatcher's lock is around.
pub struct State {
    pub phase: Phase,
    pub subscribers: Vec<Subscriber>,
    /// Temporary dispatchers, and connections that are being set up.
    pub pins: usize,
    /// In which of the scheduler's queues it waits.
    pub queued: Option<Urgency>,
    /// For when the scheduler has a timer.
    pub timer: Option<Instant>,
    /// Questions without an answer since the last one that had one.
    pub failures: u8,
    /// Whether the registry has noted that there is something in the ring.
    pub ring_known: bool,
    pub active: Instant,
    /// When the last one left.
    pub left: Instant,
}

/// Where it stands in its life.
pub enum Phase {
    Attaching(Box<Attaching>),
    Live(Box<Merge>),
    /// The route is being removed.
    Detaching,
    /// Not here any more. With the reason when the attach failed.
    Gone(Option<StoreError>),
}

/// The route is being written.
pub struct Attaching {
    /// What arrives meanwhile.
    pub early: Early,
    ring: Arc<Budget>,
    asked: bool,
    /// A sync was wanted meanwhile: the attach's answer may be from before the interruption that the sync is for.
    pub wanted: Option<Urgency>,
}

/// Whether a dispatcher can be followed.
pub enum Readiness {
    /// Yes; this is its head.
    Ready(EventId),
    /// Not yet; look again when it has changed.
    Pending,
    /// It is gone: make a new one, unless the attach just failed.
    Gone(Option<StoreError>),
}

/// What a dispatcher wants of the repair scheduler.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// [`Dispatcher::ask`](super::Dispatcher::ask) should be called, so soon.
    pub ask: Option<Urgency>,
    /// [`Dispatcher::tick`](super::Dispatcher::tick) should be called then.
    pub tick: Option<Instant>,
    /// Questions without an answer since the last one that had one.
    pub failures: u8,
}

impl Need {
    pub fn is_something(&self) -> bool {
        self.ask.is_some() || self.tick.is_some()
    }
}

impl State {
    /// Nobody follows yet, and nothing was asked.
    pub fn attaching(memory: Memory) -> Self {
        let attaching = Attaching { early: Early::new(memory.early), ring: memory.ring, asked: false, wanted: None };
        let now = Instant::now();
        State {
            phase: Phase::Attaching(Box::new(attaching)),
            subscribers: Vec::new(),
            pins: 0,
            queued: None,
            timer: None,
            failures: 0,
            ring_known: false,
            active: now,
            left: now,
        }
    }

    pub fn merge(&mut self) -> Option<&mut Merge> {
        match &mut self.phase {
            Phase::Live(merge) => Some(merge),
            _ => None,
        }
    }

    pub fn want_sync(&mut self, urgency: Urgency) {
        match &mut self.phase {
            Phase::Attaching(attaching) => attaching.wanted = attaching.wanted.max(Some(urgency)),
            Phase::Live(merge) => merge.want_sync(urgency),
            Phase::Detaching | Phase::Gone(_) => {}
        }
    }

    pub fn ask(&mut self) -> Option<Question> {
        self.queued = None;
        match &mut self.phase {
            Phase::Attaching(attaching) => (!std::mem::replace(&mut attaching.asked, true)).then_some(Question::Attach),
            Phase::Live(merge) => merge.question(),
            Phase::Detaching | Phase::Gone(_) => None,
        }
    }

    /// The attach was answered.
    pub fn attached(&mut self, answer: Result<&Page, &StoreError>, now: Instant) {
        let gone = Phase::Gone(answer.err().cloned());
        let Phase::Attaching(attaching) = std::mem::replace(&mut self.phase, gone) else { return };
        if let Ok(page) = answer {
            let mut merge = Merge::attached(page, attaching.early, attaching.ring, now);
            if let Some(urgency) = attaching.wanted {
                merge.want_sync(urgency);
            }
            self.phase = Phase::Live(Box::new(merge));
        }
    }

    /// What the scheduler does not know yet.
    pub fn need(&mut self) -> Need {
        let Phase::Live(merge) = &self.phase else { return Need::default() };
        let ask = merge.wants().filter(|urgency| self.queued < Some(*urgency));
        let tick = merge.deadline().filter(|at| self.timer.is_none_or(|timer| *at < timer));
        self.queued = self.queued.max(ask);
        self.timer = tick.or(self.timer);
        Need { ask, tick, failures: self.failures }
    }

    pub fn readiness(&self) -> Readiness {
        match &self.phase {
            Phase::Live(merge) => Readiness::Ready(merge.head()),
            Phase::Attaching(_) | Phase::Detaching => Readiness::Pending,
            Phase::Gone(error) => Readiness::Gone(error.clone()),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.pins == 0
    }
}
