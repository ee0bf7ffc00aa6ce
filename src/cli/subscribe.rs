//! `whimbrel subscribe`: follows streams and prints their events.
//!
//! A task follows; this side prints what has arrived, flushes, and only then moves the cursor: what was
//! not surely printed is printed by the next run.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::client::{ClientError, Envelope, GapNotice, Notice, Subscriber, Subscription};
use crate::model::{EventType, StreamName};

use super::cursor_file::CursorFile;
use super::server::{self, Credentials};
use super::{Failure, log, say};

pub const NOTES: &str = "\
Prints one event a line: a text as it is, other data as compact JSON. Everything else (lost connections, \
gaps in the history) is reported on standard error. A lost connection is resumed by itself where it broke.

Examples:
  whimbrel subscribe topic:news
  whimbrel subscribe device:42 topic:news --json --after last:10
  whimbrel subscribe topic:log --after earliest --cursor-file log.cursor >> log
  whimbrel subscribe topic:news --url http://node1:8080 --url http://node2:8080";

/// How often the cursor is written while events come.
const SAVE_INTERVAL: Duration = Duration::from_millis(250);

/// How many notices may wait to be printed; then the connection is read no further.
const WAITING: usize = 64;

#[derive(clap::Args)]
pub struct Arguments {
    /// What to follow: device:NAME or topic:NAME
    #[arg(required = true, value_name = "STREAM")]
    streams: Vec<StreamName>,
    /// The server; given several times, the next one is used when one fails [env: WHIMBREL_URL, space-separated]
    /// [default: http://127.0.0.1:8080]
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// Where to begin: now, earliest, last:N, since:TIME, or a cursor ['now' when left out]
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
    /// Keep the position in this file, and begin there (rather than at --after) if it has one
    #[arg(long, value_name = "PATH")]
    cursor_file: Option<PathBuf>,
    /// Print each event with its stream, id, type and time, as one line of JSON
    #[arg(long)]
    json: bool,
    /// End after so many events
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only events of these types, separated by commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',', value_parser = EventType::wanted)]
    types: Vec<EventType>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    log::start_quiet();
    let cursor_file = arguments.cursor_file.clone().map(Kept::open).transpose()?;
    let wanted = Subscription {
        streams: arguments.streams.clone(),
        types: arguments.types.clone(),
        after: arguments.after.clone(),
        cursor: cursor_file.as_ref().and_then(|kept| kept.file.saved().map(str::to_owned)),
    };
    let urls = server::urls(&arguments.urls);
    let subscriber = Subscriber::new(&urls, wanted)?.setup(&arguments.credentials.setup()?)?;
    let mut printer = Printer::new(tokio::io::stdout(), &arguments, cursor_file);

    let cannot = |e| Failure::failed(format!("signals can't be received: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    // A signal ends even a write to a pipe that nobody reads.
    let outcome = tokio::select! {
        biased;
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        outcome = printer.follow(subscriber) => outcome.map(|()| ExitCode::SUCCESS),
    };
    printer.save()?;
    outcome
}

/// A notice, and the cursor to keep once it was printed.
type Update = (Notice, Option<String>);

/// Follows until the server wants no more, or the printer is gone.
async fn pass_on(mut subscriber: Subscriber, updates: mpsc::Sender<Update>) -> Result<(), ClientError> {
    while let Some(notice) = subscriber.next().await? {
        // The cursor of a close may carry a mark that would end the next run before it began.
        let keep = matches!(notice, Notice::Event(_) | Notice::Position | Notice::Gap(_));
        let cursor = subscriber.cursor().filter(|_| keep).map(str::to_owned);
        if updates.send((notice, cursor)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The cursor file, and the cursor that it should have.
struct Kept {
    file: CursorFile,
    path: PathBuf,
    cursor: Option<String>,
}

impl Kept {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let file = CursorFile::open(path.clone())
            .map_err(|e| Failure::failed(format!("the cursor file {} can't be read: {e}", path.display())))?;
        Ok(Kept { file, path, cursor: None })
    }

    fn save(&mut self) -> Result<(), Failure> {
        match self.cursor.take() {
            Some(cursor) => self
                .file
                .save(&cursor)
                .map_err(|e| Failure::failed(format!("the cursor file {} can't be written: {e}", self.path.display()))),
            None => Ok(()),
        }
    }
}

/// Prints what arrives.
struct Printer<W> {
    output: W,
    /// Lines that wait for the next flush.
    lines: Vec<u8>,
    /// The cursor after those lines.
    cursor: Option<String>,
    kept: Option<Kept>,
    json: bool,
    left: Option<u64>,
    /// The last connection was lost, and that was reported.
    away: bool,
}

/// Whether there is more to print.
#[derive(PartialEq, Eq)]
enum Next {
    More,
    /// The limit is reached, or nobody reads the output any more.
    Enough,
}

impl<W: AsyncWrite + Unpin> Printer<W> {
    fn new(output: W, arguments: &Arguments, kept: Option<Kept>) -> Self {
        let Arguments { json, limit, .. } = *arguments;
        Printer { output, lines: Vec::new(), cursor: None, kept, json, left: limit, away: false }
    }

    async fn follow(&mut self, subscriber: Subscriber) -> Result<(), Failure> {
        let (sender, mut updates) = mpsc::channel(WAITING);
        let following = tokio::spawn(pass_on(subscriber, sender));
        let mut waiting = Vec::with_capacity(WAITING);
        let mut save_at: Option<Instant> = None;
        loop {
            tokio::select! {
                () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => {
                    self.save()?;
                    save_at = None;
                }
                count = updates.recv_many(&mut waiting, WAITING) => {
                    if count == 0 {
                        break;
                    }
                    if self.print(waiting.drain(..)).await? == Next::Enough {
                        return Ok(());
                    }
                    save_at = save_at.or_else(|| Some(Instant::now() + SAVE_INTERVAL));
                }
            }
        }
        following.await.map_err(Failure::failed)?.map_err(Failure::from)
    }

    async fn print(&mut self, updates: impl Iterator<Item = Update>) -> Result<Next, Failure> {
        for (notice, cursor) in updates {
            let event = match notice {
                Notice::Event(event) => Some(event),
                // Standard error must not run ahead of standard output.
                notice => {
                    if self.flush().await? == Next::Enough {
                        return Ok(Next::Enough);
                    }
                    self.print_notice(&notice);
                    None
                }
            };
            if let Some(event) = &event {
                self.lines.extend_from_slice(line(event, self.json).as_bytes());
                self.lines.push(b'\n');
                self.left = self.left.map(|left| left - 1);
            }
            self.cursor = cursor.or(self.cursor.take());
            if self.left == Some(0) {
                self.flush().await?;
                return Ok(Next::Enough);
            }
        }
        self.flush().await
    }

    /// Writes the lines that wait, then moves the cursor over them.
    async fn flush(&mut self) -> Result<Next, Failure> {
        let written = match self.output.write_all(&self.lines).await {
            Ok(()) => self.output.flush().await,
            Err(e) => Err(e),
        };
        match written {
            Ok(()) => {}
            // The reader has seen enough, as `head` does.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(Next::Enough),
            Err(e) => return Err(Failure::failed(format!("the output can't be written: {e}"))),
        }
        self.lines.clear();
        if let (Some(kept), Some(cursor)) = (&mut self.kept, self.cursor.take()) {
            kept.cursor = Some(cursor);
        }
        Ok(Next::More)
    }

    fn save(&mut self) -> Result<(), Failure> {
        self.kept.as_mut().map_or(Ok(()), Kept::save)
    }

    fn print_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Gap(gap) => say(&gap_line(gap)),
            Notice::Close { reason } => say(&format!("the server closes the connection: {reason}")),
            Notice::Disconnected { reason, .. } if !self.away => {
                self.away = true;
                say(&format!("{reason}; trying again until there is a connection"));
            }
            Notice::Connected { place } if self.away => {
                self.away = false;
                say(&format!("connected to {place}"));
            }
            _ => {}
        }
    }
}

fn gap_line(gap: &GapNotice) -> String {
    let GapNotice { stream, after, next, reason } = gap;
    let until = next.map_or_else(String::new, |next| format!(" and before {next}"));
    format!("gap in {stream}: events after {after}{until} are missing ({reason})")
}

/// What is printed for an event.
fn line(event: &Envelope, json: bool) -> String {
    if json {
        let text = serde_json::to_string(event);
        return compact(&text.expect("strings and raw JSON always serialize"));
    }
    // A text may hold half a surrogate pair, which only JSON can express: then it is printed as JSON.
    serde_json::from_str(event.data.get()).unwrap_or_else(|_| compact(event.data.get()))
}

/// JSON without white space between its tokens. Numbers, escapes and the order of keys stay as they are,
/// which a parsed value would not keep.
fn compact(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut within, mut escaped) = (false, false);
    for c in json.chars() {
        if !within && matches!(c, ' ' | '\t' | '\n' | '\r') {
            continue;
        }
        within ^= c == '"' && !escaped;
        escaped = within && c == '\\' && !escaped;
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests;
