//! The journal of the embedded store: what keeps its state over a restart.
//!
//! Memory is the state, and its rules are the only ones. Each step of the store, under its lock, leaves the effects that
//! it had as [records](record) in one [frame](frame) of an append-only [file](segment). A thread of its own
//! ([`writer`]) writes the frames of many steps at once and syncs the file once for all of them. Only then are answers
//! given and messages sent that came from those steps, or from later ones: nobody sees what a crash could undo.
//! A start [reads](directory) all files in order, and has the state again.
//!
//! Space on disk is set aside before a step changes anything, so a full disk refuses the step. Where history was trimmed,
//! records are garbage: when there is more of that than of what counts, the state is recorded once more, a few streams
//! with each step, in a new file, and then the older files are removed.

mod directory;
mod frame;
mod record;
mod segment;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::Mailbox;
use crate::model::StreamName;
use crate::store::{ChannelMessage, StoreError};

use directory::DirectoryLock;
use segment::{START, Segment};
use writer::{Queue, Write};

pub use directory::{Contents, DataDirError};
pub use record::{EventRecord, Field, Id, LeaseRecord, PositionRecord, Record, SessionRecord, SessionState};

/// By how much the room in a file grows at a time, in bytes.
const ROOM: u64 = 4 * 1024 * 1024;

/// Room that steps leave which can be refused, to those which can't, such as noting that a node left.
const RESERVE: u64 = 256 * 1024;

/// What an event's record has beside its data, at most: names, a key, ids.
const EVENT_OVERHEAD: u64 = 2048;

/// From this size on another file is begun.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Garbage that is never worth compacting, in bytes.
const LEAST_GARBAGE: u64 = 16 * 1024 * 1024;

/// When what was acknowledged is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// Before it is acknowledged.
    #[default]
    Always,
    /// Within a second or so; until then it survives the end of the process, not that of the machine.
    EverySecond,
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fsync::Always => "always",
            Fsync::EverySecond => "everysec",
        })
    }
}

impl FromStr for Fsync {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Fsync::Always),
            "everysec" => Ok(Fsync::EverySecond),
            _ => Err(format!("'{}' is neither always nor everysec", text.chars().take(64).collect::<String>())),
        }
    }
}

/// The journal, as the store's state holds it under its lock.
pub struct Journal {
    directory: PathBuf,
    shared: Arc<Shared>,
    /// The records of the step under way.
    step: Vec<u8>,
    /// Where frames go now.
    current: Arc<Segment>,
    end: u64,
    allocated: u64,
    /// Bytes queued since the start, a frame's header among them.
    queued: u64,
    /// The files before, and where their frames end.
    older: VecDeque<(u64, u64)>,
    older_bytes: u64,
    compaction: Option<Compaction>,
    /// Not to be tried while the journal is smaller than this: there was no room for it.
    compact_from: u64,
    writer: Option<JoinHandle<()>>,
    _lock: DirectoryLock,
}

/// The state is being recorded once more.
struct Compaction {
    /// In files from this one on.
    from: u64,
    /// Streams that are yet to be recorded.
    streams: Vec<StreamName>,
}

/// What the store's steps and the writer share.
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    progress: watch::Sender<Progress>,
}

/// How far the writer got, in bytes since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// What is acknowledged.
    settled: u64,
    /// What is on disk.
    synced: u64,
    /// The disk takes no more, although there was room.
    stalled: bool,
}

/// Waits for the writer, outside of the store's lock.
#[derive(Clone)]
pub struct Settling {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

impl Settling {
    /// Waits until everything up to `due` may be acknowledged.
    pub async fn settled(&self, due: u64) -> Result<(), StoreError> {
        self.reached(|progress| progress.settled >= due).await
    }

    /// Waits until everything up to `due` is on disk.
    pub async fn synced(&self, due: u64) -> Result<(), StoreError> {
        self.shared.ask_for_sync(due);
        self.reached(|progress| progress.synced >= due).await
    }

    async fn reached(&self, is: impl Fn(&Progress) -> bool) -> Result<(), StoreError> {
        let mut progress = self.progress.clone();
        let unknown = |reason: &str| StoreError::Unknown(reason.to_owned());
        let reached = progress.wait_for(|progress| is(progress) || progress.stalled).await;
        let reached = reached.map_err(|_| unknown("the journal has ended"))?;
        if is(&reached) { Ok(()) } else { Err(unknown("the disk is full: it will be written once there is room")) }
    }
}

impl Journal {
    /// Opens the journal of a directory, which is created if need be, and hands over all that was recorded. Nothing
    /// is recorded while that goes on.
    ///
    /// # Errors
    /// When another process has it, when the system refuses, and when something that was acknowledged can't be read.
    pub fn open(
        directory: &Path,
        fsync: Fsync,
        replay: impl FnMut(Record<'_>),
    ) -> Result<(Self, Contents), DataDirError> {
        let io = DataDirError::io(directory);
        std::fs::create_dir_all(directory).map_err(&io)?;
        let lock = DirectoryLock::take(directory)?;
        let mut contents = directory::read(directory, replay)?;
        directory::remove(directory, contents.empty.iter().rev().copied()).map_err(&io)?;
        let mut older: VecDeque<_> = std::mem::take(&mut contents.segments).into();
        let (current, end) = match older.pop_back() {
            Some((number, end)) => (Segment::open(directory, number, end), end),
            None => (Segment::create(directory, 1, ROOM), START),
        };
        let current = Arc::new(current.map_err(&io)?);
        segment::sync_directory(directory).map_err(&io)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            more: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
        });
        let writer = writer::start(shared.clone(), directory.to_owned(), fsync).map_err(&io)?;
        let journal = Journal {
            directory: directory.to_owned(),
            shared,
            step: Vec::new(),
            allocated: end,
            current,
            end,
            queued: 0,
            older_bytes: older.iter().map(|(_, end)| end).sum(),
            older,
            compaction: None,
            compact_from: 0,
            writer: Some(writer),
            _lock: lock,
        };
        contents.segments = journal.older.iter().copied().chain([(journal.current.number, end)]).collect();
        Ok((journal, contents))
    }

    /// What is in a directory, changing nothing.
    pub fn inspect(directory: &Path, replay: impl FnMut(Record<'_>)) -> Result<Contents, DataDirError> {
        let _lock = DirectoryLock::take(directory)?;
        directory::read(directory, replay)
    }

    /// For those who wait for it.
    pub fn settling(&self) -> Settling {
        Settling { shared: self.shared.clone(), progress: self.shared.progress.subscribe() }
    }

    /// Sets room aside on the disk, for an event with so much data or for anything smaller, before anything is changed.
    pub fn reserve(&mut self, data: usize) -> Result<(), StoreError> {
        self.make_room(data as u64 + EVENT_OVERHEAD + RESERVE).map_err(|error| self.refusal(&error))
    }

    fn make_room(&mut self, wanted: u64) -> io::Result<()> {
        let end = self.end + self.step.len() as u64 + wanted;
        if end > self.allocated {
            let allocated = end.max(self.allocated + ROOM);
            self.current.allocate(self.allocated, allocated)?;
            self.allocated = allocated;
        }
        Ok(())
    }

    fn refusal(&self, error: &io::Error) -> StoreError {
        let text = format!("{}: {error}", self.directory.display());
        if segment::is_full(error) { StoreError::Full(text) } else { StoreError::Unavailable(text) }
    }

    /// Adds a record to the step under way.
    pub fn record(&mut self, record: &Record<'_>) {
        self.step = record.write(std::mem::take(&mut self.step));
    }

    /// Ends the step: its records become one frame. Gives what an answer has to wait for.
    pub fn seal(&mut self) -> u64 {
        if self.step.is_empty() {
            return self.queued;
        }
        if self.end >= SEGMENT_BYTES {
            // Where there is no room for another file, this one goes on for a while.
            let _ = self.begin_segment();
        }
        let length = (self.step.len() + frame::HEADER) as u64;
        let write = Write { segment: self.current.clone(), at: self.end, upto: self.queued + length };
        self.shared.queue.lock().push(write, |into| frame::write(&self.step, self.current.synced(), into));
        self.shared.more.notify_one();
        self.end += length;
        self.queued += length;
        self.step.clear();
        self.queued
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let room = ROOM.max(START + self.step.len() as u64 + frame::HEADER as u64);
        let next = Arc::new(Segment::create(&self.directory, self.current.number + 1, room)?);
        self.older.push_back((self.current.number, self.end));
        self.older_bytes += self.end;
        (self.current, self.end, self.allocated) = (next, START, room);
        Ok(())
    }

    /// Has a message put into a mailbox once all that it comes from may be seen. Messages keep their order.
    pub fn send(&self, mailbox: &Arc<Mailbox>, message: ChannelMessage) {
        // A step has no end yet; any number behind its begin stands for that.
        let due = self.queued + u64::from(!self.step.is_empty());
        self.shared.queue.lock().send(due, mailbox, message);
    }

    /// What the files take on disk.
    pub fn bytes(&self) -> u64 {
        self.older_bytes + self.end
    }

    /// Streams that are to be recorded once more with this step: garbage outweighs the `live` bytes of the state, of
    /// which `names` gives all streams.
    pub fn next_to_compact(&mut self, live: usize, names: impl FnOnce() -> Vec<StreamName>) -> Compacting {
        let (bytes, live) = (self.bytes(), live as u64);
        match &mut self.compaction {
            Some(compaction) => match compaction.streams.pop() {
                Some(stream) => Compacting::Stream(stream),
                None => Compacting::End,
            },
            None if bytes < self.compact_from.max(live + live / 2 + LEAST_GARBAGE) => Compacting::Nothing,
            None => match self.begin_segment() {
                Ok(()) => {
                    self.compaction = Some(Compaction { from: self.current.number, streams: names() });
                    Compacting::Begin
                }
                Err(_) => {
                    self.compact_from = bytes + ROOM;
                    Compacting::Nothing
                }
            },
        }
    }

    /// All of the state is recorded once more: once that is on disk, older files go.
    pub fn end_compaction(&mut self) {
        let Some(Compaction { from, .. }) = self.compaction.take() else { return };
        self.record(&Record::Compacted { from });
        let due = self.seal();
        let mut gone = Vec::new();
        while let Some((number, bytes)) = self.older.pop_front_if(|(number, _)| *number < from) {
            gone.push(number);
            self.older_bytes -= bytes;
        }
        self.shared.queue.lock().remove(due, gone);
        self.shared.more.notify_one();
        tracing::info!(directory = %self.directory.display(), bytes = self.bytes(), "the journal was compacted");
    }

    /// There was no room for a stream: it stays to be recorded.
    pub fn put_back(&mut self, stream: StreamName) {
        if let Some(compaction) = &mut self.compaction {
            compaction.streams.push(stream);
        }
    }
}

/// What compaction wants of a step.
#[derive(Debug)]
pub enum Compacting {
    /// There is not enough garbage.
    Nothing,
    /// It begins: all but the streams is to be recorded.
    Begin,
    /// This stream is to be recorded.
    Stream(StreamName),
    /// All streams were.
    End,
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue.lock().close();
        self.shared.more.notify_one();
        // The next to open the directory finds all of it. A panic of the writer was logged where it happened.
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("directory", &self.directory).finish_non_exhaustive()
    }
}
