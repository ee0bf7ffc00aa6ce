//! `whimbrel check`: would a node start with this configuration, and is its Redis fit for it? With a history:
//! were the promises kept?

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::Flags;
use crate::history;
use crate::store::memory::{self, DataDirError, Fsync, Restored};
use crate::store::redis::{self, ConnectError, Inspection, Survey};

use super::{Failure, print};

pub const NOTES: &str = "\
Takes all settings of `whimbrel serve`, as flags or variables (see `whimbrel serve --help`), and prints one line for each finding, beginning with ok, \
warning or error. The exit code is 1 if there is an error, and 2 if a setting can't work.

With --acl nothing is contacted: it prints ACL SETUSER commands with PASSWORD as a placeholder; with Sentinels \
there is one for them too, and users of a Cluster may ask for its servers.

With --history nothing is configured or contacted: the file is a history of what producers published and \
what clients received, one JSON record a line, as the fault tests write it. Each broken promise is a line, \
and the exit code is 1 if there is one.";

#[derive(clap::Args)]
pub struct Arguments {
    /// Judge a recorded history instead: was everything delivered once, in order, and without gaps?
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Print the Redis commands that create a user with the least rights for each kind of client: nodes, producers
    /// that add to the ingress stream, and producers that call functions
    #[arg(long, conflicts_with = "history")]
    acl: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Redis' default, in bytes.
const NODE_MAX_BYTES: u64 = 4096;

pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.history {
        Some(file) => run_history(&file),
        None if arguments.acl => {
            let (settings, _) = arguments.flags.validate(std::env::vars_os())?;
            print(redis::acl::rules(&settings.prefix, settings.has_sentinels(), settings.has_cluster()).trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
        None => run_settings(arguments.flags).await,
    }
}

fn run_history(path: &Path) -> Result<ExitCode, Failure> {
    let file = File::open(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let records =
        history::read(BufReader::new(file)).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let verdict = history::judge(&records);
    for violation in &verdict.violations {
        print(violation)?;
    }
    print(format!("{}; violations: {}", verdict.summary, verdict.violations.len()))?;
    Ok(if verdict.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_settings(flags: Flags) -> Result<ExitCode, Failure> {
    let (settings, warnings) = flags.validate(std::env::vars_os())?;
    let places = settings.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let mut findings = vec![Finding::ok(format!("the settings are sound; a node would listen on {places}"))];
    findings.extend(warnings.into_iter().map(Finding::warning));
    match &settings.redis_url {
        None => findings.push(match &settings.data_dir {
            None => Finding::ok("no Redis is set: a single node that keeps its events in memory"),
            Some(directory) => judge_data_dir(directory, settings.fsync),
        }),
        Some(url) => match redis::survey(&settings.server(url)).await {
            Ok(survey) => {
                findings.extend(judge_all(&survey));
                // Otherwise the probe would only find the same once more.
                if survey.servers.iter().all(|(_, inspection)| inspection.is_ok()) {
                    findings.push(match redis::probe(&settings.server(url), &settings.prefix).await {
                        Ok(()) => Finding::ok("a subscription, a script, a write and a message work under the prefix"),
                        Err(reason) => Finding::error(format!("{url}: {reason}")),
                    });
                }
            }
            Err(reason) => findings.push(Finding::error(format!("{url}: {reason}"))),
        },
    }
    for finding in &findings {
        print(finding)?;
    }
    let sound = findings.iter().all(|finding| finding.level != Level::Error);
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Error,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    text: String,
}

impl Finding {
    fn ok(text: impl Into<String>) -> Self {
        Finding { level: Level::Ok, text: text.into() }
    }

    fn warning(text: impl Into<String>) -> Self {
        Finding { level: Level::Warning, text: text.into() }
    }

    fn error(text: impl Into<String>) -> Self {
        Finding { level: Level::Error, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{level:<8} {}", self.text)
    }
}

/// What a node would find in its data directory. Nothing there is changed.
fn judge_data_dir(directory: &Path, fsync: Fsync) -> Finding {
    let shown = directory.display();
    if !directory.exists() {
        return Finding::ok(format!("{shown} is not there yet: a single node would keep its events in it"));
    }
    match memory::inspect(directory) {
        Ok(found) => {
            let Restored { streams, disk_bytes, torn, took, .. } = found;
            let text = format!(
                "{shown} holds {streams} streams in {disk_bytes} bytes, read in {:.1} s; fsync is {fsync}",
                took.as_secs_f64()
            );
            match torn {
                0 => Finding::ok(text),
                torn => {
                    Finding::warning(format!("{text}; {torn} bytes of a write that was not completed would be cut"))
                }
            }
        }
        Err(error @ DataDirError::InUse { .. }) => Finding::warning(error.to_string()),
        Err(error) => Finding::error(error.to_string()),
    }
}

/// Of a Cluster, each finding names its server; so does that of a server that can't be looked at.
fn judge_all(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(slots) = survey.uncovered_slots {
        findings.push(match slots {
            0 => Finding::ok(format!("a Cluster of {} masters, which have all slots", survey.servers.len())),
            _ => Finding::error(format!("{slots} slots of the Cluster have no master: their streams can't be used")),
        });
    }
    for (server, inspection) in &survey.servers {
        let of_server = match inspection {
            Ok(inspection) if survey.uncovered_slots.is_none() && inspection.in_cluster == Some(true) => {
                vec![Finding::error(ConnectError::InCluster.to_string())]
            }
            Ok(inspection) => judge(inspection),
            Err(reason) => vec![Finding::error(reason.to_string())],
        };
        let is_named = survey.uncovered_slots.is_some() || inspection.is_err();
        findings.extend(of_server.into_iter().map(|finding| match is_named {
            true => Finding { text: format!("{server}: {}", finding.text), ..finding },
            false => finding,
        }));
    }
    findings
}

/// One shard that is away should not take the others with it.
fn coverage(inspection: &Inspection) -> Option<Finding> {
    inspection.full_coverage.filter(|required| *required && inspection.in_cluster == Some(true)).map(|_| {
        Finding::warning(
            "cluster-require-full-coverage is yes: while one master is away without a replica, no stream can be used; \
             set it to no",
        )
    })
}

fn judge(inspection: &Inspection) -> Vec<Finding> {
    let mut findings = vec![
        version(inspection),
        eviction(inspection.eviction.as_deref()),
        persistence(inspection.append_only, inspection.snapshots.as_deref()),
        durability(inspection),
        node_size(inspection.stream_node_bytes),
        Finding::ok(format!("round trip {:.1} ms", inspection.round_trip.as_secs_f64() * 1000.0)),
    ];
    findings.extend(replication(inspection));
    findings.extend(coverage(inspection));
    findings
}

/// What a failover would find, where there are replicas or should be.
fn replication(inspection: &Inspection) -> Option<Finding> {
    match (inspection.replicas?, inspection.min_replicas) {
        (0, _) if inspection.by_sentinels => {
            Some(Finding::warning("the master has no replica, so Sentinels have no server to replace it with"))
        }
        (0, _) if inspection.in_cluster == Some(true) => {
            Some(Finding::warning("the master has no replica, so nothing takes over its slots when it fails"))
        }
        (0, _) => None,
        (count, Some(0)) => Some(Finding::warning(format!(
            "{count} replicas, and min-replicas-to-write is 0: a master that is cut off from them goes on \
             acknowledging events that are lost when another takes over; set it to 1"
        ))),
        (count, _) => Some(Finding::ok(format!("{count} replicas"))),
    }
}

fn version(inspection: &Inspection) -> Finding {
    if let (Some(valkey), Ok(())) = (&inspection.valkey, inspection.check_version()) {
        return Finding::ok(format!("Valkey {valkey}"));
    }
    match (&inspection.version, inspection.check_version()) {
        (_, Err(error)) => Finding::error(error.to_string()),
        (Some(version), Ok(())) => Finding::ok(format!("Redis {version}")),
        (None, Ok(())) => Finding::warning("the version can't be read: Redis 7.0 or newer, or Valkey, is needed"),
    }
}

fn eviction(policy: Option<&str>) -> Finding {
    match policy {
        Some("noeviction") => Finding::ok("maxmemory-policy is noeviction"),
        Some(policy) => Finding::error(format!(
            "maxmemory-policy is {policy}, so events and routes vanish when memory is short: set it to noeviction"
        )),
        None => Finding::warning("maxmemory-policy can't be read (CONFIG is blocked): it has to be noeviction"),
    }
}

fn persistence(append_only: Option<bool>, snapshots: Option<&str>) -> Finding {
    match (append_only, snapshots.map(|save| !save.is_empty())) {
        (Some(true), _) => Finding::ok("persistence: append-only file"),
        (_, Some(true)) => Finding::ok("persistence: snapshots; a crash loses what came after the last one"),
        (Some(false), Some(false)) => {
            Finding::warning("persistence is off: a restart of Redis loses all events; set appendonly yes")
        }
        _ => Finding::warning("persistence can't be read (CONFIG is blocked): without it a restart loses all events"),
    }
}

/// What a publish may ask for: an answer 400 would be late to find out.
fn durability(inspection: &Inspection) -> Finding {
    match inspection.disk() {
        Ok(_) => Finding::ok("publishes can ask for durable=disk"),
        Err(reason) => {
            Finding::ok(format!("publishes can't ask for durable=disk: {}", reason.trim_start_matches("durable=disk ")))
        }
    }
}

fn node_size(bytes: Option<u64>) -> Finding {
    match bytes {
        // 0 is no limit.
        Some(bytes) if bytes == 0 || bytes >= NODE_MAX_BYTES => Finding::warning(format!(
            "stream-node-max-bytes is {bytes}: a short stream takes some 4 KB of memory; with 512 it takes 0.8 KB"
        )),
        Some(bytes) => Finding::ok(format!("stream-node-max-bytes is {bytes}")),
        None => Finding::warning("stream-node-max-bytes can't be read (CONFIG is blocked): 512 saves memory"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::StoreError;

    fn healthy() -> Inspection {
        Inspection {
            version: Some("7.2.5".into()),
            eviction: Some("noeviction".into()),
            append_only: Some(true),
            fsync: Some("everysec".into()),
            snapshots: Some(String::new()),
            stream_node_bytes: Some(512),
            round_trip: Duration::from_micros(420),
            valkey: None,
            by_sentinels: false,
            replicas: Some(0),
            min_replicas: Some(0),
            in_cluster: Some(false),
            full_coverage: Some(true),
        }
    }

    fn lines(inspection: &Inspection) -> String {
        judge(inspection).iter().map(|finding| format!("{finding}\n")).collect()
    }

    #[test]
    fn a_redis_as_it_should_be_is_ok_throughout() {
        assert_eq!(
            lines(&healthy()),
            "ok       Redis 7.2.5\n\
             ok       maxmemory-policy is noeviction\n\
             ok       persistence: append-only file\n\
             ok       publishes can ask for durable=disk\n\
             ok       stream-node-max-bytes is 512\n\
             ok       round trip 0.4 ms\n"
        );
    }

    #[test]
    fn what_loses_events_silently_is_an_error() {
        let evicting = Inspection { eviction: Some("allkeys-lru".into()), ..healthy() };
        assert!(lines(&evicting).contains("error    maxmemory-policy is allkeys-lru"));
        let old = Inspection { version: Some("6.2.14".into()), ..healthy() };
        assert!(lines(&old).contains("error    the server is Redis 6.2.14"));
    }

    #[test]
    fn what_costs_is_a_warning_with_the_remedy() {
        let bare = Inspection { append_only: Some(false), stream_node_bytes: Some(4096), ..healthy() };
        assert!(lines(&bare).contains("warning  persistence is off"));
        assert!(lines(&bare).contains("warning  stream-node-max-bytes is 4096"));
        assert!(lines(&bare).contains("with 512"));
    }

    #[test]
    fn what_a_failover_would_find_is_said_where_there_is_one() {
        let behind = |replicas, min_replicas| {
            let (by_sentinels, min_replicas) = (true, Some(min_replicas));
            lines(&Inspection { by_sentinels, replicas: Some(replicas), min_replicas, ..healthy() })
        };
        assert!(behind(0, 1).contains("warning  the master has no replica"));
        assert!(behind(2, 0).contains("warning  2 replicas, and min-replicas-to-write is 0"));
        assert!(behind(2, 1).contains("ok       2 replicas"));
        let valkey = Inspection { valkey: Some("9.1.2".into()), ..healthy() };
        assert!(lines(&valkey).starts_with("ok       Valkey 9.1.2\n"));
    }

    #[test]
    fn each_master_of_a_cluster_is_judged_and_slots_without_one_are_an_error() {
        let master = Inspection { in_cluster: Some(true), ..healthy() };
        let away = Err(StoreError::Unavailable("away".into()));
        let servers = vec![("a:1".to_owned(), Ok(master.clone())), ("b:1".to_owned(), away)];
        let lines =
            |survey: &Survey| judge_all(survey).iter().map(|finding| format!("{finding}\n")).collect::<String>();
        let shown = lines(&Survey { servers, uncovered_slots: Some(3) });
        assert!(shown.starts_with("error    3 slots of the Cluster have no master"), "{shown}");
        assert!(shown.contains("warning  a:1: the master has no replica"), "{shown}");
        assert!(shown.contains("warning  a:1: cluster-require-full-coverage is yes"), "{shown}");
        assert!(shown.contains("error    b:1: the store is unavailable: away"), "{shown}");
        let alone = Survey { servers: vec![("a:1".to_owned(), Ok(master))], uncovered_slots: None };
        assert!(lines(&alone).starts_with("error    the server belongs to a Redis Cluster"));
    }

    #[test]
    fn a_blocked_config_is_told_and_no_error() {
        let blocked =
            Inspection { eviction: None, append_only: None, snapshots: None, stream_node_bytes: None, ..healthy() };
        assert_eq!(lines(&blocked).matches("CONFIG is blocked").count(), 3);
        assert!(judge(&blocked).iter().all(|finding| finding.level != Level::Error));
    }
}
