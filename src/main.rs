//! The program: reads the command line, runs the command, prints an error once.

use std::process::ExitCode;

use whimbrel::cli::{Cli, Failure};

fn main() -> ExitCode {
    let cli = Cli::from_process();
    // For https:// and rediss://. An error would only mean that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = tokio::runtime::Runtime::new().map_err(Failure::from).and_then(|runtime| {
        let outcome = runtime.block_on(cli.run());
        // Nobody waits for a write to a full pipe any more.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|failure| failure.report())
}
