//! One store out of all regions' stores: the way of a call to the home of its stream, and batches for several homes.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::Region;
use super::homes::Search;
use super::regions::Regions;
use super::replica::Home;
use crate::health::Health;
use crate::model::{Draft, NodeId, Page, Published, Route, StreamName};
use crate::store::redis::RedisStore;
use crate::store::{
    Coordination, DueSync, EventLog as _, Ingress, Leaders, OnAnswer, Producers, Revocations, Store, StoreError,
};

/// Streams of a batch that look for their homes at once.
pub(super) const SEARCHES: usize = 64;

/// The stores of all regions as one.
#[derive(Clone)]
pub struct RegionalStore {
    regions: Arc<Regions>,
    /// The store of the node's own region.
    own: Arc<RedisStore>,
}

impl RegionalStore {
    /// Waits until the node's own region can be used; `health` shows what keeps it.
    pub async fn open(regions: Arc<Regions>, health: &Health) -> Self {
        let own = regions.home().opened(|reason| health.store_is_down(reason)).await;
        RegionalStore { regions, own }
    }

    pub(super) fn own(&self) -> &RedisStore {
        &self.own
    }

    /// All regions but this node's own.
    pub(super) fn others(&self) -> impl Iterator<Item = Arc<Region>> {
        let home = self.regions.home().name();
        self.regions.all().iter().filter(move |region| region.name() != home).cloned()
    }

    /// The regions.
    pub fn regions(&self) -> &Arc<Regions> {
        &self.regions
    }

    /// Runs a call in the stream's home, wherever that turns out to be.
    pub(super) async fn at_home<T, F>(
        &self,
        stream: &StreamName,
        call: impl Fn(RedisStore) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        Ok(self.home_and(stream, call).await?.1)
    }

    /// The same for a page.
    pub(super) async fn page<F>(&self, stream: &StreamName, call: impl Fn(RedisStore) -> F) -> Result<Page, StoreError>
    where
        F: Future<Output = Result<Page, StoreError>>,
    {
        let (home, page) = self.home_and(stream, call).await?;
        Ok(self.regions.page_from(self.regions.region(home)?, page))
    }

    /// The same, with the home that answered.
    pub(super) async fn home_and<T, F>(
        &self,
        stream: &StreamName,
        call: impl Fn(RedisStore) -> F,
    ) -> Result<(Home, T), StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut search = Search::new();
        loop {
            let home = self.regions.find(stream).await?;
            let store = self.regions.store(home).await?;
            match call(store).await {
                Err(StoreError::Misplaced(refusal)) => {
                    self.regions.settle(stream, home, refusal, &mut search).await?;
                }
                Ok(answer) => {
                    search.found(&self.regions);
                    return Ok((home, answer));
                }
                Err(error) => return Err(self.named(home, error)),
            }
        }
    }

    /// Runs a call in the stream's home, as a member of that region: what it writes goes to a channel that this
    /// node is subscribed to, under its id there.
    pub(super) async fn as_member<T, F>(
        &self,
        stream: &StreamName,
        call: impl Fn(RedisStore, NodeId) -> F,
    ) -> Result<(Arc<Region>, T), StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut search = Search::new();
        loop {
            let home = self.regions.find(stream).await?;
            let region = self.regions.region(home)?;
            let store = region.store_as_member().await?.as_of(home.version);
            match call(store, (*region.node()).clone()).await {
                Err(StoreError::Misplaced(refusal)) => {
                    self.regions.settle(stream, home, refusal, &mut search).await?;
                }
                Ok(answer) => {
                    search.found(&self.regions);
                    return Ok((region.clone(), answer));
                }
                Err(error) => return Err(region.named(error)),
            }
        }
    }

    pub(super) fn named(&self, home: Home, error: StoreError) -> StoreError {
        match self.regions.region(home) {
            Ok(region) => region.named(error),
            Err(_) => error,
        }
    }

    /// Publishes many. A stream's events stay in order although a home may change in their midst: the first of each stream goes
    /// ahead, the others follow to the home that took it, and if that refuses one of them, it refuses all after it.
    pub(super) async fn publish_by_home(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>> {
        let mut answers: Vec<Option<Result<Published, StoreError>>> = batch.iter().map(|_| None).collect();
        let streams = by_stream(batch);
        let finding: Vec<_> = streams.iter().map(|places| self.regions.find(&batch[places[0]].0)).collect();
        let homes: Vec<_> = futures_util::stream::iter(finding).buffered(SEARCHES).collect().await;
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for (places, home) in streams.iter().zip(homes) {
            let Ok(home) = home else { continue };
            first.push((places[0], home));
            rest.extend(places[1..].iter().map(|place| (places[0], *place, home)));
        }
        for (place, answer) in self.try_publish(batch, &first).await {
            answers[place] = answer;
        }
        let rest: Vec<_> = rest
            .into_iter()
            .filter(|(first, ..)| matches!(answers[*first], Some(Ok(_))))
            .map(|(_, place, home)| (place, home))
            .collect();
        for (place, answer) in self.try_publish(batch, &rest).await {
            answers[place] = answer;
        }
        let left = streams.into_iter().map(|mut places| {
            places.retain(|place| answers[*place].is_none());
            self.publish_in_turn(batch, places)
        });
        let left: Vec<_> = left.collect();
        let left: Vec<_> = futures_util::stream::iter(left).buffer_unordered(SEARCHES).collect().await;
        for (place, answer) in left.into_iter().flatten() {
            answers[place] = Some(answer);
        }
        let missing = || Err(StoreError::Protocol("too few answers".to_owned()));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    /// Publishes some entries of a batch, each after the one before it was answered.
    async fn publish_in_turn(
        &self,
        batch: &[(StreamName, Draft)],
        places: Vec<usize>,
    ) -> Vec<(usize, Result<Published, StoreError>)> {
        let mut answers = Vec::with_capacity(places.len());
        for place in places {
            answers.push((place, self.publish(&batch[place].0, &batch[place].1).await));
        }
        answers
    }

    /// One try for some entries of a batch, a call for each home. `None`: refused as misplaced, nothing was stored.
    async fn try_publish(
        &self,
        batch: &[(StreamName, Draft)],
        places: &[(usize, Home)],
    ) -> Vec<(usize, Option<Result<Published, StoreError>>)> {
        let answers = join_all(by_home(places).into_iter().map(async |(home, places)| {
            let answers = match self.regions.store(home).await {
                Ok(store) => {
                    let part: Vec<_> = places.iter().map(|place| batch[*place].clone()).collect();
                    store.publish_all(&part).await
                }
                Err(error) => vec![Err(error); places.len()],
            };
            let judged = answers.into_iter().map(|answer| match answer {
                Err(StoreError::Misplaced(_)) => None,
                answer => Some(answer.map_err(|error| self.named(home, error))),
            });
            places.into_iter().zip(judged).collect::<Vec<_>>()
        }));
        answers.await.into_iter().flatten().collect()
    }

    /// Syncs many, with a call for each home. What that does not do is done one by one.
    pub(super) async fn sync_by_home(&self, due: &[DueSync], answered: &OnAnswer<'_>) {
        let alone = |places: Vec<usize>| {
            join_all(places.into_iter().map(async |place| {
                let (stream, route, head) = &due[place];
                answered(place, self.sync(stream, route, *head).await);
            }))
        };
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (place, (stream, ..)) in due.iter().enumerate() {
            match self.regions.replica().get(stream.fingerprint()) {
                Some(home) => known.push((place, home)),
                None => unknown.push(place),
            }
        }
        let together = by_home(&known).into_iter().map(async |(home, places)| {
            alone(self.sync_at(home, places, due, answered).await).await;
        });
        tokio::join!(join_all(together), alone(unknown));
    }

    /// Syncs some of many streams in one call, as a member of their home. Gives those that have to look for it.
    async fn sync_at(&self, home: Home, places: Vec<usize>, due: &[DueSync], answered: &OnAnswer<'_>) -> Vec<usize> {
        let Ok(region) = self.regions.region(home) else { return places };
        let Ok(store) = region.store_as_member().await else { return places };
        let node = region.node();
        let part = places.iter().map(|place| {
            let (stream, route, head) = &due[*place];
            (stream.clone(), Route { node: (*node).clone(), ..route.clone() }, *head)
        });
        let part: Vec<_> = part.collect();
        let misplaced = Mutex::new(Vec::new());
        let settled = |at: usize, answer: Result<Page, StoreError>| match answer {
            Err(StoreError::Misplaced(_)) => misplaced.lock().push(places[at]),
            Err(error) => answered(places[at], Err(region.named(error))),
            Ok(page) => answered(places[at], Ok(self.regions.page_from(region, page))),
        };
        store.as_of(home.version).sync_each(&part, &settled).await;
        misplaced.into_inner()
    }
}

/// Places by the home of what is there.
fn by_home(places: &[(usize, Home)]) -> Vec<(Home, Vec<usize>)> {
    let mut homes: Vec<(Home, Vec<usize>)> = Vec::new();
    for (place, home) in places {
        match homes.iter_mut().find(|(known, _)| known == home) {
            Some((_, places)) => places.push(*place),
            None => homes.push((*home, vec![*place])),
        }
    }
    homes
}

/// The places of each stream's events, in order.
fn by_stream(batch: &[(StreamName, Draft)]) -> Vec<Vec<usize>> {
    let mut streams: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for (place, (stream, _)) in batch.iter().enumerate() {
        let at = *known.entry(stream).or_insert(streams.len());
        if at == streams.len() {
            streams.push(Vec::new());
        }
        streams[at].push(place);
    }
    streams
}

impl Store for RegionalStore {
    fn coordination(&self) -> &dyn Coordination {
        &*self.own
    }

    fn ingress(&self) -> Option<&dyn Ingress> {
        Some(self)
    }

    fn producers(&self) -> &dyn Producers {
        self
    }

    fn leaders(&self) -> &dyn Leaders {
        self
    }

    fn revocations(&self) -> &dyn Revocations {
        self
    }

    fn regions(&self) -> Option<&Arc<Regions>> {
        Some(&self.regions)
    }
}
