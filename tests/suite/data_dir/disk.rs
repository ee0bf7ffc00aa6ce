//! The disk itself: full, damaged, torn, used by two, copied.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use super::{Data, journals};
use crate::support::client::{Transport, Wanted};
use crate::support::command::run;
use crate::support::eventually;
use crate::support::node::Node;

/// Fills the disk of a node, gives it room, kills it, and looks at what another one finds.
async fn fills_up(node: Node, give_room: impl Fn(&Node), again: impl Fn() -> Node) {
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).connect(&node).await;
    let event = |number: usize| format!("\"{number}{}\"", "x".repeat(60_000));
    let mut stored = Vec::new();
    let refusal = loop {
        let answer = node.call("POST", "/v1/topics/a/events", &[], event(stored.len())).await;
        match answer.status {
            201 => stored.push(answer.id()),
            _ => break answer,
        }
        assert!(stored.len() < 1000, "the disk is never full");
    };
    let (slug, detail) = refusal.problem(503);
    assert!(slug == "store-full" && refusal.header("retry-after").is_some(), "{slug}: {detail}");
    for number in 0..stored.len() {
        assert_eq!(client.event().await.data, event(number));
    }
    assert_eq!(node.history("topic:a").await[0], event(0));
    // Who comes and goes, on streams that are there, needs no more than what is kept back.
    drop(client);
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).after(stored.last().unwrap()).connect(&node).await;
    node.call("POST", "/v1/topics/a/events", &[], event(0)).await.problem(503);

    give_room(&node);
    let id = eventually("there is room", async || {
        let answer = node.call("POST", "/v1/topics/a/events", &[], "\"room\"").await;
        (answer.status == 201).then(|| answer.id())
    })
    .await;
    stored.push(id);
    assert_eq!(client.event().await.data, "\"room\"");
    node.kill();
    let node = again();
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).after("earliest").connect(&node).await;
    for id in &stored {
        assert_eq!(client.event().await.id, *id);
    }
    // Nothing of what was refused comes in between.
    let next = node.publish("topic:a", "\"next\"").await;
    assert_eq!(client.event().await.id, next);
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_and_nothing_else_until_there_is_room() {
    let data = Data::new();
    // 5 MiB for each file, as on a small disk. The signal that goes with that limit has no counterpart there.
    let node = Node::start_after("trap '' XFSZ; ulimit -S -f 10240", &data.settings(&[]));
    let give_room = |node: &Node| {
        let pid = Pid::from_raw(node.pid() as i32);
        prlimit(pid, Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    };
    fills_up(node, give_room, || data.node(&[])).await;
}

/// A file system of a few MiB, in a mount namespace that lives as long as this.
struct SmallDisk {
    holder: Child,
    data: Data,
}

impl SmallDisk {
    fn new() -> Self {
        let data = Data::new();
        let script = format!("mount -t tmpfs -o size=8m tmpfs '{}' && echo mounted && exec sleep 600", data.path());
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        SmallDisk { holder, data }
    }

    /// Runs a command where the file system is mounted.
    fn enter(&self, command: &str) -> String {
        format!("nsenter --target {} --user --mount --preserve-credentials {command}", self.holder.id())
    }

    fn node(&self) -> Node {
        let program = format!("exec {}", self.enter(env!("CARGO_BIN_EXE_whimbrel")));
        Node::start_after(&program, &self.data.settings(&[]))
    }

    fn grow(&self) {
        let remount = self.enter(&format!("mount -o remount,size=64m '{}'", self.data.path()));
        assert!(Command::new("sh").args(["-c", &remount]).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[tokio::test]
#[ignore = "mounts a tmpfs, which not every container may: scripts/test full_file_system -- --ignored"]
async fn a_full_file_system_refuses_publishes_and_nothing_else_until_there_is_room() {
    let disk = SmallDisk::new();
    fills_up(disk.node(), |_| disk.grow(), || disk.node()).await;
}

#[tokio::test]
async fn a_write_that_was_not_completed_is_cut_off_and_logged() {
    let data = Data::new();
    let node = data.node(&[]);
    node.publish_all("topic:a", 0..3).await;
    node.kill();
    let (path, end) = data.newest();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"\x40\0\0\0 the begin of a frame", end as u64).unwrap();
    let check = run(&["check", "--data-dir", data.path()], &[], b"").await;
    assert!(
        check.code == Some(0) && check.stdout.contains("warning") && check.stdout.contains("not completed"),
        "{check:?}"
    );
    let node = data.node(&[]);
    assert!(node.log().contains("had not been completed: it was cut off"), "{}", node.log());
    assert_eq!(node.history("topic:a").await, ["0", "1", "2"]);
    node.publish("topic:a", "3").await;
    node.kill();
    let node = data.node(&[]);
    assert!(!node.log().contains("cut off"));
    assert_eq!(node.history("topic:a").await, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn a_damaged_file_is_named_with_the_way_out_and_the_way_out_works() {
    let data = Data::new();
    let node = data.node(&[]);
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(node.publish("topic:a", &format!("\"event {number}\"")).await);
    }
    node.kill();
    let (path, _) = data.newest();
    let bytes = std::fs::read(&path).unwrap();
    let third = bytes.windows(9).position(|window| window == b"\"event 3\"").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"!", third as u64).unwrap();

    let refused = run(&["serve"], &data.settings(&[("WHIMBREL_LISTEN", "127.0.0.1:0")]), b"").await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let line = refused.stderr.lines().find(|line| line.contains("is damaged at byte")).unwrap();
    assert!(line.contains("WHIMBREL_DATA_DIR") && line.contains(path.to_str().unwrap()), "{line}");
    let check = run(&["check", "--data-dir", data.path()], &[], b"").await;
    assert!(check.code == Some(1) && check.stdout.contains("error    "), "{check:?}");

    let (_, way) = line.rsplit_once("had seen it: ").unwrap();
    assert!(Command::new("sh").arg("-c").arg(way).status().unwrap().success(), "{way}");
    let node = data.node(&[]);
    assert_eq!(node.history("topic:a").await, ["\"event 0\"", "\"event 1\"", "\"event 2\""]);
    // Somebody had seen what is lost.
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).after(&ids[5]).connect(&node).await;
    node.publish("topic:a", "\"goes on\"").await;
    assert_eq!(client.gap().await.reason, "lost");
    assert_eq!(client.event().await.data, "\"goes on\"");
}

#[tokio::test]
async fn a_file_that_is_missing_or_another_programs_is_named() {
    let data = Data::new();
    data.node(&[]).kill();
    let (path, _) = data.newest();
    let later = path.with_file_name("00000003.journal");
    for (content, expected) in [(&b"whimbrel\x07\0\0\0\0\0\0\0"[..], "00000002.journal is missing"), (b"", "")] {
        std::fs::write(&later, content).unwrap();
        let refused = run(&["serve"], &data.settings(&[]), b"").await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(expected), "{refused:?}");
    }
    std::fs::remove_file(&later).unwrap();
    for (content, expected) in
        [(&b"whimbrel\x07\0\0\0\0\0\0\0"[..], "format 7"), (b"something else", "another program")]
    {
        std::fs::write(&path, content).unwrap();
        let refused = run(&["serve"], &data.settings(&[]), b"").await;
        assert!(refused.code == Some(2) && refused.stderr.contains(expected), "{refused:?}");
    }
}

#[tokio::test]
async fn a_second_node_on_the_directory_is_refused_by_name() {
    let data = Data::new();
    let node = data.node(&[]);
    let refused = run(&["serve"], &data.settings(&[("WHIMBREL_LISTEN", "127.0.0.1:0")]), b"").await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let holder = format!("{} is in use by process {}", data.path(), node.pid());
    assert!(refused.stderr.contains(&holder), "{refused:?}");
    let check = run(&["check", "--data-dir", data.path()], &[], b"").await;
    assert!(check.code == Some(0) && check.stdout.contains(&holder), "{check:?}");
    node.publish("topic:a", "1").await;
}

#[tokio::test]
async fn a_copy_that_is_made_while_the_node_runs_is_a_backup() {
    let data = Data::new();
    let node = data.node(&[]);
    node.publish_all("topic:a", 0..50).await;
    let publishing = async {
        for number in 50..150 {
            node.publish("topic:a", &number.to_string()).await;
        }
    };
    let backup = TempDir::new().unwrap();
    let copying =
        tokio::process::Command::new("cp").arg("-a").arg(data.path()).arg(backup.path().join("copy")).status();
    let (copied, ()) = tokio::join!(copying, publishing);
    assert!(copied.unwrap().success());
    let copy = backup.path().join("copy");
    let restored = Node::start(&[("WHIMBREL_DATA_DIR", copy.to_str().unwrap())]);
    let history = restored.history("topic:a").await;
    let expected: Vec<_> = (0..history.len()).map(|number| number.to_string()).collect();
    assert!(history.len() >= 50 && history == expected, "{history:?}");
}

#[tokio::test]
async fn the_files_shrink_to_what_is_kept() {
    let data = Data::new();
    let node = data.node(&[("WHIMBREL_RETENTION", "*=10/3600"), ("WHIMBREL_FSYNC", "everysec")]);
    let event = format!("\"{}\"", "x".repeat(60_000));
    let kept = node.publish("topic:kept", "\"from the first file\"").await;
    let first = data.newest().0;
    let mut number = 0;
    eventually("the first file goes", async || {
        node.publish_all("topic:a", (number..number + 20).map(|n| format!("[{n},{event}]"))).await;
        number += 20;
        (!first.exists()).then_some(())
    })
    .await;
    let bytes: u64 = journals(data.0.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < 64 * 1024 * 1024, "{bytes} bytes for less than 1 MiB of events");
    node.kill();
    let node = data.node(&[("WHIMBREL_RETENTION", "*=10/3600")]);
    let mut client = Wanted::new(Transport::Sse, &["topic:a"]).after("earliest").connect(&node).await;
    for number in number - 10..number {
        assert_eq!(client.event().await.data, format!("[{number},{event}]"));
    }
    let event = node.get_json("/v1/topics/kept/events").await["events"][0]["id"].clone();
    assert_eq!(event, kept);
}

#[tokio::test]
async fn a_publish_can_wait_for_the_disk_and_a_check_knows_the_directory() {
    let data = Data::new();
    let node = data.node(&[("WHIMBREL_FSYNC", "everysec")]);
    let answer = node.call("POST", "/v1/topics/a/events?durable=disk", &[], "1").await;
    assert_eq!((answer.status, &answer.json()["durable"]), (201, &serde_json::json!({"disk": true})));
    node.call("POST", "/v1/topics/a/events?durable=replicas:1", &[], "1").await.problem(400);
    assert!(node.log().contains("data_dir=") && node.log().contains("fsync=everysec"), "{}", node.log());
    node.kill();
    let check = run(&["check", "--data-dir", data.path()], &[], b"").await;
    assert!(check.code == Some(0) && check.stdout.contains("holds 1 streams in "), "{check:?}");
    let both = run(&["check", "--data-dir", data.path(), "--redis-url", "redis://localhost"], &[], b"").await;
    assert!(both.code == Some(2) && both.stderr.contains("WHIMBREL_DATA_DIR"), "{both:?}");
}
