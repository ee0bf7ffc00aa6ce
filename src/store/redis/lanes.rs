//! Lanes: the connections that must be fast and keep order.
//!
//! A *lane* is one multiplexed connection that many operations share. A stream always takes the same lane of its shard,
//! so that its operations take effect in the order in which they were called. What a Cluster redirects is sent again:
//! of a batch, in its order; calls that were under way at the same time may take effect in any.

use futures_util::future::join_all;
use redis::Value;

use super::batch::Batch;
use super::call::Call;
use super::lane::Open;
use super::shards::{Shards, slot_of};
use crate::model::StreamName;
use crate::store::StoreError;

/// The lanes of all shards.
pub(super) struct Lanes {
    shards: Shards,
}

/// The slot of all keys of a stream: its name is their hash tag.
pub(super) fn slot_of_stream(stream: &StreamName) -> u16 {
    slot_of(stream.as_str().as_bytes())
}

impl Lanes {
    pub(super) fn of(shards: &Shards) -> Self {
        Lanes { shards: shards.clone() }
    }

    /// Fails while streams can't be worked with: while any lane is not connected or, in a Cluster, while no shard has all
    /// of its own.
    pub(super) async fn all_open(&self) -> Result<(), StoreError> {
        let map = self.shards.now();
        let opened = join_all(map.shards.iter().map(|shard| shard.lanes().all_open())).await;
        opened.into_iter().reduce(Result::or).unwrap_or(Ok(()))
    }

    /// Runs a call at the shard of its keys, on the stream's lane. The keys may be others than the stream's.
    pub(super) async fn run(&self, stream: &StreamName, mut call: Call) -> Result<Value, StoreError> {
        let mut attempts = self.shards.attempts();
        loop {
            let shard = attempts.shard(|| call.slot())?;
            let answer = shard.lanes().of(stream).open().await?.run(&call).await;
            if !attempts.go_on(&answer, &mut call).await {
                return answer;
            }
        }
    }

    /// Runs two calls, the second once the first is done: in one pipeline where there is one server.
    pub(super) async fn run_both(&self, stream: &StreamName, first: Call, then: Call) -> Result<Value, StoreError> {
        if self.shards.is_cluster() {
            self.run(stream, first).await?;
            return self.run(stream, then).await;
        }
        let open = self.shards.of(|| slot_of_stream(stream))?.lanes().of(stream).open().await?;
        let answers = open.run_all(vec![first, then]).await?;
        let missing = Err(StoreError::Protocol("too few answers".to_owned()));
        answers.into_iter().reduce(Result::and).unwrap_or(missing)
    }

    /// Runs a call for each item on its stream's lane: a stream's calls stay in order, and lanes don't wait
    /// for each other. The answers are in the order of the items.
    pub(super) async fn run_by_stream<'a, T>(
        &self,
        items: &'a [T],
        stream: impl Fn(&'a T) -> &'a StreamName,
        call: impl Fn(&'a T) -> Call,
    ) -> Vec<Result<Value, StoreError>> {
        self.settle_by_stream(items, stream, |_, item| call(item), |_| {}, |_, answer| answer).await
    }

    /// The same, with each answer settled as soon as its pipeline is answered. An item whose call is not taken where it
    /// was sent is `withdrawn`, and called once more.
    pub(super) async fn settle_by_stream<'a, T, R>(
        &self,
        items: &'a [T],
        stream: impl Fn(&'a T) -> &'a StreamName,
        call: impl Fn(&Open, &'a T) -> Call,
        withdrawn: impl Fn(&'a T),
        settle: impl Fn(&'a T, Result<Value, StoreError>) -> R,
    ) -> Vec<R> {
        Batch { items, stream, call, withdrawn, settle }.run(&self.shards).await
    }
}
