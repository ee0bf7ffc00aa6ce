//! The log: to standard error, so that standard output holds nothing but results.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{EnvFilter, fmt};

/// Starts it. `filter` was checked with the settings.
pub fn start(filter: &str, json: bool) {
    let log = fmt().with_env_filter(EnvFilter::new(filter)).with_writer(stderr);
    // A second start in the same process is a test's; the first one stays.
    let _ = if json { log.json().try_init() } else { log.with_ansi(stderr().is_terminal()).try_init() };
}

/// What commands without settings log. Why a certificate is not trusted they say themselves.
const QUIET: &str = "warn,rustls_platform_verifier=off";

/// What a command without settings logs that runs for long.
const LASTING: &str = "info,rustls_platform_verifier=off";

/// Starts it for commands without settings: only warnings and errors, unless `WHIMBREL_LOG` is set.
pub fn start_quiet() {
    start_unless_asked(QUIET);
}

/// Starts it for a command without settings that runs for long, with progress too.
pub fn start_lasting() {
    start_unless_asked(LASTING);
}

fn start_unless_asked(filter: &str) {
    let asked = std::env::var("WHIMBREL_LOG").ok().filter(|filter| EnvFilter::try_new(filter).is_ok());
    start(asked.as_deref().unwrap_or(filter), false);
}
