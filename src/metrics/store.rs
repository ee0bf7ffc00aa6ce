//! The figures of a node's connections to Redis.

use prometheus_client::metrics::family::Family;

use super::figures::{ByRole, Gauge, Seconds, figures};

figures! {
    /// The figures of connections to Redis, by what they are for: operations of streams (lane), pages and administration
    /// (pool), leases (membership), publishes that wait for replicas or the disk (durable).
    #[derive(Clone)]
    pub struct StoreMetrics {
        /// From when a command or pipeline was sent to Redis until it was answered, by what the connection is for.
        round_trip_seconds: Family<ByRole, Seconds>,
        /// Commands sent to Redis that are not answered yet, by what their connection is for.
        outstanding: Family<ByRole, Gauge>,
        /// Commands that wait for a connection or for their turn on it, by what that is for.
        waiting: Family<ByRole, Gauge>,
    }
}

/// What connections to Redis are for.
pub const ROLES: [&str; 4] = ["lane", "pool", "membership", "durable"];

/// The figures of all connections of one role. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct RoleMetrics {
    /// How long answers take.
    pub round_trip: Seconds,
    /// What is not answered yet.
    pub outstanding: Gauge,
    /// What is not sent yet.
    pub waiting: Gauge,
}

impl StoreMetrics {
    /// The figures of one of [`ROLES`].
    pub fn of(&self, role: &'static str) -> RoleMetrics {
        let role = ByRole { role };
        RoleMetrics {
            round_trip: self.round_trip_seconds.get_or_create(&role).clone(),
            outstanding: self.outstanding.get_or_create(&role).clone(),
            waiting: self.waiting.get_or_create(&role).clone(),
        }
    }
}

/// Counts something in a gauge until it is dropped.
#[derive(Debug)]
pub struct InGauge<'a> {
    gauge: &'a Gauge,
    count: i64,
}

impl<'a> InGauge<'a> {
    /// So many more.
    pub fn new(gauge: &'a Gauge, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        gauge.inc_by(count);
        InGauge { gauge, count }
    }
}

impl Drop for InGauge<'_> {
    fn drop(&mut self) {
        self.gauge.dec_by(self.count);
    }
}
