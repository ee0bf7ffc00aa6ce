//! A data directory keeps what a node without Redis knows, whatever ends the node.

mod disk;
mod kills;
mod measured;
mod remembered;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::node::Node;

/// A data directory, and the nodes that use it one after another.
struct Data(TempDir);

impl Data {
    fn new() -> Self {
        Data(TempDir::new().unwrap())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn node(&self, settings: &[(&str, &str)]) -> Node {
        Node::start(&self.settings(settings))
    }

    fn settings<'a>(&'a self, settings: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [("WHIMBREL_DATA_DIR", self.path())].into_iter().chain(settings.iter().copied()).collect()
    }

    /// The newest file of the journal, and where its frames end: each begins with its length, in a header of 16 bytes.
    fn newest(&self) -> (PathBuf, usize) {
        let path = journals(self.0.path()).pop().unwrap();
        let file = std::fs::read(&path).unwrap();
        let length = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let mut end = 16;
        while end + 4 <= file.len() && length(end) > 0 {
            end += 16 + length(end);
        }
        (path, end)
    }
}

/// The files of the journal, oldest first.
fn journals(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "journal")).collect();
    files.sort();
    files
}
