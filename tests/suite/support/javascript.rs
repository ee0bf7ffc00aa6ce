//! Stock clients in JavaScript, as browsers have them.

use std::path::Path;

use super::installed;

/// Runs a program of `tests/tools` with what scripts/test installed for it; panics with what it said if it
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
