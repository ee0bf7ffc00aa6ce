//! A cursor on disk, so that a later run goes on where this one ended.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;

/// Far more than any cursor has: whatever is longer is some other file.
const MAX_BYTES: u64 = 8192;

/// Where a cursor is kept.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    saved: Option<String>,
}

impl CursorFile {
    /// Reads the cursor that an earlier run left. A file that is missing or empty holds none.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let text = match fs::metadata(&path) {
            Ok(about) if about.len() > MAX_BYTES => return Err(io::Error::other("it is too long to be a cursor")),
            Ok(_) => fs::read_to_string(&path)?,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        let saved = Some(text.trim().to_owned()).filter(|cursor| !cursor.is_empty());
        if saved.as_ref().is_some_and(|cursor| !cursor.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(io::Error::other("it holds something else than a cursor"));
        }
        Ok(CursorFile { path, saved })
    }

    /// The cursor that the file holds.
    pub fn saved(&self) -> Option<&str> {
        self.saved.as_deref()
    }

    /// Keeps `cursor`. A crash at any moment leaves the old one or the new one, never half of one.
    pub fn save(&mut self, cursor: &str) -> io::Result<()> {
        if self.saved() == Some(cursor) {
            return Ok(());
        }
        // Beside the file: a rename works only within one file system.
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = self.path.with_file_name(name);
        let written = File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(format!("{cursor}\n").as_bytes())?;
                file.sync_data()
            })
            .and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.saved = Some(cursor.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_kept_for_the_next_run_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        let mut file = CursorFile::open(path.clone()).unwrap();
        assert_eq!(file.saved(), None);
        file.save("5-1").unwrap();
        file.save("5-2").unwrap();
        assert_eq!(CursorFile::open(path).unwrap().saved(), Some("5-2"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_can_not_be_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(CursorFile::open(folder.path().into()).is_err());
        let path = folder.path().join("big");
        for content in ["x".repeat(9000), "two words".into()] {
            fs::write(&path, content).unwrap();
            assert!(CursorFile::open(path.clone()).is_err());
        }
        assert!(CursorFile::open(folder.path().join("none/cursor")).unwrap().save("5-1").is_err());
    }
}
