//! `whimbrel size`: what nodes and Redis take for a load. Each constant was measured, by the command beside it.

use std::fmt;
use std::process::ExitCode;

use super::{Failure, print};

pub const NOTES: &str = "\
An estimate, by what was measured on the machine that docs/performance.md names: docs/sizing.md has each figure, the command \
that measured it, and what the estimate leaves out. Measure your own with `whimbrel bench`.";

/// Memory of a node without connections: `bench/run`, churn.
const NODE_BYTES: f64 = 24.5 * MIB;
/// Memory of a node for an idle connection with an inbox of its own, WebSocket: `bench/run`, idle.
const CONNECTION_BYTES: f64 = 3.3 * KIB;
/// The default of WHIMBREL_RING_BYTES.
const RING_BYTES: f64 = 64.0 * MIB;
/// Processor of a node for a second of an idle connection with an inbox: `bench/run`, idle, WebSocket (1.45% for 10,000).
const IDLE_SECONDS: f64 = 0.0145 / 10_000.0;
/// Processor of Redis for the same (1.83%, SSE).
const REDIS_IDLE_SECONDS: f64 = 0.0183 / 10_000.0;
/// Processor of a node for an event that is published and delivered once, each in a request of its own: `bench/run`, devices.
const EVENT_SECONDS: f64 = 257e-6;
/// Processor of Redis for the same.
const REDIS_EVENT_SECONDS: f64 = 155.8e-6;
/// Processor of a node for each further delivery: `bench/run`, fan_out, SSE.
const DELIVERY_SECONDS: f64 = 13.0e-6;
/// Memory of Redis for a stream, apart from its events, with stream-node-max-bytes 512: `bench/redis_memory.py`.
const STREAM_BYTES: f64 = 850.0;
/// Memory of Redis for a connected device: the same.
const DEVICE_BYTES: f64 = 1075.0;
/// Memory of Redis for an event: so many times its size, and [`EVENT_BYTES`] beside. The same.
const EVENT_SHARE: f64 = 1.3;
const EVENT_BYTES: f64 = 50.0;
/// How much of a processor is planned for: the rest is for bursts, and for clients of a node that is lost.
const PLANNED: f64 = 0.6;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
const GIB: f64 = 1024.0 * MIB;

#[derive(clap::Args)]
pub struct Arguments {
    /// Connections that are open at once
    #[arg(long, value_name = "COUNT")]
    connections: u64,
    /// Streams whose history is kept: devices, and topics
    #[arg(long, value_name = "COUNT")]
    devices: u64,
    /// Events published a second
    #[arg(long, value_name = "EVENTS")]
    rate: f64,
    /// Connections that get each event
    #[arg(long, value_name = "COUNT", default_value_t = 1.0)]
    fan_out: f64,
    /// Size of an event's data, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    bytes: u64,
    /// Events that a stream keeps, on average
    #[arg(long, value_name = "COUNT", default_value_t = 100.0)]
    events: f64,
    /// Cores of a node's machine
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    cores: u64,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    for (flag, value) in [("rate", arguments.rate), ("fan-out", arguments.fan_out), ("events", arguments.events)] {
        if !(0.0..=1e12).contains(&value) {
            return Err(Failure::usage(format!("--{flag}: a number from 0 to 1000000000000")));
        }
    }
    print(Estimate::of(arguments))?;
    Ok(ExitCode::SUCCESS)
}

/// What a load takes.
#[derive(Debug)]
struct Estimate {
    nodes: u64,
    /// Of all nodes, in cores.
    node_cores: f64,
    /// Of each node, with one of them gone.
    node_connections: f64,
    node_bytes: f64,
    /// Of its one thread.
    redis_cores: f64,
    redis_bytes: f64,
}

impl Estimate {
    fn of(load: &Arguments) -> Self {
        let connections = load.connections as f64;
        let further = load.rate * (load.fan_out - 1.0).max(0.0);
        let node_cores = connections * IDLE_SECONDS + load.rate * EVENT_SECONDS + further * DELIVERY_SECONDS;
        // One more than the load takes, so that one may be gone.
        let nodes = (node_cores / (load.cores as f64 * PLANNED)).ceil().max(1.0) as u64 + 1;
        let node_connections = connections / (nodes - 1) as f64;
        let event = load.bytes as f64 * EVENT_SHARE + EVENT_BYTES;
        Estimate {
            nodes,
            node_cores,
            node_connections,
            node_bytes: NODE_BYTES + RING_BYTES + node_connections * CONNECTION_BYTES,
            redis_cores: connections * REDIS_IDLE_SECONDS + load.rate * REDIS_EVENT_SECONDS,
            redis_bytes: connections * DEVICE_BYTES + load.devices as f64 * (STREAM_BYTES + load.events * event),
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimate { nodes, node_cores, node_connections, node_bytes, redis_cores, redis_bytes } = self;
        writeln!(f, "nodes        {nodes}, of which one may be gone")?;
        writeln!(f, "  processor  {node_cores:.2} cores in all, planned at {:.0}% of what there is", PLANNED * 100.0)?;
        writeln!(f, "  memory     {} each, and the kernel's for {node_connections:.0} sockets", Size(*node_bytes))?;
        writeln!(f, "  files      {:.0} descriptors each at least", (node_connections / 0.9 + 64.0).ceil())?;
        writeln!(f, "redis        {:.0}% of the one thread that runs commands", redis_cores * 100.0)?;
        write!(f, "  memory     {}, and as much again while it rewrites its file", Size(*redis_bytes))?;
        if *redis_cores > PLANNED {
            write!(f, "\n  too much for one Redis: publish in batches, or split the load over several regions")?;
        }
        Ok(())
    }
}

/// Bytes, as people read them.
struct Size(f64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < GIB { write!(f, "{:.0} MiB", self.0 / MIB) } else { write!(f, "{:.1} GiB", self.0 / GIB) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(connections: u64, devices: u64, rate: f64) -> Arguments {
        Arguments { connections, devices, rate, fan_out: 1.0, bytes: 200, events: 100.0, cores: 4 }
    }

    #[test]
    fn more_of_anything_takes_no_less() {
        let base = Estimate::of(&load(100_000, 500_000, 1_000.0));
        for more in [load(200_000, 500_000, 1_000.0), load(100_000, 900_000, 1_000.0), load(100_000, 500_000, 5_000.0)]
        {
            let more = Estimate::of(&more);
            assert!(more.nodes >= base.nodes && more.node_cores >= base.node_cores, "{more:?}");
            assert!(more.redis_cores >= base.redis_cores && more.redis_bytes >= base.redis_bytes, "{more:?}");
        }
    }

    #[test]
    fn the_estimate_is_what_was_measured() {
        let estimate = Estimate::of(&load(10_000, 0, 0.0));
        assert!((estimate.node_cores - 0.0145).abs() < 1e-9, "{estimate:?}");
        assert_eq!(estimate.nodes, 2);
        let redis = Estimate::of(&load(0, 1_000_000, 0.0));
        assert!((28.0 * GIB..31.0 * GIB).contains(&redis.redis_bytes), "{}", Size(redis.redis_bytes));
        assert!(!redis.to_string().contains("too much"));
        assert!(Estimate::of(&load(0, 0, 5_000.0)).to_string().contains("too much for one Redis"));
    }
}
