//! What a run found.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Pattern, Transport};

/// The figures of a run. Parts that were not run, or could not be seen, are not there.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How the listeners connected.
    pub transport: Transport,
    /// Who listened to what.
    pub pattern: Pattern,
    /// Listeners, of all processes.
    pub connections: usize,
    /// Processes that held them.
    pub processes: usize,
    /// Bytes of an event's data.
    pub event_bytes: usize,
    /// Until all of them were connected.
    pub connect_seconds: f64,
    /// Connections that ended before their time.
    pub connections_lost: u64,
    /// Memory of the server's processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Memory>,
    /// Memory of the Redis behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Memory>,
    /// What the connections cost while nothing was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// What was published and received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishing: Option<Publishing>,
    /// How the highest rate was found; `publishing` is the best of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Trial>,
    /// How all of them came back at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// How it went while connections came and went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
}

/// Resident memory of processes that no file stands behind.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Before the first connection.
    pub mib_before: f64,
    /// With all connections open and idle.
    pub mib_connected: f64,
    /// The growth between the two. What the kernel holds for sockets is not in it.
    pub bytes_per_connection: f64,
}

/// What idle connections cost, pings and repair reads included.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    pub seconds: f64,
    /// Of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_percent: Option<f64>,
}

/// Publishing at one rate.
#[derive(Debug, Clone, Serialize)]
pub struct Publishing {
    /// Events a second that were due; none when it went as fast as it was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    pub published: u64,
    pub publish_errors: u64,
    /// Events that were due, but given up because the server was too far behind.
    pub unsent: u64,
    pub published_per_second: f64,
    /// Deliveries of what was published.
    pub expected: u64,
    pub received: u64,
    pub received_per_second: f64,
    /// How many events a read from a listener's socket brought: above 1 where events share writes, or
    /// where the listener was slower than the server.
    pub events_per_read: f64,
    pub bytes_per_event: f64,
    /// From when an event was due until it was received, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    #[serde(flatten)]
    pub load: Load,
}

impl Publishing {
    /// Everything that was due was published, and everything published was received.
    pub fn is_whole(&self) -> bool {
        self.publish_errors == 0 && self.unsent == 0 && self.received == self.expected
    }
}

/// A rate that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    pub rate: f64,
    /// All was delivered, 99% within the bound.
    pub kept: bool,
    pub received: u64,
    pub expected: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
}

/// Milliseconds.
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

/// What publishing cost the processes that were looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Cost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Cost>,
}

/// CPU, user and system.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    pub cpu_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_delivery: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_publish: Option<f64>,
}

/// All listeners cut at once.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    pub events_behind: u64,
    /// Until the last one was back and had caught up.
    pub seconds: f64,
    /// Until each was back and had caught up, in milliseconds.
    pub caught_up: Latency,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_seconds: Option<f64>,
}

/// Connections that come and go.
#[derive(Debug, Clone, Serialize)]
pub struct Churn {
    pub seconds: f64,
    pub opened: u64,
    pub failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Trend>,
}

/// How the server's memory went.
#[derive(Debug, Clone, Serialize)]
pub struct Trend {
    /// The mean of the first tenth of the time, and of the last.
    pub first_mib: f64,
    pub last_mib: f64,
    /// The slope of the straight line that fits the second half best: what comes at the start is room that
    /// is used again.
    pub kib_per_minute: f64,
}

const MIB: f64 = 1024.0 * 1024.0;

impl Churn {
    /// `samples` are seconds and bytes.
    pub fn new(seconds: f64, opened: u64, failed: u64, samples: &[(f64, f64)]) -> Self {
        let tenth = samples.len().div_ceil(10);
        let mean =
            |part: &[(f64, f64)]| part.iter().map(|(_, bytes)| bytes).sum::<f64>() / part.len().max(1) as f64 / MIB;
        let memory = (samples.len() >= 4).then(|| Trend {
            first_mib: mean(&samples[..tenth]),
            last_mib: mean(&samples[samples.len() - tenth..]),
            kib_per_minute: slope(&samples[samples.len() / 2..]) * 60.0 / 1024.0,
        });
        Churn { seconds, opened, failed, memory }
    }
}

/// Of the straight line with the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let (up, down) = points
        .iter()
        .fold((0.0, 0.0), |(up, down), (x, y)| (up + (x - mean_x) * (y - mean_y), down + (x - mean_x) * (x - mean_x)));
    if down > 0.0 { up / down } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = if self.transport == Transport::Sse { "SSE" } else { "WebSocket" };
        let pattern = if self.pattern == Pattern::Topic { "one topic" } else { "a device each" };
        let processes = if self.processes > 1 { format!(", from {} processes", self.processes) } else { String::new() };
        let connections = self.connections;
        write!(f, "{connections} {transport} connections, {pattern}, {} bytes an event{processes}", self.event_bytes)?;
        write!(f, "\nconnected    in {:.2} s, {} lost later", self.connect_seconds, self.connections_lost)?;
        for (name, memory) in [("memory", &self.server), ("redis memory", &self.redis)] {
            if let Some(Memory { mib_before, mib_connected, bytes_per_connection }) = memory {
                write!(f, "\n{name:12} {mib_before:.1} MiB before, {mib_connected:.1} MiB connected")?;
                write!(f, ": {bytes_per_connection:.0} bytes a connection")?;
            }
        }
        if let Some(idle) = &self.idle {
            write!(f, "\nidle         {:.0} s", idle.seconds)?;
            for (name, percent) in [("server", idle.server_cpu_percent), ("redis", idle.redis_cpu_percent)] {
                if let Some(percent) = percent {
                    write!(f, ", {name} {percent:.2}% of a core")?;
                }
            }
        }
        for Trial { rate, kept, received, expected, p99 } in &self.trials {
            let word = if *kept { "kept" } else { "not kept" };
            let p99 = p99.map_or("-".into(), |p99| format!("{p99:.1} ms"));
            write!(f, "\ntried        {rate:.1}/s: {word}, {received} of {expected}, p99 {p99}")?;
        }
        self.publishing.as_ref().map_or(Ok(()), |publishing| publishing.fmt(f))?;
        if let Some(Storm { events_behind, seconds, caught_up, retries, .. }) = &self.storm {
            write!(f, "\nstorm        all back with the {events_behind} events they had missed in {seconds:.2} s")?;
            write!(f, ", half in {:.2} s, {retries} attempts failed", caught_up.p50 / 1000.0)?;
        }
        if let Some(Churn { seconds, opened, failed, memory }) = &self.churn {
            write!(f, "\nchurn        {seconds:.0} s, {opened} connections opened, {failed} failed")?;
            if let Some(Trend { first_mib, last_mib, kib_per_minute }) = memory {
                write!(f, "; memory {first_mib:.1} MiB at first, {last_mib:.1} MiB at last")?;
                write!(f, ", {kib_per_minute:+.0} KiB a minute")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Publishing { published, publish_errors, unsent, expected, received, events_per_read, .. } = self;
        write!(f, "\npublished    {published} ({:.0}/s), {publish_errors} errors", self.published_per_second)?;
        if *unsent > 0 {
            write!(f, ", {unsent} given up because the server was too far behind")?;
        }
        write!(f, "\nreceived     {received} of {expected} ({:.0}/s)", self.received_per_second)?;
        write!(f, ", {events_per_read:.2} events a read")?;
        if let Some(Latency { p50, p90, p99, max }) = self.latency {
            write!(f, "\nlatency      p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")?;
        }
        for (name, cost) in [("server", &self.load.server), ("redis", &self.load.redis)] {
            if let Some(cost) = cost {
                write!(f, "\n{name:12} {:.2} s CPU", cost.cpu_seconds)?;
                for (what, each) in [("delivery", cost.cpu_us_per_delivery), ("publish", cost.cpu_us_per_publish)] {
                    if let Some(each) = each {
                        write!(f, ", {each:.2} µs a {what}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_shows_as_a_slope_and_room_taken_once_does_not() {
        let leak: Vec<(f64, f64)> = (0..600).map(|s| (f64::from(s), 50.0 * MIB + f64::from(s) * 1024.0)).collect();
        let trend = Churn::new(600.0, 1, 0, &leak).memory.unwrap();
        assert!((trend.kib_per_minute - 60.0).abs() < 0.1, "{trend:?}");
        let once: Vec<(f64, f64)> =
            (0..600).map(|s| (f64::from(s), if s < 60 { 50.0 * MIB } else { 60.0 * MIB })).collect();
        let trend = Churn::new(600.0, 1, 0, &once).memory.unwrap();
        assert!(trend.kib_per_minute.abs() < 0.1 && trend.last_mib > trend.first_mib, "{trend:?}");
    }
}
