//! Calls for many streams at once: a pipeline for each lane of each shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::Value;

use super::call::Call;
use super::lane::{Lane, Open, place_of};
use super::lanes::slot_of_stream;
use super::shards::{Map, Redirect, Shards};
use crate::model::StreamName;
use crate::store::StoreError;

/// Operations of one batch that are sent at once. The response timeout counts from then on, for all of
/// them, so that of a batch of thousands sent whole the last ones would go without an answer.
const PIPELINE: usize = 256;

/// Bytes of one batch after which no further operation is sent with them: what is under way is copied more
/// than once on its way out.
const PIPELINE_BYTES: usize = 1024 * 1024;

/// What is called for each item, and what becomes of the answers.
pub(super) struct Batch<'a, T, S, C, W, A> {
    pub(super) items: &'a [T],
    /// The stream of an item.
    pub(super) stream: S,
    /// Its call, made as it is sent: a large batch is not held a second time.
    pub(super) call: C,
    /// The server did not take the call: another is going to be made.
    pub(super) withdrawn: W,
    /// The answer came.
    pub(super) settle: A,
}

/// The items of one lane, in order, and those that no server is known for.
struct Part {
    lane: Result<Arc<Lane>, StoreError>,
    places: Vec<usize>,
}

/// An item that has to be sent again, and the answer that says so.
struct Redirected {
    place: usize,
    redirect: Redirect,
    error: StoreError,
}

/// What became of a part.
struct Sent<R> {
    settled: Vec<(usize, R)>,
    redirected: Vec<Redirected>,
}

impl<'a, T, R, S, C, W, A> Batch<'a, T, S, C, W, A>
where
    S: Fn(&'a T) -> &'a StreamName,
    C: Fn(&Open, &'a T) -> Call,
    W: Fn(&'a T),
    A: Fn(&'a T, Result<Value, StoreError>) -> R,
{
    /// Runs all of it. A stream's calls stay in order, and lanes don't wait for each other, but for those that are
    /// redirected. The outcomes are in the order of the items.
    pub(super) async fn run(&self, shards: &Shards) -> Vec<R> {
        let mut outcomes: Vec<_> = self.items.iter().map(|_| None).collect();
        let mut waiting: Vec<usize> = (0..self.items.len()).collect();
        let mut attempts = shards.attempts();
        while !waiting.is_empty() {
            let parts = self.parts(&shards.now(), &waiting);
            let mut redirected = Vec::new();
            for sent in join_all(parts.into_iter().map(|part| self.send(shards, part))).await {
                sent.settled.into_iter().for_each(|(place, outcome)| outcomes[place] = Some(outcome));
                redirected.extend(sent.redirected);
            }
            if redirected.is_empty() {
                break;
            }
            redirected.sort_unstable_by_key(|redirected| redirected.place);
            let mut redirects: Vec<_> = redirected.iter().map(|redirected| redirected.redirect.clone()).collect();
            redirects.dedup();
            if !attempts.follow(redirects).await {
                for Redirected { place, error, .. } in redirected {
                    outcomes[place] = Some((self.settle)(&self.items[place], Err(error)));
                }
                break;
            }
            waiting = redirected.into_iter().map(|redirected| redirected.place).collect();
        }
        let missing = |item| (self.settle)(item, Err(StoreError::Protocol("too few answers".to_owned())));
        outcomes.into_iter().zip(self.items).map(|(outcome, item)| outcome.unwrap_or_else(|| missing(item))).collect()
    }

    /// Sorts items by their lanes.
    fn parts(&self, map: &Map, waiting: &[usize]) -> Vec<Part> {
        let mut parts: BTreeMap<(Option<usize>, usize), Part> = BTreeMap::new();
        for place in waiting {
            let stream = (self.stream)(&self.items[*place]);
            let shard = map.place(|| slot_of_stream(stream));
            let part = parts.entry((shard.as_ref().ok().copied(), place_of(stream))).or_insert_with(|| Part {
                lane: shard.map(|shard| map.shards[shard].lanes().of(stream).clone()),
                places: Vec::new(),
            });
            part.places.push(*place);
        }
        parts.into_values().collect()
    }

    /// Runs the calls of one lane in pipelines, one after another. Once a slot is redirected, whatever follows for it is
    /// held back, so that it does not overtake.
    async fn send(&self, shards: &Shards, Part { lane, places }: Part) -> Sent<R> {
        let mut sent = Sent { settled: Vec::with_capacity(places.len()), redirected: Vec::new() };
        let mut waiting = places.iter().copied();
        let open = match lane {
            Ok(lane) => lane.open().await,
            Err(error) => Err(error),
        };
        let unsent = match open {
            Ok(open) => loop {
                let part = self.pipeline(&open, &mut waiting, &mut sent.redirected);
                if part.is_empty() {
                    return sent;
                }
                let (part, calls): (Vec<usize>, Vec<Call>) = part.into_iter().unzip();
                match open.run_all(calls).await {
                    Ok(answers) => part
                        .into_iter()
                        .zip(answers)
                        .for_each(|(place, answer)| self.answered(shards, place, answer, &mut sent)),
                    Err(error) => {
                        part.into_iter().for_each(|place| self.answered(shards, place, Err(error.clone()), &mut sent));
                        // The rest must not overtake what is unknown.
                        break StoreError::Unavailable("the batch was given up before this was sent".to_owned());
                    }
                }
            },
            Err(error) => error,
        };
        waiting.for_each(|place| self.answered(shards, place, Err(unsent.clone()), &mut sent));
        sent
    }

    /// As many calls as are sent at once: a number of them, or less when they are large.
    fn pipeline(
        &self,
        open: &Open,
        waiting: &mut impl Iterator<Item = usize>,
        redirected: &mut Vec<Redirected>,
    ) -> Vec<(usize, Call)> {
        let slot = |place: usize| slot_of_stream((self.stream)(&self.items[place]));
        let held: Vec<u16> = redirected.iter().map(|redirected| slot(redirected.place)).collect();
        let (mut bytes, mut part) = (0, Vec::new());
        while part.len() < PIPELINE
            && bytes < PIPELINE_BYTES
            && let Some(place) = waiting.next()
        {
            let before = if held.is_empty() { None } else { held.iter().position(|held| *held == slot(place)) };
            if let Some(before) = before {
                let Redirected { redirect, error, .. } = &redirected[before];
                redirected.push(Redirected { place, redirect: redirect.clone(), error: error.clone() });
            } else {
                let call = (self.call)(open, &self.items[place]);
                bytes += call.bytes();
                part.push((place, call));
            }
        }
        part
    }

    fn answered(&self, shards: &Shards, place: usize, answer: Result<Value, StoreError>, sent: &mut Sent<R>) {
        let item = &self.items[place];
        match (shards.redirect(&answer), answer) {
            (Some(redirect), Err(error)) => {
                (self.withdrawn)(item);
                sent.redirected.push(Redirected { place, redirect, error });
            }
            (_, answer) => sent.settled.push((place, (self.settle)(item, answer))),
        }
    }
}
