//! The steps of a move, as a value: what is to be done next, and what follows from what became of it.
//!
//! ```text
//!   Begin -> Prepare -> Copy* -> Seal -> CopyRest* -> Open -> Record -> Clear
//!   |------- home: old --------------|--- nowhere ---|------- new -----------|
//! ```
//!
//! Each step looks in the stores whether it may still be taken, and leaves nothing to be remembered outside them:
//! the successor of a mover that died begins at the beginning, passes over what is done, and completes the move.
//! Up to the seal a move can be given up, and nobody notices; behind it, it can only be completed.

/// Pages copied before the seal. Under a producer that is faster than the copy, the rest is copied behind it.
const MOST_PAGES: usize = 16_384;

/// Times that a new home may forget what was copied.
const MOST_LOSSES: usize = 3;

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Say in the old home that the stream is being moved.
    Begin,
    /// Make room in the new one.
    Prepare,
    /// Copy a page.
    Copy,
    /// Seal the old home.
    Seal,
    /// Copy a page of what came before the seal.
    CopyRest,
    /// Take the marks along and open the new home.
    Open,
    /// Record the new home in the directory.
    Record,
    /// Throw away what is left in the old one.
    Clear,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, or was done already; of pages: no more are left.
    Done,
    /// There is another page.
    More,
    /// The stream was sealed before.
    Sealed,
    /// The new home is open.
    Opened,
    /// Everything is done, but perhaps for the directory.
    Finished,
    /// The new home has no record of the move.
    Forgotten,
    /// Not all that was sealed is in the new home.
    Behind,
    /// The directory has a newer home: the stream went on from this one.
    Overtaken,
    /// Another move, to this region, has to be completed first.
    Blocked(String),
    /// The stream has a newer home, or somebody gave this move up.
    Superseded,
}

/// How a move ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The stream is in its new home.
    Moved,
    /// Another move, to this region, has to be completed first.
    Blocked(String),
    /// It is over without that.
    Superseded,
}

/// How far a move is, as far as this mover has found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    step: Step,
    sealed: bool,
    opened: bool,
    /// The old home has nothing any more.
    cleared: bool,
    /// The stream has a newer home than this move's.
    overtaken: bool,
    pages: usize,
    losses: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Steps { step: Step::Begin, sealed: false, opened: false, cleared: false, overtaken: false, pages: 0, losses: 0 }
    }
}

impl Steps {
    /// What is to be done now.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether the move can only be completed.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The step was taken. Says how the move ended, if it did.
    pub fn taken(&mut self, outcome: Outcome) -> Option<End> {
        self.step = match (self.step, outcome) {
            (_, Outcome::Superseded) => return Some(End::Superseded),
            (_, Outcome::Blocked(region)) => return Some(End::Blocked(region)),
            (_, Outcome::Finished) => {
                self.cleared = true;
                Step::Record
            }
            (Step::Begin, outcome) => {
                self.sealed |= outcome == Outcome::Sealed;
                Step::Prepare
            }
            (_, Outcome::Opened) | (Step::Open, Outcome::Done) => {
                self.opened = true;
                // Unless the old home has forgotten that it is sealed.
                if self.sealed { Step::Record } else { Step::Seal }
            }
            (_, Outcome::Forgotten) => {
                self.losses += 1;
                if self.losses > MOST_LOSSES {
                    return Some(End::Superseded);
                }
                Step::Prepare
            }
            (Step::Prepare, _) if self.sealed => Step::CopyRest,
            (Step::Prepare, _) => Step::Copy,
            (Step::Copy, outcome) => {
                self.pages += 1;
                if outcome == Outcome::More && self.pages < MOST_PAGES { Step::Copy } else { Step::Seal }
            }
            (Step::Seal, _) => {
                self.sealed = true;
                if self.opened { Step::Record } else { Step::CopyRest }
            }
            (Step::CopyRest, Outcome::More) | (Step::Open, _) => Step::CopyRest,
            (Step::CopyRest, _) => Step::Open,
            (Step::Record, outcome) => {
                self.overtaken = outcome == Outcome::Overtaken;
                if self.cleared {
                    return Some(self.end());
                }
                // Also where the stream went on: the node that recorded this move may have died right after.
                Step::Clear
            }
            (Step::Clear, _) => return Some(self.end()),
        };
        None
    }

    fn end(&self) -> End {
        if self.overtaken { End::Superseded } else { End::Moved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all steps with these outcomes, and `Done` where none is left; the steps and the end.
    fn walk(outcomes: &[Outcome]) -> (Vec<Step>, End) {
        let (mut migration, mut steps) = (Steps::default(), Vec::new());
        let mut outcomes = outcomes.iter().cloned();
        loop {
            steps.push(migration.step());
            assert!(steps.len() < 100_000);
            if let Some(end) = migration.taken(outcomes.next().unwrap_or(Outcome::Done)) {
                return (steps, end);
            }
        }
    }

    #[test]
    fn a_move_copies_seals_copies_the_rest_opens_and_records() {
        use Step::*;
        let (steps, end) = walk(&[Outcome::Done, Outcome::Done, Outcome::More]);
        assert_eq!(steps, [Begin, Prepare, Copy, Copy, Seal, CopyRest, Open, Record, Clear]);
        assert_eq!(end, End::Moved);
    }

    #[test]
    fn the_successor_of_a_mover_that_died_passes_over_what_is_done() {
        use Step::*;
        let (steps, end) = walk(&[Outcome::Sealed]);
        assert_eq!((steps, end), (vec![Begin, Prepare, CopyRest, Open, Record, Clear], End::Moved));
        let (steps, end) = walk(&[Outcome::Sealed, Outcome::Opened]);
        assert_eq!((steps, end), (vec![Begin, Prepare, Record, Clear], End::Moved));
        let (steps, end) = walk(&[Outcome::Finished]);
        assert_eq!((steps, end), (vec![Begin, Record], End::Moved));
    }

    #[test]
    fn a_seal_that_a_failover_lost_is_set_again_before_the_new_home_is_recorded() {
        use Step::*;
        let (steps, end) = walk(&[Outcome::Done, Outcome::Opened]);
        assert_eq!((steps, end), (vec![Begin, Prepare, Seal, Record, Clear], End::Moved));
    }

    #[test]
    fn what_a_new_home_forgot_is_copied_anew_and_not_for_ever() {
        use Step::*;
        let (steps, end) = walk(&[Outcome::Sealed, Outcome::Done, Outcome::Forgotten, Outcome::Done, Outcome::More]);
        assert_eq!(steps, [Begin, Prepare, CopyRest, Prepare, CopyRest, CopyRest, Open, Record, Clear]);
        assert_eq!(end, End::Moved);
        let forgets = [Outcome::Done, Outcome::Forgotten];
        let forgets: Vec<_> = [Outcome::Done].into_iter().chain(forgets.into_iter().cycle().take(20)).collect();
        assert_eq!(walk(&forgets).1, End::Superseded);
    }

    #[test]
    fn a_producer_that_outruns_the_copy_does_not_keep_the_seal_away() {
        let outcomes = vec![Outcome::More; 3 * MOST_PAGES];
        let mut steps = Steps::default();
        let sealed_at = outcomes.into_iter().position(|outcome| {
            steps.taken(outcome);
            steps.is_sealed()
        });
        assert_eq!(sealed_at, Some(MOST_PAGES + 2));
    }

    #[test]
    fn a_move_whose_stream_went_on_is_cleared_away_and_no_success() {
        use Step::*;
        let (steps, end) = walk(&[Outcome::Sealed, Outcome::Opened, Outcome::Overtaken]);
        assert_eq!((steps, end), (vec![Begin, Prepare, Record, Clear], End::Superseded));
    }

    #[test]
    fn a_move_that_somebody_overtook_ends_at_whichever_step() {
        for done in 0..8 {
            let mut outcomes = vec![Outcome::Done; done];
            outcomes.push(Outcome::Superseded);
            assert_eq!(walk(&outcomes).1, End::Superseded);
        }
        assert_eq!(walk(&[Outcome::Blocked("asia".to_owned())]).1, End::Blocked("asia".to_owned()));
    }
}
