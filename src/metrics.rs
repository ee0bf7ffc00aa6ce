//! The figures of this node, as Prometheus reads them. Never a device or topic as a label.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::access::AccessMetrics;
use crate::dispatch::Delivery;
use crate::link::LinkMetrics;
use crate::webhook::WebhookMetrics;

/// All figures of a node. Cheap to update from anywhere.
pub struct Metrics {
    registry: Registry,
    /// Events acknowledged to producers.
    pub published: Counter,
    /// Publishes refused or failed, by problem.
    pub publish_errors: Family<ByProblem, Counter>,
    /// Ephemeral events published.
    pub ephemeral: Counter,
    /// Deliveries of such events that a slow connection did without.
    pub ephemeral_dropped: Counter,
    /// Acknowledgements taken from devices.
    pub acknowledged: Counter,
    /// Events dispatched by live dispatchers.
    pub dispatched: Counter,
    /// Deliveries that live dispatchers offered to connections.
    pub deliveries: Counter,
    /// Frames handed to sockets.
    pub frames_written: Counter,
    /// Writes to sockets; frames that go out together share one.
    pub writes: Counter,
    /// Gap notices of live dispatchers, by reason.
    pub gaps: Family<ByReason, Counter>,
    /// Streams attached.
    pub attaches: Counter,
    /// Syncs sent.
    pub syncs: Counter,
    /// Histories that did not continue and were looked into.
    pub recoveries: Counter,
    /// Holes in the chain of live messages.
    pub holes: Counter,
    /// Pages read for temporary dispatchers.
    pub page_reads: Counter,
    /// Connections that fell back to reading from the stream.
    pub outbox_overflows: Counter,
    /// Temporary dispatchers at work.
    pub temporary_dispatchers: Gauge,
    /// Streams followed here.
    pub streams: Gauge,
    /// Bytes in rings.
    pub ring_bytes: Gauge,
    /// Open connections, by transport.
    pub connections: Family<ByTransport, Gauge>,
    /// Connections ended, by reason.
    pub closed: Family<ByClose, Counter>,
    /// Requests refused before anything was done for them, by reason.
    pub refused: Family<ByReason, Counter>,
    /// Times the channel's subscription was interrupted.
    pub channel_interruptions: Counter,
    /// Events that came over the channel and had no room.
    pub channel_dropped: Counter,
    /// Messages that came in over the channel.
    pub channel_messages: Counter,
    /// Times the lease was lost.
    pub leases_lost: Counter,
    /// Dead nodes that this one cleaned up after.
    pub nodes_cleaned: Counter,
    /// Connects and disconnects of devices, published on the lifecycle topic.
    pub lifecycle_told: Counter,
    /// Those that wait to be published.
    pub lifecycle_waiting: Gauge,
    /// Connections that came and left while too many waited, and were not published.
    pub lifecycle_untold: Counter,
    /// Leases that producers took.
    pub leases_taken: Counter,
    /// Leases of producers that lapsed and that this node published.
    pub leases_lapsed: Counter,
    /// Entries of the ingress stream that were published.
    pub ingress_placed: Counter,
    /// Entries of the ingress stream that could not be events.
    pub ingress_rejected: Counter,
    /// Whether this node drains the ingress stream: 1 or 0. The figures below are 0 on all others.
    pub ingress_draining: Gauge,
    /// Entries that can't be placed for now.
    pub ingress_held: Gauge,
    /// Entries that wait in the ingress stream.
    pub ingress_lag_entries: Gauge,
    /// How long the oldest of them has waited, in seconds.
    pub ingress_lag_seconds: Gauge<f64, AtomicU64>,
    /// Calls that went to a region which was not, or not known to be, their stream's home.
    pub region_corrections: Counter,
    /// Streams that two regions had as their home, and of which this node had one give them up.
    pub region_conflicts: Counter,
    /// Streams that this node moved from one region to another, or whose move it completed.
    pub region_moves: Counter,
    /// Of those, devices that kept connecting in this node's region.
    pub region_follows: Counter,
    /// Streams whose home this node knows.
    pub directory_streams: Gauge,
    /// For how long the replica of the directory may lack changes, in milliseconds.
    pub directory_lag: Gauge,
    /// Whether the store answers: 1 or 0.
    pub store_up: Gauge,
    /// Whether the store, while it answers, refuses a kind of work: 1 or 0.
    pub store_refuses: Family<ByWork, Gauge>,
    /// Bugs that ended what they happened in, such as the answer to a request.
    pub panics: Counter,
    /// How callers are judged.
    pub access: AccessMetrics,
    /// Links between nodes.
    pub links: LinkMetrics,
    /// The webhook.
    pub webhook: WebhookMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByProblem {
    pub problem: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByClose {
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByWork {
    pub work: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByTransport {
    pub transport: &'static str,
}

impl Metrics {
    /// All figures at nought.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("whimbrel");
        // The crate appends `_total` to counters.
        macro_rules! figure {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
            let counter = Counter::<u64, AtomicU64>::default();
            registry.register(name, help, counter.clone());
            counter
        }
        fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
            let gauge = Gauge::<i64, AtomicI64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        }
        let publish_errors: Family<ByProblem, Counter> = figure!("publish_errors", "Publishes refused or failed");
        let gaps: Family<ByReason, Counter> = figure!("gaps", "Gap notices of live dispatchers");
        let ingress_lag_seconds: Gauge<f64, AtomicU64> =
            figure!("ingress_lag_seconds", "How long the oldest entry of the ingress stream has waited");
        let connections: Family<ByTransport, Gauge> = figure!("connections", "Open connections");
        let store_refuses: Family<ByWork, Gauge> =
            figure!("store_refuses", "Whether the store refuses a kind of work while it answers");
        let closed: Family<ByClose, Counter> = figure!("connections_closed", "Connections ended");
        let refused: Family<ByReason, Counter> =
            figure!("requests_refused", "Requests refused before anything was done for them");
        let r = &mut registry;
        Arc::new(Metrics {
            published: counter(r, "published", "Events acknowledged to producers"),
            publish_errors,
            ephemeral: counter(r, "ephemeral", "Ephemeral events published, which are not stored"),
            ephemeral_dropped: counter(
                r,
                "ephemeral_dropped",
                "Deliveries of such events that a slow connection did without",
            ),
            acknowledged: counter(r, "acknowledged", "Acknowledgements taken from devices"),
            dispatched: counter(r, "dispatched", "Events dispatched by live dispatchers"),
            deliveries: counter(r, "deliveries", "Deliveries offered to connections by live dispatchers"),
            frames_written: counter(r, "frames_written", "Frames handed to sockets"),
            writes: counter(r, "socket_writes", "Writes to sockets"),
            gaps,
            attaches: counter(r, "attaches", "Streams attached"),
            syncs: counter(r, "syncs", "Syncs sent to the store"),
            recoveries: counter(r, "recoveries", "Histories that did not continue and were looked into"),
            holes: counter(r, "holes", "Holes in the chain of live messages"),
            page_reads: counter(r, "page_reads", "Pages read for temporary dispatchers"),
            outbox_overflows: counter(r, "outbox_overflows", "Connections that fell back to reading from the stream"),
            temporary_dispatchers: gauge(r, "temporary_dispatchers", "Temporary dispatchers at work"),
            streams: gauge(r, "streams", "Streams followed on this node"),
            ring_bytes: gauge(r, "ring_bytes", "Bytes of newest events kept in memory"),
            connections,
            closed,
            refused,
            channel_interruptions: counter(r, "channel_interruptions", "Times the channel was interrupted"),
            channel_dropped: counter(
                r,
                "channel_dropped",
                "Events of the channel that had no room and were read from the store",
            ),
            channel_messages: counter(r, "channel_messages", "Messages that came in over the channel"),
            leases_lost: counter(r, "leases_lost", "Times the node lost its lease"),
            nodes_cleaned: counter(r, "nodes_cleaned", "Dead nodes that this one cleaned up after"),
            lifecycle_told: counter(r, "lifecycle_told", "Connects and disconnects published on the lifecycle topic"),
            lifecycle_waiting: gauge(r, "lifecycle_waiting", "Connects and disconnects that wait to be published"),
            lifecycle_untold: counter(r, "lifecycle_untold", "Connections that came and left without being published"),
            leases_taken: counter(r, "producer_leases_taken", "Leases that producers took"),
            leases_lapsed: counter(r, "producer_leases_lapsed", "Leases of producers that lapsed"),
            ingress_placed: counter(r, "ingress_placed", "Entries of the ingress stream that were published"),
            ingress_rejected: counter(r, "ingress_rejected", "Entries of the ingress stream that can't be events"),
            ingress_draining: gauge(r, "ingress_draining", "Whether this node drains the ingress stream"),
            ingress_held: gauge(
                r,
                "ingress_held",
                "Streams whose next entry of the ingress stream can't be placed for now",
            ),
            ingress_lag_entries: gauge(r, "ingress_lag_entries", "Entries that wait in the ingress stream"),
            ingress_lag_seconds,
            region_corrections: counter(r, "region_corrections", "Calls that had to look for their stream's home"),
            region_conflicts: counter(r, "region_conflicts", "Streams that two regions had as their home"),
            region_moves: counter(r, "region_moves", "Streams moved to another region, or whose move was completed"),
            region_follows: counter(r, "region_follows", "Devices moved here as they kept connecting here"),
            directory_streams: gauge(r, "directory_streams", "Streams whose home region this node knows"),
            directory_lag: gauge(
                r,
                "directory_lag_milliseconds",
                "For how long the node's copy of the directory may lack changes",
            ),
            store_up: gauge(r, "store_up", "Whether the store answers"),
            store_refuses,
            panics: counter(r, "panics", "Panics, each of which is a bug"),
            access: AccessMetrics::register(r),
            links: LinkMetrics::register(r),
            webhook: WebhookMetrics::register(r),
            registry,
        })
    }

    /// What Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    /// A temporary dispatcher is at work while the guard lives.
    pub fn count_temporary(self: &Arc<Self>) -> TemporaryGuard {
        self.temporary_dispatchers.inc();
        TemporaryGuard(self.clone())
    }

    /// A request was refused before anything was done for it.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ByReason { reason }).inc();
    }

    /// A live dispatcher offered a delivery to so many connections.
    pub fn delivered_to(&self, delivery: &Delivery, connections: usize) {
        match delivery {
            Delivery::Event(_) => {
                self.dispatched.inc();
                self.deliveries.inc_by(connections as u64);
            }
            Delivery::Gap(gap) => {
                self.gaps.get_or_create(&ByReason { reason: gap.reason.as_str() }).inc();
            }
            Delivery::Passed(_) | Delivery::Position(_) | Delivery::Ephemeral(_) => {}
        }
    }
}

/// Counts a temporary dispatcher until it is dropped.
pub struct TemporaryGuard(Arc<Metrics>);

impl Drop for TemporaryGuard {
    fn drop(&mut self) {
        self.0.temporary_dispatchers.dec();
    }
}
