//! The Python client: its own tests in `clients/python/tests`, against this build of the program.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::support::installed;

/// They may take so long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a tool that scripts/test installed in the client's folder; panics with its output if it fails.
async fn tool(name: &str, arguments: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
    let mut command = Command::new(installed(&format!("python/bin/{name}")));
    command
        .args(arguments)
        .env("PYTHONPATH", folder.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MYPYPATH", folder.join("src"))
        .env("WHIMBREL_PROGRAM", env!("CARGO_BIN_EXE_whimbrel"))
        .current_dir(&folder);
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} takes too long")).unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn the_python_client_keeps_its_promises() {
    tool("pytest", &["-q", "-p", "no:cacheprovider", "tests"]).await;
}

#[tokio::test]
async fn the_python_client_is_typed() {
    tool("mypy", &["--cache-dir", "/dev/null", "--strict", "src", "tests"]).await;
}
