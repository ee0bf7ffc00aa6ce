//! `whimbrel serve`: a node.

use std::process::ExitCode;

use crate::config::{Flags, Settings};

use super::{Failure, log};

pub const NOTES: &str = "\
Each setting can be given as the environment variable named beside it; a flag wins over its variable. \
A setting that can't work ends the start with one line that names it, and exit code 2.";

pub async fn run(flags: Flags) -> Result<ExitCode, Failure> {
    let (settings, warnings) = flags.validate(std::env::vars_os())?;
    log::start(&settings.log, settings.log_json);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    run_serve(settings).await
}

async fn run_serve(settings: Settings) -> Result<ExitCode, Failure> {
    Err(Failure::failed(format!("can't listen on {}: the server is not built yet", settings.listen)))
}
