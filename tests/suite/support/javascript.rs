//! Stock clients in JavaScript, as browsers have them, and browsers.

use std::path::Path;
use std::time::Duration;

use super::installed;

/// Runs a program of `tests/tools` with what scripts/test installed for it; panics with its output if it
/// fails.
pub async fn javascript(program: &str, arguments: &[&str]) {
    installed("node_modules");
    let output = tokio::process::Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(program))
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// A file of tests in a browser may take so long on a busy machine.
const BROWSER_PATIENCE: Duration = Duration::from_secs(300);

/// Runs a file of `tests/browser`; panics with what it said if a test in it fails. A browser is driven with what
/// scripts/test installed for the client.
pub async fn browser_tests(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(root.join("clients/js/node_modules").exists(), "scripts/test installs what clients/js/package.json lists");
    let mut command = tokio::process::Command::new("node");
    command.args(["--test", "--test-reporter=spec"]).arg(root.join("tests/browser").join(format!("{name}.test.mjs")));
    command.env("WHIMBREL_PROGRAM", env!("CARGO_BIN_EXE_whimbrel")).kill_on_drop(true);
    let output = tokio::time::timeout(BROWSER_PATIENCE, command.output()).await.expect("the tests end").unwrap();
    let said = || [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).join("\n");
    assert!(output.status.success(), "{name}: {}", said());
}
