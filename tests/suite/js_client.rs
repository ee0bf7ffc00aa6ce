//! The JavaScript client: its own tests in `clients/js/test`, against this build of the program.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::node::Node;

/// A file of tests may take so long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js")
}

/// Runs node in the client's folder; panics with its output if it fails.
async fn javascript(arguments: &[&str]) -> Output {
    assert!(folder().join("node_modules").exists(), "scripts/test installs what clients/js/package.json lists");
    let mut command = Command::new("node");
    command.args(arguments).current_dir(folder()).env("WHIMBREL_PROGRAM", env!("CARGO_BIN_EXE_whimbrel"));
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} takes too long")).unwrap();
    let said = || [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).join("\n");
    assert!(output.status.success(), "{arguments:?}: {}", said());
    output
}

async fn tests(file: &str) {
    javascript(&["--test", "--test-reporter=spec", &format!("test/{file}.test.mjs")]).await;
}

#[tokio::test]
async fn what_nodes_serve_of_the_client_is_what_its_sources_build_and_is_small_enough() {
    let built = TempDir::new().unwrap();
    let output = javascript(&["build.mjs", built.path().to_str().unwrap()]).await;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let node = Node::start(&[]);
    for entry in built.path().read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let served = node.get(&format!("/{name}")).await;
        let fresh = std::fs::read_to_string(built.path().join(&name)).unwrap();
        assert!(served.text() == fresh.as_str(), "{name} is stale: run `npm run build` in clients/js");
        assert_eq!(served.header("content-type"), Some("text/javascript; charset=utf-8"));
        let tag = served.header("etag").unwrap();
        let again = node.call("GET", &format!("/{name}"), &[("if-none-match", tag)], "").await;
        assert_eq!((again.status, again.text()), (304, ""), "{name}");
    }
}

#[tokio::test]
async fn the_values_of_the_client_are_right() {
    tests("values").await;
    tests("machine").await;
}

#[tokio::test]
async fn the_client_keeps_its_promises_in_node() {
    tests("node").await;
}

#[tokio::test]
async fn the_client_renews_its_tokens_and_reports_what_is_refused() {
    tests("tokens").await;
}

#[tokio::test]
async fn the_client_keeps_its_promises_in_a_browser() {
    tests("browser").await;
}

#[tokio::test]
async fn many_clients_lose_nothing_while_nodes_are_restarted_one_after_the_other() {
    tests("restarts").await;
}

#[tokio::test]
async fn the_hooks_work_on_a_server_and_in_a_browser() {
    tests("react").await;
}

#[tokio::test]
async fn the_example_of_a_chat_with_presence_works() {
    tests("chat").await;
}

#[tokio::test]
async fn the_package_installs_and_has_types() {
    tests("package").await;
}
