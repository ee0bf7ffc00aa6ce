//! Clients that are not ours, and what `docs/clients.md` says of all of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::support::installed;

/// On a busy machine each of the clients' steps may take most of a minute.
const PATIENCE: Duration = Duration::from_secs(300);

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[tokio::test]
async fn other_clients_follow_and_resume_as_the_documentation_says() {
    assert!(
        root("clients/matrix/node_modules").exists(),
        "scripts/test installs what clients/matrix/package.json lists"
    );
    let mut command = Command::new("node");
    command
        .arg(root("clients/matrix/matrix.mjs"))
        .args(["chromium", "eventsource4", "ws", "httpx-sse", "sseclient-py"])
        .env("WHIMBREL_PROGRAM", env!("CARGO_BIN_EXE_whimbrel"))
        .env("MATRIX_PYTHON", installed("python/bin/python"));
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.expect("the clients take too long").unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(output.status.success(), "{said}");
}

/// `[label]: path "title"` of each line that is one.
fn definitions(page: &str) -> HashMap<&str, (&str, &str)> {
    page.lines()
        .filter_map(|line| {
            let (label, rest) = line.strip_prefix('[')?.split_once("]: ")?;
            let (path, title) = rest.split_once(" \"")?;
            Some((label, (path, title.strip_suffix('"')?)))
        })
        .collect()
}

#[test]
fn what_the_documentation_says_of_each_client_names_a_test() {
    let page = std::fs::read_to_string(root("docs/clients.md")).unwrap();
    let definitions = definitions(&page);
    let (_, table) = page.split_once("## What each client does").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "the table is there");
    let mut named = HashSet::new();
    for row in rows {
        for cell in row.trim_matches('|').split(" | ").skip(1).map(str::trim) {
            let labels: Vec<&str> =
                cell.split("][").skip(1).filter_map(|rest| rest.split_once(']')).map(|(label, _)| label).collect();
            assert!(cell.is_empty() || cell.starts_with("no") || !labels.is_empty(), "{cell:?} of {row} names no test");
            for label in labels {
                let (path, title) = definitions.get(label).unwrap_or_else(|| panic!("[{label}] is nowhere"));
                let file = std::fs::read_to_string(root("docs").join(path)).unwrap();
                assert!(file.contains(title), "{path} has no {title:?}");
                named.insert(label);
            }
        }
    }
    assert_eq!(named.len(), definitions.len(), "each test that is named is one of a row");
}
