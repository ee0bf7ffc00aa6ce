//! The directory of a journal: who may use it, what is in it, and whether that is sound.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::frame;
use super::record::{self, Record};
use super::segment::{START, Segment, VERSION, check_header, sync_directory};

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// What it refuses to work with.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by {holder}: two nodes can't share a data directory, but any number can share a Redis", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process.
        holder: String,
    },
    /// Something that was acknowledged can't be read any more.
    #[error(
        "{file} is damaged at byte {at}, and what is there had been acknowledged. Restore the directory from a backup; \
         or lose what came after that byte, with a gap for those who had seen it: {way}",
        file = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where its sound part ends.
        at: u64,
        /// How to go on with the sound part.
        way: String,
    },
    /// A file is not there that others follow.
    #[error("{} is missing, and later files are there: restore the directory from a backup", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Another program wrote it, or a newer version.
    #[error("{} was written by {}", path.display(), version.map_or("another program".to_owned(), |version| {
        format!("another version of Whimbrel, in format {version}; this one reads formats 1 to {VERSION}")
    }))]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The format that it names.
        version: Option<u32>,
    },
}

impl DataDirError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| DataDirError::Io { path: path.to_owned(), error }
    }
}

/// Held by the one process that uses the directory, for as long as it lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub fn take(directory: &Path) -> Result<Self, DataDirError> {
        let path = directory.join("lock");
        let io = DataDirError::io(&path);
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(&io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "another process" } else { holder.trim() }.to_owned();
                return Err(DataDirError::InUse { path: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        // Only for people: on a full disk it says nothing, and still locks.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
        Ok(DirectoryLock { _file: file })
    }
}

/// What was found in a directory.
#[derive(Debug, Default)]
pub struct Contents {
    /// Files with frames, oldest first, and where the frames of each end.
    pub segments: Vec<(u64, u64)>,
    /// Files behind them that nothing was written to yet.
    pub empty: Vec<u64>,
    /// What was written to the last file and not acknowledged.
    pub torn: u64,
    /// Records read.
    pub records: u64,
}

impl Contents {
    /// What the frames take on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, end)| end).sum()
    }
}

/// Reads all files, in order, and hands over each record. Nothing is changed.
pub fn read(directory: &Path, mut replay: impl FnMut(Record<'_>)) -> Result<Contents, DataDirError> {
    let numbers = numbers(directory)?;
    if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(DataDirError::Missing { path: Segment::path_in(directory, gap[0] + 1) });
    }
    let mut contents = Contents::default();
    // Where a file's frames ended before its data did, unless no other file follows.
    let mut ended: Option<(u64, usize)> = None;
    let mut needed = 1;
    for number in numbers.iter().copied() {
        let path = Segment::path_in(directory, number);
        let file = std::fs::read(&path).map_err(DataDirError::io(&path))?;
        if file.iter().all(|byte| *byte == 0) {
            contents.empty.push(number);
            continue;
        }
        check_header(&file).map_err(|version| DataDirError::Foreign { path: path.clone(), version })?;
        let mut at = START as usize;
        while let Some(found) = frame::read(&file, at) {
            for record in record::read(found.records) {
                match record.map_err(|_| damaged(directory, number, at, &numbers))? {
                    Record::Compacted { from } => needed = from,
                    record => replay(record),
                }
                contents.records += 1;
            }
            at = found.next;
        }
        if at == START as usize && file[at..].iter().all(|byte| *byte == 0) {
            contents.empty.push(number);
            continue;
        }
        // A file is only begun once the one before it is whole, and so is what follows a file that is not.
        if let Some((number, at)) = ended.take().or(contents.empty.first().map(|number| (*number, START as usize))) {
            return Err(damaged(directory, number, at, &numbers));
        }
        let rest = file.get(at..).unwrap_or_default();
        let torn = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        if torn > 0 {
            if frame::was_synced(&file, at) {
                return Err(damaged(directory, number, at, &numbers));
            }
            ended = Some((number, at));
            contents.torn = torn;
        }
        contents.segments.push((number, at as u64));
    }
    match numbers.first() {
        Some(first) if *first > needed => Err(DataDirError::Missing { path: Segment::path_in(directory, *first - 1) }),
        _ => Ok(contents),
    }
}

/// The numbers of the files, in order.
fn numbers(directory: &Path) -> Result<Vec<u64>, DataDirError> {
    let io = DataDirError::io(directory);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(&io)? {
        numbers.extend(entry.map_err(&io)?.file_name().to_str().and_then(Segment::number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn damaged(directory: &Path, number: u64, at: usize, numbers: &[u64]) -> DataDirError {
    let path = Segment::path_in(directory, number);
    let later = numbers.iter().filter(|later| **later > number).map(|later| Segment::path_in(directory, *later));
    let later: String = later.map(|path| format!(" {}", path.display())).collect();
    let remove = if later.is_empty() { String::new() } else { format!("rm{later} && ") };
    let way = format!("{remove}truncate -s {at} {}", path.display());
    DataDirError::Damaged { path, at: at as u64, way }
}

/// Removes files of a directory, the oldest first, so that what a crash leaves is whole.
pub fn remove(directory: &Path, numbers: impl IntoIterator<Item = u64>) -> io::Result<()> {
    for number in numbers {
        std::fs::remove_file(Segment::path_in(directory, number))?;
    }
    sync_directory(directory)
}
