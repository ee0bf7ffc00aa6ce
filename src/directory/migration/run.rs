//! A migration under way: takes the steps of a move, in the stores of both regions and in the directory.

use super::steps::{End, Outcome, Step, Steps};
use crate::directory::region::named;
use crate::store::StoreError;
use crate::store::redis::{Arrival, Assignment, Begun, Plan, RedisDirectory, RedisStore};

/// Moves one stream.
pub struct Migration<'a> {
    directory: &'a RedisDirectory,
    plan: Plan,
    from: RedisStore,
    to: RedisStore,
    steps: Steps,
    /// Up to which entry all is in the new home, by its last answer.
    copied: String,
}

impl<'a> Migration<'a> {
    /// A migration that has done nothing yet, with the stores of both regions.
    pub fn new(directory: &'a RedisDirectory, plan: Plan, from: RedisStore, to: RedisStore) -> Self {
        Migration { directory, plan, from, to, steps: Steps::default(), copied: String::new() }
    }

    /// What it does next.
    pub fn step(&self) -> Step {
        self.steps.step()
    }

    /// Takes all steps. After an error before the seal the move is given up.
    pub async fn run(mut self) -> Result<End, StoreError> {
        loop {
            match self.take().await {
                Ok(None) => {}
                Ok(Some(end)) => return Ok(end),
                Err(error) => {
                    if !self.steps.is_sealed()
                        && let Err(error) = self.from.move_cancel(&self.plan).await
                    {
                        tracing::debug!(stream = %self.plan.stream, %error, "a move can't be given up yet");
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Takes one step; the end, when that was the last. After an error the step can be taken again.
    pub async fn take(&mut self) -> Result<Option<End>, StoreError> {
        let outcome = match self.step() {
            Step::Begin => self.begin().await?,
            Step::Prepare => {
                let answer = self.to.move_prepare(&self.plan).await;
                self.arrived(answer.map_err(|error| named(&self.plan.to, error))?, Outcome::Done, Outcome::Superseded)
            }
            Step::Copy | Step::CopyRest => self.copy().await?,
            Step::Seal => {
                let sealed = self.from.move_seal(&self.plan).await;
                let sealed = sealed.map_err(|error| named(&self.plan.from, error))?;
                if sealed { Outcome::Done } else { Outcome::Superseded }
            }
            Step::Open => self.open().await?,
            Step::Record => self.record().await?,
            Step::Clear => {
                let cleared = self.from.move_clear(&self.plan).await;
                cleared.map_err(|error| named(&self.plan.from, error))?;
                Outcome::Done
            }
        };
        Ok(self.steps.taken(outcome))
    }

    async fn begin(&self) -> Result<Outcome, StoreError> {
        let begin = async || self.from.move_begin(&self.plan).await.map_err(|error| named(&self.plan.from, error));
        let mut begun = begin().await?;
        if begun == Begun::Homeless {
            // It forgot, or the stream was assigned and nobody came yet.
            let believed = Assignment { region: self.plan.from.clone(), version: self.plan.version - 1 };
            if self.directory.assign(&self.plan.stream, &believed).await? != believed {
                return Ok(Outcome::Superseded);
            }
            if let Some(ended) = self.from.claim(&self.plan.stream, believed.version).await? {
                // As of that version it can be moved.
                self.directory.renew(&self.plan.stream, &believed, ended).await?;
                return Ok(Outcome::Superseded);
            }
            begun = begin().await?;
        }
        Ok(match begun {
            Begun::Now => Outcome::Done,
            Begun::Sealed => Outcome::Sealed,
            Begun::Finished => Outcome::Finished,
            Begun::Stalled(region) => Outcome::Blocked(region),
            Begun::Homeless | Begun::Superseded => Outcome::Superseded,
        })
    }

    async fn copy(&mut self) -> Result<Outcome, StoreError> {
        let read = self.from.move_read(&self.plan, &self.copied).await;
        let Some(cargo) = read.map_err(|error| named(&self.plan.from, error))? else {
            return Ok(Outcome::Superseded);
        };
        let outcome = if cargo.more { Outcome::More } else { Outcome::Done };
        if cargo.entries.is_empty() && !cargo.anew {
            return Ok(outcome);
        }
        let answer = self.to.move_import(&self.plan, &self.copied, &cargo).await;
        let answer = answer.map_err(|error| named(&self.plan.to, error))?;
        Ok(self.arrived(answer, outcome, Outcome::Forgotten))
    }

    async fn open(&mut self) -> Result<Outcome, StoreError> {
        let marks = self.from.move_marks(&self.plan).await;
        let Some(baggage) = marks.map_err(|error| named(&self.plan.from, error))? else {
            return Ok(Outcome::Superseded);
        };
        let answer = self.to.move_open(&self.plan, &baggage).await;
        let answer = answer.map_err(|error| named(&self.plan.to, error))?;
        Ok(self.arrived(answer, Outcome::Behind, Outcome::Forgotten))
    }

    /// What the new home's answer means: `ready` when it has all up to an entry, `refused` when it has
    /// no record of the move.
    fn arrived(&mut self, answer: Arrival, ready: Outcome, refused: Outcome) -> Outcome {
        match answer {
            Arrival::Copied(copied) => {
                self.copied = copied;
                ready
            }
            Arrival::Open => Outcome::Opened,
            Arrival::Refused => refused,
        }
    }

    async fn record(&self) -> Result<Outcome, StoreError> {
        let before = Assignment { region: self.plan.from.clone(), version: self.plan.version - 1 };
        let after = Assignment { region: self.plan.to.clone(), version: self.plan.version };
        let known = self.directory.record(&self.plan.stream, &before, &after).await?;
        Ok(if known == after {
            Outcome::Done
        } else if known.version > after.version {
            Outcome::Overtaken
        } else {
            Outcome::Superseded
        })
    }
}
