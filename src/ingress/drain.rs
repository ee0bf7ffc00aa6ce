//! One leadership of draining, from its first page until it ends.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use super::backlog::{Backlog, Verdict};
use super::entry;
use crate::hub::Hub;
use crate::leader::{End, Leadership};
use crate::model::{Draft, EventId, StreamName};
use crate::spans::{Outcome, PublishSpans};
use crate::store::{Ingress, IngressPage, MAX_AHEAD_MS, Placed, Placement, Rejection, StoreError};
use crate::trouble::Work;

/// Longest wait for a new entry at a stretch. Then the stream is looked at: whether its ids went back, and how
/// old its oldest entry is.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Entries that are remembered as done, in case they come again under a store that lost its end.
const REMEMBERED: usize = 4096;

/// Entries in the backlog whose publishes are recorded as spans.
const MOST_TRACED: usize = 4096;

/// What outlives a leadership: it is about the stream, not about the node that drains it.
#[derive(Default)]
pub struct Memory {
    /// The newest entry read.
    highest: EventId,
    /// The newest that are done.
    done: VecDeque<EventId>,
}

impl Memory {
    fn remember(&mut self, done: &[EventId]) {
        self.done.extend(done);
        let excess = self.done.len().saturating_sub(REMEMBERED);
        self.done.drain(..excess);
    }
}

/// The lanes of the backlog: a region each, so that one that does not answer holds up no other.
pub struct Lanes {
    /// How many.
    pub count: usize,
    /// In which a stream is.
    pub of: Box<dyn Fn(&StreamName) -> usize + Send + Sync>,
}

/// The node that leads.
pub struct Drain<'a> {
    ingress: &'a dyn Ingress,
    hub: &'a Hub,
    leadership: Leadership<'a>,
    memory: &'a mut Memory,
    lanes: &'a Lanes,
    backlog: Backlog,
    placing: FuturesUnordered<BoxFuture<'a, Sent>>,
    reading: Option<BoxFuture<'a, Result<IngressPage, StoreError>>>,
    /// Entries may have to be lifted: above this mark, or as far as somebody else began. When nothing is under way.
    lifting: Option<Option<EventId>>,
    /// What streams had taken before, unless it turns out that their marks are of another ingress stream.
    suspects: Vec<(EventId, StreamName)>,
    /// Of entries in the backlog whose publishes are recorded.
    spans: HashMap<EventId, PublishSpans>,
    /// The newest entry that was taken into the backlog, or rejected.
    after: EventId,
    /// The newest id that the stream gave, when it was last read.
    given: EventId,
    /// Nothing was behind `after` when it was last read.
    at_end: bool,
    progress: bool,
    warned: bool,
}

/// What was due of a lane, and what became of it.
struct Sent {
    lane: usize,
    due: Vec<Placement>,
    answers: Vec<Result<Placed, StoreError>>,
}

/// What a drain waits for.
enum News {
    Placed(Sent),
    Read(Result<IngressPage, StoreError>),
    /// It is time to look again.
    Time,
}

impl<'a> Drain<'a> {
    /// A leadership that just began.
    pub fn new(
        ingress: &'a dyn Ingress,
        hub: &'a Hub,
        leadership: Leadership<'a>,
        memory: &'a mut Memory,
        lanes: &'a Lanes,
    ) -> Self {
        hub.metrics().ingress_draining.set(1);
        Drain {
            ingress,
            hub,
            leadership,
            memory,
            lanes,
            backlog: Backlog::new(lanes.count),
            placing: FuturesUnordered::new(),
            reading: None,
            lifting: None,
            suspects: Vec::new(),
            spans: HashMap::new(),
            after: EventId::ZERO,
            given: EventId::ZERO,
            at_end: false,
            progress: false,
            warned: false,
        }
    }

    /// Drains until the leadership ends.
    pub async fn run(mut self, stop: &mut watch::Receiver<bool>) -> End {
        loop {
            if *stop.borrow() {
                // What is under way is completed, or done again by the next leader.
                while let Some(sent) = self.placing.next().await {
                    if self.placed(sent).await.is_err() {
                        break;
                    }
                }
                return End::Stopped;
            }
            match self.leadership.renew().await {
                Ok(true) => {}
                Ok(false) => return End::Lost,
                Err(error) => return End::Failed { error, progress: self.progress },
            }
            if let Err(error) = self.step(stop).await {
                self.hub.troubles().note(Work::Ingress, None, Err::<&(), _>(&error));
                return End::Failed { error, progress: self.progress };
            }
        }
    }

    /// Has placed what is due, reads on, and takes in what comes of either.
    async fn step(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), StoreError> {
        if let (Some(mark), true) = (self.lifting, self.placing.is_empty()) {
            self.lift(mark).await?;
        }
        if self.lifting.is_none() {
            self.begin(Instant::now());
        }
        match self.news(stop).await {
            News::Placed(sent) => self.placed(sent).await,
            News::Read(page) => self.take(page?).await,
            News::Time => Ok(()),
        }
    }

    async fn placed(&mut self, sent: Sent) -> Result<(), StoreError> {
        let verdict = self.backlog.judge(sent.lane, &sent.due, sent.answers, Instant::now());
        self.carry_out(verdict, &sent.due).await
    }

    fn begin(&mut self, now: Instant) {
        if self.backlog.has_to_read_again() {
            self.backlog.read_again();
            self.spans.clear();
            (self.after, self.at_end, self.reading) = (EventId::ZERO, false, None);
        }
        let ingress = self.ingress;
        for (lane, due) in self.backlog.due(now) {
            self.backlog.sent(lane, now);
            self.placing.push(Box::pin(async move {
                let answers = ingress.place(&due).await;
                Sent { lane, due, answers }
            }));
        }
        if self.reading.is_none() && self.backlog.has_room(now) {
            let (after, at_end) = (self.after, self.at_end);
            let largest = self.hub.limits().event_bytes + entry::OVERHEAD;
            self.reading = Some(Box::pin(async move {
                if at_end {
                    ingress.wait(after, LONGEST_WAIT).await?;
                }
                ingress.entries(after, largest).await
            }));
        }
    }

    async fn news(&mut self, stop: &mut watch::Receiver<bool>) -> News {
        let renewal = self.leadership.renewal();
        let look = self.backlog.next_look().map_or(renewal, |look| look.min(renewal));
        let (placing, reading) = (&mut self.placing, &mut self.reading);
        let read = async {
            match reading {
                Some(read) => read.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(sent) = placing.next() => News::Placed(sent),
            page = read => {
                self.reading = None;
                News::Read(page)
            }
            () = tokio::time::sleep_until(look.into()) => News::Time,
            _ = stop.wait_for(|stop| *stop) => News::Time,
        }
    }

    /// Does what became necessary.
    async fn carry_out(&mut self, verdict: Verdict, sent: &[Placement]) -> Result<(), StoreError> {
        let Verdict { mut done, rejected, taken_before, held_up } = verdict;
        self.end_spans(&done, &rejected);
        let metrics = self.hub.metrics();
        metrics.published.inc_by(done.len() as u64);
        metrics.ingress_published.inc_by(done.len() as u64);
        metrics.ingress_held.set(self.backlog.held() as i64);
        match held_up {
            Some(reason) if !self.warned => {
                tracing::warn!(%reason, "an entry of the ingress stream can't be placed; its stream waits");
                self.warned = true;
            }
            Some(_) => {}
            None => self.warned &= self.backlog.held() > 0,
        }
        self.memory.remember(&done.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        // A mark above all that the stream ever gave is not of this stream, but of what it was before a failover
        // or a flush.
        let foreign = taken_before.iter().map(|(_, _, mark)| *mark).max().filter(|mark| *mark > self.given);
        let taken_before = taken_before.into_iter().map(|(id, stream, _)| (id, stream));
        match foreign {
            Some(mark) => {
                self.lifting = Some(self.lifting.flatten().max(Some(mark)));
                self.suspects.extend(taken_before);
            }
            None => done.extend(taken_before),
        }
        if !rejected.is_empty() {
            let of = |id| sent.iter().find(|placement| placement.id == id);
            let shown = rejected.into_iter().filter_map(|(id, reason)| Some(entry::rejection_of(of(id)?, reason)));
            self.reject(shown.collect()).await?;
        }
        self.settle(done).await
    }

    async fn settle(&mut self, done: Vec<(EventId, StreamName)>) -> Result<(), StoreError> {
        if done.is_empty() {
            return Ok(());
        }
        let ids: Vec<EventId> = done.iter().map(|(id, _)| *id).collect();
        let mut streams: Vec<StreamName> = done.into_iter().map(|(_, stream)| stream).collect();
        streams.sort_unstable();
        streams.dedup();
        self.ingress.settle(&ids, &streams).await
    }

    /// Takes a page into the backlog.
    async fn take(&mut self, page: IngressPage) -> Result<(), StoreError> {
        self.hub.troubles().note(Work::Ingress, None, Ok(&page));
        self.show_lag(&page);
        self.given = page.last;
        let behind = (page.last < self.memory.highest).then_some(self.memory.highest);
        if page.lifting || behind.is_some() {
            self.lifting = Some(self.lifting.flatten().max(behind));
        }
        // It is read again then, with other ids or from the beginning.
        if self.lifting.is_some() || self.backlog.has_to_read_again() {
            return Ok(());
        }
        self.at_end = page.entries.is_empty();
        let mut rejections = Vec::new();
        for entry in page.entries {
            if entry.id.ms > page.now_ms.saturating_add(MAX_AHEAD_MS) {
                // Were it taken, its stream would refuse all that come after it. Nothing is read after it either.
                rejections.push(entry::rejection(&entry, "its id is ahead of the store's clock".to_owned()));
                continue;
            }
            self.after = entry.id;
            let event = entry::read(&entry).and_then(|(stream, draft)| match self.hub.check(&stream, &draft) {
                Ok(()) => Ok((stream, draft)),
                Err(error) => Err(error.to_string()),
            });
            match event {
                Ok((stream, mut draft)) => {
                    self.trace(entry.id, &stream, &mut draft);
                    let lane = (self.lanes.of)(&stream);
                    self.backlog.add(entry.id, stream, draft, lane);
                }
                Err(reason) => rejections.push(entry::rejection(&entry, reason)),
            }
        }
        self.memory.highest = self.memory.highest.max(self.after);
        self.progress = true;
        self.reject(rejections).await
    }

    /// The publish of an entry begins with the entry, if it is recorded.
    fn trace(&mut self, id: EventId, stream: &StreamName, draft: &mut Draft) {
        if self.spans.len() < MOST_TRACED && self.hub.received().is_some() {
            draft.received = Some(UNIX_EPOCH + Duration::from_millis(id.ms));
            self.spans.extend(self.hub.trace(stream, draft).map(|spans| (id, spans)));
        }
    }

    fn end_spans(&mut self, done: &[(EventId, StreamName)], rejected: &[(EventId, String)]) {
        if self.spans.is_empty() {
            return;
        }
        let done = done.iter().map(|(id, _)| (id, Outcome::Stored { id: None, duplicate: false }));
        let rejected = rejected.iter().map(|(id, _)| (id, Outcome::Failed("rejected")));
        for (id, outcome) in done.chain(rejected) {
            if let Some(spans) = self.spans.remove(id) {
                spans.end(outcome);
            }
        }
    }

    async fn reject(&mut self, rejections: Vec<Rejection>) -> Result<(), StoreError> {
        if rejections.is_empty() {
            return Ok(());
        }
        self.hub.metrics().ingress_rejected.inc_by(rejections.len() as u64);
        self.ingress.reject(&rejections).await
    }

    /// Lifts the stream above an id; if it was below, everything begins anew. Nothing may be under way.
    async fn lift(&mut self, mark: Option<EventId>) -> Result<(), StoreError> {
        let lifted = self.ingress.lift(mark, self.memory.done.make_contiguous()).await?;
        self.lifting = None;
        let suspects = std::mem::take(&mut self.suspects);
        if !lifted {
            return self.settle(suspects).await;
        }
        tracing::warn!(?mark, "ids of the ingress stream went back, after a flush or a failover: raised them");
        self.backlog = Backlog::new(self.lanes.count);
        self.spans.clear();
        (self.after, self.at_end, self.reading) = (EventId::ZERO, false, None);
        Ok(())
    }

    fn show_lag(&self, page: &IngressPage) {
        let metrics = self.hub.metrics();
        metrics.ingress_lag_entries.set(page.waiting as i64);
        let age_ms = page.oldest.map_or(0, |oldest| page.now_ms.saturating_sub(oldest.ms));
        metrics.ingress_lag_seconds.set(age_ms as f64 / 1000.0);
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        // The lag is the next leader's to report.
        let metrics = self.hub.metrics();
        metrics.ingress_draining.set(0);
        metrics.ingress_held.set(0);
        metrics.ingress_lag_entries.set(0);
        metrics.ingress_lag_seconds.set(0.0);
    }
}
