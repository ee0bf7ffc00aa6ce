//! The thread that writes the journal, many steps at a time.
//!
//! What can't be written for lack of room is tried again; room was set aside, so that only happens on file systems that
//! write elsewhere than where room was kept. Any other error ends the process, since nobody knows what of the file is
//! on disk after a failed sync. The next start reads what is there.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::segment::{Segment, is_full, sync_directory};
use super::{Fsync, Progress, Shared, directory};
use crate::store::ChannelMessage;
use crate::store::mailbox::Mailbox;

/// How long written data waits for a sync with [`Fsync::EverySecond`].
const SECOND: Duration = Duration::from_secs(1);

/// How long to wait before what found no room is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// Where bytes go.
#[derive(Debug, Clone)]
pub struct Write {
    pub segment: Arc<Segment>,
    pub at: u64,
    /// How many bytes were queued in all, with these.
    pub upto: u64,
}

/// What waits for the writer. Bounded by the steps whose callers wait.
#[derive(Default)]
pub struct Queue {
    writes: Vec<(Write, Vec<u8>)>,
    outgoing: VecDeque<(u64, Arc<Mailbox>, ChannelMessage)>,
    removing: Vec<(u64, Vec<u64>)>,
    settled: u64,
    wanted_sync: u64,
    closed: bool,
}

impl Queue {
    /// Adds a frame, behind the ones before it where it is in the same file.
    pub fn push(&mut self, write: Write, frame: impl FnOnce(&mut Vec<u8>)) {
        match self.writes.last_mut().filter(|(last, _)| last.segment.number == write.segment.number) {
            Some((last, bytes)) => {
                frame(bytes);
                last.upto = write.upto;
            }
            None => {
                let mut bytes = Vec::new();
                frame(&mut bytes);
                self.writes.push((write, bytes));
            }
        }
    }

    /// Sends a message at once, or when everything up to `due` is settled.
    pub fn send(&mut self, due: u64, mailbox: &Arc<Mailbox>, message: ChannelMessage) {
        if self.outgoing.is_empty() && self.settled >= due {
            mailbox.push(message);
        } else {
            self.outgoing.push_back((due, mailbox.clone(), message));
        }
    }

    /// Removes files of these numbers once everything up to `due` is on disk.
    pub fn remove(&mut self, due: u64, numbers: Vec<u64>) {
        self.removing.push((due, numbers));
    }

    /// Nothing more will come.
    pub fn close(&mut self) {
        self.closed = true;
    }

    fn settle(&mut self, settled: u64) {
        self.settled = settled;
        while let Some((_, mailbox, message)) = self.outgoing.pop_front_if(|(due, ..)| *due <= settled) {
            mailbox.push(message);
        }
    }
}

impl Shared {
    /// Has everything up to `due` on disk soon, whatever the policy is.
    pub fn ask_for_sync(&self, due: u64) {
        let mut queue = self.queue.lock();
        queue.wanted_sync = queue.wanted_sync.max(due);
        self.more.notify_one();
    }
}

/// Starts the thread. It ends once the journal is dropped and all is written.
pub fn start(shared: Arc<Shared>, directory: PathBuf, fsync: Fsync) -> io::Result<JoinHandle<()>> {
    let mut writer = Writer { shared, directory, fsync, last: None, written: 0, synced: 0, unsynced: None };
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run())
}

struct Writer {
    shared: Arc<Shared>,
    directory: PathBuf,
    fsync: Fsync,
    /// The file that was written to last, and up to where.
    last: Option<(Arc<Segment>, u64)>,
    written: u64,
    synced: u64,
    /// Since when something that was written is not on disk.
    unsynced: Option<Instant>,
}

impl Writer {
    #[expect(
        clippy::disallowed_methods,
        reason = "what is on disk is unknown: nothing may be synced or answered after that"
    )]
    fn run(&mut self) {
        while let Some(writes) = self.next() {
            if let Err((path, error)) = self.write(&writes).and_then(|()| self.sync_if_due()) {
                tracing::error!(
                    %error, file = %path.display(),
                    "the journal can't be written, and what of it is on disk is not known: the node ends, and will \
                     read it when it starts again"
                );
                std::process::exit(1);
            }
            self.remove_files();
        }
        if let Some((last, end)) = &self.last {
            // Room that was not used. Where it stays, the next start takes it away.
            let _ = last.finish(*end);
        }
    }

    /// Waits for something to write or to sync. `None` at the end.
    fn next(&mut self) -> Option<Vec<(Write, Vec<u8>)>> {
        let mut queue = self.shared.queue.lock();
        loop {
            let sync_wanted = queue.wanted_sync > self.synced && self.unsynced.is_some();
            if !queue.writes.is_empty() || sync_wanted {
                return Some(std::mem::take(&mut queue.writes));
            }
            match self.unsynced {
                Some(since) if queue.closed || since.elapsed() >= SECOND => return Some(Vec::new()),
                Some(since) => _ = self.shared.more.wait_until(&mut queue, since + SECOND),
                None if queue.closed => return None,
                None => self.shared.more.wait(&mut queue),
            }
        }
    }

    fn write(&mut self, writes: &[(Write, Vec<u8>)]) -> Result<(), (PathBuf, io::Error)> {
        for (Write { segment, at, upto }, bytes) in writes {
            self.change_to(segment)?;
            while let Err(error) = segment.write(*at, bytes) {
                if !is_full(&error) {
                    return Err((segment.path.clone(), error));
                }
                self.stall(&segment.path, &error);
            }
            self.last = Some((segment.clone(), at + bytes.len() as u64));
            self.written = *upto;
            self.unsynced.get_or_insert_with(Instant::now);
        }
        self.publish(false);
        Ok(())
    }

    /// A file is on disk before the next one is written to, so that only the last one can have a torn end.
    fn change_to(&mut self, next: &Arc<Segment>) -> Result<(), (PathBuf, io::Error)> {
        let Some((last, end)) = self.last.take_if(|(last, _)| last.number != next.number) else { return Ok(()) };
        last.finish(end).map_err(|error| (last.path.clone(), error))?;
        sync_directory(&self.directory).map_err(|error| (self.directory.clone(), error))?;
        self.synced = self.written;
        Ok(())
    }

    fn sync_if_due(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let (Some(since), Some((segment, end))) = (self.unsynced, &self.last) else { return Ok(()) };
        let (wanted, closed) = {
            let queue = self.shared.queue.lock();
            (queue.wanted_sync > self.synced, queue.closed)
        };
        if self.fsync == Fsync::Always || wanted || closed || since.elapsed() >= SECOND {
            while let Err(error) = segment.sync(*end) {
                if !is_full(&error) {
                    return Err((segment.path.clone(), error));
                }
                self.stall(&segment.path, &error);
            }
            (self.synced, self.unsynced) = (self.written, None);
            self.publish(false);
        }
        Ok(())
    }

    /// Notifies those who wait that it takes longer, and waits a while before the next try.
    #[expect(clippy::disallowed_methods, reason = "the journal has a thread of its own")]
    fn stall(&self, path: &Path, error: &io::Error) {
        if !self.shared.progress.borrow().stalled {
            tracing::error!(%error, file = %path.display(), "the journal can't be written for lack of room; trying again");
        }
        self.publish(true);
        std::thread::sleep(AGAIN);
    }

    fn publish(&self, stalled: bool) {
        let settled = if self.fsync == Fsync::Always { self.synced } else { self.written };
        self.shared.queue.lock().settle(settled);
        self.shared.progress.send_replace(Progress { settled, synced: self.synced, stalled });
    }

    fn remove_files(&self) {
        let due = {
            let mut queue = self.shared.queue.lock();
            let synced = self.synced;
            queue.removing.extract_if(.., |(due, _)| *due <= synced).collect::<Vec<_>>()
        };
        for (_, numbers) in due {
            if let Err(error) = directory::remove(&self.directory, numbers) {
                tracing::warn!(%error, directory = %self.directory.display(), "old files of the journal can't be removed");
            }
        }
    }
}
