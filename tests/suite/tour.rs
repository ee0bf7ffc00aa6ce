//! The README's tour, run as it is printed.
//!
//! The tour is the `sh` blocks under its heading, run in order in one bash; only the node's address is
//! another. A `text` block right after shows what the `sh` block prints, with ids, times and delays of
//! its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const README: &str = include_str!("../../README.md");
const HEADING: &str = "## A five-minute tour";
const ADDRESS: &str = "WHIMBREL=http://127.0.0.1:8080\n";
const WHIMBREL: &str = env!("CARGO_BIN_EXE_whimbrel");

/// What the reader types, and the README's output.
struct Step {
    typed: String,
    printed: String,
}

/// A node with the embedded store, ended when dropped.
pub struct Node {
    process: Child,
    pub url: String,
}

impl Node {
    pub fn start() -> Self {
        let mut process = Command::new(WHIMBREL)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "info"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said = log.find_map(|line| line.split_once("listening on ").map(|(_, url)| url.to_owned()));
        let url = said.expect("the node logs where it listens");
        let url = url.split_whitespace().next().unwrap().to_owned();
        // The rest of its log must not fill the pipe.
        std::thread::spawn(move || log.for_each(drop));
        Node { process, url }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn steps() -> Vec<Step> {
    let (_, tour) = README.split_once(HEADING).expect("the README has the tour");
    let (tour, _) = tour.split_once("\n## ").expect("a section follows the tour");
    let mut steps: Vec<Step> = Vec::new();
    let mut rest = tour;
    while let Some((_, block)) = rest.split_once("\n```") {
        let (kind, block) = block.split_once('\n').unwrap();
        let (body, after) = block.split_once("```").expect("every block ends");
        match kind {
            "sh" => steps.push(Step { typed: body.to_owned(), printed: String::new() }),
            "text" => body.clone_into(&mut steps.last_mut().expect("output follows what is typed").printed),
            other => panic!("a block of kind {other:?} in the tour"),
        }
        rest = after;
    }
    steps
}

/// All steps as one script that prints into a file for each.
fn script(steps: &[Step], url: &str) -> String {
    let mut script = String::from("results=$PWD\n");
    for (number, step) in steps.iter().enumerate() {
        let typed = step.typed.replace(ADDRESS, &format!("WHIMBREL={url}\n"));
        script.push_str(&format!("exec > \"$results/{number}.out\"\n{typed}\n"));
    }
    script
}

/// The text with `ID`, `CURSOR`, `TIME` and `N` in place of what differs from run to run.
fn normal(text: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some(("retry:", _)) => "retry: N".to_owned(),
        Some(("id:", id)) => format!("id: {}", if is_id(id) { "ID" } else { "CURSOR" }),
        _ if is_id(line) => "ID".to_owned(),
        _ => values(line),
    };
    // Pings come when they are due.
    text.lines().filter(|it| *it != ":").map(|it| line(it) + "\n").collect()
}

/// Ids and times stand alone or between quotes; the number of nodes depends on how fast one types.
fn values(line: &str) -> String {
    let shown = |part: &str| match part {
        part if is_id(part) => "ID".to_owned(),
        part if is_uuid(part) => "UUID".to_owned(),
        part if part.len() == 24 && part.ends_with('Z') && part.as_bytes()[10] == b'T' => "TIME".to_owned(),
        part => part.replace(":0,", ":N,").replace(":1,", ":N,"),
    };
    line.split('"').map(shown).collect::<Vec<_>>().join("\"")
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn is_id(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').is_some_and(|(ms, seq)| ms.len() == 13 && number(ms) && number(seq))
}

fn run(script: &str, directory: &Path) {
    // The printed PATH names the release build, which need not be there; this one is found instead.
    let own = Path::new(WHIMBREL).parent().unwrap();
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    let status = Command::new("bash")
        .args(["-c", script])
        .current_dir(directory)
        .env("PATH", path)
        .env("TMPDIR", directory)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn the_tour_of_the_readme_works_as_printed() {
    let steps = steps();
    assert_eq!(steps.iter().filter(|step| step.typed.contains(ADDRESS)).count(), 1, "the address is set once");
    let node = Node::start();
    let directory = TempDir::new().unwrap();
    run(&script(&steps, &node.url), directory.path());
    for (number, step) in steps.iter().enumerate() {
        let printed = fs::read_to_string(directory.path().join(format!("{number}.out"))).unwrap();
        assert_eq!(normal(&printed), normal(&step.printed), "after\n{}it printed\n{printed}", step.typed);
    }
}
