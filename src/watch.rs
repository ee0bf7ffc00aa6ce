//! Files that are read again when somebody changes them, or sends SIGHUP.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a file looks like from outside; another one after a change, also where a link was turned to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

fn looks(paths: &[PathBuf]) -> Vec<Option<Looks>> {
    let look = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some(Looks { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    };
    paths.iter().map(look).collect()
}

/// Why files are to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody sent SIGHUP.
    Hangup,
    /// One of them changed. It may be about to be replaced, or be written in part.
    Change,
}

/// Calls `reload` after SIGHUP and whenever one of the files changed; runs until it is dropped. A file that is being
/// written may be read half: `reload` keeps what it had then, and is called again when the rest is there.
pub async fn watch(paths: Vec<PathBuf>, mut reload: impl FnMut(Cause)) {
    let mut hangups = signal(SignalKind::hangup()).map_err(|error| tracing::warn!(%error, "SIGHUP can't be received"));
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = looks(&paths);
    loop {
        let hung_up = async {
            match &mut hangups {
                Ok(hangups) => hangups.recv().await,
                Err(()) => std::future::pending().await,
            }
        };
        let hung_up = tokio::select! {
            _ = hung_up => true,
            _ = ticks.tick() => false,
        };
        let now = looks(&paths);
        let has_changed = now != known;
        known = now;
        if hung_up {
            reload(Cause::Hangup);
        } else if has_changed {
            reload(Cause::Change);
        }
    }
}
