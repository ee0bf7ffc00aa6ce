//! `whimbrel publish`: one event from the command line, or many from standard input.
//!
//! A thread reads lines and makes events of them, a few hundred ahead; one batch at a time is on its way,
//! so that the order stays. A batch ends early rather than wait for a slow writer.

use std::future::pending;
use std::io::{BufRead, BufReader, IsTerminal as _, Read as _, stderr, stdin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::{RawValue, to_raw_value};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::client::{BATCH_BYTES, BATCH_EVENTS, BatchError, Entry, Options, Publisher};
use crate::model::{self, Durability, EventType, LeaseTime, StreamName, Ttl};

use super::server::Target;
use super::{Failure, log, print, say};

pub const NOTES: &str = "\
Examples:
  whimbrel publish device:42 '{\"unread\":3}' --type badge
  whimbrel publish topic:news --text 'Hello, world'
  tail -f app.log | whimbrel publish topic:log
  whimbrel publish topic:orders --json < orders.ndjson
  write-an-answer | whimbrel publish topic:answer:1 --heartbeat 15

Order is kept, and every event carries an idempotency key, so that a repeat after an outage stores \
nothing twice.";

/// The longest line that is read: no server can be configured to take more.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// How far reading may run ahead of publishing, in KiB.
const ROOM_KIB: u32 = 1024;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where to: device:NAME or topic:NAME
    stream: StreamName,
    /// The event's data, as JSON; when left out, each line of standard input is an event
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
    #[command(flatten)]
    server: Target,
    /// Type of the events ['message' when left out]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<EventType>,
    /// Idempotency key: a repeat with the same key within 5 minutes stores nothing
    #[arg(long, requires = "data")]
    key: Option<String>,
    /// For how long the events are delivered [for as long as they are kept when left out]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<Ttl>,
    /// Collapse key: a client that catches up gets only the newest event of each
    #[arg(long, value_name = "KEY")]
    collapse: Option<String>,
    /// When the server answers: when the event is on its 'disk', or on 'replicas:N' [when the store has it]
    #[arg(long, value_name = "WHEN", requires = "data", conflicts_with = "ephemeral")]
    durable: Option<Durability>,
    /// Only for clients that are connected now, and not stored; prints the number of nodes that it was sent to
    #[arg(long, requires = "data", conflicts_with_all = ["key", "ttl", "collapse"])]
    ephemeral: bool,
    /// DATA is text, not JSON
    #[arg(long, conflicts_with = "json")]
    text: bool,
    /// Lines of standard input are JSON, not text; empty ones are skipped
    #[arg(long)]
    json: bool,
    /// Hold the stream's lease for so many seconds at a time while standard input lasts: when this program dies
    /// before its end, readers get an event of type 'whimbrel:abandoned'. Waits while another producer
    /// has the lease
    #[arg(long, value_name = "SECONDS", conflicts_with = "data")]
    heartbeat: Option<LeaseTime>,
    /// For how long to try again while the server is away or overloaded
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    retry_seconds: u32,
}

impl Arguments {
    fn options(&self) -> Options {
        let (kind, collapse) = (self.kind.clone(), self.collapse.clone());
        Options { kind, ttl: self.ttl, collapse, durable: self.durable }
    }
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    log::start_quiet();
    let patience = Duration::from_secs(arguments.retry_seconds.into());
    let publisher = arguments.server.publisher()?.patience(patience);
    let publisher = publisher.on_retry(|error, patience| {
        say(&format!("{error}; trying again for up to {} s", patience.as_secs()));
    });
    match &arguments.data {
        Some(data) => {
            let data = if arguments.text { text(data) } else { json(data) };
            let data = data.map_err(|e| Failure::usage(format!("DATA {e}; --text takes it as text")))?;
            let Arguments { stream, kind, key, .. } = &arguments;
            if arguments.ephemeral {
                print(publisher.publish_ephemeral(stream, &data, kind.clone()).await?)?;
            } else {
                print(publisher.publish(stream, &data, &arguments.options(), key.as_deref()).await?)?;
            }
        }
        None => publish_input(&publisher, &arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Publishes the lines of standard input, under the lease of the stream if it is wanted.
async fn publish_input(publisher: &Publisher, arguments: &Arguments) -> Result<(), Failure> {
    let Some(time) = arguments.heartbeat else { return publish_lines(publisher, arguments, pending()).await };
    let lease = publisher.take_lease(&arguments.stream, time).await?;
    let lost = async { Failure::failed(format!("the lease is lost: {}", lease.keep().await)) };
    // What failed is not complete: then the lease is left to lapse, so that readers are notified.
    publish_lines(publisher, arguments, lost).await?;
    let failed = |error| Failure::failed(format!("all is published, but the lease could not be ended: {error}"));
    lease.end().await.map_err(failed)
}

/// Publishes the lines of standard input, unless `stopped` comes first.
async fn publish_lines(
    publisher: &Publisher,
    arguments: &Arguments,
    stopped: impl Future<Output = Failure>,
) -> Result<(), Failure> {
    if stdin().is_terminal() && stderr().is_terminal() {
        say("each line is an event; Ctrl-D ends the input");
    }
    let started = Instant::now();
    let progress = progress_bar();
    let mut lines = Lines::read(BufReader::new(stdin()), arguments);
    let mut published: u64 = 0;
    let publishing = async {
        while let Some(batch) = lines.batch().await {
            let answer = publisher.publish_batch(&batch.entries).await;
            published += answer.as_ref().map_or_else(|e| e.entries.start, Vec::len) as u64;
            progress.set_position(published);
            if let Some(failure) = answer.err().map(|e| batch.blame(&e)).or(batch.failure) {
                return Err(failure);
            }
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = publishing => outcome,
        failure = stopped => Err(failure),
    };
    progress.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let events = if published == 1 { "event" } else { "events" };
    say(&format!("published {published} {events} to {} in {seconds:.1} s", arguments.stream));
    outcome
}

/// Hidden unless standard error is a terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}, {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Events on their way from the reading thread.
struct Lines {
    arriving: mpsc::Receiver<Line>,
    /// One that no longer fitted into the batch before.
    held: Option<Line>,
    room: Arc<Semaphore>,
}

/// A line that became an event, or the reason why it can't.
struct Line {
    number: u64,
    entry: Result<Entry, Failure>,
    kib: u32,
}

#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    numbers: Vec<u64>,
    /// The line after the batch is none that can be published.
    failure: Option<Failure>,
}

impl Lines {
    fn read(input: impl BufRead + Send + 'static, arguments: &Arguments) -> Self {
        let (sender, arriving) = mpsc::channel(BATCH_EVENTS);
        let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
        let source =
            Source { stream: arguments.stream.clone(), options: arguments.options(), json: arguments.json, key: key() };
        let (handle, free) = (Handle::current(), Arc::clone(&room));
        // A thread of its own: a read from a terminal or pipe can't be interrupted, and the runtime would
        // wait for it at the end.
        std::thread::spawn(move || source.read(input, |line| handle.block_on(hand_over(&sender, &free, line))));
        Lines { arriving, held: None, room }
    }

    /// What has arrived, at least one line and at most a batch. `None`: the input has ended.
    async fn batch(&mut self) -> Option<Batch> {
        let mut next = match self.held.take() {
            Some(line) => Some(line),
            None => self.arriving.recv().await,
        };
        next.as_ref()?;
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(line) = next {
            match &line.entry {
                Ok(entry) if bytes > 0 && bytes + entry.bytes() > BATCH_BYTES => {
                    self.held = Some(line);
                    break;
                }
                Ok(entry) => bytes += entry.bytes(),
                Err(_) => {}
            }
            self.room.add_permits(line.kib as usize);
            match line.entry {
                Ok(entry) => batch.entries.push(entry),
                Err(failure) => {
                    batch.failure = Some(failure);
                    break;
                }
            }
            batch.numbers.push(line.number);
            if batch.entries.len() == BATCH_EVENTS {
                break;
            }
            next = self.arriving.try_recv().ok();
        }
        Some(batch)
    }
}

impl Batch {
    /// Says which lines an error is about.
    fn blame(&self, error: &BatchError) -> Failure {
        match self.numbers.get(error.entries.clone()) {
            Some([line]) => Failure::failed(format!("line {line}: {error}")),
            Some([first, .., last]) => Failure::failed(format!("lines {first} to {last}: {error}")),
            _ => Failure::failed(error),
        }
    }
}

/// Waits for room, then sends. Whether anybody still listens.
async fn hand_over(sender: &mpsc::Sender<Line>, room: &Semaphore, line: Line) -> bool {
    if let Ok(permits) = room.acquire_many(line.kib).await {
        permits.forget();
    }
    sender.send(line).await.is_ok()
}

/// What makes events of lines.
struct Source {
    stream: StreamName,
    options: Options,
    json: bool,
    key: String,
}

impl Source {
    /// Reads to the end, or until `hand_over` finds no receiver, or to the first line that can't be
    /// an event.
    fn read(&self, mut input: impl BufRead, mut hand_over: impl FnMut(Line) -> bool) {
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            let entry = match (&mut input).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes) {
                Ok(0) => return,
                Ok(_) => self.entry(number, &bytes),
                Err(e) => Err(format!("can't be read: {e}")),
            };
            let entry = match entry {
                Ok(Some(entry)) => Ok(entry),
                Ok(None) => continue,
                Err(reason) => Err(Failure::failed(format!("line {number} {reason}"))),
            };
            let failed = entry.is_err();
            let kib = u32::try_from(bytes.len() / 1024).map_or(ROOM_KIB, |kib| (kib + 1).min(ROOM_KIB));
            if !hand_over(Line { number, entry, kib }) || failed {
                return;
            }
        }
    }

    /// The event that a line is; `None` for an empty line among JSON.
    fn entry(&self, number: u64, line: &[u8]) -> Result<Option<Entry>, String> {
        // Only the line feed ends a line: a carriage return is part of a text, and white space in JSON.
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(format!("is longer than {MAX_LINE_BYTES} bytes"));
        }
        let line = std::str::from_utf8(line).map_err(|e| format!("is not UTF-8 (at byte {})", e.valid_up_to() + 1))?;
        if self.json && line.trim().is_empty() {
            return Ok(None);
        }
        let data = if self.json { json(line)? } else { text(line)? };
        Ok(Some(Entry::new(&self.stream, &data, &self.options, &format!("{}-{number}", self.key))))
    }
}

/// What the keys of this run begin with.
fn key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn text(text: &str) -> Result<Box<RawValue>, String> {
    to_raw_value(text).map_err(|e| format!("can't be written as JSON: {e}"))
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    model::json::check(text.as_bytes()).map_err(|e| e.to_string())?;
    serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &'static [u8], json: bool) -> Lines {
        let arguments = Arguments {
            stream: "topic:news".parse().unwrap(),
            data: None,
            server: Target::default(),
            kind: None,
            key: None,
            ttl: None,
            collapse: None,
            durable: None,
            ephemeral: false,
            text: false,
            json,
            heartbeat: None,
            retry_seconds: 0,
        };
        Lines::read(input, &arguments)
    }

    /// Everything in the input, and how it ended.
    async fn read(mut lines: Lines) -> (Vec<Batch>, Option<String>) {
        let mut batches = Vec::new();
        while let Some(batch) = lines.batch().await {
            batches.push(batch);
        }
        let failure = batches.iter_mut().find_map(|batch| batch.failure.take());
        (batches, failure.map(|failure| failure.to_string()))
    }

    fn data(batches: &[Batch]) -> Vec<String> {
        let debug = batches.iter().flat_map(|batch| &batch.entries).map(|entry| format!("{entry:?}"));
        debug.map(|text| text.split_once("data").unwrap().1.replace('\\', "")).collect()
    }

    #[tokio::test]
    async fn each_line_is_one_text_kept_exactly() {
        let (batches, failure) = read(lines(b"a \"b\"\n\n c\r\nend", false)).await;
        assert_eq!((data(&batches).len(), failure), (4, None), "an empty line is an empty text");
        assert!(data(&batches)[2].contains("\" cr\""), "the carriage return, escaped, is kept: {:?}", data(&batches));
    }

    #[tokio::test]
    async fn lines_of_json_skip_empty_ones_and_name_the_one_that_is_none() {
        let (batches, failure) = read(lines(b"1\n\n{\"a\":1}\n{oops\n3\n", true)).await;
        assert_eq!(data(&batches).len(), 2);
        assert!(failure.unwrap().starts_with("line 4 is not JSON: "));
        assert_eq!(batches.iter().flat_map(|batch| batch.numbers.clone()).collect::<Vec<_>>(), [1, 3]);
    }

    #[tokio::test]
    async fn a_line_that_is_not_text_is_named() {
        let (batches, failure) = read(lines(b"a\nb\xff\n", false)).await;
        assert_eq!((data(&batches).len(), failure.unwrap()), (1, "line 2 is not UTF-8 (at byte 2)".into()));
    }

    #[tokio::test]
    async fn batches_have_bounds_and_keep_the_order() {
        let many: &'static [u8] = Vec::leak("x\n".repeat(1200).into_bytes());
        let (batches, _) = read(lines(many, false)).await;
        assert!(batches.iter().all(|batch| (1..=BATCH_EVENTS).contains(&batch.entries.len())));
        let numbers: Vec<u64> = batches.iter().flat_map(|batch| batch.numbers.clone()).collect();
        assert_eq!(numbers, (1..=1200).collect::<Vec<_>>());

        let long: &'static [u8] = Vec::leak(format!("{}\n", "y".repeat(100_000)).repeat(20).into_bytes());
        let (batches, _) = read(lines(long, false)).await;
        assert_eq!(batches.iter().map(|batch| batch.entries.len()).sum::<usize>(), 20);
        assert!(batches.iter().all(|batch| batch.entries.len() <= 2));

        let huge: &'static [u8] = Vec::leak(vec![b'z'; 3 * 1024 * 1024]);
        assert_eq!(data(&read(lines(huge, false)).await.0).len(), 1, "a line larger than all room still passes");
    }

    #[test]
    fn an_error_names_the_lines_it_is_about() {
        let batch = Batch { numbers: vec![4, 6, 7], ..Batch::default() };
        let error = crate::client::ClientError::Entry { slug: "too-large".into(), detail: "too long".into() };
        let blame = |entries| batch.blame(&BatchError { entries, error: error.clone() }).to_string();
        assert_eq!(blame(1..2), "line 6: too long (too-large)");
        assert_eq!(blame(0..3), "lines 4 to 7: too long (too-large)");
    }
}
