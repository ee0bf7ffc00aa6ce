//! What a round leaves to be written into the table.

use super::row::Mark;

/// Longest reason that is written beside a row, in characters.
const REASON_CHARS: usize = 500;

/// What became of rows. Writing it down twice changes nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// They are published.
    pub published: Vec<Mark>,
    /// They never can be, for these reasons.
    pub rejected: Vec<(Mark, String)>,
}

impl Settlement {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.published.is_empty() && self.rejected.is_empty()
    }

    /// A row can't be published.
    pub fn reject(&mut self, mark: Mark, reason: &str) {
        self.rejected.push((mark, reason.chars().filter(|c| *c != '\0').take(REASON_CHARS).collect()));
    }
}

/// Ids and times of creation, as the database takes them.
pub fn columns<'a>(marks: impl Iterator<Item = &'a Mark>) -> (Vec<i64>, Vec<i64>) {
    marks.map(|mark| (mark.id, mark.created_us)).unzip()
}
