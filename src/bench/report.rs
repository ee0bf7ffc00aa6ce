//! What a run found.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The figures of a run. Times are in milliseconds unless their name says otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub transport: &'static str,
    pub pattern: &'static str,
    pub connections: usize,
    pub event_bytes: usize,
    pub seconds: f64,
    pub connect_seconds: f64,
    pub published: u64,
    pub publish_errors: u64,
    pub published_per_second: f64,
    pub expected: u64,
    pub received: u64,
    pub received_per_second: f64,
    pub connections_lost: u64,
    pub latency: Latency,
    /// Of the server, when its pid was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// Of a resume storm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm_seconds: Option<f64>,
}

/// From when an event was due until it was received.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Latency { p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), max: histogram.max() as f64 / 1000.0 }
    }
}

/// What the run cost the server.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    pub cpu_seconds: f64,
    /// Microseconds of CPU a delivery or, where nobody listens, a publish.
    pub cpu_us_per_event: f64,
    /// Growth of its own memory per connection, while all were idle.
    pub bytes_per_connection: f64,
    pub rss_mib: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { connections, transport, pattern, event_bytes, seconds, .. } = self;
        writeln!(f, "{connections} {transport} connections, {pattern}, {event_bytes} bytes an event, {seconds:.1} s")?;
        writeln!(f, "connected    in {:.2} s", self.connect_seconds)?;
        let errors = self.publish_errors;
        writeln!(f, "published    {} ({:.0}/s), {errors} errors", self.published, self.published_per_second)?;
        writeln!(
            f,
            "received     {} of {} ({:.0}/s), {} connections lost",
            self.received, self.expected, self.received_per_second, self.connections_lost
        )?;
        let Latency { p50, p90, p99, max } = self.latency;
        writeln!(f, "latency      p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")?;
        if let Some(seconds) = self.storm_seconds {
            writeln!(f, "storm        all back and caught up in {seconds:.2} s")?;
        }
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server       {:.2} s CPU, {:.2} µs an event, {:.0} bytes a connection, {:.1} MiB",
                server.cpu_seconds, server.cpu_us_per_event, server.bytes_per_connection, server.rss_mib
            )?;
        }
        Ok(())
    }
}
