//! What a process's descriptors are for, so that none of its parts takes those of another.

use std::time::Duration;

use crate::transport::HttpLimits;

/// Descriptors for the store, links, webhooks and the process itself, at the least.
const OWN: usize = 32;

/// Connections that are let in for probes and administration when all others are at work.
const FOR_PROBES: usize = 8;

/// More connections that only ask and publish are of no use to one node.
const MOST_HTTP: usize = 4096;

/// How many connections of each kind there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Streams of listeners.
    pub streams: usize,
    /// Connections that carry HTTP.
    pub http: usize,
    /// More of those, for probes and administration.
    pub for_probes: usize,
}

impl Descriptors {
    /// Raises the limit of the process as far as it goes, and divides what there is. `wanted` streams are granted
    /// as far as there is room for them.
    pub fn raised(wanted: Option<usize>) -> Self {
        let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
            tracing::warn!(%error, "the descriptor limit can't be raised");
            1024
        });
        let divided = Self::of(usize::try_from(limit).unwrap_or(usize::MAX), wanted);
        if let Some(wanted) = wanted.filter(|wanted| *wanted > divided.streams) {
            let granted = divided.streams;
            tracing::warn!(
                "WHIMBREL_MAX_CONNECTIONS is {wanted}, but the descriptor limit of {limit} leaves room for {granted}: \
                 there are so many; raise the limit (ulimit -n, LimitNOFILE=)"
            );
        }
        divided
    }

    /// What connections that carry HTTP are held to.
    pub fn http(self, head_time: Duration) -> HttpLimits {
        HttpLimits { connections: self.http, reserved: self.for_probes, head_time }
    }

    /// A tenth of the descriptors, but no fewer than 64, is not for streams. Half of that, or what streams leave,
    /// is for HTTP.
    fn of(limit: usize, wanted: Option<usize>) -> Self {
        let kept = (limit / 10).max(2 * OWN);
        let streams = wanted.unwrap_or(usize::MAX).min(limit.saturating_sub(kept));
        let http = (limit - streams).saturating_sub((kept / 2).max(OWN) + FOR_PROBES);
        Descriptors { streams, http: http.clamp(1, MOST_HTTP), for_probes: FOR_PROBES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_together_leave_some_for_the_store_and_the_process() {
        for limit in [128, 256, 1024, 4096, 65_536, 1_048_576] {
            for wanted in [None, Some(2), Some(limit / 2), Some(limit), Some(usize::MAX)] {
                let divided = Descriptors::of(limit, wanted);
                let used = divided.streams + divided.http + divided.for_probes;
                assert!(used + OWN <= limit, "{limit} {wanted:?}: {divided:?}");
                assert!(divided.http >= 16, "{limit} {wanted:?}: {divided:?}");
            }
            assert_eq!(Descriptors::of(limit, None).streams, limit - (limit / 10).max(64), "{limit}");
            assert_eq!(Descriptors::of(limit, Some(2)).streams, 2);
        }
    }

    #[test]
    fn where_there_are_hardly_any_one_connection_is_let_in_at_a_time() {
        assert_eq!(Descriptors::of(10, None), Descriptors { streams: 0, http: 1, for_probes: FOR_PROBES });
    }
}
