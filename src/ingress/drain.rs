//! One leadership of draining, from its first page until it ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::backlog::{Backlog, Verdict};
use super::entry;
use crate::hub::Hub;
use crate::leader::{End, Leadership};
use crate::model::{EventId, StreamName};
use crate::store::{Ingress, IngressPage, MAX_AHEAD_MS, Placement, Rejection, StoreError};
use crate::trouble::Work;

/// Longest wait for a new entry at a stretch. Then the stream is looked at: whether its ids went back, and how
/// old its oldest entry is.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Entries that are remembered as done, in case they come again under a store that lost its end.
const REMEMBERED: usize = 4096;

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

/// The node that leads.
pub struct Drain<'a> {
    ingress: &'a dyn Ingress,
    hub: &'a Hub,
    leadership: Leadership<'a>,
    memory: &'a mut Memory,
    backlog: Backlog,
    /// The newest entry that was taken into the backlog, or rejected.
    after: EventId,
    /// The newest id that the stream gave, when it was last read.
    given: EventId,
    /// Nothing was behind `after` when it was last read.
    at_end: bool,
    progress: bool,
    warned: bool,
}

impl<'a> Drain<'a> {
    /// A leadership that just began.
    pub fn new(ingress: &'a dyn Ingress, hub: &'a Hub, leadership: Leadership<'a>, memory: &'a mut Memory) -> Self {
        hub.metrics().ingress_draining.set(1);
        Drain {
            ingress,
            hub,
            leadership,
            memory,
            backlog: Backlog::default(),
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
                return End::Stopped;
            }
            match self.leadership.renew().await {
                Ok(true) => {}
                Ok(false) => return End::Lost,
                Err(error) => return End::Failed { error, progress: self.progress },
            }
            let step = async {
                let due = self.backlog.due(Instant::now());
                if due.is_empty() && (self.at_end || !self.backlog.has_room()) {
                    self.wait(stop).await
                } else {
                    self.step(due).await
                }
            };
            if let Err(error) = step.await {
                self.hub.troubles().note(Work::Ingress, None, Err::<&(), _>(&error));
                return End::Failed { error, progress: self.progress };
            }
        }
    }

    /// Places what is due, and reads on meanwhile.
    async fn step(&mut self, due: Vec<Placement>) -> Result<(), StoreError> {
        if self.backlog.has_to_read_again() {
            (self.after, self.at_end) = (EventId::ZERO, false);
        }
        let reads = self.backlog.has_room() && !self.at_end;
        let (ingress, after, largest) = (self.ingress, self.after, self.hub.limits().event_bytes + entry::OVERHEAD);
        let place = async { if due.is_empty() { Vec::new() } else { ingress.place(&due).await } };
        let read = async { if reads { ingress.entries(after, largest).await.map(Some) } else { Ok(None) } };
        let (answers, page) = tokio::join!(place, read);
        let verdict = self.backlog.judge(&due, answers, Instant::now());
        let lifted = self.carry_out(verdict, &due).await?;
        match page? {
            // What was read has other ids by now.
            Some(_) if lifted => Ok(()),
            Some(page) => self.take(page).await,
            None => Ok(()),
        }
    }

    /// Does what became necessary. True when the stream was lifted: then everything is to be read again.
    async fn carry_out(&mut self, verdict: Verdict, sent: &[Placement]) -> Result<bool, StoreError> {
        let Verdict { mut done, rejected, taken_before, held_up } = verdict;
        let metrics = self.hub.metrics();
        metrics.published.inc_by(done.len() as u64);
        metrics.ingress_placed.inc_by(done.len() as u64);
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
        if let Some(mark) = foreign
            && self.lift(Some(mark)).await?
        {
            return Ok(true);
        }
        done.extend(taken_before.into_iter().map(|(id, stream, _)| (id, stream)));
        if !rejected.is_empty() {
            let of = |id| sent.iter().find(|placement| placement.id == id);
            let shown = rejected.into_iter().filter_map(|(id, reason)| Some(entry::rejection_of(of(id)?, reason)));
            self.reject(shown.collect()).await?;
        }
        if !done.is_empty() {
            let ids: Vec<EventId> = done.iter().map(|(id, _)| *id).collect();
            let mut streams: Vec<StreamName> = done.into_iter().map(|(_, stream)| stream).collect();
            streams.sort_unstable();
            streams.dedup();
            self.ingress.settle(&ids, &streams).await?;
        }
        Ok(false)
    }

    /// Takes a page into the backlog.
    async fn take(&mut self, page: IngressPage) -> Result<(), StoreError> {
        self.hub.troubles().note(Work::Ingress, None, Ok(&page));
        self.show_lag(&page);
        self.given = page.last;
        let behind = (page.last < self.memory.highest).then_some(self.memory.highest);
        if (page.lifting || behind.is_some()) && self.lift(behind).await? {
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
                Ok((stream, draft)) => self.backlog.add(entry.id, stream, draft),
                Err(reason) => rejections.push(entry::rejection(&entry, reason)),
            }
        }
        self.memory.highest = self.memory.highest.max(self.after);
        self.progress = true;
        self.reject(rejections).await
    }

    async fn reject(&self, rejections: Vec<Rejection>) -> Result<(), StoreError> {
        if rejections.is_empty() {
            return Ok(());
        }
        self.hub.metrics().ingress_rejected.inc_by(rejections.len() as u64);
        self.ingress.reject(&rejections).await
    }

    /// Lifts the stream above an id; if it was below, everything begins anew.
    async fn lift(&mut self, mark: Option<EventId>) -> Result<bool, StoreError> {
        let lifted = self.ingress.lift(mark, self.memory.done.make_contiguous()).await?;
        if lifted {
            tracing::warn!(?mark, "ids of the ingress stream went back, after a flush or a failover: raised them");
            self.backlog = Backlog::default();
            (self.after, self.at_end) = (EventId::ZERO, false);
        }
        Ok(lifted)
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), StoreError> {
        let renewal = self.leadership.renewal();
        let until = self.backlog.next_try().map_or(renewal, |retry| retry.min(renewal));
        let most = until.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        let wait = async {
            if self.backlog.has_room() {
                self.ingress.wait(self.after, most).await
            } else {
                tokio::time::sleep(most).await;
                Ok(())
            }
        };
        tokio::select! {
            waited = wait => waited?,
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.at_end = false;
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
