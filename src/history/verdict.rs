//! The judgement: which promises a history breaks, and how much it covers.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::follower::Follower;
use super::ledger::Ledger;
use super::record::Record;
use super::violation::Violation;

/// How much a history covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Publishes that were acknowledged, refused, and of unknown outcome.
    pub publishes: [usize; 3],
    /// Clients.
    pub clients: usize,
    /// Clients that were there when everything was read to the end: only they can have missed something.
    pub read_to_end: usize,
    /// Sessions of all clients.
    pub sessions: usize,
    /// Events received, each time.
    pub events: usize,
    /// Gap notices received.
    pub gaps: usize,
    /// Events that the store lost before any node that could have reported it had seen them.
    pub unknowable: usize,
    /// Whether everything was read to the end, by the history.
    pub quiet: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ok, failed, unknown] = self.publishes;
        write!(f, "{} publishes ({ok} ok, {failed} failed, {unknown} unknown), ", ok + failed + unknown)?;
        write!(f, "{} events and {} gap notices received ", self.events, self.gaps)?;
        write!(f, "in {} sessions of {} clients, ", self.sessions, self.clients)?;
        match self.quiet {
            true => write!(f, "{} of them to the end", self.read_to_end)?,
            false => f.write_str("never quiet, so what was missed in the end is not judged")?,
        }
        if self.unknowable > 0 {
            write!(f, ", {} events lost before anyone could know", self.unknowable)?;
        }
        Ok(())
    }
}

/// What follows from a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How much it covers.
    pub summary: Summary,
    /// What it breaks; empty when every promise was kept.
    pub violations: Vec<Violation>,
}

/// Judges a history.
pub fn judge(records: &[Record]) -> Verdict {
    let mut violations = Vec::new();
    let ledger = Ledger::of(records, &mut violations);
    let mut summary = Summary { publishes: ledger.count(), quiet: ledger.quiet.is_some(), ..Summary::default() };
    let mut followers: HashMap<&str, Follower<'_>> = HashMap::new();
    let mut clients: HashMap<u64, &str> = HashMap::new();
    for (moment, record) in records.iter().enumerate() {
        match record {
            Record::Session { session, client, .. } => {
                summary.sessions += 1;
                clients.insert(*session, client);
            }
            Record::Event { .. } => summary.events += 1,
            Record::Gap { .. } => summary.gaps += 1,
            Record::Quiet if ledger.quiet == Some(moment) => {
                followers.values_mut().for_each(|follower| follower.quiet(&mut violations));
            }
            _ => {}
        }
        let Some(session) = record.session() else { continue };
        match clients.get(&session) {
            Some(client) => followers.entry(client).or_insert_with(|| Follower::new(&ledger, client)).record(
                moment,
                record,
                &mut violations,
            ),
            None => {
                let why = format!("session {session} was never begun");
                violations.push(Violation::Unusable { record: moment + 1, why });
            }
        }
    }
    summary.clients = followers.len();
    summary.read_to_end = followers.values().filter(|follower| follower.read_to_end).count();
    let unknowable: HashSet<_> = followers.values().flat_map(|follower| follower.unknowable.iter()).collect();
    summary.unknowable = unknowable.len();
    Verdict { summary, violations }
}
