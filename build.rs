//! Which commit the program is of, for `whimbrel --version`: of WHIMBREL_COMMIT where a build without a repository
//! sets it, of the package that cargo made, or of git. Builds for development leave it out, so that a commit alone
//! compiles nothing again.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=WHIMBREL_COMMIT");
    let commit = given().or_else(packaged).or_else(checked_out).unwrap_or_default();
    let commit: String = commit.trim().chars().take(12).filter(char::is_ascii_alphanumeric).collect();
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let long = if commit.is_empty() { version } else { format!("{version} ({commit})") };
    println!("cargo:rustc-env=WHIMBREL_BUILD_COMMIT={commit}");
    println!("cargo:rustc-env=WHIMBREL_BUILD_VERSION={long}");
}

fn given() -> Option<String> {
    std::env::var("WHIMBREL_COMMIT").ok().filter(|commit| !commit.trim().is_empty())
}

/// What `cargo package` writes beside the sources.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, after) = text.split_once("\"sha1\"")?;
    after.split('"').nth(1).map(str::to_owned)
}

fn checked_out() -> Option<String> {
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    // Each commit and each checkout writes a line there.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo:rerun-if-changed={}", log.trim());
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
}
