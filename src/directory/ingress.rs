//! The ingress of the node's own region: its entries may be for streams of any.
//!
//! A stream keeps the mark of each region's ingress stream, and the marks go where the stream goes.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use super::RegionalStore;
use super::homes::Search;
use super::replica::Home;
use super::store::SEARCHES;
use crate::model::{EventId, StreamName};
use crate::store::{Ingress, IngressPage, Placed, Placement, Rejected, Rejection, StoreError};

#[async_trait]
impl Ingress for RegionalStore {
    async fn entries(&self, after: EventId, largest: usize) -> Result<IngressPage, StoreError> {
        self.own().entries(after, largest).await
    }

    async fn wait(&self, after: EventId, most: Duration) -> Result<(), StoreError> {
        self.own().wait(after, most).await
    }

    /// What is refused because its stream has its home elsewhere is an error here, and corrected by then:
    /// entries that could not be placed are placed again.
    async fn place(&self, batch: &[Placement]) -> Vec<Result<Placed, StoreError>> {
        let mut answers: Vec<Result<Placed, StoreError>> =
            batch.iter().map(|_| Err(StoreError::Protocol("too few answers".to_owned()))).collect();
        let mut calls: Vec<(Home, Vec<usize>)> = Vec::new();
        let mut streams: Vec<&StreamName> = batch.iter().map(|placement| &placement.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let finding: Vec<_> = streams.iter().map(|stream| self.regions().find(stream)).collect();
        let homes: Vec<_> = futures_util::stream::iter(finding).buffered(SEARCHES).collect().await;
        let homes: HashMap<_, _> = streams.into_iter().zip(homes).collect();
        for (place, placement) in batch.iter().enumerate() {
            match homes[&placement.stream].clone() {
                Ok(home) => match calls.iter_mut().find(|(known, _)| *known == home) {
                    Some((_, places)) => places.push(place),
                    None => calls.push((home, vec![place])),
                },
                Err(error) => answers[place] = Err(error),
            }
        }
        let placed = join_all(calls.into_iter().map(async |(home, places)| {
            let part: Vec<Placement> = places.iter().map(|place| batch[*place].clone()).collect();
            let answers = match self.regions().store(home).await {
                Ok(store) => store.place_from(self.regions().home().name(), &part).await,
                Err(error) => vec![Err(error); part.len()],
            };
            (home, places, answers)
        }));
        for (home, places, part) in placed.await {
            for (place, answer) in places.into_iter().zip(part) {
                answers[place] = match answer {
                    Err(StoreError::Misplaced(refusal)) => {
                        let error = StoreError::Unavailable(refusal.to_string());
                        let stream = &batch[place].stream;
                        Err(self
                            .regions()
                            .settle(stream, home, refusal, &mut Search::new())
                            .await
                            .err()
                            .unwrap_or(error))
                    }
                    answer => answer.map_err(|error| self.named(home, error)),
                };
            }
        }
        answers
    }

    async fn settle(&self, done: &[EventId], streams: &[StreamName]) -> Result<(), StoreError> {
        self.own().settle(done, &[]).await?;
        // Nobody waits for that: a region may have stopped to answer since it took the entries.
        let (regions, streams) = (self.regions().clone(), streams.to_vec());
        tokio::spawn(async move {
            for stream in streams {
                let store = async { regions.store(regions.find(&stream).await?).await };
                if let Ok(store) = store.await {
                    store.let_expire(std::slice::from_ref(&stream)).await;
                }
            }
        });
        Ok(())
    }

    async fn reject(&self, rejections: &[Rejection]) -> Result<(), StoreError> {
        self.own().reject(rejections).await
    }

    async fn rejected(&self, before: Option<EventId>, most: usize) -> Result<Vec<Rejected>, StoreError> {
        self.own().rejected(before, most).await
    }

    async fn lift(&self, mark: Option<EventId>, done: &[EventId]) -> Result<bool, StoreError> {
        self.own().lift(mark, done).await
    }

    async fn offer_functions(&self, event_bytes: usize, starting: bool) -> Result<bool, StoreError> {
        self.own().offer_functions(event_bytes, starting).await
    }
}
