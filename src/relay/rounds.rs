//! Takes rows, publishes them, settles them, again and again.
//!
//! A round is one transaction of the database around one request to the server. Whatever fails, the rows are still there
//! and are taken again, under the same idempotency keys, by this relay or another. Nothing waits inside of a round but
//! for the request itself, so that no transaction stands open while the server is away.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::faults::{blames_the_batch, in_time, in_words, is_forbidden, is_refusal, is_unsure};
use super::held::Held;
use super::row::Row;
use super::session::{OpenError, Session, TableError};
use super::settlement::Settlement;
use super::{Dsn, TableName};
use crate::backoff::Backoff;
use crate::client::{BATCH_EVENTS, Entry, Failure, Publisher};
use crate::log_limit::LogLimit;
use crate::metrics::RelayMetrics;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How old taken rows may be when they are sent. Older ones were taken by a process that was stopped meanwhile: the
/// database may have given them to another relay since.
const FRESH: Duration = Duration::from_secs(30);

/// For how long a server remembers idempotency keys.
const KEY_TIME: Duration = Duration::from_secs(300);

/// How often the lag is looked at while there is work, and a line about progress is logged.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// A relay of one table.
pub struct Relay {
    /// How the database is reached.
    pub dsn: Dsn,
    /// The table that is drained.
    pub table: TableName,
    /// Marks rows that were published, and deletes none.
    pub keep: bool,
    /// How often it looks for rows that nobody announced.
    pub poll: Duration,
    /// The server.
    pub publisher: Publisher,
    /// What it counts.
    pub metrics: Arc<RelayMetrics>,
}

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum RelayError {
    /// The table can't be drained as it is.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The database refuses this user, or has no such database.
    #[error("{place}: {reason}")]
    Refused { place: String, reason: String },
}

impl Relay {
    /// Relays until `stop`, and finishes the batch that is under way then. What may pass is waited for, however long it
    /// takes; what a start finds wrong with the table or the login is an error.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RelayError> {
        let mut state = State::new(self);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut started = false;
        while !stop.is_cancelled() {
            let failure = match state.connect().await {
                Ok(mut session) => {
                    started = true;
                    let since = Instant::now();
                    let ended = state.drain(&mut session, &stop).await;
                    if since.elapsed() > LONGEST_WAIT {
                        backoff.reset();
                    }
                    state.relay.metrics.connected.set(0);
                    match ended {
                        Ok(()) => break,
                        Err(error) => error,
                    }
                }
                Err(OpenError::Table(error)) if !started => return Err(error.into()),
                Err(OpenError::Table(error)) => error.to_string(),
                Err(OpenError::Database(error)) => {
                    let (place, reason) = (state.relay.dsn.place(), in_words(&error));
                    if !started && is_refusal(&error) {
                        return Err(RelayError::Refused { place, reason });
                    }
                    format!("{place} can't be reached: {reason}")
                }
            };
            state.relay.metrics.retried("database");
            if let Some(left_out) = state.database_log.admit() {
                tracing::warn!(left_out, "the database: {failure}; trying again");
            }
            tokio::select! {
                () = sleep(backoff.next_wait()) => {}
                () = stop.cancelled() => {}
            }
        }
        state.report();
        Ok(())
    }
}

/// What a round leads to.
enum Next {
    /// Another round at once: there may be more.
    Go,
    /// Nothing is to be published until rows are announced, or the next poll.
    Rest,
    /// The server takes nothing for now.
    Wait(Duration),
}

/// What became of a batch.
struct Outcome {
    settlement: Settlement,
    next: Next,
}

/// A relay at work.
struct State {
    relay: Relay,
    held: Held,
    /// What was published and may not be written down yet, as the database was lost in between. It comes before
    /// everything else, however long that takes.
    unsettled: Settlement,
    /// Rows of the next batch: fewer after the server found one too large.
    most: usize,
    backoff: Backoff,
    /// Since when it is unknown whether the server has rows that are still in the table.
    unsure: Option<Instant>,
    looked: Option<Instant>,
    reported: Instant,
    database_log: LogLimit,
    server_log: LogLimit,
    stream_log: LogLimit,
    rejected_log: LogLimit,
}

impl State {
    fn new(relay: Relay) -> Self {
        State {
            relay,
            held: Held::default(),
            unsettled: Settlement::default(),
            most: BATCH_EVENTS,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            unsure: None,
            looked: None,
            reported: Instant::now(),
            database_log: LogLimit::new(),
            server_log: LogLimit::new(),
            stream_log: LogLimit::new(),
            rejected_log: LogLimit::new(),
        }
    }

    async fn connect(&mut self) -> Result<Session, OpenError> {
        let Relay { dsn, table, keep, metrics, .. } = &self.relay;
        let session = Session::open(dsn, table, *keep).await?;
        metrics.connected.set(1);
        tracing::info!(database = dsn.place(), %table, "draining");
        Ok(session)
    }

    /// Rounds until `stop`, or until the database fails: then why.
    async fn drain(&mut self, session: &mut Session, stop: &CancellationToken) -> Result<(), String> {
        while !stop.is_cancelled() {
            self.look(session).await?;
            let next = self.round(session).await?;
            let now = Instant::now();
            self.relay.metrics.held.set(i64::try_from(self.held.waiting(now).len()).unwrap_or(i64::MAX));
            let full = self.held.full_until(now);
            let (wait, announced) = match next {
                _ if full.is_some() => (full.map(|until| until - now), false),
                Next::Go => continue,
                Next::Rest => (Some(self.relay.poll), true),
                Next::Wait(wait) => (Some(wait), false),
            };
            let announcement = async { if announced { session.announced().await } else { pending().await } };
            tokio::select! {
                () = sleep(wait.unwrap_or_default()) => {}
                () = announcement => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Looks at the lag now and then.
    async fn look(&mut self, session: &Session) -> Result<(), String> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL.min(self.relay.poll)) {
            self.relay.metrics.lag_seconds.set(in_time(session.lag()).await?);
            self.looked = Some(Instant::now());
        }
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.report();
        }
        Ok(())
    }

    /// A line about how far it got.
    fn report(&mut self) {
        let metrics = &self.relay.metrics;
        let (published, rejected) = (metrics.published.get(), metrics.rejected.get());
        tracing::info!(
            published,
            rejected,
            lag_seconds = metrics.lag_seconds.get(),
            held = metrics.held.get(),
            "relayed"
        );
        self.reported = Instant::now();
    }

    async fn round(&mut self, session: &mut Session) -> Result<Next, String> {
        if !self.unsettled.is_empty() {
            let settled = async { session.begin().await?.settle(&self.unsettled).await };
            in_time(settled).await?;
            self.settled();
        }
        let (fingerprint, taken) = (session.fingerprint(), Instant::now());
        let round = in_time(session.begin()).await?;
        let held = self.held.waiting(taken);
        let rows = in_time(round.take(&held, self.most)).await?;
        if rows.is_empty() {
            return Ok(Next::Rest);
        }
        let Outcome { settlement, next } = self.publish(&rows, fingerprint, taken).await;
        self.unsettled = settlement;
        in_time(round.settle(&self.unsettled)).await?;
        self.settled();
        Ok(next)
    }

    /// What was unsettled is written down.
    fn settled(&mut self) {
        let Settlement { published, rejected } = std::mem::take(&mut self.unsettled);
        self.relay.metrics.published.inc_by(published.len() as u64);
        self.relay.metrics.rejected.inc_by(rejected.len() as u64);
        for (mark, reason) in rejected {
            if let Some(left_out) = self.rejected_log.admit() {
                tracing::warn!(id = mark.id, reason, left_out, "a row can't be published");
            }
        }
    }

    /// Publishes rows with one request.
    async fn publish(&mut self, rows: &[Row], fingerprint: u64, taken: Instant) -> Outcome {
        let mut settlement = Settlement::default();
        let mut sound: Vec<&Row> = Vec::with_capacity(rows.len());
        let mut entries: Vec<Entry> = Vec::with_capacity(rows.len());
        for row in rows {
            match row.entry(fingerprint) {
                Ok(entry) => {
                    sound.push(row);
                    entries.push(entry);
                }
                Err(reason) => settlement.reject(row.mark, &reason),
            }
        }
        if entries.is_empty() || taken.elapsed() > FRESH {
            return Outcome { settlement, next: Next::Go };
        }
        let next = match self.relay.publisher.send_batch(&entries).await {
            Ok(outcomes) => self.sort(&sound, outcomes, &mut settlement),
            Err(failure) if blames_the_batch(&failure) => {
                if let [row] = sound[..] {
                    settlement.reject(row.mark, &failure.error.to_string());
                } else {
                    self.most = entries.len() / 2;
                }
                Next::Go
            }
            Err(failure) => self.refused(&failure),
        };
        Outcome { settlement, next }
    }

    /// Sorts rows by what became of them.
    fn sort(&mut self, rows: &[&Row], outcomes: Vec<Result<String, Failure>>, settlement: &mut Settlement) -> Next {
        let mut failed: Option<Failure> = None;
        let mut streams = HashSet::new();
        for (row, outcome) in rows.iter().zip(outcomes) {
            match outcome {
                Ok(_) => settlement.published.push(row.mark),
                Err(failure) if failure.passing || is_forbidden(&failure.error) => {
                    if streams.insert(&row.stream) {
                        self.hold(&row.stream, &failure);
                    }
                    failed = Some(failure);
                }
                Err(failure) => settlement.reject(row.mark, &failure.error.to_string()),
            }
        }
        for row in rows.iter().filter(|row| !streams.contains(&row.stream)) {
            self.held.release(&row.stream);
        }
        self.most = (self.most * 2).min(BATCH_EVENTS);
        match failed {
            Some(failure) if settlement.is_empty() => self.refused(&failure),
            _ => {
                self.backoff.reset();
                self.sure();
                Next::Go
            }
        }
    }

    /// The server did not take a row of this stream.
    fn hold(&mut self, stream: &str, failure: &Failure) {
        self.held.hold(stream, failure.wait, Instant::now());
        self.relay.metrics.retried("stream");
        if let Some(left_out) = self.stream_log.admit() {
            tracing::warn!(stream, left_out, "the server does not take the stream's rows for now: {}", failure.error);
        }
    }

    /// The server took nothing.
    fn refused(&mut self, failure: &Failure) -> Next {
        if is_unsure(&failure.error) {
            self.unsure.get_or_insert_with(Instant::now);
        }
        self.relay.metrics.retried("server");
        if let Some(left_out) = self.server_log.admit() {
            tracing::warn!(left_out, "the server: {}; trying again", failure.error);
        }
        Next::Wait(self.backoff.next_wait().max(failure.wait.unwrap_or_default()))
    }

    /// The server answered. Whether its idempotency keys still knew what it had already is another matter.
    fn sure(&mut self) {
        if let Some(since) = self.unsure.take()
            && since.elapsed() > KEY_TIME
        {
            let seconds = since.elapsed().as_secs();
            tracing::warn!(
                seconds,
                "rows of a request without an answer were published again after so long: they may have come twice"
            );
        }
    }
}
