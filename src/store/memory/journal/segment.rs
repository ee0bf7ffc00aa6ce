//! One file of the journal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// What each file begins with: the name of the format, and its version. Those before it are read too.
///
/// 2: events with further fields, such as traces and attributes.
const MAGIC: &[u8; 8] = b"whimbrel";
pub const VERSION: u32 = 2;

/// Where a file's first frame begins.
pub const START: u64 = 16;

const SUFFIX: &str = ".journal";

/// A file that is written to, or will be.
#[derive(Debug)]
pub struct Segment {
    pub number: u64,
    pub path: PathBuf,
    file: File,
    /// Up to where it is known to be on disk.
    synced: AtomicU64,
}

impl Segment {
    /// The path of the file of this number.
    pub fn path_in(directory: &Path, number: u64) -> PathBuf {
        directory.join(format!("{number:08}{SUFFIX}"))
    }

    /// The number that a file's name says.
    pub fn number_of(name: &str) -> Option<u64> {
        name.strip_suffix(SUFFIX).filter(|digits| digits.len() >= 8)?.parse().ok()
    }

    /// A new file, with room for `allocated` bytes.
    pub fn create(directory: &Path, number: u64, allocated: u64) -> io::Result<Self> {
        let path = Segment::path_in(directory, number);
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        let segment = Segment { number, path, file, synced: AtomicU64::new(0) };
        let prepared = segment.allocate(0, allocated).and_then(|()| segment.write(0, &header()));
        prepared.map(|()| segment).inspect_err(|_| _ = std::fs::remove_file(Segment::path_in(directory, number)))
    }

    /// A file that is gone on with from `end`.
    pub fn open(directory: &Path, number: u64, end: u64) -> io::Result<Self> {
        let path = Segment::path_in(directory, number);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        // What is behind it is room, or torn.
        file.set_len(end)?;
        // An older version may have begun it, and could not read what is written now.
        file.write_all_at(&header(), 0)?;
        file.sync_all()?;
        Ok(Segment { number, path, file, synced: AtomicU64::new(end) })
    }

    /// Has the system keep room for what will be written, so that a full disk refuses here and not there.
    pub fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), from, to - from) {
            // Some file systems can't; there the room is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write(from, &vec![0; (to - from) as usize]),
            outcome => Ok(outcome?),
        }
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Brings all that was written, up to `end`, to the disk.
    pub fn sync(&self, end: u64) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced.store(end, Ordering::Release);
        Ok(())
    }

    /// Ends it at `end`: nothing is written to it any more.
    pub fn finish(&self, end: u64) -> io::Result<()> {
        self.file.set_len(end)?;
        self.sync(end)
    }

    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }
}

fn header() -> [u8; START as usize] {
    let mut header = [0; START as usize];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// Whether a file begins as one of a version that can be read does; otherwise the version that it names, if it is a journal at all.
pub fn check_header(file: &[u8]) -> Result<(), Option<u32>> {
    let version =
        file.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<4>()).map(|version| u32::from_le_bytes(*version));
    let is_known = version.is_some_and(|version| (1..=VERSION).contains(&version));
    if is_known && file.len() >= START as usize { Ok(()) } else { Err(version) }
}

/// Has the directory itself on disk: which files there are.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Whether there is no room: on the disk, in a quota, or in what a process may write.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
