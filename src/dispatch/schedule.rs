//! When which stream of a region is asked for: the repair scheduler, as a value.
//!
//! - *Attaches* and *urgent* questions, for whose answers clients wait, go at once and in that order.
//! - The *rotation* holds every stream, the one that was asked for longest ago first. It goes round once in a sync
//!   interval. After an interruption all its streams are marked, which is one number: whatever was filed before
//!   goes ahead at the pace of repairs.
//! - *Retries* wait for their time. While the store gives no answer, one group at a time finds out whether it does
//!   again, and everybody else keeps waiting.
//!
//! Urgent and routine questions have permits of their own, so neither keeps the other from the store.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::dispatcher::{Dispatcher, Need};
use super::merge::Urgency;

/// Streams that are asked for together. More would hardly make each cheaper, and publishes would wait longer behind
/// them: a sync takes Redis some 30 µs.
pub const GROUP: usize = 64;

/// Questions under way that clients wait for. They are pipelined, so this is about fairness to publishes, not
/// about throughput.
const MAX_URGENT: usize = 256;

/// Other questions under way: while one group is answered, the next is on its way.
const MAX_ROUTINE: usize = 2 * GROUP;

/// Syncs a second that all nodes of a region together may cost its store as a routine: about 5% of what one Redis
/// core does.
const SYNC_BUDGET: f64 = 5_000.0;

/// Syncs a second of all nodes of a region after an interruption. Publishes and attaches keep the larger part of a
/// Redis core, and half a million streams are through within a minute.
const REPAIR_BUDGET: f64 = 10_000.0;

/// What a node has of it in any case: many nodes seldom lose their channels at the same time.
const LEAST_REPAIRS: f64 = 1_000.0;

/// Streams that are due within this time are asked for together.
const GATHER: Duration = Duration::from_millis(200);

/// Streams that are looked at in one step of a walk.
const STRIDE: usize = 1024;

/// The wait before a question is asked again that was not answered, at first and at the longest.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Which permits a question takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Urgent,
    Routine,
}

/// A stream to be asked for.
pub struct Turn {
    pub dispatcher: Arc<Dispatcher>,
    pub lane: Lane,
    /// It is its turn in the rotation, whether or not it wants anything.
    pub in_rotation: bool,
}

/// What to do next.
pub enum Next {
    /// Ask for these; each permit is to be given back.
    Ask(Vec<Turn>),
    /// The deadlines of these have come.
    Tick(Vec<Arc<Dispatcher>>),
    /// Nothing before this time, or before something changes.
    Sleep(Option<Instant>),
}

/// A walk over all streams that are in the rotation when it begins. Those that are asked for meanwhile may be left out: what
/// they are asked for is newer.
pub struct Walk {
    /// How far it got, and where it ends.
    after: u64,
    last: u64,
}

/// The schedule of a node's streams of one region.
pub struct Schedule {
    region: u8,
    interval: Duration,
    nodes: u32,
    attaches: VecDeque<Arc<Dispatcher>>,
    urgent: VecDeque<Arc<Dispatcher>>,
    /// Retries whose time has come, and syncs that follow a question that was out when they were due.
    later: VecDeque<Arc<Dispatcher>>,
    /// By number, the lowest first; a stream that was filed again since is passed over.
    rotation: VecDeque<(u64, Weak<Dispatcher>)>,
    filed: u64,
    /// Streams that were filed below this number need a sync now.
    marked: u64,
    /// Since when the first of them does.
    marked_at: Instant,
    /// When the rotation went on last, and how far its next step is stretched.
    rotated: Instant,
    spread: f64,
    /// No further group for repairs before.
    paced: Instant,
    timers: BinaryHeap<Reverse<Timer>>,
    away: Option<Away>,
    urgent_out: usize,
    routine_out: usize,
    random: StdRng,
}

struct Timer {
    at: Instant,
    dispatcher: Weak<Dispatcher>,
    retry: bool,
}

/// The store gives no answers.
struct Away {
    since: Instant,
    /// No other try before.
    until: Instant,
    wait: Duration,
}

impl Schedule {
    /// An empty schedule. `seed` keeps nodes that started together apart.
    pub fn new(region: u8, interval: Duration, seed: u64, now: Instant) -> Self {
        Schedule {
            region,
            interval,
            nodes: 1,
            attaches: VecDeque::new(),
            urgent: VecDeque::new(),
            later: VecDeque::new(),
            rotation: VecDeque::new(),
            filed: 0,
            marked: 0,
            marked_at: now,
            rotated: now,
            spread: 1.0,
            paced: now,
            timers: BinaryHeap::new(),
            away: None,
            urgent_out: 0,
            routine_out: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// So many nodes share the store.
    pub fn set_nodes(&mut self, nodes: u32) {
        self.nodes = nodes.max(1);
    }

    /// The time between two syncs of a stream: as set, unless so many streams would cost the store more than its
    /// budget.
    pub fn interval(&self) -> Duration {
        let affordable = self.rotation.len() as f64 * f64::from(self.nodes) / SYNC_BUDGET;
        self.interval.max(Duration::from_secs_f64(affordable))
    }

    /// A stream is to be attached. From here on it is in the rotation.
    pub fn attach(&mut self, dispatcher: Arc<Dispatcher>, now: Instant) {
        self.file(&dispatcher, now);
        self.attaches.push_back(dispatcher);
    }

    /// A stream belongs here, whatever was known of that before.
    pub fn adopt(&mut self, dispatcher: &Arc<Dispatcher>, now: Instant) {
        if self.region != region_of(dispatcher.filed()) {
            self.file(dispatcher, now);
        }
    }

    /// What a dispatcher wants after whatever happened to it. After a failed question, it waits before the next.
    pub fn see_to(&mut self, dispatcher: &Arc<Dispatcher>, need: Need, now: Instant) {
        self.adopt(dispatcher, now);
        if let Some(at) = need.tick {
            self.set_timer(at, dispatcher, false);
        }
        match need.ask {
            Some(_) if need.failures > 0 => {
                let wait = self.spread_out(LONGEST_RETRY.min(FIRST_RETRY * 2u32.pow(need.failures.min(8) as u32 - 1)));
                self.set_timer(now + wait, dispatcher, true);
            }
            Some(Urgency::Urgent) => self.urgent.push_back(dispatcher.clone()),
            Some(Urgency::Routine) => self.later.push_back(dispatcher.clone()),
            None => {}
        }
    }

    /// Something may have been missed on every stream.
    pub fn mark_all(&mut self, now: Instant) {
        if !self.has_marked() {
            self.marked_at = now;
        }
        self.marked = self.next_number();
    }

    /// Begins a walk.
    pub fn walk(&self) -> Walk {
        Walk { after: 0, last: self.rotation.back().map_or(0, |(number, _)| *number) }
    }

    /// The next streams of a walk; `None` at its end.
    pub fn walk_on(&self, walk: &mut Walk) -> Option<Vec<Arc<Dispatcher>>> {
        let from = self.rotation.partition_point(|(number, _)| *number <= walk.after);
        let part = self.rotation.range(from..).take(STRIDE).take_while(|(number, _)| *number <= walk.last);
        let mut dispatchers = Vec::new();
        let before = walk.after;
        for (number, dispatcher) in part {
            walk.after = *number;
            dispatchers.extend(dispatcher.upgrade().filter(|dispatcher| dispatcher.filed() == *number));
        }
        (walk.after > before).then_some(dispatchers)
    }

    /// Whether a stream that was marked waits for its sync.
    fn has_marked(&self) -> bool {
        self.rotation.front().is_some_and(|(number, _)| *number < self.marked)
    }

    /// For how long the sync that is due longest is overdue. While the store gives no answers, all are.
    pub fn lag(&self, now: Instant) -> Duration {
        let due = if self.has_marked() { Some(self.marked_at) } else { self.rotates_at() };
        let away = self.away.as_ref().map(|away| away.since);
        due.into_iter().chain(away).min().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The store answered, or gave no answer. True when others need not wait for it any longer.
    pub fn note_answer(&mut self, answered: bool, now: Instant) -> bool {
        if answered {
            return self.away.take().is_some();
        }
        if self.away.is_none() {
            let until = now + self.spread_out(FIRST_RETRY);
            self.away = Some(Away { since: now, until, wait: FIRST_RETRY });
        }
        false
    }

    /// A permit is given back. True when somebody may wait for it.
    pub fn give_back(&mut self, lane: Lane) -> bool {
        let (out, limit) = match lane {
            Lane::Urgent => (&mut self.urgent_out, MAX_URGENT),
            Lane::Routine => (&mut self.routine_out, MAX_ROUTINE - GROUP + 1),
        };
        *out -= 1;
        *out + 1 >= limit
    }

    /// What to do now.
    pub fn next(&mut self, now: Instant) -> Next {
        let ticks = self.fire_timers(now);
        if !ticks.is_empty() {
            return Next::Tick(ticks);
        }
        let urgent = self.take_urgent(now);
        if !urgent.is_empty() {
            return Next::Ask(urgent);
        }
        let routine = self.take_routine(now);
        if !routine.is_empty() {
            return Next::Ask(routine);
        }
        Next::Sleep(self.wakes_at())
    }

    fn fire_timers(&mut self, now: Instant) -> Vec<Arc<Dispatcher>> {
        let mut ticks = Vec::new();
        while self.timers.peek().is_some_and(|Reverse(timer)| timer.at <= now) {
            let Some(Reverse(timer)) = self.timers.pop() else { break };
            let Some(dispatcher) = timer.dispatcher.upgrade() else { continue };
            if timer.retry {
                self.later.push_back(dispatcher);
            } else {
                ticks.push(dispatcher);
            }
        }
        ticks
    }

    fn take_urgent(&mut self, now: Instant) -> Vec<Turn> {
        let room = GROUP.min(MAX_URGENT - self.urgent_out);
        let mut turns = Vec::new();
        while turns.len() < room
            && let Some(dispatcher) = self.attaches.pop_front().or_else(|| self.urgent.pop_front())
        {
            turns.push(self.turn(dispatcher, Lane::Urgent, now));
        }
        self.urgent_out += turns.len();
        turns
    }

    /// A turn outside the rotation. Where the stream is marked, this is the sync that it is marked for.
    fn turn(&mut self, dispatcher: Arc<Dispatcher>, lane: Lane, now: Instant) -> Turn {
        if dispatcher.filed() < self.marked {
            self.file(&dispatcher, now);
        }
        Turn { dispatcher, lane, in_rotation: false }
    }

    fn take_routine(&mut self, now: Instant) -> Vec<Turn> {
        if self.routine_out + GROUP > MAX_ROUTINE || self.away.as_ref().is_some_and(|away| now < away.until) {
            return Vec::new();
        }
        let mut turns = Vec::new();
        if now >= self.paced {
            while turns.len() < GROUP
                && let Some(dispatcher) = self.later.pop_front()
            {
                turns.push(self.turn(dispatcher, Lane::Routine, now));
            }
        }
        if turns.is_empty() && self.rotates_at().is_some_and(|at| at <= now) {
            self.rotate(&mut turns, now);
        }
        if !turns.is_empty() {
            self.routine_out += turns.len();
            self.paced = now + Duration::from_secs_f64(turns.len() as f64 / self.repairs_a_second());
            self.try_store(now);
        }
        turns
    }

    /// Goes on by one group.
    fn rotate(&mut self, turns: &mut Vec<Turn>, now: Instant) {
        let marked = self.marked;
        let repairs = |front: &(u64, Weak<Dispatcher>)| front.0 < marked;
        let repairing = self.rotation.front().is_some_and(repairs);
        let group = if repairing { GROUP } else { self.group() };
        // Those that are gone cost nothing, but the lock should not be held for too many of them.
        for _ in 0..4 * GROUP {
            if turns.len() >= group || (repairing && !self.rotation.front().is_some_and(repairs)) {
                break;
            }
            let Some((number, dispatcher)) = self.rotation.pop_front() else { break };
            let Some(dispatcher) = dispatcher.upgrade() else { continue };
            if dispatcher.filed() == number {
                self.file(&dispatcher, now);
                turns.push(Turn { dispatcher, lane: Lane::Routine, in_rotation: true });
            }
        }
        self.rotated = now;
        self.spread = self.random.random_range(0.9..1.1);
    }

    /// When the rotation goes on.
    fn rotates_at(&self) -> Option<Instant> {
        let (number, _) = self.rotation.front()?;
        if *number < self.marked {
            return Some(self.paced);
        }
        let share = self.group() as f64 / self.rotation.len() as f64;
        Some(self.rotated + self.interval().mul_f64(share * self.spread))
    }

    /// How many streams of the rotation are due together.
    fn group(&self) -> usize {
        let streams = self.rotation.len();
        let gathered = streams as f64 * GATHER.as_secs_f64() / self.interval().as_secs_f64();
        (gathered.ceil() as usize).clamp(1, GROUP).min(streams.max(1))
    }

    fn repairs_a_second(&self) -> f64 {
        (REPAIR_BUDGET / f64::from(self.nodes)).max(LEAST_REPAIRS)
    }

    /// A group is on its way to a store that gave no answers: the next one waits longer.
    fn try_store(&mut self, now: Instant) {
        let Some(Away { since, wait, .. }) = self.away else { return };
        let wait = LONGEST_RETRY.min(wait * 2);
        self.away = Some(Away { since, until: now + self.spread_out(wait), wait });
    }

    fn wakes_at(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse(timer)| timer.at);
        let later = (!self.later.is_empty()).then_some(self.paced);
        let routine = later.into_iter().chain(self.rotates_at()).min();
        // An answer that comes back wakes what waits for a permit.
        let routine = routine.filter(|_| self.routine_out + GROUP <= MAX_ROUTINE);
        let routine = routine.map(|at| self.away.as_ref().map_or(at, |away| at.max(away.until)));
        timer.into_iter().chain(routine).min()
    }

    /// Puts a stream at the end of the rotation.
    fn file(&mut self, dispatcher: &Arc<Dispatcher>, now: Instant) {
        if self.rotation.is_empty() {
            self.rotated = now;
        }
        let number = self.next_number();
        dispatcher.set_filed(number);
        self.rotation.push_back((number, Arc::downgrade(dispatcher)));
    }

    /// Numbers of regions differ, so that what is filed in one is not taken for filed in another.
    fn next_number(&mut self) -> u64 {
        self.filed += 1;
        self.filed << 8 | u64::from(self.region)
    }

    fn set_timer(&mut self, at: Instant, dispatcher: &Arc<Dispatcher>, retry: bool) {
        self.timers.push(Reverse(Timer { at, dispatcher: Arc::downgrade(dispatcher), retry }));
    }

    fn spread_out(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(self.random.random_range(0.5..1.5))
    }
}

/// The region in which a stream with this number is filed.
fn region_of(number: u64) -> u8 {
    (number & 0xff) as u8
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}
