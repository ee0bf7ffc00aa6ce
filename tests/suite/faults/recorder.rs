//! The history of a test, as its producers and clients write it down.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use whimbrel::history::{Record, Verdict, judge};
use whimbrel::model::{EventId, StreamName};

/// Collects records, in the order in which they come.
#[derive(Default)]
pub struct Recorder {
    records: Mutex<Vec<Record>>,
    sessions: AtomicU64,
    /// Where clients that are connected now stand.
    standing: Mutex<HashMap<String, HashMap<StreamName, EventId>>>,
}

impl Recorder {
    pub fn note(&self, record: Record) {
        self.records.lock().push(record);
    }

    /// A number for a new session.
    pub fn session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// A client stands here now.
    pub fn stands(&self, client: &str, stream: &StreamName, id: EventId) {
        let mut standing = self.standing.lock();
        match standing.get_mut(client) {
            Some(streams) => _ = streams.insert(stream.clone(), id),
            None => _ = standing.insert(client.to_owned(), HashMap::from([(stream.clone(), id)])),
        }
    }

    /// A client is not connected any more.
    pub fn left(&self, client: &str) {
        self.standing.lock().remove(client);
    }

    /// Where a client stands in a stream, if it is connected.
    pub fn standing(&self, client: &str, stream: &StreamName) -> Option<EventId> {
        self.standing.lock().get(client)?.get(stream).copied()
    }

    /// Events received so far, by all clients.
    pub fn events(&self) -> usize {
        self.records.lock().iter().filter(|record| matches!(record, Record::Event { .. })).count()
    }

    /// Records so far that are of this kind.
    pub fn count(&self, of_kind: impl Fn(&Record) -> bool) -> usize {
        self.records.lock().iter().filter(|record| of_kind(record)).count()
    }

    /// Judges what was written down.
    pub fn judge(&self) -> Verdict {
        judge(&self.records.lock())
    }

    /// Writes the history to a file, for `whimbrel check --history`. Runs side by side have one each.
    pub fn save(&self, name: &str) -> PathBuf {
        let file = format!("{name}-{}.history", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(file);
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        for record in &*self.records.lock() {
            serde_json::to_writer(&mut file, record).unwrap();
            file.write_all(b"\n").unwrap();
        }
        file.flush().unwrap();
        path
    }
}
