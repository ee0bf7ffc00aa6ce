//! `whimbrel relay postgres`: publishes what transactions of a database write into an outbox table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::server::{Target, variable};
use super::{Failure, log, print};
use crate::metrics::RelayMetrics;
use crate::relay::{Dsn, MetricsListener, Relay, RelayError, TableName};

const NOTES: &str = "\
An application inserts rows into the table in the transactions that change its own data; each becomes an event once its \
transaction has committed. Rows of one stream are published in order of their ids, also by several relays at once, and each \
once: a row whose publish may have been lost is repeated with the same idempotency key. Rows are deleted when they are \
published, or marked with --keep; one that can't be an event is marked with the reason in its column `error`.

SIGTERM and Ctrl-C finish the batch that is under way; a second one ends it at once.

Examples:
  whimbrel relay postgres --print-schema | psql shop
  WHIMBREL_POSTGRES_DSN=postgres://shop:secret@db/shop whimbrel relay postgres --url https://push.example.com
  whimbrel relay postgres --dsn 'host=/run/postgresql dbname=shop' --table app.outbox --metrics-listen 127.0.0.1:9187";

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    source: Source,
}

#[derive(clap::Subcommand)]
enum Source {
    /// From a table of PostgreSQL
    #[command(after_help = NOTES)]
    Postgres(PostgresArguments),
}

#[derive(clap::Args)]
struct PostgresArguments {
    /// How the database is reached: postgres://USER:PASSWORD@HOST/DATABASE, or host=… user=… [env: WHIMBREL_POSTGRES_DSN,
    /// where other users of the machine can't see it]
    #[arg(long)]
    dsn: Option<String>,
    /// The same from a file [env: WHIMBREL_POSTGRES_DSN_FILE]
    #[arg(long, value_name = "PATH", conflicts_with = "dsn")]
    dsn_file: Option<PathBuf>,
    /// The table, as PostgreSQL keeps its name: NAME or SCHEMA.NAME
    #[arg(long, default_value = "outbox")]
    table: TableName,
    /// Mark rows in their column sent_at once they are published, and delete none
    #[arg(long)]
    keep: bool,
    /// How often to look for rows that no trigger announced
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    poll_seconds: u64,
    /// Where Prometheus reads /metrics, such as 127.0.0.1:9187 [nowhere when left out]
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Print the statements that create the table with its index and its trigger, and end
    #[arg(long)]
    print_schema: bool,
    #[command(flatten)]
    server: Target,
}

impl PostgresArguments {
    fn dsn(&self) -> Result<Dsn, Failure> {
        let given = self.dsn.clone().or_else(|| variable("WHIMBREL_POSTGRES_DSN").filter(|_| self.dsn_file.is_none()));
        let (text, name) = match given {
            Some(text) => (text, "--dsn (WHIMBREL_POSTGRES_DSN)"),
            None => {
                let file = self.dsn_file.clone().or_else(|| variable("WHIMBREL_POSTGRES_DSN_FILE").map(PathBuf::from));
                let file = file.ok_or_else(|| {
                    Failure::usage("--dsn or WHIMBREL_POSTGRES_DSN has to say how the database is reached")
                })?;
                let read = std::fs::read_to_string(&file);
                let cannot = |error| Failure::usage(format!("--dsn-file {}: {error}", file.display()));
                (read.map_err(cannot)?, "--dsn-file (WHIMBREL_POSTGRES_DSN_FILE)")
            }
        };
        text.parse().map_err(|error| Failure::usage(format!("{name}: {error}")))
    }
}

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Source::Postgres(arguments) = arguments.source;
    if arguments.print_schema {
        print(arguments.table.schema().trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    log::start_lasting();
    let dsn = arguments.dsn()?;
    let metrics = RelayMetrics::new();
    if let Some(address) = arguments.metrics_listen {
        let cannot = |error| Failure::usage(format!("--metrics-listen {address}: {error}"));
        let listener = MetricsListener::bind(address).await.map_err(cannot)?;
        tracing::info!("figures on http://{}/metrics", listener.address().map_err(cannot)?);
        tokio::spawn(listener.answer(metrics.clone()));
    }
    let relay = Relay {
        dsn,
        table: arguments.table,
        keep: arguments.keep,
        poll: Duration::from_secs(arguments.poll_seconds),
        publisher: arguments.server.publisher()?,
        metrics,
    };
    let stop = CancellationToken::new();
    stop_by_signal(stop.clone())?;
    relay.run(stop).await.map_err(|error| match error {
        RelayError::Table(_) => Failure::usage(error),
        RelayError::Refused { .. } => Failure::failed(error),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The first signal stops it, a second one ends the process.
#[expect(clippy::disallowed_methods, reason = "a second signal asks for that, while the relay stops")]
fn stop_by_signal(stop: CancellationToken) -> Result<(), Failure> {
    let cannot = |error| Failure::failed(format!("signals can't be received: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        };
        next().await;
        stop.cancel();
        let code = next().await;
        std::process::exit(code);
    });
    Ok(())
}
