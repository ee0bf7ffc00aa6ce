//! `whimbrel bench`: how fast is this deployment?

use std::io::{IsTerminal as _, stderr};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::lookup_host;

use crate::bench::{self, Pattern, Plan, Progress, Transport};

use super::{Failure, print};

pub const NOTES: &str = "\
Examples:
  whimbrel bench --connections 10000 --rate 5 --pid $(pidof whimbrel)
  whimbrel bench --pattern devices --connections 5000 --rate 2000
  whimbrel bench --connections 0 --rate max --batch 500
  whimbrel bench --connections 10000 --rate 5 --storm

Latency counts from when an event was due, so a stall of the server shows. Listeners and publisher run in \
this one process and share its clock; on the server's own machine they also share its CPU. One process \
has room for as many connections as the descriptor limit allows.";

#[derive(clap::Args)]
pub struct Arguments {
    /// The server, plain HTTP
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Listening connections
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// How to listen
    #[arg(long, value_enum, default_value = "sse")]
    transport: Transport,
    /// Who hears what
    #[arg(long, value_enum, default_value = "topic")]
    pattern: Pattern,
    /// Events a second in all, or 'max': as fast as the server takes them
    #[arg(long, default_value = "5", value_parser = rate)]
    rate: Rate,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Events a request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// How long to publish
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// The server's process id, on this machine: its CPU and memory are told
    #[arg(long)]
    pid: Option<u32>,
    /// Afterwards cut all listeners at once, publish 10 events, and let them resume
    #[arg(long)]
    storm: bool,
    /// Tell the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Events a second; `None` for as many as are taken.
type Rate = Option<f64>;

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(None);
    }
    let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.map(Some).ok_or_else(|| format!("'{text}' is neither a number above 0 nor 'max'"))
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    // Whatever the limit is, connecting tells when it is reached.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let address = arguments
        .url
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'))
        .ok_or_else(|| Failure::usage(format!("--url: '{}' is not http://HOST:PORT", arguments.url)))?;
    let server = lookup_host(address)
        .await
        .map_err(|error| Failure::usage(format!("--url: '{address}': {error}")))?
        .next()
        .ok_or_else(|| Failure::usage(format!("--url: '{address}' has no address")))?;
    let plan = Plan {
        server,
        transport: arguments.transport,
        pattern: arguments.pattern,
        connections: arguments.connections,
        rate: arguments.rate,
        event_bytes: arguments.size,
        batch: arguments.batch.into(),
        time: Duration::from_secs(arguments.seconds),
        pid: arguments.pid,
        storm: arguments.storm,
    };
    let bar = Bar::new(!arguments.json && stderr().is_terminal());
    let report = bench::run(&plan, &bar).await.map_err(Failure::failed)?;
    bar.0.finish_and_clear();
    if arguments.json {
        print(serde_json::to_string(&report).expect("a report holds only numbers and names"))?;
    } else {
        print(report)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Bar(ProgressBar);

impl Bar {
    fn new(visible: bool) -> Self {
        let bar = if visible { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg:12} {bar:40} {percent}%").expect("the template is sound");
        Bar(bar.with_style(style))
    }
}

impl Progress for Bar {
    fn part(&self, name: &'static str, total: u64) {
        self.0.set_message(name);
        self.0.set_length(total.max(1));
        self.0.set_position(0);
    }

    fn done(&self, count: u64) {
        self.0.set_position(count);
    }
}
