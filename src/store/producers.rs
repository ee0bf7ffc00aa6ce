//! Leases of producers: which producer is at work on a stream.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::model::{LeaseId, LeaseTime, StreamName};

/// Most leases of producers that a region has at once.
pub const MOST_LEASES: usize = 100_000;

/// Leases that one look examines.
pub const LEASES_A_LOOK: usize = 128;

/// How far two looks may be apart, on the store's clock. With more between them, there may have been a time in
/// which no lease could be renewed.
pub const LOOKS_APART: Duration = Duration::from_secs(3);

/// The outcome of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// The producer has the lease.
    Taken,
    /// The producer had it already: it asked with the same idempotency key. The lease is renewed.
    Again(LeaseId),
    /// Another producer has it. Unless renewed, it lapses after this time.
    Held(Duration),
    /// The region has [`MOST_LEASES`].
    Full,
}

/// A lease that was not renewed, and can't be any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    /// The stream.
    pub stream: StreamName,
    /// The lease.
    pub id: LeaseId,
    /// How long it held without being renewed.
    pub time: Duration,
    /// When it was taken or renewed last, on the store's clock in milliseconds since 1970.
    pub renewed_ms: u64,
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// The stream.
    pub stream: StreamName,
    /// How long it holds without being renewed.
    pub time: Duration,
    /// When it was taken or renewed last, on the store's clock in milliseconds since 1970.
    pub renewed_ms: u64,
    /// When it lapses unless it is renewed, on the same clock.
    pub lapses_ms: u64,
    /// It has lapsed, and its stream's readers are being notified.
    pub lapsed: bool,
}

/// Leases, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseList {
    /// All leases of the region.
    pub total: u64,
    /// Those that lapse first, in order.
    pub leases: Vec<HeldLease>,
}

/// Leases that have lapsed, and the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The store's clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// Those that lapsed and were not removed yet.
    pub lapsed: Vec<Lapsed>,
}

/// The leases of producers: at most one a stream. They lapse by the store's clock, and are kept until
/// the lapse is published on the stream, so that another node completes what a dying one began.
#[async_trait]
pub trait Producers: Send + Sync {
    /// Gives out the lease of a stream, unless it is held.
    async fn take_lease(
        &self,
        stream: &StreamName,
        id: LeaseId,
        time: LeaseTime,
        key: Option<&str>,
    ) -> Result<Taking, StoreError>;

    /// Renews a lease. False: it is not in force.
    async fn renew_lease(&self, stream: &StreamName, id: LeaseId, time: LeaseTime) -> Result<bool, StoreError>;

    /// Ends a lease. False: it is not in force.
    async fn end_lease(&self, stream: &StreamName, id: LeaseId) -> Result<bool, StoreError>;

    /// Finds leases that lapsed, at most `most`. From then on they can't be renewed; they are found again until
    /// they are forgotten.
    ///
    /// `reached` is for how long the store could be reached without a break, and `looked_ms` its clock at the
    /// last look. A lease that ended in a break, when its producer may have had no way to renew it, holds once
    /// more for its whole time.
    async fn lapsed(&self, most: usize, reached: Duration, looked_ms: u64) -> Result<Look, StoreError>;

    /// The leases that lapse first, at most `most`.
    async fn leases(&self, most: usize) -> Result<LeaseList, StoreError>;

    /// Removes a lease whose lapse is published.
    async fn forget_lease(&self, lapsed: &Lapsed) -> Result<(), StoreError>;
}
