//! The figures of the service itself: publishing, dispatch, connections, and what lies around them.

use prometheus_client::metrics::family::Family;

use super::figures::{
    ByPath, ByProblem, ByReason, ByTask, ByTransport, ByWork, Counter, FloatGauge, Gauge, Seconds, figures,
};

figures! {
    /// The figures of one node. Cheap to update from anywhere.
    pub struct ServiceMetrics {
        /// Events acknowledged to producers.
        published: Counter,
        /// Publishes refused or failed, by problem.
        publish_errors: Family<ByProblem, Counter>,
        /// How long the store took for a publish, with the durability that was asked for; a batch counts as one.
        publish_seconds: Seconds,
        /// Ephemeral events published, which are not stored.
        ephemeral: Counter,
        /// Deliveries of ephemeral events that a slow connection did without.
        ephemeral_dropped: Counter,
        /// Acknowledgements taken from devices.
        acknowledged: Counter,
        /// Events dispatched by live dispatchers.
        dispatched: Counter,
        /// From an event's being stored, by its id and the store's clock in whole milliseconds, until it reached this node's dispatcher, by its path.
        routing_seconds: Family<ByPath, Seconds>,
        /// From an event's being stored, by its id and the store's clock in whole milliseconds, until this node first wrote it to a socket, by its path; of events that come together, the first.
        first_write_seconds: Family<ByPath, Seconds>,
        /// Deliveries that live dispatchers offered to connections.
        deliveries: Counter,
        /// Frames handed to sockets.
        frames_written: Counter,
        /// Writes to sockets; frames that go out together share one.
        socket_writes: Counter,
        /// Gap notices of live dispatchers, by reason.
        gaps: Family<ByReason, Counter>,
        /// Streams attached.
        attaches: Counter,
        /// Syncs sent to the store.
        syncs: Counter,
        /// For how long the sync that is due longest is overdue. All are while the store gives no answers.
        sync_lag_seconds: FloatGauge,
        /// Histories that did not continue and were looked into.
        recoveries: Counter,
        /// Holes in the chain of live messages.
        holes: Counter,
        /// Pages read for temporary dispatchers.
        page_reads: Counter,
        /// Connections that fell back to reading from the stream.
        outbox_overflows: Counter,
        /// Bytes that wait in outboxes, as sockets take no more for now.
        outbox_bytes: Gauge,
        /// Temporary dispatchers at work.
        temporary_dispatchers: Gauge,
        /// Streams followed on this node.
        streams: Gauge,
        /// Bytes of newest events kept in memory.
        ring_bytes: Gauge,
        /// Open connections, by transport.
        connections: Family<ByTransport, Gauge>,
        /// The most connections that this node takes.
        connections_limit: Gauge,
        /// Connections ended, by reason.
        connections_closed: Family<ByReason, Counter>,
        /// Requests refused before anything was done for them, by reason.
        requests_refused: Family<ByReason, Counter>,
        /// Times that the subscription of the channel was interrupted.
        channel_interruptions: Counter,
        /// Events of the channel that had no room and were read from the store.
        channel_dropped: Counter,
        /// Messages that came in over the channel.
        channel_messages: Counter,
        /// Times that the node lost its lease.
        leases_lost: Counter,
        /// When the node last renewed its lease, in seconds since 1970.
        lease_renewed_timestamp_seconds: FloatGauge,
        /// Whether this node leads a task that one node of a region does for all: 1 or 0.
        leading: Family<ByTask, Gauge>,
        /// Dead nodes that this one cleaned up after.
        nodes_cleaned: Counter,
        /// Connects and disconnects of devices, published on the lifecycle topic.
        lifecycle_published: Counter,
        /// Connects and disconnects that wait to be published.
        lifecycle_waiting: Gauge,
        /// Connections that came and left while too many waited, and were not published.
        lifecycle_dropped: Counter,
        /// Leases that producers took.
        producer_leases_taken: Counter,
        /// Leases of producers that lapsed and that this node published.
        producer_leases_lapsed: Counter,
        /// Entries of the ingress stream that were published.
        ingress_published: Counter,
        /// Entries of the ingress stream that can't be events.
        ingress_rejected: Counter,
        /// Whether this node drains the ingress stream: 1 or 0. The other gauges of ingress are 0 on all others.
        ingress_draining: Gauge,
        /// Streams whose next entry of the ingress stream can't be published for now.
        ingress_held: Gauge,
        /// Entries that wait in the ingress stream.
        ingress_lag_entries: Gauge,
        /// How long the oldest entry of the ingress stream has waited.
        ingress_lag_seconds: FloatGauge,
        /// Calls that went to a region which was not, or not known to be, their stream's home.
        region_corrections: Counter,
        /// Streams that two regions had as their home, and of which this node had one give them up.
        region_conflicts: Counter,
        /// Streams that this node moved to another region, or whose move it completed.
        region_moves: Counter,
        /// Devices moved to this node's region because they kept connecting there.
        region_follows: Counter,
        /// Streams whose home region this node knows.
        directory_streams: Gauge,
        /// Entries of the directory that this node ended with their topics.
        directory_ended: Counter,
        /// For how long the replica of the directory may lack changes.
        directory_lag_seconds: FloatGauge,
        /// Whether the store answers: 1 or 0.
        store_up: Gauge,
        /// Whether the store, while it answers, refuses a kind of work: 1 or 0.
        store_refuses: Family<ByWork, Gauge>,
        /// Spans that the OTLP collector took.
        spans_exported: Counter,
        /// Spans dropped, by reason: too many waited (queue), or the OTLP collector did not take them (collector).
        spans_dropped: Family<ByReason, Counter>,
        /// Panics, each of which is a bug, and ended what it happened in.
        panics: Counter,
    }
}
