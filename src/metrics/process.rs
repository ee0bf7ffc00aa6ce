//! The figures of the process, under the names that every Prometheus client uses, and what was built.

use prometheus_client::metrics::info::Info;

use super::figures::Catalogue;

/// Registers them. Where there is no `/proc`, only what was built is shown.
pub(super) fn register(catalogue: &mut Catalogue) {
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    let (name, help) = ("whimbrel_build", "What runs here");
    catalogue.registry.register(name, help, build);
    catalogue.list(name, "_info", "info", Some("version"), help);
    #[cfg(target_os = "linux")]
    linux::register(catalogue);
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::{LimitValue, Process};
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
    use prometheus_client::metrics::counter::ConstCounter;
    use prometheus_client::metrics::gauge::ConstGauge;

    use super::Catalogue;

    const GAUGES: [(&str, &str); 5] = [
        ("process_resident_memory_bytes", "Resident memory"),
        ("process_open_fds", "Open file descriptors"),
        ("process_max_fds", "The most file descriptors that may be open"),
        ("process_threads", "Threads"),
        ("process_start_time_seconds", "When the process started, in seconds since 1970"),
    ];
    const CPU: (&str, &str) = ("process_cpu_seconds", "User and system CPU time");

    pub(super) fn register(catalogue: &mut Catalogue) {
        catalogue.list(CPU.0, "_total", "counter", None, CPU.1);
        for (name, help) in GAUGES {
            catalogue.list(name, "", "gauge", None, help);
        }
        catalogue.registry.register_collector(Box::new(Looked));
    }

    /// Looks at `/proc` each time that Prometheus asks.
    #[derive(Debug)]
    struct Looked;

    impl Collector for Looked {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            // What can't be read is left out.
            let Ok((cpu, gauges)) = look() else { return Ok(()) };
            let cpu = ConstCounter::new(cpu);
            cpu.encode(encoder.encode_descriptor(CPU.0, CPU.1, None, cpu.metric_type())?)?;
            for ((name, help), value) in GAUGES.into_iter().zip(gauges) {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
            }
            Ok(())
        }
    }

    /// CPU time in seconds, and the gauges in their order.
    #[allow(clippy::cast_precision_loss)]
    fn look() -> procfs::ProcResult<(f64, [f64; 5])> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let most = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(most) => most as f64,
            LimitValue::Unlimited => f64::INFINITY,
        };
        let start = procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks;
        let resident = (stat.rss * procfs::page_size()) as f64;
        let gauges = [resident, process.fd_count()? as f64, most, stat.num_threads as f64, start];
        Ok(((stat.utime + stat.stime) as f64 / ticks, gauges))
    }
}
