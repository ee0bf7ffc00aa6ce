//! `whimbrel bench`: how fast is this deployment?

use std::io::{IsTerminal as _, stderr};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::lookup_host;

use crate::bench::{self, Dialect, Pattern, Plan, Progress, Rate, Server, Target, Transport, Trust};

use super::server::{self, Credentials};
use super::{Failure, print};

pub const NOTES: &str = "\
Examples:
  whimbrel bench --connections 10000 --rate 5 --pid $(pidof whimbrel)
      memory of 10,000 idle connections, then what a delivery costs
  whimbrel bench --connections 10000 --rate find --within 250 --seconds 3
      the highest rate at which everything arrives, 99% of it within 250 ms
  whimbrel bench --pattern devices --connections 5000 --rate 2000 --redis-pid $(pidof redis-server)
      an inbox for each connection
  whimbrel bench --connections 0 --rate max --batch 500
      how fast events are taken
  whimbrel bench --connections 10000 --storm
      all connections are cut at once, and resume 10 events behind
  whimbrel bench --connections 40000 --processes 3 --url http://127.0.0.1:8080 --url http://127.0.0.1:8081
      two nodes, and more connections than one process has descriptors for
  whimbrel bench --pattern devices --connections 10000 --idle 60 --seconds 0 --pid $(pidof whimbrel)
      what idle connections cost

The parts of a run follow each other: connect, idle (--idle), publish (--seconds), storm (--storm), churn \
(--churn).

Latency counts from when an event was due, not from when it was sent: a stall of the server shows in every \
event that was due meanwhile. On the server's own machine the load generator takes CPU from it.

The streams of a run have names that nobody else uses. Their events stay for as long as the server's \
retention says.";

/// Descriptors that are not for listening connections: publishers, standard streams, the runtime's own.
const OTHER_DESCRIPTORS: u64 = 40;

#[derive(clap::Args)]
pub struct Arguments {
    /// A server, http:// or https://; once for each, and connections and publishers are spread over them [env: WHIMBREL_URL,
    /// space-separated] [default: http://127.0.0.1:8080]
    #[arg(long)]
    url: Vec<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// What the server speaks, to measure another one with the same load
    #[arg(long, value_enum, default_value = "whimbrel")]
    dialect: Dialect,
    /// Listening connections, all together
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Processes that hold the connections. Each has as many descriptors as `ulimit -Hn` allows
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    processes: u16,
    /// How to listen
    #[arg(long, value_enum, default_value = "sse")]
    transport: Transport,
    /// Which listeners follow which streams
    #[arg(long, value_enum, default_value = "topic")]
    pattern: Pattern,
    /// Events a second, all together; 'max': as fast as they are answered; 'find': the highest rate at
    /// which everything is delivered within --within
    #[arg(long, default_value = "5", value_parser = rate)]
    rate: Rate,
    /// With --rate find: the latency that 99% of the deliveries have to keep
    #[arg(long, value_name = "MS", default_value_t = 250)]
    within: u64,
    /// Bytes of an event's data
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    /// Events a request
    #[arg(long, value_name = "EVENTS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Most connections that publish
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    publishers: u16,
    /// How long to publish; with --rate find, how long each trial takes
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// First watch the idle connections for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    idle: u64,
    /// Afterwards cut all connections at once, and let them resume so many events behind
    #[arg(long, value_name = "EVENTS", num_args = 0..=1, default_missing_value = "10",
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    storm: Option<u64>,
    /// At last let connections come and go for so long, while events are published
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    churn: u64,
    /// Connections that go, and others that come back, a second of --churn
    #[arg(long, value_name = "CONNECTIONS", default_value = "50", value_parser = above_nought)]
    churn_rate: f64,
    /// A server's process id, on this machine: its CPU and memory are reported. Several are added up
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// The process id of the Redis behind the servers, likewise
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    redis_pid: Vec<u32>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Hold connections for the process that started this one.
    #[arg(long, hide = true)]
    worker: bool,
}

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate::Max),
        "find" => Ok(Rate::Find),
        _ => above_nought(text).map(Rate::Fixed).map_err(|error| format!("{error}, nor 'max' or 'find'")),
    }
}

fn above_nought(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("'{text}' is not a number above 0"))
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    if arguments.worker {
        bench::serve_worker().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let json = arguments.json;
    let plan = arguments.plan().await?;
    let bar = Bar::new(!json && stderr().is_terminal());
    let report = bench::run(&plan, &bar).await;
    bar.0.finish_and_clear();
    let report = report.map_err(Failure::failed)?;
    if json {
        print(serde_json::to_string(&report).expect("a report holds only numbers and names"))?;
    } else {
        print(report)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    async fn plan(self) -> Result<Plan, Failure> {
        self.refuse_what_can_not_work()?;
        let urls = server::urls(&self.url);
        let mut servers = Vec::with_capacity(urls.len());
        for url in &urls {
            servers.push(server_at(url).await?);
        }
        let target = Target {
            servers,
            dialect: self.dialect,
            transport: self.transport,
            pattern: self.pattern,
            name: format!("bench-{}", uuid::Uuid::new_v4().simple()),
            headers: header_lines(&self.credentials.headers()?),
            event_bytes: self.size,
            trust: Trust::in_authorities(self.credentials.authorities()?),
        };
        Ok(Plan {
            target,
            connections: self.connections,
            processes: self.processes.into(),
            pids: self.pid,
            redis_pids: self.redis_pid,
            idle: Duration::from_secs(self.idle),
            time: Duration::from_secs(self.seconds),
            rate: self.rate,
            within: Duration::from_millis(self.within),
            batch: self.batch.into(),
            publishers: self.publishers.into(),
            storm: self.storm,
            churn: Duration::from_secs(self.churn),
            churn_rate: self.churn_rate,
        })
    }

    fn refuse_what_can_not_work(&self) -> Result<(), Failure> {
        let refuse = |line: String| Err(Failure::usage(line));
        let (descriptors, _) = rlimit::Resource::NOFILE.get().unwrap_or((u64::MAX, u64::MAX));
        let room = descriptors.saturating_sub(OTHER_DESCRIPTORS + u64::from(self.publishers)).max(1);
        let wanted = (self.connections as u64).div_ceil(self.processes.into());
        if wanted > room {
            let processes = (self.connections as u64).div_ceil(room);
            return refuse(format!(
                "--connections: {} connections need --processes {processes} or a higher `ulimit -Hn`: a process here \
                 has {descriptors} descriptors, room for {room} connections",
                self.connections
            ));
        }
        if self.dialect == Dialect::SocketIo && self.transport == Transport::Sse {
            return refuse("--dialect socket-io needs --transport websocket".into());
        }
        if self.dialect != Dialect::Whimbrel && self.batch > 1 {
            return refuse("--batch: only Whimbrel takes several events a request".into());
        }
        let has_ids =
            self.dialect == Dialect::Whimbrel || (self.dialect == Dialect::Nchan && self.transport == Transport::Sse);
        if self.storm.is_some() && !has_ids {
            return refuse("--storm: this server gives no ids to resume at over this transport".into());
        }
        if self.connections == 0 && (self.rate == Rate::Find || self.storm.is_some() || self.churn > 0) {
            return refuse("--connections: without connections there is nothing to deliver, cut or churn".into());
        }
        Ok(())
    }
}

/// Headers as they stand in a request.
fn header_lines(headers: &HeaderMap) -> String {
    // Their values were given as text.
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    headers.iter().map(line).collect()
}

async fn server_at(url: &str) -> Result<Server, Failure> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let authority = Some(rest.trim_end_matches('/'))
        .filter(|rest| matches!(scheme, "http" | "https" | "ws" | "wss") && !rest.is_empty() && !rest.contains('/'))
        .ok_or_else(|| {
            Failure::usage(format!("--url: '{url}' is neither http://HOST[:PORT] nor https://HOST[:PORT]"))
        })?;
    let is_secure = matches!(scheme, "https" | "wss");
    let port = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let place = match port {
        Some(_) => authority.to_owned(),
        None => format!("{authority}:{}", if is_secure { 443 } else { 80 }),
    };
    let host = port.map_or(authority, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
    let secure_name = is_secure.then(|| host.to_owned());
    let address = lookup_host(&place)
        .await
        .map_err(|error| Failure::usage(format!("--url: '{authority}': {error}")))?
        .next()
        .ok_or_else(|| Failure::usage(format!("--url: '{authority}' has no address")))?;
    Ok(Server { authority: authority.to_owned(), address, secure_name })
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
    fn part(&self, name: &str, total: u64) {
        self.0.set_message(name.to_owned());
        self.0.set_length(total.max(1));
        self.0.set_position(0);
    }

    fn done(&self, count: u64) {
        self.0.set_position(count);
    }
}
